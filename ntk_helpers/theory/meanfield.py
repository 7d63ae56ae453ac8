r"""Signal propagation in networks of infinite width: where their layers drift, and how fast.

Two inputs of equal norm are two numbers in every layer, the variance $q$ of the preactivations and their
correlation $c$; a layer maps both. The fixed points of these maps, and the slopes there, sort networks into
phases.
"""

import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ntk_helpers._lib.host import in_float64
from ntk_helpers._lib.inputs import check_one_variance, check_size, is_number
from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.mlp import MLP, check_kernel_limit, check_network
from ntk_helpers.networks.registry import get_activation

__all__ = [
    "FixedPoint",
    "Layers",
    "Phase",
    "critical_sigma_w2",
    "fixed_point",
    "phase",
    "propagate",
    "trainable_depth",
]

SMALL, LARGE, STEPS = 1e-10, 1e15, 1000
"""Variances below and above are 0 and infinity; roots are sought in so many steps of a factor."""
ROUNDING = 8 * np.finfo(float).eps
FLAT = 1e-9
"""Slopes as close to 1 as this are 1."""
CRITICAL = 1e-6
"""How far from 1 the slope of a critical network may be."""
DEEPEST = 10_000


class FixedPoint(NamedTuple):
    r"""Where infinitely deep layers drift, and how fast (Poole et al. 2016; Schoenholz et al. 2017, eqs. 3 to
    9)."""

    q: float
    r"""The variance $q^*$; 0 and infinity are possible."""
    c: float
    r"""The correlation $c^*$ of different inputs; NaN where every one is a fixed point, as in a linear
    network without bias."""
    chi_1: float
    r"""$\chi_1 = \sigma_w^2 E[\phi'(\sqrt{q^*} z)^2]$, the factor of squared gradients from layer to layer,
    and the slope of the correlation map at 1."""
    chi_c: float
    r"""$\chi_{c^*}$, the slope of the correlation map at $c^*$: $\sigma_w^2 E[\phi'(u)\phi'(v)]$ for finite
    $q^*$. NaN with $c^*$."""
    xi_q: float
    r"""The depth scale of the variance, $-1/\log|\chi_1 + \sigma_w^2 E[\phi''\phi]|$; infinite where it does
    not settle exponentially."""
    xi_c: float
    r"""The depth scale of the correlation, $-1/\log\chi_{c^*}$."""


class Phase(NamedTuple):
    """The phase of a network of infinite width."""

    name: str
    """`"ordered"` (gradients vanish), `"critical"`, `"chaotic"` (gradients explode)."""
    chi_1: float
    distance: float
    r"""$\sigma_w^2$ less `critical_sigma_w2`. Where the variance may tend to several places (GELU), the sign
    need not be that of $\chi_1 - 1$."""


class Layers(NamedTuple):
    r"""Two inputs of equal norm in the layers 1 to L (arrays over depth), for each alone and, `_ab`, for the
    pair."""

    q: Float[np.ndarray, " L"]
    """Variance of the preactivations of layer l."""
    gap: Float[np.ndarray, " L"]
    """1 - c of the preactivations of layer l."""
    q_hat: Float[np.ndarray, " L"]
    r"""$\hat q^{l-1}$, the mean square of what layer l takes in: of the input, then of activations."""
    q_hat_ab: Float[np.ndarray, " L"]
    p: Float[np.ndarray, " L"]
    r"""$p^l$, the squared norm of the gradient of the output of layer L in the preactivations of layer l."""
    p_ab: Float[np.ndarray, " L"]
    kappa_1: Float[np.ndarray, " L"]
    r"""$\kappa_1 = \sum_{k \le l} \hat q^{k-1} p^k$ of the network that ends with layer l (Karakida et al.
    2019)."""
    kappa_2: Float[np.ndarray, " L"]
    r"""The same sum of $\hat q_{ab}^{k-1} p_{ab}^k$."""
    theta: Float[np.ndarray, " L"]
    """The tangent kernel of the network that ends with layer l, of an input with itself."""
    theta_ab: Float[np.ndarray, " L"]
    """And with the other input."""

    def condition_number(self, points: int) -> Float[np.ndarray, " L"]:
        r"""$(\Theta_{aa} + (m-1)\,\Theta_{ab})/(\Theta_{aa} - \Theta_{ab})$, or its inverse where
        $\Theta_{ab} < 0$, of the kernel on m `points` with the same angle between any two (Xiao et al. 2020,
        sec. 3). NaN where it overflows."""
        m = _several(points)
        with np.errstate(all="ignore"):
            once, others = self.theta + (m - 1) * self.theta_ab, self.theta - self.theta_ab
            return np.maximum(once, others) / np.minimum(once, others)


def fixed_point(net: MLP, q0: float = 1.0) -> FixedPoint:
    r"""The fixed point to which the layers of an infinitely wide `net` tend, from inputs with $|x|^2/d$ =
    `q0`.

    A layer maps $q \mapsto \sigma_w^2 E[\phi(\sqrt q z)^2] + \sigma_b^2$ and
    $c \mapsto (\sigma_w^2 E[\phi(u)\phi(v)] + \sigma_b^2)/q^*$ (Poole et al. 2016, eqs. 3 and 5). Where
    $E[\phi^2]$ grows with q, the variance moves in one direction, to the first fixed point on its way. The
    correlation map has a power series with positive coefficients, so it is convex with at most one fixed
    point in [0, 1), to which layers tend if its slope at 1 is above 1. Where $q^*$ is 0 or infinite, $c^*$
    and the slopes are limits. Depth and width do not enter.

    Raises `ValueError` for a `q0` that is not a positive number and for variances beyond the reach of the
    activation's dual maps, `RuntimeError` where these are not finite.

    >>> star = fixed_point(MLP(2, 1, activation="tanh", sigma_w2=2.5, sigma_b2=0.05))
    >>> round(star.q, 4), round(star.c, 4), round(star.chi_1, 4)
    (1.064, 0.4468, 1.1335)
    """
    check_network(net)
    w2, b2, start = float(net.sigma_w2), float(net.sigma_b2), _positive(q0)
    maps = partial(_value, net.phi)
    q = _settle(lambda q: w2 * maps("square", q) + b2, w2 * start + b2)
    at = min(max(q, SMALL), LARGE)
    after = w2 * maps("square", at) + b2 or 1.0  # q* again, unless that is 0 or infinite
    chi_1 = w2 * maps("slope", 0.0 if q == 0 else at)
    slope = chi_1 if 0 < q < np.inf else 1.0  # at both ends activations become homogeneous
    gap = _settle_gap(lambda gap: w2 * maps("drop", at, gap) / after, slope)
    chi_c = slope if gap == 0 else np.nan if np.isnan(gap) else w2 * maps("slope", at, gap)
    return FixedPoint(q, 1 - gap, chi_1, chi_c, _scale(abs(w2 * maps("growth", at))), _scale(chi_c))


def phase(net: MLP, q0: float = 1.0) -> Phase:
    r"""The phase of an infinitely wide `net`: gradients vanish, keep their size or explode with depth.

    It is `"ordered"`, `"critical"` or `"chaotic"` by $\chi_1 < 1$, $= 1$ (within 1e-6) or $> 1$ at the
    `fixed_point` (Schoenholz et al. 2017, sec. 3). Raises as `fixed_point` and `critical_sigma_w2`.

    >>> net = MLP(2, 1, activation="tanh", sigma_w2=2.5, sigma_b2=0.05)
    >>> phase(net).name, round(phase(net).distance, 4)
    ('chaotic', 0.739)
    """
    chi_1 = fixed_point(net, q0).chi_1
    distance = float(net.sigma_w2) - critical_sigma_w2(net.phi, net.sigma_b2)
    if abs(chi_1 - 1) < CRITICAL:
        return Phase("critical", chi_1, distance)
    return Phase("ordered" if chi_1 < 1 else "chaotic", chi_1, distance)


def critical_sigma_w2(activation: str | Activation, sigma_b2: float) -> float:
    r"""The $\sigma_w^2$ at which $\chi_1 = 1$ for this $\sigma_b^2$, on the edge of chaos (Poole et al. 2016,
    sec. 3; Hayou et al. 2019).

    It is $1/E[\phi'(\sqrt q z)^2]$ at the smallest $q$ with
    $q - E[\phi(\sqrt q z)^2]/E[\phi'(\sqrt q z)^2] = \sigma_b^2$: that $q$ is then fixed. It may repel, as
    for GELU without biases, where it is 0: larger inputs then explode at a smaller $\sigma_w^2$ already.

    Raises `ValueError` for an unknown name, a `sigma_b2` that is not a variance, or beyond the reach of the
    activation's dual maps, and where no such $q$ is found.

    >>> round(critical_sigma_w2("tanh", 0.05), 4)
    1.761
    """
    phi = get_activation(activation)
    if not is_number(sigma_b2):
        raise ValueError(f"sigma_b2 is {sigma_b2!r}; expected one number.")
    check_one_variance("sigma_b2", sigma_b2)
    q = _critical_q(phi, float(sigma_b2))
    slope = _value(phi, "slope", q) if q < np.inf else 0.0
    if slope == 0:
        raise ValueError(
            f"no critical sigma_w2 of activation {phi.name!r} is found for sigma_b2 = {sigma_b2}; "
            "expected another sigma_b2."
        )
    return 1 / slope


def _critical_q(phi: Activation, sigma_b2: float) -> float:
    """The smallest variance that is fixed where the slope is 1; infinite where none is found."""
    if phi.homogeneous:
        return 1.0  # all are
    if sigma_b2 == 0:
        return 0.0
    excess = lambda q: (q - sigma_b2) * _value(phi, "slope", q) - _value(phi, "square", q)
    grid = np.geomspace(sigma_b2, 1e20 * max(sigma_b2, 1), STEPS)
    with np.errstate(invalid="ignore"):
        above = excess(grid) > 0
    return _root(excess, *grid[above.argmax() - 1 :][:2]) if above.any() else np.inf


def propagate(net: MLP, q0: float = 1.0, c0: float = 0.0, d_in: int | None = None) -> Layers:
    r"""Two inputs with $|x|^2/d$ = `q0` and correlation `c0` in all layers of an infinitely wide `net`.

    Backward $p^l = \chi^l p^{l+1}$ with $\chi^l = \sigma_w^2 E[\phi'(z^l)^2]$, $p^L = 1$. Forward
    $\kappa^{l+1} = \hat q^l + \chi^l \kappa^l$, so one pass serves networks of all depths up to L. The kernel
    is that of `ntk`, in the parameterization of `net` and with its `alpha`, which nothing else feels; the
    standard one needs the size `d_in` of an input. In float64. Raises `ValueError` for a `q0` that is not a
    positive number, a `c0` outside [-1, 1], a missing `d_in`, variances beyond the reach of the activation's
    dual maps, and μP, which has no kernel at infinite width.

    >>> layers = propagate(MLP(30, 1, activation="erf", sigma_w2=3.0, sigma_b2=0.1), c0=0.5)
    >>> layers.gap[[0, 10, 29]].round(4)
    array([0.4839, 0.6404, 0.6735])
    """
    check_kernel_limit(net)
    start = _positive(q0)
    if not is_number(c0) or not -1 <= c0 <= 1:
        raise ValueError(f"c0 is {c0!r}; expected a correlation, from -1 to 1.")
    weights, bias = np.full(net.depth, float(net.sigma_w2)), float(net.sigma_b2)
    if net.parameterization == "standard":
        if d_in is None:
            raise ValueError(
                "d_in is missing; expected the size of an input, on which the kernel in standard "
                "parameterization depends."
            )
        weights, bias = np.array(net.fan_in(check_size("d_in", d_in)), float), 1.0
    with in_float64():
        arguments = jax.tree.map(
            jnp.float64, (float(net.sigma_w2), float(net.sigma_b2), start, 1.0 - c0, bias)
        )
        found = Layers(*map(np.asarray, _propagate(net.phi, *arguments, jnp.asarray(weights))))
    if np.isnan(found.theta).any():
        net.phi.check_reach(np.nanmax(found.q))
    square = net.alpha**2
    return found._replace(theta=square * found.theta, theta_ab=square * found.theta_ab)


@partial(jax.jit, static_argnums=0)
def _propagate(phi: Activation, w2, b2, q0, gap0, bias, weights) -> tuple:
    def layer(state, weight):
        q_hat, lost, slopes, kappa, theta = (
            state  # the last three, and `pair`, of an input with itself and with the other
        )
        pair = q_hat - lost
        kappa = pair + slopes * kappa
        theta = weight * pair + bias + slopes * theta
        q = w2 * q_hat + b2
        gap = w2 * lost / jnp.where(q > 0, q, 1.0)
        slopes = w2 * phi.slope(q, q, gap, 2 - gap)
        return (phi.aligned(q, q), phi.drop(q, q, gap, 2 - gap), slopes, kappa, theta), (
            q,
            gap[1],
            pair,
            slopes,
            kappa,
            theta,
        )

    none = jnp.zeros(2)
    start = (q0, q0 * jnp.stack([0.0 * gap0, gap0]), none, none, none)
    _, (q, gap, pair, slopes, kappa, theta) = jax.lax.scan(layer, start, weights)
    p = jnp.cumprod(jnp.concatenate([slopes[:-1], jnp.ones((1, 2))])[::-1], 0)[::-1]
    return q, gap, *pair.T, *p.T, *kappa.T, *theta.T


def trainable_depth(net: MLP, points: int, steps: int, q0: float = 1.0, c0: float = 0.0) -> float:
    r"""The largest depth at which descent can fit `points` inputs in so many `steps`, as far as the infinite
    kernel knows.

    At the learning rate $1/\lambda_{\max}$ the slowest mode takes as many steps as the condition number says
    (Xiao et al. 2020, sec. 3), here of points with correlation `c0` between any two, in NTK parameterization.
    Infinite where that is so up to depth 10,000. Raises as `propagate`, and `ValueError` for less than two
    points or one step, or a `c0` that no such points have.

    >>> trainable_depth(MLP(2, 1, activation="tanh", sigma_w2=3.0, sigma_b2=0.05), 10, steps=1000)  # chaos
    inf
    """
    check_network(net)
    points, steps = _several(points), check_size("steps", steps)
    if is_number(c0) and c0 < -1 / (points - 1):
        raise ValueError(
            f"c0 is {c0}; expected at least {-1 / (points - 1):.4g}, as {points} points cannot all have less "
            "with one another."
        )
    deep = replace(net, depth=DEEPEST, width=1, parameterization="ntk")
    too_deep = (
        propagate(deep, q0, c0).condition_number(points) > steps
    )  # false where the kernel has overflown, in chaos
    return float(too_deep.argmax()) if too_deep.any() else np.inf


# --- roots of the maps


def _several(points) -> int:
    count = check_size("points", points)
    if count < 2:
        raise ValueError(f"points is {points}; expected at least 2.")
    return count


def _positive(q0) -> float:
    if not is_number(q0) or not 0 < q0 < np.inf:
        raise ValueError(
            f"q0 is {q0!r}; expected the squared norm of an input over its dimension, a positive number."
        )
    return float(q0)


def _value(phi: Activation, which: str, q, gap: float = 0.0):
    phi.check_reach(np.min(q))
    with in_float64():
        found = np.asarray(_map(phi, which, jnp.asarray(q, float), jnp.float64(gap)))
    if np.isnan(found).all():
        raise RuntimeError(
            f"activation {phi.name!r} has no finite moments at a variance of {np.min(q):.3g}; "
            "no fixed point is found."
        )
    return found if found.ndim else float(found)


@partial(jax.jit, static_argnums=(0, 1))
def _map(phi: Activation, which: str, q, gap):
    r"""Of variance q: $E[\phi^2]$, its derivative in q; of a pair: what it loses at 1 - c = gap,
    $E[\phi'\phi']$."""
    square = lambda q: phi.aligned(q, q)
    return {
        "square": lambda: square(q),
        "growth": lambda: jax.grad(square)(q),
        "drop": lambda: phi.drop(q, q, gap, 2 - gap),
        "slope": lambda: phi.slope(q, q, gap, 2 - gap),
    }[which]()


def _root(f, low: float, high: float) -> float:
    from scipy.optimize import brentq  # nothing else here needs it, and it takes a while

    return brentq(f, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=1000)


def _settle(f, q: float) -> float:
    """The first fixed point of an increasing map in the direction in which it moves q."""
    moved = f(q) - q
    if abs(moved) <= ROUNDING * q:
        return q
    end, limit = (LARGE, np.inf) if moved > 0 else (SMALL, 0.0)
    if (end - q) * moved <= 0:
        return limit
    grid = np.geomspace(q, end, STEPS)
    turned = (f(grid) - grid) * np.sign(moved) < -ROUNDING * grid
    return _root(lambda q: f(q) - q, *sorted((q, grid[turned.argmax()]))) if turned.any() else limit


def _settle_gap(f, slope: float) -> float:
    """1 - c at the fixed point that attracts, given the map of the gap and its slope at 0; NaN where all are
    fixed."""
    linear = f(1.0) > 1 - FLAT  # c = 0 is fixed too
    if slope <= 1 + FLAT:
        return np.nan if linear and slope > 1 - FLAT else 0.0
    return 1.0 if linear else _root(lambda gap: f(gap) - gap, SMALL**2, 1.0)


def _scale(rate: float) -> float:
    return -1 / math.log(rate) if 0 < rate < 1 - FLAT else 0.0 if rate <= 0 else np.inf
