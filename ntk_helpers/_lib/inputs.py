"""Checks of arguments, made before any heavy work. Inside `jit` only shapes can be checked."""

import operator
import reprlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_helpers._lib.sharding import automatic

__all__ = [
    "check_batch",
    "check_batches",
    "check_choice",
    "check_finite",
    "check_key",
    "check_numbers",
    "check_one_variance",
    "check_params",
    "check_points",
    "check_positive",
    "check_real",
    "check_size",
    "check_variance",
    "first_line",
    "is_number",
    "is_traced",
    "pieces",
    "traced",
]


def is_traced(*trees) -> bool:
    """Whether any leaf has no value yet, as inside `jit`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def check_choice(name: str, value: object, allowed) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, allowed))}.")


def check_size(name: str, size: object) -> int:
    """Return an integer of any type as an int, or raise `ValueError` unless it is at least 1."""
    try:
        count = 0 if isinstance(size, bool) else operator.index(size)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} is {size!r}; expected an integer of at least 1.")
    return count


def is_number(x: object) -> bool:
    """Whether `x` is one real number."""
    return _is_real(x) and np.ndim(x) == 0


def _is_real(x: object) -> bool:
    return any(jnp.issubdtype(getattr(x, "dtype", type(x)), kind) for kind in (np.integer, np.floating))


def check_positive(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is one number, positive and finite."""
    if isinstance(value, jax.core.Tracer) or not is_number(value) or not 0 < value < np.inf:
        raise ValueError(f"{name} is {value!r}; expected a positive number.")


def check_variance(name: str, variance: object) -> None:
    """Raise `ValueError` unless every number in a concrete `variance` is real, finite and at least 0."""
    if isinstance(variance, jax.core.Tracer):
        return
    if not _is_real(variance) or not ((np.asarray(variance) >= 0) & (np.asarray(variance) < np.inf)).all():
        raise ValueError(f"{name} is {variance!r}; expected a variance, finite and at least 0.")


def check_one_variance(name: str, variance: object) -> None:
    """Raise `ValueError` unless `variance` is one number, finite and at least 0."""
    check_variance(name, variance)
    if np.ndim(variance):
        raise ValueError(f"{name} has shape {np.shape(variance)}; expected one number.")


def check_key(key: object) -> None:
    """Raise `ValueError` unless `key` is one JAX key, of either kind."""
    shape = getattr(key, "shape", None)
    if not jnp.issubdtype(getattr(key, "dtype", type(key)), jax.dtypes.prng_key):
        try:
            shape = jax.random.wrap_key_data(key).shape
        except (AttributeError, TypeError, ValueError):
            shape = None
    if shape != ():
        raise ValueError(f"key is {reprlib.repr(key)}; expected one key, as jax.random.key(0) gives.")


def pieces(x) -> Iterator[np.ndarray]:
    """The values of `x` as runs of its rows, of 16 million values or one row."""
    if np.size(x) <= 2**24:
        return iter([x])
    rows = max(1, 2**24 * len(x) // np.size(x))
    return (x[start : start + rows] for start in range(0, len(x), rows))


def check_finite(name: str, x: Array) -> None:
    """Raise `ValueError` if a concrete array holds NaN or infinity."""
    if isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct):
        return
    values = np.asarray(x)
    if not all(np.isfinite(piece).all() for piece in pieces(values)):
        bad = sum(int((~np.isfinite(piece)).sum()) for piece in pieces(values))
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite, of {np.size(x)}; all must be finite."
        )


def check_numbers(name: str, x: object, array=jnp.asarray) -> Array | jax.ShapeDtypeStruct:
    """Return `x` as an array of numbers, made by `array`, or raise `ValueError`."""
    if array is np.asarray and is_traced(x):
        raise ValueError(
            f"{name} has no values inside jit, grad or vmap; expected an array outside of them, since this "
            "is computed on the host."
        )
    try:
        found = x if isinstance(x, jax.ShapeDtypeStruct) else automatic(array(x))
        numbers = any(jnp.issubdtype(found.dtype, kind) for kind in (np.number, np.bool_))
    except (OverflowError, TypeError, ValueError):
        numbers = False
    if not numbers:
        raise ValueError(f"{name} is {reprlib.repr(x)}; expected an array of numbers.")
    return found


def check_real(name: str, x: object, array=jnp.asarray) -> Array | jax.ShapeDtypeStruct:
    """Return `x` as an array of real numbers, made by `array`, or raise `ValueError`."""
    found = check_numbers(name, x, array)
    if np.iscomplexobj(found):
        raise ValueError(f"{name} has dtype {found.dtype}; expected real numbers.")
    return found


def check_params(params) -> None:
    """Raise `ValueError` unless all leaves of a tree of parameters are floating arrays, and finite where they
    are concrete."""
    for path, leaf in jax.tree.leaves_with_path(params):
        name = f"params{jax.tree_util.keystr(path)}"
        found = leaf if isinstance(leaf, jax.Array) else check_numbers(name, leaf)
        if not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(
                f"{name} has dtype {found.dtype}; expected a floating type: close f over the rest."
            )
        check_finite(name, found)


def first_line(error: Exception) -> str:
    """An exception's type and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def traced(name: str, f, *arguments):
    """What `f` returns, as shapes; a function that fails is bad input, whose name the `ValueError` says."""
    try:
        return jax.eval_shape(f, *arguments)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{name} fails: {first_line(error)}") from error


def check_batch(name: str, x: object, array=jnp.asarray) -> Array | jax.ShapeDtypeStruct:
    """Return points of any kind as a finite array, made by `array`, of shape (points, ...), or raise
    `ValueError`."""
    found = check_numbers(name, x, array)
    if found.ndim == 0 or 0 in found.shape:
        raise ValueError(f"{name} has shape {found.shape}; expected (points, ...), no size 0.")
    check_finite(name, found)
    return found


def check_batches(x1, x2=None, array=jnp.asarray) -> tuple[Array, Array | None]:
    """Return inputs of any kind as arrays, made by `array`, of shapes (n1, ...) and (n2, ...), or raise
    `ValueError`."""
    x1, x2 = check_batch("x1", x1, array), None if x2 is None else check_batch("x2", x2, array)
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"x1 has points of shape {x1.shape[1:]} and x2 of {x2.shape[1:]}; expected the same."
        )
    return x1, x2


def check_points(x1, x2=None) -> tuple[Array, Array | None]:
    """Return inputs as floating arrays of shapes (n1, d) and (n2, d), or raise `ValueError`."""
    arrays = []
    for name, x in (("x1", x1), ("x2", x2))[: 1 if x2 is None else 2]:
        x = check_numbers(name, x)
        if x.ndim != 2 or 0 in x.shape:
            flat = f": flatten the points, {name}.reshape(len({name}), -1)" if x.ndim > 2 else ""
            raise ValueError(
                f"{name} has shape {x.shape}; expected (points, features), both at least 1{flat}."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{name} has dtype {x.dtype}; expected a floating type, for example {name}.astype(float)."
            )
        check_finite(name, x)
        arrays.append(x)
    if len(arrays) == 1:
        return arrays[0], None
    if arrays[0].shape[1] != arrays[1].shape[1]:
        raise ValueError(
            f"x1 has {arrays[0].shape[1]} features and x2 has {arrays[1].shape[1]}; expected the same number."
        )
    return arrays[0], arrays[1]
