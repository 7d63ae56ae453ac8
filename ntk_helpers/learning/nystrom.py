r"""Kernel regression with too many points for a decomposition: a few landmarks, or all points by products.

Landmarks M approximate a kernel by $K_{\cdot M} K_{MM}^{-1} K_{M\cdot}$. As features they make least squares
small; as a preconditioner they make conjugate gradients reach the exact solution in few products, for which a
kernel is read, or computed, in blocks.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse.linalg import LinearOperator, cg
from tqdm import tqdm

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_key, check_numbers, check_positive, check_size
from ntk_helpers._lib.outputs import columns, like
from ntk_helpers._lib.spectrum import check_values, modes, spectrum
from ntk_helpers.learning._blocks import KernelBlocks

__all__ = ["kernel_solve", "leverage_landmarks", "nystrom_features"]

PRODUCTS = 1000  # with the kernel at most


def nystrom_features(
    k_landmarks: Float[ArrayLike, "m m"],
) -> Callable[[Float[ArrayLike, "n m"]], Float[np.ndarray, "n k"]]:
    r"""A map of a kernel with m landmarks, (n, m), to features whose Gram matrix is Nyström's approximation.

    $F = K_{\cdot M} V \Lambda^{-1/2}$ with $K_{MM} = V \Lambda V^\top$, so that
    $F F^\top = K_{\cdot M} K_{MM}^{-1} K_{M\cdot}$ (Williams & Seeger 2001). Eigenvalues that are zero to
    rounding are left out. With `least_squares` it is regression on landmarks, in time O(n m²).

    Raises:

    - `ValueError` for an array that is not finite, not symmetric or not positive;
    - `ValueError` from the map for another number of landmarks.

    >>> x = np.array([[1.0], [2.0], [3.0]])
    >>> features = nystrom_features(x[:1] @ x[:1].T)
    >>> np.allclose(features(x @ x[:1].T) @ features(x @ x[:1].T).T, x @ x.T)  # of rank 1, as one landmark
    True
    """
    values, vectors = modes("k_landmarks", k_landmarks)
    root = vectors / np.sqrt(values)
    return lambda k_cross: numbers("k_cross", k_cross, (None, len(root))) @ root


def leverage_landmarks(
    key: Array,
    kernel: Float[ArrayLike, "n n"] | Callable[[np.ndarray, np.ndarray], ArrayLike],
    size: int,
    count: int,
    ridge: float,
) -> Int[np.ndarray, " count"]:
    r"""Indices of `count` different landmarks of `size` points, drawn by their leverage in ridge regression.

    The leverage of a point is entry i of the diagonal of $K (K + \rho I)^{-1}$; points of a large one are
    unlike the others, and uniform landmarks miss them. It is estimated from as many uniform landmarks S by
    $\frac1\rho (K_{ii} - K_{iS} (K_{SS} + \frac{m}{n} \rho I)^{-1} K_{Si})$, at most 1: the last step of
    Musco & Musco (2017, Alg. 3), at a given ridge. `kernel` is as for `kernel_solve`; uniform landmarks need
    none of it: `jax.random.choice(key, size, (count,), replace=False)`.

    Raises:

    - `ValueError` for sizes below 1, more landmarks than points, and what is no key;
    - `ValueError` for a ridge that is not positive, and for a kernel as `kernel_solve` does.

    >>> x = np.r_[np.zeros(98), 1.0, 2.0]  # 98 equal points, and two of their own
    >>> kernel = np.exp(-50 * (x[:, None] - x) ** 2)
    >>> sorted(leverage_landmarks(jax.random.key(0), kernel, 100, 20, ridge=0.1).tolist())[-2:]
    [98, 99]
    """
    check_key(key)
    size, count = check_size("size", size), check_size("count", count)
    if count > size:
        raise ValueError(f"count is {count}; expected at most {size}, as many as points.")
    check_positive("ridge", ridge)
    uniform, by_leverage = jax.random.split(key)
    pilot = np.asarray(jax.random.choice(uniform, size, (count,), replace=False))
    with tqdm(desc="leverage_landmarks", unit="block", delay=2) as bar:
        blocks = KernelBlocks(kernel, size, bar.update)
        left, cross = blocks.diagonal(), blocks.columns(pilot)
        spectrum(cross[pilot].astype(blocks.dtype))  # refuses what is no kernel
        root = np.linalg.cholesky(cross[pilot] + count / size * ridge * np.eye(count))
        for rows in blocks.rows():
            left[rows] -= (solve_triangular(root, cross[rows].T, lower=True) ** 2).sum(0)
    scores = np.clip(left / ridge, 1e-6, 1)
    found = jax.random.choice(by_leverage, size, (count,), replace=False, p=scores / scores.sum())
    return np.asarray(found)


def kernel_solve(
    kernel: Float[ArrayLike, "n n"] | Callable[[np.ndarray, np.ndarray], ArrayLike],
    y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"],
    ridge: float,
    landmarks: Sequence[int] | Int[ArrayLike, " m"],
    *,
    tol: float = 1e-6,
) -> Float[np.ndarray, "n o"]:
    r"""The coefficients $\alpha = (K + \rho I)^{-1} y$ of kernel regression, without K in memory.

    They are those of `kernel_regression`, with predictions $K(x, X)\,\alpha$, by SciPy's conjugate gradients,
    which multiply with K until $\|y - (K + \rho I)\alpha\|$ is at most `tol` of $\|y\|$. `kernel` is an
    array (n, n), for example the memory map that `tiled` returns, or a function `kernel(i, j)` of two arrays
    of indices, for example `lambda i, j: ntk(net, x[i], x[j])`, which is computed anew for each product, in
    blocks of at most 2048 points. Each product serves all outputs.

    `landmarks` are indices of points. The preconditioner is $(F F^\top + \rho I)^{-1}$ with their
    `nystrom_features` F, as in Díaz et al. (2023): with about as many as the sum of all leverages,
    few products are needed. (Frangella, Tropp & Udell 2023, sec. 5, take random mixtures of points for
    landmarks.) Memory is 8 n m bytes, and a few blocks. Where there is room for a file, `tiled` into one
    computes the kernel once and not for each product. A progress bar counts the blocks after two seconds; the
    environment variable TQDM_DISABLE=1 switches it off.

    Raises, before any product,

    - `ValueError` for targets that are not finite, and a `ridge` or `tol` that is not positive;
    - `ValueError` for landmarks that are no indices of points;
    - `ValueError` for a kernel of another shape, or not symmetric, or not positive on the landmarks;

    and

    - `ValueError` for a block that is not finite, and where 1000 products are not enough.

    >>> x, y = np.arange(6.0), np.array([0.0, 1.0, 0.0, -1.0, 0.0, 1.0])
    >>> alpha = kernel_solve(lambda i, j: np.exp(-abs(x[i][:, None] - x[j])), y, 0.1, landmarks=[0, 3])
    >>> np.allclose(np.exp(-abs(x[:, None] - x)) @ alpha + 0.1 * alpha, y, atol=1e-5)
    True
    """
    check_values("y", y)
    targets = columns("y", y)
    check_positive("ridge", ridge)
    check_positive("tol", tol)
    landmarks = _indices(landmarks, len(targets))
    with tqdm(desc="kernel_solve", unit="block", delay=2) as bar:
        blocks = KernelBlocks(kernel, len(targets), bar.update)
        precondition = _preconditioner(_features(blocks, landmarks), ridge)
        found, failed = cg(
            _operator(lambda v: blocks.product(v) + ridge * v, targets.shape),
            targets.ravel(),
            rtol=tol,
            maxiter=PRODUCTS,
            M=_operator(precondition, targets.shape),
        )
    if failed:
        raise ValueError(
            f"conjugate gradients did not reach tol={tol} with ridge {ridge} and {len(landmarks)} landmarks "
            f"in {PRODUCTS} products; expected a kernel, a larger ridge or tol, or more landmarks."
        )
    return like(np.asarray(y), found.reshape(targets.shape))


def _indices(landmarks, size: int) -> np.ndarray:
    found = check_numbers("landmarks", landmarks, np.asarray)
    if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"landmarks have shape {found.shape} and dtype {found.dtype}; expected indices of points, (m,)."
        )
    if found.min() < 0 or found.max() >= size:
        raise ValueError(f"landmarks go from {found.min()} to {found.max()}; expected 0 to {size - 1}.")
    return found


def _features(blocks: KernelBlocks, landmarks: np.ndarray) -> np.ndarray:
    """In place of the kernel with them, which takes as much."""
    found = blocks.columns(landmarks)
    features = nystrom_features(found[landmarks].astype(blocks.dtype))
    for rows in blocks.rows():
        part = features(found[rows])
        found[rows, : part.shape[1]] = part
    return found[:, : part.shape[1]]


def _preconditioner(features: np.ndarray, ridge: float) -> Callable[[np.ndarray], np.ndarray]:
    r"""Of $F F^\top + \rho I$ the inverse, times $\rho$, by Woodbury's formula."""
    inside = cho_factor(features.T @ features + ridge * np.eye(features.shape[1]))
    return lambda v: v - features @ cho_solve(inside, features.T @ v)


def _operator(product: Callable, shape: tuple[int, int]) -> LinearOperator:
    """Of (n, o) arrays, for a solver of vectors."""
    size = shape[0] * shape[1]
    return LinearOperator(
        (size, size), lambda v: product(v.reshape(shape)).ravel(), dtype=np.dtype(np.float64)
    )
