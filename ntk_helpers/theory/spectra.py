r"""What a kernel learns first, and from how many points: spectra on spheres, and learning curves.

A kernel of the angle alone has the spherical harmonics as eigenfunctions, whatever the kernel is; on the
circle these are sines and cosines. Its eigenvalues are one-dimensional integrals, and with the target's power
in each degree they give the test error of kernel regression before any training.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.host import in_float64, numbers
from ntk_helpers._lib.inputs import check_choice, check_size
from ntk_helpers._lib.outputs import columns
from ntk_helpers._lib.spectrum import spectrum as spectrum_of
from ntk_helpers.infinite import kernels
from ntk_helpers.networks import MLP
from ntk_helpers.theory.risk import check_variances, effective_ridge, risk_at, shares, times

__all__ = ["LearningCurve", "Spectrum", "kernel_spectrum", "label_power", "learning_curve", "sphere_power"]

PANEL = 32  # nodes of a rule
NODES = (512, 8192)  # of all panels, at first and at most
CONVERGED = 1e-12  # twice as many nodes agree to this part of the kernel's size
LOST = 1e-13  # of the kernel's size: ten times the rounding of an orthonormal coefficient


class Spectrum(NamedTuple):
    """Eigenvalues of a kernel under a law of inputs, each with how often it occurs, and what is left out."""

    values: Float[np.ndarray, " degrees"]
    """Of one eigenfunction of each degree."""
    multiplicities: Float[np.ndarray, " degrees"]
    """How many eigenfunctions each degree has."""
    tail: float = 0.0
    """The mean of the kernel's diagonal less the sum of all eigenvalues listed: what all others sum to."""

    def decay(self, degrees: Sequence[int]) -> float:
        r"""The exponent $a$ of $\lambda_k \sim k^{-a}$, by least squares over these degrees.

        Parities and small degrees have exponents of their own, so that one asks for some degrees and not for
        all. Raises `ValueError` for less than two degrees, and for one without a positive eigenvalue.

        >>> Spectrum(np.array([1.0, 1.0, 1 / 4, 1 / 9]), np.ones(4)).decay([1, 2, 3])
        2.0...
        """
        asked = np.unique(np.asarray(degrees))
        if len(asked) < 2 or asked[0] < 1 or asked[-1] >= len(self.values) or (self.values[asked] <= 0).any():
            raise ValueError(
                f"degrees are {list(degrees)}; expected two or more from 1 to {len(self.values) - 1} whose "
                "eigenvalues are positive."
            )
        return -float(np.polyfit(np.log(asked), np.log(self.values[asked]), 1)[0])


def kernel_spectrum(
    net_or_function: MLP | Callable[[np.ndarray], Array], dim: int, degree: int, kernel: str = "ntk"
) -> Spectrum:
    r"""Eigenvalues of a kernel of the angle on the sphere $|x|^2$ = `dim` of $\mathbb{R}^{\mathtt{dim}}$.

    For uniform inputs the eigenfunctions are the spherical harmonics, and those of degree k, as many as
    `.multiplicities` says, share one eigenvalue (Funk–Hecke)
    $\lambda_k = \int_0^\pi \Theta(t)\, P_k(\cos t) \sin^{d-2} t\, dt$ over the integral of $\sin^{d-2} t$,
    with d = `dim` and Gegenbauer's polynomial $P_k$, $P_k(1) = 1$. For d = 2 it is
    $P_k(\cos t) = \cos kt$, and the sphere a circle. So
    $\Theta(t) = \sum_k N_k \lambda_k P_k(\cos t)$, and at angle 0 the $N_k\lambda_k$ sum to $\Theta(0)$, less
    `.tail` beyond `degree`. The kernel is the one of an infinitely wide `MLP`, `"ntk"` or `"nngp"`, or a
    function of an array of angles in $[0, \pi]$, which has to be smooth between them.

    Rounding leaves an error of about $10^{-14}\,\Theta(0)/\sqrt{N_k}$ in $\lambda_k$; what is not larger than
    ten times that is returned as 0. So high degrees in many dimensions are all 0: they are too small for any
    data set to show.

    Raises:

    - `ValueError` for `dim` below 2, a negative `degree`, another `kernel`, and for μP, which has none;
    - `ValueError` for a function that is not finite, of another shape, or not smooth: its integrals do not
      converge;
    - `ValueError` for multiplicities beyond float64.

    >>> found = kernel_spectrum(MLP(depth=2, width=1), dim=2, degree=3)
    >>> [round(float(value), 4) for value in found.values]  # the first is 8/π² + 4/π²; no odd one above 1
    [1.2159, 1.0, 0.3152, 0.0]
    """
    dim, degree = check_size("dim", dim), _check_degree(degree)
    check_choice("kernel", kernel, ("ntk", "nngp"))
    if dim == 1:
        raise ValueError("dim is 1; expected 2, a circle, or more.")
    multiplicities = _multiplicities(dim, degree)
    at = _of_angle(net_or_function, dim, kernel)
    diagonal = float(at(np.zeros(1))[0])
    coefficients, size = _converged(at, dim, degree)
    kept = np.where(np.abs(coefficients) > LOST * size, coefficients, 0.0)
    values = kept / np.sqrt(multiplicities)
    return Spectrum(values, multiplicities, diagonal - float(values @ multiplicities))


def _check_degree(degree: object) -> int:
    return 0 if isinstance(degree, int) and degree == 0 else check_size("degree", degree)


def _multiplicities(dim: int, degree: int) -> np.ndarray:
    """The number of independent spherical harmonics of each degree."""
    from scipy.special import comb  # which the import of the package does without

    k = np.arange(1, degree + 1)
    found = np.r_[1.0, (2 * k + dim - 2) / (k + dim - 2) * comb(k + dim - 2, k)]
    if not np.isfinite(found).all():
        raise ValueError(
            f"degree is {degree} in {dim} dimensions, of which there are more than 10^308 harmonics."
        )
    return np.where(found < 2**52, np.rint(found), found)


def _of_angle(net_or_function: MLP | Callable, dim: int, kernel: str) -> Callable[[np.ndarray], np.ndarray]:
    """The kernel at an array of angles, in float64."""
    if not isinstance(net_or_function, MLP) and not callable(net_or_function):
        raise ValueError(f"net_or_function is {net_or_function!r}; expected an MLP or a function of angles.")

    def of_network(angles: np.ndarray) -> np.ndarray:
        # Blocks of one size, for one compilation; of a kernel that knows of no dimension, in the plane.
        blocks = np.resize(angles, (-(-len(angles) // NODES[0]), NODES[0]))
        ambient = dim if net_or_function.parameterization == "standard" else 2
        return np.concatenate([of_block(block, ambient) for block in blocks])[: len(angles)]

    def of_block(angles: np.ndarray, ambient: int) -> np.ndarray:
        points = np.zeros((1 + NODES[0], ambient))
        points[0, 0], points[1:, 0], points[1:, 1] = 1.0, np.cos(angles), np.sin(angles)
        with in_float64():
            points = jnp.asarray(ambient**0.5 * points)
            return np.asarray(getattr(kernels(net_or_function, points[:1], points[1:]), kernel)[0])

    of_angles = of_network if isinstance(net_or_function, MLP) else net_or_function
    return lambda angles: numbers("the kernel at an array of angles", of_angles(angles), angles.shape)


def _converged(at: Callable, dim: int, degree: int) -> tuple[np.ndarray, float]:
    """The kernel's coefficients in orthonormal polynomials of the cosine, and its largest value."""
    nodes = max(NODES[0], 2 << (2 * degree).bit_length())
    before = np.inf
    while nodes <= NODES[1]:
        values, angles, weights = _at_nodes(at, dim, nodes)
        found = _polynomials(np.cos(angles), dim, degree) @ (weights * values)
        size = float(np.abs(values).max())
        if np.abs(found - before).max() <= CONVERGED * size:
            return found, size
        nodes, before = 2 * nodes, found
    raise ValueError(
        f"the integrals of this kernel with polynomials to degree {degree} do not converge with {NODES[1]} "
        "nodes; expected a function that is smooth between the angles 0 and π, or a lower degree."
    )


def _at_nodes(at: Callable, dim: int, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernel at the nodes of Gauss's rule in equal panels, whose weights have all digits, and the law."""
    x, w = np.polynomial.legendre.leggauss(PANEL)
    panels = nodes // PANEL
    angles = (np.pi / panels * (np.arange(panels)[:, None] + (1 + x) / 2)).ravel()
    weights = np.tile(w, panels) * np.sin(angles) ** (dim - 2)
    return at(angles), angles, weights / weights.sum()


def _polynomials(t: np.ndarray, dim: int, degree: int) -> np.ndarray:
    """Gegenbauer's, orthonormal for the law of a coordinate of a uniform unit vector: (degree + 1, ...)."""
    k = np.arange(1, degree + 1)
    step = np.sqrt(np.r_[1 / dim, (k + 1) * (k + dim - 2) / ((2 * k + dim - 2) * (2 * k + dim))])
    found = [np.ones_like(t), t / step[0]]
    for n in range(1, degree):
        found.append((t * found[n] - step[n - 1] * found[n - 1]) / step[n])
    return np.stack(found[: degree + 1])


def sphere_power(
    x: Float[Array, "n d"], y: Float[Array, " n"] | Float[Array, "n o"], degree: int
) -> Float[np.ndarray, " degrees"]:
    r"""How much of a target is of each degree on the sphere, from labels at points drawn uniformly there.

    It is the mean of $y_i y_j\, N_k P_k(\cos t_{ij})$ over all pairs $i \ne j$, with $t_{ij}$ the angle of
    two points, $N_k$ and $P_k$ as for `kernel_spectrum`. Its expectation is the sum of the squared
    coefficients of $y$ in the harmonics of degree k; over all degrees these sum to the mean of $y^2$ without
    its noise. Several outputs are summed. The standard error has two parts, that of a mean over n points and
    $\sqrt{2N_k}/n$ times the mean of $y^2$: a degree of more harmonics than there are pairs cannot be seen.
    Lengths of `x` do not matter.

    Raises `ValueError` for arrays that do not fit, points in one dimension, and a point at 0.

    >>> x = np.random.default_rng(0).standard_normal((500, 3))
    >>> y = x[:, 0] / np.linalg.norm(x, axis=1)  # of degree 1, with power 1/3
    >>> [round(float(power), 1) for power in sphere_power(x, y, 2)]
    [0.0, 0.3, 0.0]
    """
    x, degree = numbers("x", x, (None, None)), _check_degree(degree)
    y = columns("y", y, (len(x), None))
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if x.shape[1] == 1 or len(x) < 2 or (lengths == 0).any():
        raise ValueError(
            f"x has shape {x.shape}; expected two points or more, none at 0, in two dimensions or more."
        )
    unit, dim = x / lengths, x.shape[1]
    pairs = np.triu_indices(len(x), 1)
    cosines, products = (unit @ unit.T)[pairs], (y @ y.T)[pairs]
    ends = np.sqrt(_multiplicities(dim, degree))
    return ends * (_polynomials(cosines.clip(-1, 1), dim, degree) @ products) / len(products)


def label_power(
    theta: Float[Array, "n n"], y: Float[Array, " n"] | Float[Array, "n o"]
) -> tuple[Spectrum, Float[np.ndarray, " n"]]:
    r"""The spectrum of a kernel matrix, largest first, and the labels' power in each of its eigenvectors.

    Eigenvalues are those of $\Theta/n$, which approach the kernel's under the law of inputs; the powers
    $(v_i\cdot y)^2/n$ sum to the mean of $y^2$, and over outputs. Both are what `learning_curve` takes, for
    training on few of the n points and a test on all. Compare them with those of permuted labels: some power
    is in the eigenvectors of large eigenvalues by chance.

    Raises `ValueError` for what is no kernel matrix, and labels that do not fit.

    >>> spectrum, power = label_power(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, 1.0]))
    >>> spectrum.values, [round(float(each), 6) for each in power]
    (array([1.5, 0.5]), [1.0, 0.0])
    """
    if np.ndim(theta) != 2:
        raise ValueError(f"theta has shape {np.shape(theta)}; expected (n, n).")
    values, vectors = spectrum_of(theta)
    y = columns("y", y, (len(values), None))
    power = ((vectors.T @ y) ** 2).sum(1) / len(y)
    return Spectrum(values[::-1] / len(y), np.ones(len(y))), power[::-1]


class LearningCurve(NamedTuple):
    """What `learning_curve` returns, one entry or row for each number of points."""

    risk: Float[np.ndarray, " points"]
    """Expected squared error at a new point, of the noiseless target."""
    training: Float[np.ndarray, " points"]
    """Mean squared error on the training points, noise included."""
    learnabilities: Float[np.ndarray, "points degrees"]
    """The share of an eigenfunction of each degree that is learned, between 0 and 1."""
    kappa: Float[np.ndarray, " points"]
    """The eigenvalue that is half learned."""
    overfitting: Float[np.ndarray, " points"]
    """The factor that noise and what is not learned enter the test error with, 1 or more."""


def learning_curve(
    spectrum: Spectrum,
    power: Float[Array, " degrees"],
    points: Sequence[int],
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> LearningCurve:
    r"""Test error of kernel regression with n points, from the spectrum and the target's power alone.

    $\kappa > 0$ solves $\sum_i \frac{\lambda_i}{\lambda_i + \kappa} + \frac{\rho}{\kappa} = n$ over all
    eigenfunctions; then $\ell_i = \lambda_i/(\lambda_i + \kappa)$ of eigenfunction i is learned, and risk
    plus $\sigma^2$ is $E\left(\sum_i (1 - \ell_i)^2 p_i + \sigma^2\right)$ with the power $p_i$ and the
    factor $E = n/(n - \sum_i \ell_i^2)$ (Bordelon, Canatar & Pehlevan 2020; Canatar, Bordelon & Pehlevan
    2021; Simon et al. 2023). `power` is that of all eigenfunctions of a degree together. `ridge` $\rho$ is
    that of $(\Theta + \rho I)^{-1}y$, `noise` the variance $\sigma^2$ of the labels. The spectrum's tail,
    of eigenvalues too small to be learned, acts as a ridge. Power beyond the spectrum's degrees acts as
    noise: add it to `noise`, and the risk lacks it.

    The theory takes eigenfunctions as if they were independent Gaussian variables. It is good in many
    dimensions, and misses by factors on a circle at a small ridge. Where there are no more eigenfunctions
    than points and no ridge, everything is learned; noise then has the factor of least squares, infinite at
    n equal to their number.

    Raises `ValueError` for powers that are negative or do not fit, for `points` that are no positive numbers,
    for a negative `ridge` or `noise`, and for a spectrum with negative eigenvalues.

    >>> curve = learning_curve(Spectrum(np.array([1.0]), np.array([100.0])), [1.0], [50])
    >>> round(float(curve.risk[0]), 6)  # linear regression: half of all directions are seen
    0.5
    """
    values, counts = (
        numbers(name, each, (None,)) for name, each in zip(("values", "multiplicities"), spectrum[:2])
    )
    power, points = numbers("power", power, (None,)), numbers("points", points, (None,))
    check_variances(ridge=ridge, noise=noise)
    if not len(values) == len(counts) == len(power):
        raise ValueError(f"power has {len(power)} entries; expected {len(values)}, as the spectrum has.")
    rounded = 1e-12 * values.max() * counts.max()
    if (values < 0).any() or (counts <= 0).any() or spectrum.tail < -rounded:
        raise ValueError(
            f"the spectrum has eigenvalues down to {values.min():.2g} and a tail of {spectrum.tail:.2g}; "
            "expected none below 0."
        )
    if (power < 0).any() or (points <= 0).any():
        raise ValueError(
            f"the least power is {power.min():.2g}, the least number of points {points.min():g}; expected "
            "powers that are not negative, and points."
        )
    kappa = np.array([effective_ridge(n, values, ridge + max(spectrum.tail, 0.0), counts) for n in points])
    risks = [risk_at(n, values, power, noise, k, counts).total for n, k in zip(points, kappa)]
    learned = np.stack([shares(values, k) for k in kappa])
    unused = 1 - learned**2 @ counts / points
    overfitting = np.divide(1, unused, out=np.full(len(points), np.inf), where=unused > 0)
    left = np.divide(
        ridge, points * kappa, out=np.zeros(len(points)), where=kappa > 0
    )  # of a residual, in training
    training = np.array([times(share, risk + noise) * share for share, risk in zip(left, risks)])
    return LearningCurve(np.array(risks), training, learned, kappa, overfitting)
