"""The architecture: rooms on floors, which import downwards only, through doors and not underscores."""

import ast
import re
from pathlib import Path

import pytest

import ntk_helpers

PACKAGE = Path(ntk_helpers.__file__).parent
FLOORS = {
    "_lib": 0,
    "networks": 1,
    "infinite": 2,
    "finite": 2,
    "scale": 2,
    "learning": 3,
    "theory": 3,
    "trust": 4,
    "adapters": 4,
}
SIDE = {"book": {"_lib"}, "neural_tangents_compat": {"_lib", "finite"}}
"""Rooms beside the floors, and what they may import."""
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported(path: Path) -> list[str]:
    """The modules of the package that a module imports, as dotted names without the package's own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: relative imports hide which room they are from"
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name.partition(".")[2] for name in found if name.startswith("ntk_helpers.")]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def broken(room: str, name: str) -> bool:
    """Whether a module of `room` may not import `name`."""
    other, *inside = name.split(".")
    if other == room:
        return False
    allowed = other in SIDE[room] if room in SIDE else other in FLOORS and FLOORS[other] < FLOORS[room]
    return not allowed or any(part.startswith("_") for part in inside)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_lower_floors_and_from_no_other_rooms_underscore(path):
    assert not [name for name in imported(path) if broken(room_of(path), name)]


def test_every_folder_is_a_room_that_says_what_it_is_for():
    rooms = {path.parent for path in MODULES}
    assert {room_of(path) for path in MODULES} <= FLOORS.keys() | SIDE.keys()
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    for room in rooms:
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("networks", "infinite.nngp"),
        ("infinite", "finite.empirical_ntk"),
        ("learning", "theory"),
        ("learning", "finite._program"),
        ("book", "networks.MLP"),
        ("_lib", "networks"),
    ],
)
def test_imports_upwards_sideways_and_of_underscores_are_seen(room, name):
    assert broken(room, name)


def test_the_top_has_names_of_everyday_use_by_room():
    assert 20 <= len(ntk_helpers.__all__) <= 28
    rooms = [getattr(ntk_helpers, name).__module__.split(".")[1] for name in ntk_helpers.__all__]
    assert rooms == sorted(rooms, key=lambda room: (FLOORS[room], rooms.index(room)))


def test_the_readme_and_the_design_of_contributing_name_every_room():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rooms = {room_of(path) for path in MODULES}
    assert rooms <= set(re.findall(r"`(\w+)/`", text))
