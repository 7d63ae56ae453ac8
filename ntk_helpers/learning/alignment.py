r"""How alike two kernels of the same points are, whatever their scales: as a cosine and as an angle.

Both take kernels as vectors of $n^2$ entries. Without `centred` a kernel's mean, which is most of it where
all entries are positive, makes any two alike.
"""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.spectrum import check_symmetric, check_values, rounding

__all__ = ["alignment", "kernel_distance"]


def alignment(a: Float[ArrayLike, "n n"], b: Float[ArrayLike, "n n"], *, centred: bool = False) -> float:
    r"""The cosine $\langle A, B\rangle / (\|A\| \|B\|)$ of two kernels in Frobenius' inner product.

    With $Y Y^\top$ of targets for B it is kernel–target alignment (Cristianini et al. 2001). `centred` takes
    $HAH$ and $HBH$, $H = I - \frac1n 1 1^\top$: kernels of features less their mean (Cortes, Mohri &
    Rostamizadeh 2012), CKA of networks (Kornblith et al. 2019). It is between 0 and 1 for kernels, and does
    not know of their scales.

    Raises:

    - `ValueError` for arrays that are not finite, not square, or not of the same points;
    - `ValueError` for an array that is not symmetric;
    - `ValueError` for one that is zero, or with `centred` constant.

    >>> y = np.array([1.0, 1.0, -1.0])
    >>> round(alignment(np.eye(3), np.outer(y, y)), 4)  # 1/√3
    0.5774
    """
    a, b = _directions(a, b, centred)
    return min(float((a * b).sum()), 1.0)


def kernel_distance(
    a: Float[ArrayLike, "n n"], b: Float[ArrayLike, "n n"], *, centred: bool = False
) -> float:
    r"""The angle of two kernels, the arc cosine of their `alignment`, from 0 to $\pi/2$.

    Unlike one less the alignment it is a metric: no detour is shorter (Williams et al. 2021). It keeps its
    digits where kernels are nearly the same, and the alignment is 1 to rounding:
    $2 \arctan(\|\hat A - \hat B\| / \|\hat A + \hat B\|)$ with $\hat A = A/\|A\|$. Raises the errors
    of `alignment`.

    >>> round(kernel_distance(np.eye(2), np.ones((2, 2))) * 4 / np.pi, 12)  # 45 degrees
    1.0
    """
    a, b = _directions(a, b, centred)
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def _directions(a, b, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    check_values("a", a)
    check_values("b", b)
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a has shape {np.shape(a)} and b {np.shape(b)}; expected the same points.")
    return _direction("a", a, centred), _direction("b", b, centred)


def _direction(name: str, kernel, centred: bool) -> np.ndarray:
    """A kernel as a vector of length 1, in the shape that it came in."""
    found = numbers(name, kernel, (None, None))
    if found.shape[0] != found.shape[1]:
        raise ValueError(f"{name} has shape {found.shape}; expected (n, n).")
    check_symmetric(name, found, rounding(kernel))
    size = np.abs(found).max()
    found = found / size if size > 0 else found  # whose squares neither vanish nor overflow
    whole = np.linalg.norm(found)
    if centred:
        found = found - found.mean(0)
        found = found - found.mean(1, keepdims=True)
    length = np.linalg.norm(found)
    if length <= rounding(kernel) * whole:
        kind = "constant" if centred else "zero"
        raise ValueError(f"{name} is {kind} to rounding; expected a kernel that has a direction.")
    return found / length
