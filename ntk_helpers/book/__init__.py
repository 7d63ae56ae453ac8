"""What every chapter uses: its set-up, its checked claims, the versions it ran with."""

import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path

import jax
import numpy as np

from ntk_helpers._lib.inputs import check_real

__all__ = ["check", "digest", "setup", "stored", "versions"]

_SHOWN = ("jax", "jaxlib", "numpy", "scipy", "matplotlib", "scikit-learn", "optax", "ntk-helpers")


def setup() -> None:
    """Set a chapter up: 64-bit numbers on, the book's figure style."""
    jax.config.update("jax_enable_x64", True)
    from ntk_helpers.book import figures  # matplotlib is not needed by the kernels

    figures.use_style()


def versions() -> None:
    """Print the versions of Python and of the packages that a chapter runs on."""
    print(f"Python {platform.python_version()}")
    for name in _SHOWN:
        try:
            print(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            print(name, "is not installed")


def digest(rows: list[dict]) -> str:
    """The SHA-256 of the rows of a stored run."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def stored(name: str) -> tuple[list[dict], dict]:
    """The rows of a run stored as `stored/name.json` beside the notebook, or in the package, and what is
    known about it.

    Raises `ValueError` for a name that is not there, or numbers whose hash is not the one stored with them.
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


def check(claim: str, measured, expected, tol: float | None = None, *, source: str) -> None:
    r"""Assert a claim and print it in one line.

    `expected` is a number or an array, to which `measured` must come within the absolute tolerance
    `tol` everywhere, or a bound, `"< 0.1"` or `"> 2"`, on every entry of `measured`. The number
    printed is the entry furthest from what is expected; of an array of expectations, how far it is off.
    Raises `AssertionError` where the claim does not hold or `measured` is not finite, and `ValueError` for a
    tolerance or bound that is missing, not positive or not finite, empty or mismatched arrays, or an empty
    source.
    """
    if not all(isinstance(text, str) and text.strip() for text in (claim, source)):
        raise ValueError(
            f"claim is {claim!r} and source is {source!r}; expected a sentence and where it comes from."
        )
    values = _real("measured", measured)
    if values.size == 0:
        raise ValueError(f"measured has shape {values.shape}; expected at least one number.")
    if isinstance(expected, str):
        shown, holds, target = _bound(values, expected, tol)
    else:
        shown, holds, target = _close(values, _real("expected", expected), tol)
    line = f"{claim}: measured {shown}, expected {target} [{source}]"
    if not holds:
        raise AssertionError(line)
    print("✓", line)


def _bound(values, expected: str, tol):
    sign, _, number = expected.partition(" ")
    if sign not in ("<", ">") or tol is not None:
        raise ValueError(
            f"expected is {expected!r} with tol {tol}; expected '< x' or '> x' without a tolerance."
        )
    try:
        limit = float(number)
    except ValueError:
        limit = np.nan
    if not np.isfinite(limit):
        raise ValueError(f"expected is {expected!r}; expected a finite bound, or the claim could not fail.")
    if not np.isfinite(values).all():
        return "nan", False, expected
    worst = values.max() if sign == "<" else values.min()
    return _short(worst), bool(worst < limit if sign == "<" else worst > limit), expected


def _close(values, expected, tol):
    size = np.nan if tol is None or isinstance(tol, bool) else _real("tol", tol)
    if np.ndim(size) or not 0 < size < np.inf:
        raise ValueError(f"tol is {tol}; expected a positive, finite absolute tolerance.")
    if expected.shape not in ((), values.shape):
        shapes = f"measured has shape {values.shape} and expected {expected.shape}"
        raise ValueError(f"{shapes}; expected equal shapes or one number.")
    if not np.isfinite(expected).all():
        raise ValueError(f"expected holds {expected}; all must be finite.")
    if not np.isfinite(values).all():
        return "nan", False, f"finite values within {tol:.1g}"
    errors = np.abs(values - expected)
    holds = bool(errors.max() <= tol)
    if expected.ndim:
        return f"{errors.max():.1g} off at most", holds, f"{expected.size} numbers ± {tol:.2g}"
    return _short(values.flat[errors.argmax()]), holds, f"{_short(float(expected))} ± {tol:.2g}"


def _real(name: str, value) -> np.ndarray:
    return check_real(name, value, np.asarray).astype(float)


def _short(x: float) -> str:
    return f"{x:.4g}"
