"""What every chapter uses: its set-up, its checked claims, the versions it ran with."""

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import jax

from ntk_helpers.book.claims import (
    check,
    check_estimate,
    check_law,
    check_mean,
    check_rate,
    check_ratio,
    check_slope,
)

__all__ = [
    "check",
    "check_estimate",
    "check_law",
    "check_mean",
    "check_rate",
    "check_ratio",
    "check_slope",
    "digest",
    "setup",
    "stored",
    "versions",
]

_SHOWN = ("jax", "jaxlib", "numpy", "scipy", "matplotlib", "scikit-learn", "optax", "ntk-helpers")


# A chapter compiles much and computes little. XLA's own level, 3, would add a tenth to its time.
COMPILE_SOON = "--xla_backend_optimization_level=1"


def setup() -> None:
    """Set a chapter up: 64-bit numbers on, programs that are compiled soon, the book's figure style.

    XLA's level of optimization is set to 1 unless `XLA_FLAGS` names one, and unless JAX has computed before,
    which is when it reads the flags.

    >>> setup()
    >>> plt.rcParams["axes.grid"]
    True
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if COMPILE_SOON.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {COMPILE_SOON}".strip()
    jax.config.update("jax_enable_x64", True)
    from ntk_helpers.book import figures  # matplotlib is not needed by the kernels

    figures.use_style()


def versions() -> None:
    """Print the versions of Python and of the packages that a chapter runs on.

    >>> versions()
    Python 3...
    jax 0...
    """
    print(f"Python {platform.python_version()}")
    for name in _SHOWN:
        try:
            print(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            print(name, "is not installed")


def digest(rows: list[dict]) -> str:
    """The SHA-256 of the rows of a stored run.

    >>> digest([{"depth": 3, "ratio": 1.25}])[:8]
    '85b8309b'
    """
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def stored(name: str) -> tuple[list[dict], dict]:
    """The rows of a run stored as `stored/name.json` beside the notebook, or in the package, and what is
    known about it.

    Raises:

    - `ValueError` for a name that is not there, and numbers of another hash than the one stored with them.

    >>> rows, about = stored("06_kernels")
    >>> rows[0]["width"], about["command"]
    (100, 'python tools/stored_runs.py 06_kernels')
    """
    places = [Path("stored"), Path(__file__).parent / "stored"]
    found = [folder / f"{name}.json" for folder in places if (folder / f"{name}.json").is_file()]
    if not found:
        raise ValueError(
            f"name is {name!r}; expected a stored run, {name}.json in one of {', '.join(map(str, places))}."
        )
    content = json.loads(found[0].read_text(encoding="utf-8"))
    if digest(content["rows"]) != content["about"]["sha256"]:
        raise ValueError(
            f"{found[0]} has numbers of another hash than it says; expected those that its command wrote."
        )
    return content["rows"], content["about"]
