r"""The risk of least squares in theory: double descent as formulas.

Every function returns a `Risk`: the expected squared error at a new point, of the noiseless target, over
data, features and noise. `noise` is the variance $\sigma^2$ of the targets' noise. A `ridge` $\rho$ is that
of `least_squares`, $\min \|Fw - y\|^2 + \rho\|w\|^2$. Where the literature has
$\frac1n\|Fw - y\|^2 + \lambda\|w\|^2$ it is $\rho = n\lambda$.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_one_variance, check_positive, check_size, is_number
from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.registry import get_activation

__all__ = [
    "Risk",
    "descent_risk",
    "hermite_parts",
    "linear_risk",
    "optimal_ridge",
    "random_features_risk",
    "ridgeless_risk",
    "weak_features_risk",
]


class Risk(NamedTuple):
    """A mean squared error in four parts, as in d'Ascoli et al. (2020): each is what is left when the later
    ones are averaged out."""

    bias: float
    """Of the predictor averaged over data, noise and random features."""
    sampling: float
    """Variance over training inputs, of the predictor averaged over noise and features."""
    initialization: float
    """Variance over random features, of the predictor averaged over noise."""
    noise: float
    """Variance over the targets' noise."""

    @property
    def total(self) -> float:
        """The sum of the four parts."""
        return self.bias + self.sampling + self.initialization + self.noise


def ridgeless_risk(gamma: float, signal: float, noise: float) -> Risk:
    r"""Least squares on isotropic features as $n, p \to \infty$ with $\gamma = p/n$ (Hastie et al. 2022).

    $\sigma^2 \gamma/(1-\gamma)$ for $\gamma < 1$, and $r^2 (1 - 1/\gamma) + \sigma^2/(\gamma - 1)$ for
    $\gamma > 1$, with `signal` $r^2 = \|\beta\|^2$. At $\gamma = 1$ it is infinite, unless there is neither
    noise nor anything unexplained. Raises `ValueError` for a `gamma` that is not positive, and negative
    variances.
    """
    check_positive("gamma", gamma)
    _variances(signal=signal, noise=noise)
    if gamma < 1:
        return Risk(0.0, 0.0, 0.0, noise * gamma / (1 - gamma))
    left = 1 - 1 / gamma
    return Risk(
        signal * left**2,
        signal * left / gamma,
        0.0,
        noise / (gamma - 1) if gamma > 1 else np.inf if noise else 0.0,
    )


def weak_features_risk(n: int, p: int, signal: float, left_out: float, noise: float) -> Risk:
    r"""Least squares on p of many Gaussian features, exactly, at every n and p (Belkin, Hsu & Xu 2020,
    Theorem 1).

    `signal` is $\|\beta_T\|^2$ of the features used, `left_out` $\|\beta_{T^c}\|^2$ of the others, which act
    as noise in training and are missed in the end. With $\tau^2 = \sigma^2 + \|\beta_{T^c}\|^2$:
    $\tau^2 p/(n - p - 1)$ for $p \le n - 2$, and $\|\beta_T\|^2 (1 - n/p) + \tau^2 n/(p - n - 1)$ for
    $p \ge n + 2$, plus $\|\beta_{T^c}\|^2$; between them the mean is infinite (for $\tau^2 > 0$). Raises
    `ValueError` for sizes below 1 and negative variances.
    """
    n, p = check_size("n", n), check_size("p", p)
    _variances(signal=signal, left_out=left_out, noise=noise)
    if p <= n - 2:
        gain, missed = p / (n - p - 1), 0.0
    else:
        gain, missed = n / (p - n - 1) if p >= n + 2 else np.inf, max(1 - n / p, 0.0)
    return Risk(
        signal * missed**2 + left_out,
        signal * missed * (1 - missed) + _times(left_out, gain),
        0.0,
        _times(noise, gain),
    )


def linear_risk(
    n: int,
    spectrum: Float[np.ndarray, " p"],
    signal: Float[np.ndarray, " p"],
    noise: float,
    ridge: float = 0.0,
) -> Risk:
    r"""Ridge regression on n points with p correlated features, for large n and p at any p/n (Hastie et al.
    2022).

    `spectrum` holds the eigenvalues $s_i$ of the features' covariance and `signal` the squares $\beta_i^2$ of
    the target's coefficients in its eigenvectors. With the effective ridge $\kappa$ that solves
    $n\kappa = \rho + \kappa \sum_i s_i/(s_i + \kappa)$ and $d_2 = \sum_i s_i^2/(s_i + \kappa)^2$ the risk is
    $[\kappa^2 \sum_i \beta_i^2 s_i/(s_i + \kappa)^2 + \sigma^2 d_2/n]/(1 - d_2/n)$. Its numerator's first
    part is the bias; infinite at p = n without ridge where there is noise. Raises `ValueError` for spectra
    that do not match, are negative or not finite, and a negative ridge.
    """
    n = check_size("n", n)
    s, b = numbers("spectrum", spectrum, (None,)), numbers("signal", signal, (None,))
    if s.shape != b.shape or s.min() <= 0 or b.min() < 0:
        raise ValueError(
            f"spectrum {s.shape} and signal {b.shape} go down to {s.min():.3g} and {b.min():.3g}; expected one shape, > 0 and >= 0."
        )
    _variances(noise=noise, ridge=ridge)
    kappa = _effective_ridge(n, s, ridge)
    d2 = (s**2 / (s + kappa) ** 2).sum() / n
    bias = (b * s * (kappa / (s + kappa)) ** 2).sum()
    gain = d2 / (1 - d2) if d2 < 1 else np.inf
    return Risk(float(bias), float(_times(bias, gain)), 0.0, float(_times(noise, gain)))


def _effective_ridge(n: int, s: np.ndarray, ridge: float) -> float:
    from scipy.optimize import brentq  # a third of a second that nothing else needs

    if ridge == 0 and len(s) <= n:
        return 0.0
    excess = lambda kappa: n - ridge / kappa - (s / (s + kappa)).sum()
    high = 2 * (ridge + s.sum()) / n
    low = ridge / (2 * n) if ridge else high
    while excess(low) > 0:
        low /= 16
    return brentq(excess, low, high, xtol=1e-300, rtol=1e-14)


def descent_risk(
    t: Float[np.ndarray, "..."], gamma: float, signal: float, noise: float, points: int = 4000
) -> Float[np.ndarray, "..."]:
    r"""The risk in time of gradient flow on $\frac{1}{2n}\|Xw - y\|^2$ from w = 0, isotropic features
    (Advani, Saxe & Sompolinsky 2020).

    $\int \rho(\lambda) [r^2 e^{-2\lambda t} + \sigma^2\gamma (1 - e^{-\lambda t})^2/\lambda]\,d\lambda$, with
    $\rho$ the Marchenko-Pastur law of the eigenvalues of $X^\top X/n$ for $\gamma = p/n$, its atom
    $1 - 1/\gamma$ at zero included. A total, at any times t >= 0, by the trapezoidal rule in the angle of the
    law's interval. Raises `ValueError` for negative times, a `gamma` that is not positive, negative
    variances, and `points` below 1.
    """
    points = check_size("points", points)
    t = numbers("t", t)
    if (t < 0).any():
        raise ValueError(f"t goes down to {t.min()}; expected times of at least 0.")
    check_positive("gamma", gamma)
    _variances(signal=signal, noise=noise)
    angle = (np.arange(points) + 0.5) * np.pi / points
    rate = 1 + gamma + 2 * np.sqrt(gamma) * np.cos(angle)
    weight = 2 * np.sin(angle) ** 2 / rate / points
    shrink = np.exp(-t[..., None] * rate)
    bulk = (weight * (signal * shrink**2 + noise * gamma * (1 - shrink) ** 2 / rate)).sum(-1)
    return bulk + signal * max(1 - 1 / gamma, 0.0)


def hermite_parts(activation: str | Activation) -> tuple[float, float, float]:
    r"""$\mu_0^2, \mu_1^2, \mu_*^2$ of an activation: the constant, linear and remaining parts of
    $E\,\phi(g)^2$ for standard normal g.

    $\mu_0 = E\,\phi(g)$, $\mu_1 = E\,g\phi(g)$ (Mei & Montanari 2022). Raises `ValueError` for an unknown
    activation, and one whose dual maps do not reach a variance of 1.

    >>> [round(part, 4) for part in hermite_parts("relu")]
    [0.1592, 0.25, 0.0908]
    """
    return _hermite_parts(get_activation(activation), jax.config.jax_enable_x64)


@lru_cache(maxsize=64)
def _hermite_parts(phi: Activation, double: bool) -> tuple[float, float, float]:
    """Kept for each precision: a search over ridges asks hundreds of times."""
    zeroth, first, whole = (
        float(v)
        for v in (phi.dual(1.0, 1.0, 0.0), phi.dual_derivative(1.0, 1.0, 0.0), phi.dual(1.0, 1.0, 1.0))
    )
    return zeroth, first, whole - zeroth - first


def random_features_risk(
    n: int,
    count: int,
    dim: int,
    signal: float,
    noise: float,
    *,
    activation: str | Activation = "relu",
    ridge: float = 0.0,
    nonlinear: float = 0.0,
) -> Risk:
    r"""Ridge regression on `random_features`, n points uniform on the sphere of radius $\sqrt d$, as n, count
    and dim grow in proportion.

    The target is linear, of variance `signal` $F_1^2$, plus a part of variance `nonlinear` $F_*^2$ that no
    linear function of the features captures. The total is that of Mei & Montanari (2022), Theorem 2: with
    $\psi_1$ = count/d, $\psi_2 = n/d$, $\zeta = \mu_1/\mu_*$ and $t > 0$ the root of
    $\rho\,t/(d\mu_*^2) = (\psi_1 - ct)(\psi_2 - ct)$, $c = 1 + \zeta^2/(1 + \zeta^2 t)$, their $\chi = -t$.
    Averaging over the features leaves kernel regression with an effective ridge (Jacot et al. 2020), whose
    `linear_risk` gives the first two parts (d'Ascoli et al. 2020). At count = n without ridge it is infinite.
    Raises `ValueError` for sizes below 1, negative variances, and an activation that is linear or even.
    """
    n, count, dim = check_size("n", n), check_size("count", count), check_size("dim", dim)
    _variances(signal=signal, noise=noise, ridge=ridge, nonlinear=nonlinear)
    _, mu1, rest = hermite_parts(activation)
    if min(mu1, rest) < 1e-12:
        raise ValueError(
            f"activation {get_activation(activation).name!r} has a linear part {mu1:.2g} and a nonlinear part {rest:.2g} of its variance; expected both to be positive."
        )
    zeta2 = mu1 / rest
    misfit, gain = _mei_montanari(count / dim, n / dim, zeta2, ridge / (dim * rest))
    mean = _averaged(n, count, dim, zeta2, ridge / rest, signal)
    averaged = mean.noise  # of unit noise
    return Risk(
        mean.bias + nonlinear,
        mean.sampling + _times(nonlinear, averaged),
        _times(signal, misfit) - mean.bias - mean.sampling + _times(nonlinear, gain - averaged),
        _times(noise, gain),
    )


def _mei_montanari(psi1: float, psi2: float, zeta2: float, eta2: float) -> tuple[float, float]:
    """E1/E0 and E2/E0 of Mei & Montanari (2022)."""
    from scipy.optimize import brentq

    if eta2 == 0 and psi1 == psi2:
        return np.inf, np.inf
    psi = min(psi1, psi2)
    top = 2 * psi / (np.hypot(b := 1 + zeta2 - zeta2 * psi, 2 * np.sqrt(zeta2 * psi)) + b)  # ct = min(psi)
    held = lambda t: t + zeta2 * t / (1 + zeta2 * t)
    t = (
        top
        if eta2 == 0
        else brentq(
            lambda t: eta2 * t - (psi1 - held(t)) * (psi2 - held(t)), 0.0, top, xtol=1e-300, rtol=1e-14
        )
    )
    x, z = -t, np.sqrt(zeta2)
    e0 = (
        -(x**5) * z**6
        + 3 * x**4 * z**4
        + (psi1 * psi2 - psi2 - psi1 + 1) * x**3 * z**6
        - 2 * x**3 * z**4
        - 3 * x**3 * z**2
        + (psi1 + psi2 - 3 * psi1 * psi2 + 1) * x**2 * z**4
        + 2 * x**2 * z**2
        + x**2
        + 3 * psi1 * psi2 * x * z**2
        - psi1 * psi2
    )
    e1 = psi2 * x**3 * z**4 - psi2 * x**2 * z**2 + psi1 * psi2 * x * z**2 - psi1 * psi2
    e2 = (
        x**5 * z**6
        - 3 * x**4 * z**4
        + (psi1 - 1) * x**3 * z**6
        + 2 * x**3 * z**4
        + 3 * x**3 * z**2
        - (psi1 + 1) * x**2 * z**4
        - 2 * x**2 * z**2
        - x**2
    )
    return float(e1 / e0), float(e2 / e0)


def _averaged(n: int, count: int, dim: int, zeta2: float, ridge: float, signal: float) -> Risk:
    r"""Of the predictor averaged over random features, for unit noise; ridges in units of $\mu_*^2$.

    With $K = \mu_1^2 XX^\top/d + \mu_*^2 I$ it is kernel regression of a ridge $r$ that solves
    $\rho = r\,(N - \mathrm{tr}\,K(K + r)^{-1})$, and that is linear regression with ridge
    $d(\mu_*^2 + r)/\mu_1^2$.
    """
    from scipy.optimize import brentq

    unit, even = np.ones(dim), np.full(dim, signal / dim)

    def excess(r):
        linear = dim * (1 + r) / zeta2
        kappa = _effective_ridge(n, unit, linear)
        trace = n - r * (n - dim / (1 + kappa)) / (1 + r)
        return count - trace - ridge / r

    effective = 0.0
    if ridge > 0 or count < n:
        low = high = max(ridge, 1.0) / count
        while excess(low) > 0:
            low /= 16
        while excess(high) < 0:
            high *= 16
        effective = brentq(excess, low, high, xtol=1e-300, rtol=1e-12)
    return linear_risk(n, unit, even, 1.0, dim * (1 + effective) / zeta2)


def optimal_ridge(risk: Callable[[float], Risk | float], bounds: tuple[float, float] = (1e-8, 1e8)) -> float:
    r"""The ridge $\rho \ge 0$ of least `risk(ridge)`, for example `lambda rho: random_features_risk(300, 600,
    100, 1.0, 0.5, ridge=rho)`.

    For isotropic `linear_risk` it is $p\sigma^2/r^2$, at every n: the ridge of Bayes' rule (Hastie et al.
    2022). `risk` gives a `Risk` or a number. Its least value on a grid, eight ridges a decade between
    `bounds`, is refined by Brent's method in $\log\rho$; 0.0 is returned where no ridge is better than none.
    Raises `ValueError` for a `risk` that is no function or gives no number, for `bounds` that are not
    positive and ascending, and where the least value lies at one of them.
    """
    from scipy.optimize import minimize_scalar

    if not callable(risk):
        raise ValueError(f"risk is {risk!r}; expected a function of the ridge.")
    bounds = numbers("bounds", bounds, (2,))
    if not 0 < bounds[0] < bounds[1]:
        raise ValueError(
            f"bounds are {bounds[0]:.3g} and {bounds[1]:.3g}; expected positive ones, the lower first."
        )

    def total(log: float) -> float:
        found = risk(float(np.exp(log)))
        found = found.total if isinstance(found, Risk) else found
        if np.ndim(found) or not is_number(found) or np.isnan(found):
            raise ValueError(f"risk gives {found!r} at ridge {np.exp(log):.3g}; expected a Risk or a number.")
        return float(found)

    grid = np.linspace(*np.log(bounds), 2 + int(8 * np.log10(bounds[1] / bounds[0])))
    values = [total(log) for log in grid]
    best = int(np.argmin(values))
    if total(-np.inf) <= values[best] * (1 + 1e-12):  # but for rounding
        return 0.0
    if best in (0, len(grid) - 1):
        raise ValueError(
            f"risk is least at {np.exp(grid[best]):.3g}, one of the bounds; expected a minimum between them."
        )
    return float(
        np.exp(
            minimize_scalar(
                total, bounds=grid[[best - 1, best + 1]], method="bounded", options={"xatol": 1e-9}
            ).x
        )
    )


def _times(variance: float, factor: float) -> float:
    """Nothing times infinity is nothing."""
    return variance * factor if variance else 0.0


def _variances(**given) -> None:
    for name, value in given.items():
        check_one_variance(name, value)
