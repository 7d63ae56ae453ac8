r"""The risk of random-feature regression, whose weights in the first layer are drawn and stay."""

from functools import lru_cache

import jax
import numpy as np

from ntk_helpers._lib.inputs import check_size
from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.registry import get_activation
from ntk_helpers.theory.risk import Risk, check_variances, effective_ridge, linear_risk, times

__all__ = ["hermite_parts", "random_features_risk"]


def hermite_parts(activation: str | Activation) -> tuple[float, float, float]:
    r"""The constant, linear and remaining parts of an activation's $E\,\phi(g)^2$, for standard normal g.

    They are $\mu_0^2$, $\mu_1^2$ and $\mu_*^2$ with $\mu_0 = E\,\phi(g)$, $\mu_1 = E\,g\phi(g)$ (Mei &
    Montanari 2022). Raises `ValueError` for an unknown activation.

    >>> [round(part, 4) for part in hermite_parts("relu")]  # 1/(2π), 1/4 and the rest of 1/2
    [0.1592, 0.25, 0.0908]
    """
    return _hermite_parts(get_activation(activation), jax.config.jax_enable_x64)


@lru_cache(maxsize=64)
def _hermite_parts(phi: Activation, double: bool) -> tuple[float, float, float]:
    """Kept for each precision: a search over ridges asks hundreds of times, and quadrature is slow."""
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
    r"""Ridge regression on `random_features`, as n, `count` and `dim` grow in proportion.

    The n points are uniform on the sphere of radius $\sqrt d$. The target is linear, of variance `signal`
    $F_1^2$, plus a part of variance `nonlinear` $F_*^2$ that no linear function of the features captures. The
    total is that of Mei & Montanari (2022), Theorem 2: with $\psi_1$ = count/d, $\psi_2 = n/d$,
    $\zeta = \mu_1/\mu_*$ and $t > 0$ the root of $\rho\,t/(d\mu_*^2) = (\psi_1 - ct)(\psi_2 - ct)$,
    $c = 1 + \zeta^2/(1 + \zeta^2 t)$, their $\chi = -t$. Averaging over the features leaves kernel regression
    with an effective ridge (Jacot et al. 2020), whose `linear_risk` gives the first two parts (d'Ascoli et
    al. 2020). At count = n without ridge it is infinite.

    Raises

    - `ValueError` for sizes below 1, and for negative variances;
    - `ValueError` for an activation that is linear or even.

    >>> near, far = (random_features_risk(300, count, 100, signal=1.0, noise=0.5) for count in (310, 900))
    >>> near.total > 10 * far.total  # double descent: a peak where there are as many features as points
    True
    """
    n, count, dim = check_size("n", n), check_size("count", count), check_size("dim", dim)
    check_variances(signal=signal, noise=noise, ridge=ridge, nonlinear=nonlinear)
    _, mu1, rest = hermite_parts(activation)
    if min(mu1, rest) < 1e-12:
        parts = f"a linear part {mu1:.2g} and a nonlinear part {rest:.2g}"
        name = get_activation(activation).name
        raise ValueError(f"activation {name!r} has {parts} of its variance; expected both to be positive.")
    zeta2 = mu1 / rest
    misfit, gain = _mei_montanari(count / dim, n / dim, zeta2, ridge / (dim * rest))
    mean = _averaged(n, count, dim, zeta2, ridge / rest, signal)
    averaged = mean.noise  # of unit noise
    return Risk(
        mean.bias + nonlinear,
        mean.sampling + times(nonlinear, averaged),
        times(signal, misfit) - mean.bias - mean.sampling + times(nonlinear, gain - averaged),
        times(noise, gain),
    )


def _mei_montanari(psi1: float, psi2: float, zeta2: float, eta2: float) -> tuple[float, float]:
    r"""$E_1/E_0$ and $E_2/E_0$ of Mei & Montanari (2022), powers of $u - 1 = \zeta^2\chi - 1$ collected."""
    from scipy.optimize import brentq

    if eta2 == 0 and psi1 == psi2:
        return np.inf, np.inf
    psi = min(psi1, psi2)
    top = 2 * psi / (np.hypot(b := 1 + zeta2 - zeta2 * psi, 2 * np.sqrt(zeta2 * psi)) + b)  # ct = min(psi)
    held = lambda t: t + zeta2 * t / (1 + zeta2 * t)
    excess = lambda t: eta2 * t - (psi1 - held(t)) * (psi2 - held(t))
    t = top if eta2 == 0 else brentq(excess, 0.0, top, xtol=1e-300, rtol=1e-14)
    x, u = -t, -zeta2 * t
    mixed = x**2 * (u - 1) ** 3 + 2 * x * u * (u - 1)
    e0 = psi1 * psi2 * (u - 1) ** 3 - mixed + (1 - psi1 - psi2) * u**3 + (1 + psi1 + psi2) * u**2
    e1 = psi2 * (u - 1) * (x * u + psi1)
    e2 = mixed + (psi1 - 1) * u**3 - (psi1 + 1) * u**2
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
        kappa = effective_ridge(n, unit, linear)
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
