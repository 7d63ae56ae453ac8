"""MathJax from the site itself: which of its parts, and their copy into the built site.

The complete component is a megabyte and starts a speech engine of several more. These parts
are half of that; formulas are given to screen readers as MathML, which they speak themselves.
"""

import shutil
from pathlib import Path

from sphinx.util import logging

__all__ = ["CONFIG", "copy", "install", "preload", "require"]

PARTS = [
    "startup.js",
    "core.js",
    "input/tex.js",
    "input/tex/extensions/boldsymbol.js",
    "output/chtml.js",
    "a11y/assistive-mml.js",
]
CONFIG = {
    "loader": {
        "load": ["core", "input/tex", "[tex]/boldsymbol", "output/chtml", "a11y/assistive-mml"],
        "paths": {"mathjax-newcm": "[mathjax]/newcm"},
    },
    # An unknown command is an error, which the tests find, and not red text.
    "tex": {"packages": {"[+]": ["boldsymbol"], "[-]": ["autoload", "noundefined", "require"]}},
}


def copy(app, exception) -> None:
    """Copy MathJax and its font from node_modules into the built site."""
    if exception or app.builder.format != "html":
        return
    install(Path(app.confdir) / "node_modules", Path(app.outdir) / "_static" / "mathjax")


def install(modules: Path, target: Path) -> None:
    """Copy the parts and the font from a node_modules folder to `target`."""
    source, font = modules / "mathjax", modules / "@mathjax" / "mathjax-newcm-font"
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part, target / part)
    shutil.copytree(font / "chtml", target / "newcm" / "chtml", dirs_exist_ok=True)
    shutil.copyfile(font / "chtml.js", target / "newcm" / "chtml.js")


def preload(app, pagename, templatename, context, doctree) -> None:
    """Fetch MathJax's parts at once, and not each when the one before it asks for it."""
    if any(str(file.filename).endswith("mathjax/startup.js") for file in context.get("script_files", ())):
        for part in [*PARTS[1:], "newcm/chtml.js"]:
            address = context["pathto"](f"_static/mathjax/{part}", 1)
            context["metatags"] += f'<link rel="preload" as="script" href="{address}">\n'


def require(app) -> None:
    """Warn at once, and not after the build, when MathJax has not been installed."""
    if not (Path(app.confdir) / "node_modules" / "mathjax").is_dir():
        logging.getLogger(__name__).warning(
            "MathJax is not installed, formulas would stay TeX: run `npm ci --ignore-scripts` in %s",
            app.confdir,
        )
