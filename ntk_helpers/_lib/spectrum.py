"""Kernel matrices in float64: their shapes, their eigenvalues, and whether they are kernels at all."""

import jax.numpy as jnp
import numpy as np

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import is_traced

__all__ = ["as_matrix", "check_symmetric", "check_values", "modes", "precision", "rounding", "spectrum"]


def as_matrix(theta) -> np.ndarray:
    """(m, n) as it is, (m, n, o, o) as (m o, n o)."""
    return theta if theta.ndim == 2 else theta.swapaxes(1, 2).reshape(theta.shape[0] * theta.shape[2], -1)


def precision(x) -> float:
    """The rounding of the floating type that `x` came in, bfloat16 and float16 included; else float64's."""
    dtype = np.asarray(x).dtype
    return float(jnp.finfo(dtype if jnp.issubdtype(dtype, jnp.floating) else np.float64).eps)


def rounding(theta) -> float:
    """The size of the eigenvalues that rounding makes, relative to the largest, in the type that the kernel
    came in."""
    return precision(theta) * int(np.prod(np.shape(theta)[1::2]))


def check_values(name: str, x) -> None:
    """Raise `ValueError` inside `jit`, `grad` or `vmap`, where closed forms have no numbers to decompose."""
    if is_traced(x):
        raise ValueError(
            f"{name} has no values inside jit, grad or vmap; expected an array outside of them, since this "
            "is computed on the host in float64. With gradients there is gp_posterior, for kernel regression."
        )


def check_symmetric(name: str, matrix, rounding: float) -> None:
    """Raise `ValueError` where a square matrix differs from its transpose by more than the root of its
    relative rounding."""
    matrix = np.asarray(matrix)
    asymmetry, size = np.abs(matrix - matrix.T).max(), np.abs(matrix).max()
    if asymmetry > rounding**0.5 * size:
        raise ValueError(
            f"{name} is not symmetric: entries differ from their transposes by {asymmetry:.2g}, the largest "
            f"is {size:.2g}; expected a kernel of the same points with themselves."
        )


def spectrum(theta) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending and clipped at 0, and eigenvectors of (n, n) or (n, n, o, o); `ValueError` for
    what is no kernel."""
    check_values("theta", theta)
    found = numbers("theta", theta)
    if found.ndim not in (2, 4) or found.shape[::2] != found.shape[1::2]:
        raise ValueError(f"theta has shape {found.shape}; expected (n, n) or (n, n, o, o).")
    matrix = as_matrix(found)
    check_symmetric("theta", matrix, rounding(theta))
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[-1] <= 0 or values[0] < -rounding(theta) * values[-1]:
        raise ValueError(
            f"theta is not positive: its eigenvalues go from {values[0]:.3g} to {values[-1]:.3g}, in "
            f"{np.asarray(theta).dtype}; expected none below 0 by more than rounding. Compute it in float64, "
            f"or add {max(-values[0], 0.0):.2g} to its diagonal."
        )
    return np.maximum(values, 0.0), vectors


def modes(name: str, kernel) -> tuple[np.ndarray, np.ndarray]:
    """Those of `spectrum` whose eigenvalue is not zero to rounding, of a kernel (n, n)."""
    check_values(name, kernel)
    if np.ndim(kernel) != 2:
        raise ValueError(f"{name} has shape {np.shape(kernel)}; expected (n, n).")
    values, vectors = spectrum(kernel)
    keep = values > rounding(kernel) * values[-1]
    return values[keep], vectors[:, keep]
