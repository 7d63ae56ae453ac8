"""The book's site. Build it with `make site`."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from ntkbook import mathjax, pictures  # noqa: E402

with open(HERE.parent / "pyproject.toml", "rb") as file:
    metadata = tomllib.load(file)["project"]

project = "The NTK Book"
author = metadata["authors"][0]["name"]
copyright = f"{author}. Code: MIT; text: CC BY 4.0"
version = release = metadata["version"]

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton", "sphinxcontrib.bibtex", "ntkbook"]
exclude_patterns = ["_build", "node_modules", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True
numfig = math_numfig = True
myst_heading_anchors = 3
numfig_format = {"figure": "Figure %s"}
maximum_signature_line_length = 72
toc_object_entries_show_parents = "hide"

# Chapters are shown as they are stored; the tests re-execute them.
nb_execution_mode = "off"
nb_custom_formats = {".ipynb": ["ntkbook.reader.read", {"images": str(HERE / pictures.FOLDER)}]}
nb_render_markdown_format = "myst"
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "ntk_author_year"
bibtex_cite_id = "cite-{key}"

mathjax_path = "mathjax/startup.js"
mathjax4_config = mathjax.CONFIG

html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer", "priority": 400})]  # before MathJax
html_copy_source = False
html_use_index = html_domain_indices = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "use_download_button": False,
    "extra_footer": f'<a href="{metadata["urls"]["Repository"]}">Source of this book</a>',
    "navbar_persistent": [],
    "primary_sidebar_end": [],
}
