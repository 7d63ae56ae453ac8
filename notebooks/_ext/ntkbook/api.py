"""The API reference: ``{api} infinite`` documents the public names of `ntk_helpers.infinite`.

A docstring is Markdown with formulas, as a chapter is, so it is the content of Sphinx's own Python directives
as it stands, but for links on what it cites and names.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from .citations import link_citations
from .markdown import CODE, directive
from .package import PACKAGE, ROOT, definition, documented, exported, module_docstring, public_names, tree

__all__ = ["Api"]

URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
ARRAY = re.compile(r"(Float|Int)\[(?:Array|ArrayLike|np\.ndarray), \"\s*([^\"]*)\"\]")
EXAMPLE = re.compile(r"^>>> .*(?:\n.*\S.*)*", re.M)
HEADER = re.compile(r"\s*def \w+(\(.*):(?:\s*#.*)?$")


class Api(SphinxDirective):
    """``api`` with the name of a module of the package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = f"{PACKAGE}.{self.arguments[0]}"
        text = [_prose(module_docstring(module)), *(_entry(module, name) for name in exported(module))]
        found = self.parse_text_to_nodes("\n\n".join(text))
        for entry in [entry for node in found for entry in node.findall(addnodes.desc)]:
            self._finish(entry["objtype"], entry[0])
        return found

    def _finish(self, kind: str, signature: addnodes.desc_signature) -> None:
        """Link the types that are ours, and no others; one line for each argument of many; link the
        source."""
        for reference in list(signature.findall(addnodes.pending_xref)):
            full = public_names().get(reference["reftarget"])
            if full:
                reference["reftarget"] = full
            else:
                reference.replace_self(reference.children)
        for parameters in signature.findall(addnodes.desc_parameterlist):
            if parameters.attributes.pop(
                "multi_line_parameter_list", False
            ):  # Sphinx would make a list without terms of them
                signature["classes"].append("ntk-long")
        path, node, _ = definition(signature["module"], signature["fullname"])
        self.env.note_dependency(str(path))
        if kind != "attribute":
            uri = f"{URLS['Repository']}/blob/main/{path.relative_to(ROOT).as_posix()}#L{node.lineno}"
            signature += nodes.reference("", "source", internal=False, refuri=uri, classes=["ntk-source"])


def _entry(module: str, name: str) -> str:
    (path, node, doc), full = definition(module, name), public_names()[name]
    options = {"module": full.rpartition(".")[0]} | (
        {} if full == f"{module}.{name}" else {"canonical": f"{module}.{name}"}
    )
    if isinstance(node, ast.ClassDef):
        body = "\n\n".join([_prose(doc), *_members(path, node)])
        return directive(
            "py:class", name + _fields(node), body, **options, **{"single-line-parameter-list": ""}
        )
    if isinstance(node, ast.FunctionDef):
        return directive("py:function", name + _arguments(path, node), _prose(doc), **options)
    return directive("py:data", name, _prose(doc), **options)


def _members(path: Path, owner: ast.ClassDef) -> Iterator[str]:
    for name, (node, doc) in documented(owner.body).items():
        if name.startswith(("_", "tree_")):  # what JAX asks of a container begins with tree_
            continue
        if isinstance(node, ast.AnnAssign):
            yield directive("py:attribute", name, _prose(doc), type=_type(path, node.annotation))
        elif "property" in map(ast.unparse, node.decorator_list):
            yield directive("py:property", name, _prose(doc), type=_type(path, node.returns))
        else:
            yield directive("py:method", name + _arguments(path, node), _prose(doc))


def _fields(owner: ast.ClassDef) -> str:
    """The constructor of a dataclass or a named tuple; a default that is made by a call is left out."""
    found = {
        name: node.value
        for name, (node, _) in documented(owner.body).items()
        if isinstance(node, ast.AnnAssign)
    }
    shown = [f"{n}={ast.unparse(v)}" if isinstance(v, ast.Constant) else n for n, v in found.items()]
    return f"({', '.join(shown)})"


def _arguments(path: Path, node: ast.FunctionDef) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    return _readable(path, re.sub(r"^\(self(, )?", "(", HEADER.match(" ".join(map(str.strip, lines)))[1]))


def _type(path: Path, annotation: ast.expr) -> str:
    return _readable(path, ast.get_source_segment(path.read_text(encoding="utf-8"), annotation))


def _readable(path: Path, annotations: str) -> str:
    """The module's short names for types written out, and `Float[Array, "n d"]` as Float[n, d]."""
    for name, (node, _) in documented(tree(path).body).items():
        if isinstance(node, ast.Assign) and re.fullmatch("[A-Z][a-z]+", name):
            annotations = re.sub(rf"\b{name}\b", ast.unparse(node.value), annotations)
    return ARRAY.sub(lambda m: f"{m[1]}[{', '.join(m[2].split())}]" if m[2] else m[1], annotations)


def _prose(doc: str) -> str:
    """A docstring with its examples as code, and links on papers and on public names."""
    parts = CODE.split(EXAMPLE.sub(r"```pycon\n\g<0>\n```", doc))
    parts[::2] = map(link_citations, parts[::2])
    parts[1::2] = map(_linked_name, parts[1::2])
    return "".join(parts)


def _linked_name(code: str) -> str:
    full = public_names().get(code.strip("`"))
    return f"{{py:obj}}`{code.strip('`')} <{full}>`" if full else code
