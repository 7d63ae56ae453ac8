"""Every public name has an example in its docstring, which runs as a reader would run it: in float32."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

import ntk_helpers
from ntk_helpers._lib.old_jax import enable_x64

BESIDE = {"ntk_helpers.neural_tangents_compat"}
"""Rooms whose names are another library's."""
FIGURES = "ntk_helpers.book.figures"
"""Apart from its room, for matplotlib's sake."""
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def public() -> dict[str, object]:
    found = pkgutil.walk_packages(ntk_helpers.__path__, "ntk_helpers.")
    doors = [module.name for module in found if module.ispkg and "._" not in module.name]
    rooms = [importlib.import_module(name) for name in doors + [FIGURES] if name not in BESIDE]
    return {name: getattr(room, name) for room in rooms for name in room.__all__}


PUBLIC = public()
CALLABLES = {
    name: value for name, value in PUBLIC.items() if inspect.isfunction(value) or inspect.isclass(value)
}
RESULTS = {name for name, value in CALLABLES.items() if inspect.isclass(value) and issubclass(value, tuple)}
"""Named tuples that functions return: the example is the function's."""


@pytest.mark.parametrize("name", sorted(CALLABLES.keys() - RESULTS))
def test_the_docstring_has_an_example_that_runs(name, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2] / "notebooks")  # beside the stored runs
    names = PUBLIC | {"jax": jax, "jnp": jnp, "np": np, "plt": plt, "stats": stats}
    (test,) = doctest.DocTestFinder(recurse=False).find(CALLABLES[name], name, globs=dict(names))
    assert test.examples, f"{name} has no example"
    said = []
    with enable_x64(False):
        failed = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append, clear_globs=False).failed
    assert not failed, "".join(said)
