r"""The risk of least squares in theory: double descent as formulas.

Every function returns a `Risk`: the expected squared error at a new point, of the noiseless target, over
data, features and noise. `noise` is the variance $\sigma^2$ of the targets' noise. A `ridge` $\rho$ is that
of `least_squares`, $\min \|Fw - y\|^2 + \rho\|w\|^2$. Where the literature has
$\frac1n\|Fw - y\|^2 + \lambda\|w\|^2$ it is $\rho = n\lambda$.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_one_variance, check_positive, check_size, is_number

__all__ = [
    "Risk",
    "check_variances",
    "descent_risk",
    "effective_ridge",
    "linear_risk",
    "optimal_ridge",
    "ridgeless_risk",
    "times",
    "weak_features_risk",
]


class Risk(NamedTuple):
    """A mean squared error in four parts (d'Ascoli et al. 2020).

    Each part is what is left when the later ones are averaged out; another order of averaging splits the same
    total in another way.
    """

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

    It is $\sigma^2 \gamma/(1-\gamma)$ for $\gamma < 1$, and $r^2 (1 - 1/\gamma) + \sigma^2/(\gamma - 1)$ for
    $\gamma > 1$, with `signal` $r^2 = \|\beta\|^2$. At $\gamma = 1$ it is infinite where there is noise.

    Raises

    - `ValueError` for a `gamma` that is not positive;
    - `ValueError` for negative variances.

    >>> [ridgeless_risk(gamma, signal=1.0, noise=0.25).total for gamma in (0.5, 2.0)]
    [0.25, 0.75]
    """
    check_positive("gamma", gamma)
    check_variances(signal=signal, noise=noise)
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
    r"""Least squares on p of many Gaussian features, exactly at every n and p.

    `signal` is $\|\beta_T\|^2$ of the features used, `left_out` $\|\beta_{T^c}\|^2$ of the others, which act
    as noise in training and are missed in the end (Belkin, Hsu & Xu 2020, Theorem 1). With
    $\tau^2 = \sigma^2 + \|\beta_{T^c}\|^2$ the risk is
    $\tau^2 p/(n - p - 1)$ for $p \le n - 2$, and $\|\beta_T\|^2 (1 - n/p) + \tau^2 n/(p - n - 1)$ for
    $p \ge n + 2$, plus $\|\beta_{T^c}\|^2$ in both cases. Between them it is infinite, for $\tau^2 > 0$.

    Raises

    - `ValueError` for sizes below 1;
    - `ValueError` for negative variances.

    >>> weak_features_risk(n=40, p=20, signal=1.0, left_out=0.0, noise=0.25).total  # .25 · 20 / 19
    0.263...
    """
    n, p = check_size("n", n), check_size("p", p)
    check_variances(signal=signal, left_out=left_out, noise=noise)
    if p <= n - 2:
        gain, missed = p / (n - p - 1), 0.0
    else:
        gain, missed = n / (p - n - 1) if p >= n + 2 else np.inf, max(1 - n / p, 0.0)
    return Risk(
        signal * missed**2 + left_out,
        signal * missed * (1 - missed) + times(left_out, gain),
        0.0,
        times(noise, gain),
    )


def linear_risk(
    n: int,
    spectrum: Float[np.ndarray, " p"],
    signal: Float[np.ndarray, " p"],
    noise: float,
    ridge: float = 0.0,
) -> Risk:
    r"""Ridge regression on n points with p correlated features, for large n and p at any p/n.

    `spectrum` holds the eigenvalues $s_i$ of the features' covariance and `signal` the squares $\beta_i^2$ of
    the target's coefficients in its eigenvectors. With the effective ridge $\kappa$ that solves
    $n\kappa = \rho + \kappa \sum_i s_i/(s_i + \kappa)$ and $d_2 = \sum_i s_i^2/(s_i + \kappa)^2$ the risk is
    $[\kappa^2 \sum_i \beta_i^2 s_i/(s_i + \kappa)^2 + \sigma^2 d_2/n]/(1 - d_2/n)$ (Hastie et al. 2022). The
    first part of its numerator is the bias. Without ridge it is infinite at p = n, where there is noise.

    Raises

    - `ValueError` for spectra that do not match, are not positive or not finite;
    - `ValueError` for a negative noise or ridge.

    >>> risk = linear_risk(100, spectrum=np.ones(50), signal=np.full(50, 0.02), noise=0.25)
    >>> round(risk.total, 6)  # as ridgeless_risk(0.5, ...): the features are isotropic
    0.25
    """
    n = check_size("n", n)
    s, b = numbers("spectrum", spectrum, (None,)), numbers("signal", signal, (None,))
    if s.shape != b.shape or s.min() <= 0 or b.min() < 0:
        least = f"{s.min():.3g} and {b.min():.3g}"
        raise ValueError(
            f"spectrum {s.shape} and signal {b.shape} go down to {least}; expected one shape, > 0 and >= 0."
        )
    check_variances(noise=noise, ridge=ridge)
    return risk_at(n, s, b * s, noise, effective_ridge(n, s, ridge))


def risk_at(n: float, s: np.ndarray, power: np.ndarray, noise: float, kappa: float, counts=1.0) -> Risk:
    r"""The risk at an effective ridge $\kappa$, from eigenvalues that occur `counts` times, and the power of
    the target, $\beta^2 s$, in all eigenfunctions of each."""
    learned = shares(s, kappa)
    d2 = (counts * learned**2).sum() / n
    bias = (power * (1 - learned) ** 2).sum()
    gain = d2 / (1 - d2) if d2 < 1 else np.inf
    return Risk(float(bias), float(times(bias, gain)), 0.0, float(times(noise, gain)))


def shares(s: np.ndarray, kappa: float) -> np.ndarray:
    r"""How much of each eigenfunction is learned, $s_i/(s_i + \kappa)$; nothing where $s_i$ is 0."""
    return np.divide(s, s + kappa, out=np.zeros_like(s), where=s > 0)


def effective_ridge(n: float, s: np.ndarray, ridge: float, counts=1.0) -> float:
    r"""The root $\kappa$ of $n\kappa = \rho + \kappa \sum_i s_i/(s_i + \kappa)$, each $s_i$ `counts` times.

    It is 0 where n points determine everything.
    """
    from scipy.optimize import brentq  # a third of a second that nothing else needs

    tiny = np.finfo(float).tiny  # a ridge below it is none
    if ridge <= n * tiny and (counts * (s > 0)).sum() <= n:
        return 0.0
    excess = lambda kappa: n - ridge / kappa - (counts * shares(s, kappa)).sum()
    high = 2 * (ridge + (counts * s).sum()) / n
    low = max(ridge / (2 * n), tiny) if ridge else high
    while excess(low) > 0:
        low /= 16
    return float(np.exp(brentq(lambda log: excess(np.exp(log)), np.log(low), np.log(high), xtol=1e-14)))


def descent_risk(
    t: Float[np.ndarray, "..."], gamma: float, signal: float, noise: float, points: int = 4000
) -> Float[np.ndarray, "..."]:
    r"""The risk in time of gradient flow on $\frac{1}{2n}\|Xw - y\|^2$ from w = 0, for isotropic features.

    It is
    $\int \rho(\lambda) [r^2 e^{-2\lambda t} + \sigma^2\gamma (1 - e^{-\lambda t})^2/\lambda]\,d\lambda$, with
    $\rho$ the Marchenko-Pastur law of the eigenvalues of $X^\top X/n$ for $\gamma = p/n$, its atom
    $1 - 1/\gamma$ at zero included (Advani, Saxe & Sompolinsky 2020). Times `t` have any shape, and so have
    the totals that are returned. The integral is a midpoint rule with `points` nodes in the angle of the
    law's interval.

    Raises

    - `ValueError` for negative times;
    - `ValueError` for a `gamma` that is not positive, and for negative variances;
    - `ValueError` for `points` below 1.

    >>> descent_risk([0.0, 1.0, 1e9], gamma=0.5, signal=1.0, noise=0.25).round(3)  # ends at the ridgeless
    array([1.   , 0.308, 0.25 ])
    """
    points = check_size("points", points)
    t = numbers("t", t)
    if (t < 0).any():
        raise ValueError(f"t goes down to {t.min()}; expected times of at least 0.")
    check_positive("gamma", gamma)
    check_variances(signal=signal, noise=noise)
    angle = (np.arange(points) + 0.5) * np.pi / points
    rate = 1 + gamma + 2 * np.sqrt(gamma) * np.cos(angle)
    weight = 2 * np.sin(angle) ** 2 / rate / points
    shrink = np.exp(-t[..., None] * rate)
    bulk = (weight * (signal * shrink**2 + noise * gamma * (1 - shrink) ** 2 / rate)).sum(-1)
    return bulk + signal * max(1 - 1 / gamma, 0.0)


def optimal_ridge(risk: Callable[[float], Risk | float], bounds: tuple[float, float] = (1e-8, 1e8)) -> float:
    r"""The ridge $\rho \ge 0$ at which `risk(ridge)` is least.

    For isotropic `linear_risk` it is $p\sigma^2/r^2$, at every n: the ridge of Bayes' rule (Hastie et al.
    2022). `risk` gives a `Risk` or a number. Its least value on a grid, eight ridges a decade between
    `bounds`, is refined by Brent's method in $\log\rho$. Where no ridge is better than none, 0.0 is returned.

    Raises

    - `ValueError` for a `risk` that is no function or gives no number;
    - `ValueError` for `bounds` that are not positive and ascending;
    - `ValueError` where the least value lies at one of the bounds.

    >>> isotropic = lambda ridge: linear_risk(100, np.ones(50), np.full(50, 0.02), noise=0.25, ridge=ridge)
    >>> round(optimal_ridge(isotropic), 3)  # p σ²/r²
    12.5
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
    around = grid[[best - 1, best + 1]]
    return float(np.exp(minimize_scalar(total, bounds=around, method="bounded", options={"xatol": 1e-9}).x))


def times(variance: float, factor: float) -> float:
    """Nothing times infinity is nothing."""
    return variance * factor if variance else 0.0


def check_variances(**given) -> None:
    """Raise `ValueError` unless each is one variance."""
    for name, value in given.items():
        check_one_variance(name, value)
