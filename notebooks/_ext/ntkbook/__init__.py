"""The Sphinx extension of The NTK Book."""

import re
from pathlib import Path
from zlib import crc32

from sphinxcontrib.bibtex.plugin import register_plugin

from . import boxes, icons, mathjax, pictures
from .api import Api
from .chapters import ChapterMap, Chapters, CiteAs, Exercises, Objectives, StoredFigure
from .citations import RoundAuthorYear
from .ledger import Ledger
from .numbering import number_by_chapter
from .runs import StoredRuns
from .slider import Slider
from .trials import PlantedErrors, Slips

__all__ = ["setup"]


def setup(app) -> dict:
    """Register the extension's parts; the notebook reader is named in conf.py."""
    register_plugin("sphinxcontrib.bibtex.style.referencing", "ntk_author_year", RoundAuthorYear)
    boxes.register(app)
    directives = {
        "slider": Slider,
        "ledger": Ledger,
        "planted-errors": PlantedErrors,
        "slips": Slips,
        "chapter-map": ChapterMap,
        "chapters": Chapters,
        "objectives": Objectives,
        "exercises": Exercises,
        "stored-figure": StoredFigure,
        "cite-as": CiteAs,
        "api": Api,
        "stored-runs": StoredRuns,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    app.connect("builder-inited", mathjax.require)
    app.connect("env-get-updated", number_by_chapter, priority=600)
    app.connect("html-page-context", _bibliography_roles)
    app.connect("html-page-context", _punctuation_after_formulas)
    app.connect("html-page-context", mathjax.preload, priority=900)
    app.connect("html-page-context", pictures.offer)
    app.connect("build-finished", mathjax.copy)
    app.connect("build-finished", icons.keep_used)
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    # A change here reads every chapter again.
    return {"env_version": crc32(sources), "parallel_read_safe": True, "parallel_write_safe": True}


def _bibliography_roles(app, pagename, templatename, context, doctree) -> None:
    """Docutils gives citations a role that ARIA has given up, inside a list that wants items."""
    context["body"] = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')


SHORT_FORMULA = re.compile(
    r'(\(?)(<span class="math notranslate nohighlight">\\\([^<]{1,40}\\\)</span>)([.,;:!?)]*)'
)


def _punctuation_after_formulas(app, pagename, templatename, context, doctree) -> None:
    """A line may not begin with the comma after a formula, nor end with the bracket before it."""

    def together(found: re.Match) -> str:
        before, formula, after = found.groups()
        return f'<span class="ntk-together">{found[0]}</span>' if before or after else formula

    context["body"] = SHORT_FORMULA.sub(together, context.get("body", ""))
