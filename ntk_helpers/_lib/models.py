"""Models of other libraries where a function is expected: told by their base class, without an import."""

import inspect

__all__ = ["door_of"]

LINEN = "flax.linen.module"
DOORS = {
    LINEN: "from_linen(module, variables)",
    "flax.nnx.module": "from_nnx(model)",
    "equinox._module": "from_equinox(model)",
}


def door_of(f: object) -> str | None:
    """The call that makes `(apply, params)` of a model; None for what is none, and for what takes parameters
    and inputs as it is."""
    for base in type(f).__mro__:
        library = next((name for name in DOORS if base.__name__ == "Module" and _inside(base, name)), None)
        if library is not None:
            return None if library != LINEN and _takes_two(f) else DOORS[library]
    return None


def _inside(base: type, name: str) -> bool:
    return base.__module__ == name or base.__module__.startswith(f"{name}.")


def _takes_two(f) -> bool:
    try:
        inspect.signature(f).bind(None, None)
    except TypeError:
        return False
    return True
