"""Is this matrix a kernel that one can compute with, and if not, what to do."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.inputs import check_real
from ntk_helpers._lib.spectrum import as_matrix, check_values, precision, rounding

__all__ = ["KernelHealth", "kernel_health"]

NEARLY_ALL = 0.999  # of the trace, in one mode


class KernelHealth(NamedTuple):
    """What `kernel_health` returns: `print` shows it in words. Where entries are not finite, all other
    numbers are NaN."""

    rows: int
    """Of the matrix: points, times outputs where the kernel has them."""
    not_finite: int
    """Entries that are NaN or infinite."""
    asymmetry: float
    """The largest difference of an entry from its transpose, over the largest entry."""
    repeated: int
    """Rows that another row equals."""
    least: float
    """The least eigenvalue, of the symmetric part."""
    largest: float
    """The largest eigenvalue."""
    rounding: float
    """The size of an eigenvalue that rounding alone can make, in the type that the kernel came in."""
    condition: float
    """Largest over least eigenvalue, infinite where the least is no more than rounding."""
    effective_rank: float
    """The exponential of the entropy of the eigenvalues, as shares of their sum."""
    jitter: float
    """What must be added to the diagonal for all eigenvalues to be twice the rounding; 0 if they are more."""
    advice: tuple[str, ...]
    """What is wrong, and what to do; empty if nothing is."""

    def __str__(self):
        numbers = (
            f"{self.rows} rows, eigenvalues {self.least:.3g} to {self.largest:.3g}, rounding "
            f"{self.rounding:.1g}, condition {self.condition:.3g}, effective rank {self.effective_rank:.3g}"
        )
        return "\n".join([numbers, *(self.advice or ("Nothing is wrong with it.",))])


def kernel_health(theta: Float[Array, "n n"] | Float[Array, "n n o o"]) -> KernelHealth:
    r"""What is wrong with a kernel matrix, in numbers and in words.

    Eigenvalues are known to $n\,\epsilon\,\lambda_{\max}$, with $\epsilon$ the rounding of the type that the
    kernel came in and n its rows. What is below that in size is zero as far as one can tell, and what is
    further below zero is no rounding: then the matrix is not that of a kernel at one set of points. The
    effective rank $\exp(-\sum_i p_i \log p_i)$ with $p_i = \lambda_i/\sum_j\lambda_j$ (Roy & Vetterli 2007)
    says how many modes carry the kernel.

    Raises `ValueError` for what is no array (n, n) or (n, n, o, o) of real numbers, and inside `jit`.

    >>> x = np.array([[1.0], [2.0], [-1.0]])
    >>> print(kernel_health(np.asarray(ntk(MLP(3, 1), x), np.float64)).advice[0])
    The kernel is singular: 1 of 3 eigenvalues are zero to rounding. ...
    """
    check_values("theta", theta)
    found = check_real("theta", theta, np.asarray)
    if found.ndim not in (2, 4) or found.shape[::2] != found.shape[1::2] or 0 in found.shape:
        raise ValueError(f"theta has shape {found.shape}; expected (n, n) or (n, n, o, o).")
    matrix = as_matrix(found.astype(np.float64))
    rows, bad = len(matrix), int((~np.isfinite(matrix)).sum())
    if bad:
        nothing = [np.nan] * 8
        health = KernelHealth(rows, bad, *nothing, advice=())
        return health._replace(advice=tuple(_advice(health, np.array([]), found.dtype)))
    size = np.abs(matrix).max()
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    floor = rounding(theta) * np.abs(values).max()
    shares = np.maximum(values, 0.0) / max(np.maximum(values, 0.0).sum(), np.finfo(float).tiny)
    health = KernelHealth(
        rows,
        0,
        float(np.abs(matrix - matrix.T).max() / size) if size else 0.0,
        rows - len(np.unique(matrix, axis=0)),
        float(values[0]),
        float(values[-1]),
        float(floor),
        float(values[-1] / values[0]) if values[0] > floor else np.inf,
        float(np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())),
        float(2 * floor - values[0]) if values[0] < 2 * floor else 0.0,
        (),
    )
    return health._replace(advice=tuple(_advice(health, values, found.dtype)))


def _advice(health: KernelHealth, values: np.ndarray, dtype: np.dtype) -> Iterator[str]:
    if health.not_finite:
        yield (
            f"{health.not_finite} of {health.rows**2} entries are NaN or infinite. Look for variances that "
            "grow with depth, for inputs that are too large, and for a gradient where there is none."
        )
        return
    if health.largest <= 0:
        yield "No eigenvalue is above 0. A kernel of parameters that do not act on the outputs is 0."
        return
    if health.asymmetry > precision(np.empty(0, dtype)) ** 0.5:
        yield (
            f"The matrix is not symmetric: entries differ from their transposes by {health.asymmetry:.1g} of "
            "the largest. Rows and columns must be the same points in the same order, and the network must "
            "give each point the same output in every batch: no dropout, no batch statistics."
        )
    if health.least < -health.rounding:
        yield (
            f"The least eigenvalue, {health.least:.2g}, is below 0 by more than rounding, "
            f"{health.rounding:.1g}. This is no kernel matrix: look at how it was put together, for blocks "
            f"of different networks, for another type on the way. A ridge of {health.jitter:.2g} hides it."
        )
    elif not np.isfinite(health.condition):
        zero = int((np.abs(values) <= health.rounding).sum())
        said = [f"The kernel is singular: {zero} of {health.rows} eigenvalues are zero to rounding."]
        if health.repeated:
            said.append(f"{health.repeated} rows are repeated: equal inputs, which a ridge averages.")
        double = "" if dtype == np.float64 else ", or float64"
        said.append(f"Use a ridge or noise of {health.jitter:.2g} or more{double}.")
        said.append("Few dimensions want biases; a finite network has no more modes than parameters.")
        yield " ".join(said)
    if values[-1] > NEARLY_ALL * np.maximum(values, 0).sum() and health.rows > 1:
        yield (
            f"One mode has {values[-1] / np.maximum(values, 0).sum():.2%} of the trace: the kernel is nearly "
            "constant, and differences between points are learned last. Take the mean from the targets; ask "
            "phase(net) whether the network is too deep for its weights, and look at the scale of the inputs."
        )
