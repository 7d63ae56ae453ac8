"""The ``slider`` directive: HTML that shows one of several images, as a numbered figure."""

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

__all__ = ["Slider"]


class Slider(SphinxDirective):
    """Content: one block of HTML, then the caption."""

    has_content = True
    option_spec = {"name": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        html, *caption = self.parse_content_to_nodes()
        figure = nodes.figure("", html, classes=["ntk-slider-figure"])
        if caption:
            figure += nodes.caption("", "", *caption[0].children)
        self.set_source_info(figure)
        self.add_name(figure)
        return [figure]
