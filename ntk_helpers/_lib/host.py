"""On the host, in float64, whatever JAX's settings are."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

from ntk_helpers._lib.inputs import check_finite, check_real
from ntk_helpers._lib.old_jax import enable_x64

__all__ = ["in_float64", "numbers"]


@contextmanager
def in_float64() -> Iterator[None]:
    """JAX in float64 and on the CPU, whatever its settings are."""
    with enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def numbers(name: str, x, shape: tuple | None = None) -> np.ndarray:
    """`x` as finite real float64, of the given shape, where None is any size but 0."""
    found = check_real(name, x, np.asarray)
    fits = shape is None or (
        found.ndim == len(shape) and all(size in (None, given) for size, given in zip(shape, found.shape))
    )
    if not fits or 0 in found.shape:
        wanted = "no size 0" if shape is None else str(shape).replace("None", "any")
        raise ValueError(f"{name} has shape {found.shape}; expected {wanted}.")
    check_finite(name, found)
    return found.astype(np.float64)
