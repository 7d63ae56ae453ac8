"""Check the versions, lend JAX's moved names, import neural-tangents, mend it."""

import importlib
import importlib.metadata
import importlib.util
import re
import sys
import types
import warnings

import jax
import jax.extend.core
import jax.interpreters.ad

__all__ = ["PATCHES", "load"]

NT_VERSION = "0.6.5"
OLDEST_JAX, NEWEST_JAX = "0.7", "0.12.0.1"
INSTALL = f"pip install --no-deps neural-tangents=={NT_VERSION} && pip install frozendict typing_extensions"

PATCHES: dict[str, str] = {}
"""What was changed ("module.name") and why, filled in by the import."""


def load() -> types.ModuleType:
    """Import neural-tangents and make it work; ImportError where it is missing or JAX is unsuitable."""
    _check_neural_tangents()
    untested = _check_jax()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _lend_moved_names()
            _leave_out_experimental()
            nt = importlib.import_module("neural_tangents")
        from ntk_helpers.neural_tangents_compat import _mend

        PATCHES.update(_mend.apply())
        if untested:
            _mend.probe(nt)
    except Exception as error:
        raise ImportError(
            f"neural-tangents {NT_VERSION} cannot be made to work on JAX {jax.__version__} "
            f"({type(error).__name__}: {error}). Tested are JAX {OLDEST_JAX} to {NEWEST_JAX}: "
            f"pip install 'jax<={NEWEST_JAX}'"
        ) from error
    if untested:
        warnings.warn(
            f"neural-tangents {NT_VERSION} was tested up to JAX {NEWEST_JAX}; this is JAX {jax.__version__}. "
            "It imports and computes a small kernel correctly, but check what you rely on.",
            stacklevel=2,
        )
    return nt


def _check_neural_tangents() -> None:
    try:
        version = importlib.metadata.version("neural-tangents")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(
            "neural-tangents is not installed. Without its dependencies, which would bring TensorFlow: "
            f"{INSTALL}"
        ) from None
    if version != NT_VERSION:
        raise ImportError(
            f"neural-tangents {version} is installed, but the patches fit {NT_VERSION}: {INSTALL}"
        )
    absent = [name for name in ("frozendict", "typing_extensions") if importlib.util.find_spec(name) is None]
    if absent:
        raise ImportError(f"neural-tangents needs {' and '.join(absent)}: pip install {' '.join(absent)}")


def _check_jax() -> bool:
    """Whether this JAX is newer than those tested; ImportError if it is older."""
    version = _numbers(jax.__version__)
    if version < _numbers(OLDEST_JAX):
        raise ImportError(
            f"neural-tangents {NT_VERSION} is supported here on JAX {OLDEST_JAX} to {NEWEST_JAX}, not on JAX "
            f"{jax.__version__}: pip install --upgrade jax"
        )
    return version > _numbers(NEWEST_JAX)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split("."))


def _lend_moved_names() -> None:
    """Put the public JAX names that neural-tangents imports where it looks for them, only where they are
    missing."""
    for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var"):
        _lend(jax.core, name, getattr(jax.extend.core, name), "moved to jax.extend.core")
    zeros_like = jax.extend.core.Primitive("zeros_like")
    _lend(jax.interpreters.ad, "zeros_like_p", zeros_like, "removed; the key of a rule that nobody calls")
    try:
        util = importlib.import_module("jax.util")  # empty in JAX 0.7
    except ImportError:
        util = sys.modules["jax.util"] = types.ModuleType("jax.util")
    for name, function in (("safe_map", _safe_map), ("safe_zip", _safe_zip)):
        _lend(util, name, function, "removed; checks that lengths agree")


def _lend(module: types.ModuleType, name: str, value: object, why: str) -> None:
    if not hasattr(module, name):
        setattr(module, name, value)
        PATCHES[f"{module.__name__}.{name}"] = why


def _safe_zip(*sequences):
    return list(zip(*sequences, strict=True))


def _safe_map(function, *sequences):
    return [function(*values) for values in zip(*sequences, strict=True)]


def _leave_out_experimental() -> None:
    """A stand-in for `neural_tangents.experimental`, the only part that imports tf2jax and TensorFlow."""
    name = "neural_tangents.experimental"
    if name in sys.modules:
        return
    stand_in = types.ModuleType(name, "Left out: it needs tf2jax and TensorFlow, which are not installed.")

    def __getattr__(attribute: str):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise ImportError(
            f"{name}.{attribute} needs tf2jax and TensorFlow and is left out by neural_tangents_compat"
        )

    stand_in.__getattr__ = __getattr__
    sys.modules[name] = stand_in
    PATCHES[name] = "left out: the only part that needs tf2jax and TensorFlow"
