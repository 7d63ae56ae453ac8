"""What the package defines, and where, read from its source without importing it."""

import ast
import inspect
from functools import lru_cache
from pathlib import Path

__all__ = [
    "PACKAGE",
    "ROOT",
    "definition",
    "documented",
    "exported",
    "module_docstring",
    "public_modules",
    "public_names",
    "tree",
]

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "ntk_helpers"


def public_modules() -> list[str]:
    """The doors: rooms whose names start without an underscore, and the figures, which need matplotlib."""
    rooms = [path.parent.relative_to(ROOT) for path in (ROOT / PACKAGE).glob("*/**/__init__.py")]
    names = [".".join(room.parts) for room in rooms if not room.parts[1].startswith("_")]
    return sorted([*names, f"{PACKAGE}.book.figures"])


@lru_cache
def public_names() -> dict[str, str]:
    """Every name in the `__all__` of a public module, with the shortest way to import it."""
    short = exported(PACKAGE)
    return {
        n: f"{PACKAGE}.{n}" if n in short else f"{module}.{n}"
        for module in public_modules()
        for n in exported(module)
    }


def exported(module: str) -> list[str]:
    """The `__all__` of a module."""
    return ast.literal_eval(documented(tree(_file(module)).body)["__all__"][0].value)


def module_docstring(module: str) -> str:
    """What a module says of itself."""
    return ast.get_docstring(tree(_file(module))) or ""


def definition(module: str, name: str) -> tuple[Path, ast.stmt, str]:
    """The file and the statement that define `name`, or `Class.member`, and the docstring; imports are
    followed."""
    name, _, member = name.partition(".")
    path = _file(module)
    for node in tree(path).body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return definition(node.module, f"{name}.{member}".rstrip("."))
    node, doc = documented(tree(path).body)[name]
    return path, *(documented(node.body)[member] if member else (node, doc))


def documented(body: list[ast.stmt]) -> dict[str, tuple[ast.stmt, str]]:
    """The names that a module or a class defines, each with its statement and its docstring."""
    found = {}
    for node, after in zip(body, [*body[1:], None]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            text = (
                after.value.value
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                else ""
            )
            found[ast.unparse(target)] = node, inspect.cleandoc(text)
    return found


@lru_cache
def tree(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
