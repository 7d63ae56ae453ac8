"""Kernel matrices in float64: their shapes, their eigenvalues, and whether they are kernels at all."""

import numpy as np

from ntk_helpers._lib.host import numbers

__all__ = ["as_matrix", "check_symmetric", "rounding", "spectrum"]


def as_matrix(theta) -> np.ndarray:
    """(m, n) as it is, (m, n, o, o) as (m o, n o)."""
    return theta if theta.ndim == 2 else theta.swapaxes(1, 2).reshape(theta.shape[0] * theta.shape[2], -1)


def rounding(theta) -> float:
    """The size of the eigenvalues that rounding makes, relative to the largest, in the type that the kernel
    came in."""
    dtype = np.asarray(theta).dtype
    eps = np.finfo(dtype if np.issubdtype(dtype, np.floating) else float).eps
    return float(eps) * int(np.prod(np.shape(theta)[1::2]))


def check_symmetric(name: str, matrix, rounding: float) -> None:
    """Raise `ValueError` where a square matrix differs from its transpose by more than the root of its
    relative rounding."""
    matrix = np.asarray(matrix)
    asymmetry, size = np.abs(matrix - matrix.T).max(), np.abs(matrix).max()
    if asymmetry > rounding**0.5 * size:
        raise ValueError(
            f"{name} is not symmetric: entries differ from their transposes by {asymmetry:.2g}, the largest is {size:.2g}; "
            "expected a kernel of the same points with themselves."
        )


def spectrum(theta) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending and clipped at 0, and eigenvectors of (n, n) or (n, n, o, o); `ValueError` for
    what is no kernel."""
    found = numbers("theta", theta)
    if found.ndim not in (2, 4) or found.shape[::2] != found.shape[1::2]:
        raise ValueError(f"theta has shape {found.shape}; expected (n, n) or (n, n, o, o).")
    matrix = as_matrix(found)
    check_symmetric("theta", matrix, rounding(theta))
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[-1] <= 0 or values[0] < -rounding(theta) * values[-1]:
        raise ValueError(
            f"theta is not positive: its eigenvalues go from {values[0]:.3g} to {values[-1]:.3g}, in {np.asarray(theta).dtype}; "
            f"expected none below 0 by more than rounding. Compute it in float64, or add {max(-values[0], 0.0):.2g} to its diagonal."
        )
    return np.maximum(values, 0.0), vectors
