"""Numbered boxes: definitions, theorems and remarks share one count, exercises have their own."""

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

__all__ = ["Box", "register"]


class statement(nodes.General, nodes.Element):
    """A definition, theorem, remark, ...; `node["kind"]` says which."""


class exercise(statement):
    """An exercise."""


class proof(statement):
    """A proof, which has no number."""


class box_title(nodes.TextElement):
    """First child of a box; empty where the author gave no title."""


class Box(SphinxDirective):
    """``box`` with a kind, an optional title, an optional label, and the content."""

    has_content = True
    required_arguments = 1
    option_spec = {"title": directives.unchanged, "label": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        node = {"Exercise": exercise, "Proof": proof}.get(kind, statement)(kind=kind)
        node["classes"] = ["ntk-box", f"ntk-{kind.lower()}"]
        self.set_source_info(node)
        if "label" in self.options:
            self.options["name"] = self.options["label"]
            self.add_name(node)
        self.state.document.set_id(node)
        title, messages = self.parse_inline(self.options.get("title", ""))
        node += [box_title("", "", *title), *self.parse_content_to_nodes(), *messages]
        return [node]


def register(app) -> None:
    """Add the directive, its nodes and their numbering to Sphinx."""
    app.add_directive("box", Box)
    for node in (statement, exercise):
        app.add_enumerable_node(node, node.__name__, lambda node: node["kind"], html=(_visit, _depart))
    app.add_node(proof, html=(_visit, _depart))
    app.add_node(box_title, html=(_visit_title, _depart_title))


def _visit(translator, node) -> None:
    translator.body.append(translator.starttag(node, "div"))


def _depart(translator, node) -> None:
    translator.body.append("</div>\n")


def _visit_title(translator, node) -> None:
    box = node.parent
    numbers = translator.builder.fignumbers.get(type(box).__name__, {}).get(box["ids"][0], ())
    heading = " ".join([box["kind"], ".".join(map(str, numbers))]).strip()
    translator.body.append(f'<p class="ntk-box-title"><span class="ntk-box-kind">{heading}</span> ')


def _depart_title(translator, node) -> None:
    translator.body.append("</p>\n")
