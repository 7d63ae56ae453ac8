r"""Dual maps that are formulas, one section for an activation or family.

A new one needs `aligned`, `drop` and `slope`, and what unequal variances cost: `_mismatch` finds it from
half the mean square of φ(u) - φ(v) at c = 1. The tests hold every `Activation` in `CLOSED_FORMS` to the
definitions.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ntk_helpers._lib.angles import angle, arc, bend, safe_sqrt
from ntk_helpers.networks.activation import Activation

__all__ = ["CLOSED_FORMS"]


def _mismatch(aligned, spread, q1, q2) -> Array:
    r"""From the `spread` $E[(\phi(u) - \phi(v))^2]/2$ at $c = 1$ where the variances are within a factor of
    two, by its definition elsewhere."""
    e1, e2 = aligned(q1, q1), aligned(q2, q2)
    size = safe_sqrt(e1) * safe_sqrt(e2)
    near = spread(q1, q2) - (safe_sqrt(e1) - safe_sqrt(e2)) ** 2 / 2
    lost = jnp.where(jnp.abs(q1 - q2) < (q1 + q2) / 3, near, size - aligned(q1, q2))
    return lost / jnp.where(size > 0, size, 1.0)


# --- ReLU, leaky ReLU and the identity: Cho & Saul 2009, J_0 and J_1


def _relu_family(name: str, slope: float, fn) -> Activation:
    r"""$\phi(z) = z$ for $z > 0$, $a z$ below: a mixture $a\,z + (1-a)\,\mathrm{relu}(z)$."""
    curved, share = (1 - slope) ** 2, (1 + slope**2) / 2

    def aligned(q1, q2):
        return share * safe_sqrt(q1 * q2)

    def drop(q1, q2, gap, plus):
        norm = safe_sqrt(q1 * q2)
        linear = (slope + curved / 2) * gap
        return norm * (linear if slope == 1 else linear - curved * bend(gap, plus) / (2 * jnp.pi))

    def mismatch(q1, q2):
        return jnp.zeros(jnp.broadcast_shapes(jnp.shape(q1), jnp.shape(q2)), jnp.result_type(q1, q2, float))

    def derivative(q1, q2, gap, plus):
        bend = jnp.zeros_like(gap) if slope == 1 else curved * (jnp.pi - angle(gap, plus)) / (2 * jnp.pi)
        return jnp.broadcast_to(slope + bend, jnp.broadcast_shapes(gap.shape, jnp.shape(q1), jnp.shape(q2)))

    return Activation(name, fn, aligned, drop, mismatch, derivative, homogeneous=True)


# --- erf: Williams 1997, eq. 11; GELU: from the orthant probability by Gaussian integration by parts


def _arcsin_drop(s, cos1, gap, plus):
    r"""$\arcsin s - \arcsin(s c)$ for $0 \le s \le 1$, accurate as $c \to 1$, given $\sqrt{1 - s^2}$ too."""
    c = 1 - gap
    cosc = jnp.sqrt(cos1**2 + s**2 * gap * plus)
    cancelled = s * gap * plus / jnp.where(c > 0, cosc + c * cos1, 1.0)
    sine = jnp.where(c > 0, cancelled, s * cosc - s * c * cos1)
    return arc(sine, cos1 * cosc + s**2 * c)


def _sine_cosine(q1, q2):
    r"""$s = 2\sqrt{q_1 q_2 / ((1 + 2 q_1)(1 + 2 q_2))}$ and $\sqrt{1 - s^2}$, which has its digits where $s$
    is close to 1."""
    norm = jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2))
    return 2 * safe_sqrt(q1 * q2) / norm, jnp.sqrt(1 + 2 * (q1 + q2)) / norm


def _erf_aligned(q1, q2):
    return 2 / jnp.pi * arc(*_sine_cosine(q1, q2))


def _erf_drop(q1, q2, gap, plus):
    return 2 / jnp.pi * _arcsin_drop(*_sine_cosine(q1, q2), gap, plus)


def _erf_spread(q1, q2):
    def change(q1, q2):
        """arcsin s(q1, q1) - arcsin s(q1, q2), whose sine holds the factor q1 - q2."""
        (sine, cosine), (other_sine, other_cosine) = _sine_cosine(q1, q1), _sine_cosine(q1, q2)
        root1, root2, norm = safe_sqrt(q1), safe_sqrt(q2), jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2))
        total = root1 * jnp.sqrt(1 + 2 * (q1 + q2)) + root2 * jnp.sqrt(1 + 4 * q1)
        ratio = 2 * root1 * (q1 - q2) / (norm * jnp.where(total > 0, total, 1.0))
        return arc(ratio, cosine * other_cosine + sine * other_sine)

    return (change(q1, q2) + change(q2, q1)) / jnp.pi


def _erf_slope(q1, q2, gap, plus):
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * (q1 + q2) + 4 * q1 * q2 * gap * plus)


def _gelu_aligned(q1, q2):
    theta = arc(*_sine_cosine(q1 / 2, q2 / 2))
    flat = q1 * q2 * (1 / (1 + q1) + 1 / (1 + q2))
    return safe_sqrt(q1 * q2) * (0.25 + theta / (2 * jnp.pi)) + flat / (2 * jnp.pi * jnp.sqrt(1 + q1 + q2))


def _gelu_drop(q1, q2, gap, plus):
    norm, c = safe_sqrt(q1 * q2), 1 - gap
    sine, cosine = _sine_cosine(q1 / 2, q2 / 2)
    shrink = 1 / (1 + q1) + 1 / (1 + q2)
    root1 = jnp.sqrt(1 + q1 + q2)
    rootc = jnp.sqrt(1 + q1 + q2 + q1 * q2 * gap * plus)
    arcs = gap * arc(sine, cosine) + c * _arcsin_drop(sine, cosine, gap, plus)
    ratio = q1 * q2 * gap * plus / rootc * (shrink - 1 + q1 * q2 * shrink / (root1 * (root1 + rootc)))
    return norm * (gap / 4 + arcs / (2 * jnp.pi)) + ratio / (2 * jnp.pi)


def _gelu_spread(q1, q2):
    # Of second order in q1 - q2: where that is below rounding, the difference would only be noise.
    equal = jnp.abs(q1 - q2) < jnp.finfo(jnp.result_type(q1, q2, float)).eps ** 0.5 / 8 * (q1 + q2)
    return jnp.where(equal, 0.0, (_gelu_aligned(q1, q1) + _gelu_aligned(q2, q2)) / 2 - _gelu_aligned(q1, q2))


def _gelu_slope(q1, q2, gap, plus):
    k = safe_sqrt(q1 * q2) * (1 - gap)
    root = jnp.sqrt(1 + q1 + q2 + q1 * q2 * gap * plus)
    inner = 1 / (1 + q1) + 1 / (1 + q2) + 1 / root**2
    norm = jnp.sqrt(1 + q1) * jnp.sqrt(1 + q2)
    return 0.25 + (arc(k / norm, root / norm) + k * inner / root) / (2 * jnp.pi)


# --- sin: the characteristic function of a Gaussian


def _sin_aligned(q1, q2):
    norm, mean = safe_sqrt(q1 * q2), (q1 + q2) / 2
    return -jnp.exp(norm - mean) * jnp.expm1(-2 * norm) / 2


def _sin_drop(q1, q2, gap, plus):
    norm, mean = safe_sqrt(q1 * q2), (q1 + q2) / 2
    return -jnp.expm1(-norm * gap) * (jnp.exp(norm - mean) + jnp.exp(-norm * (1 - gap) - mean)) / 2


def _sin_spread(q1, q2):
    shift = (safe_sqrt(q1) - safe_sqrt(q2)) ** 2 / 2
    return (jnp.exp(-q1 - q2) * (jnp.expm1(shift) - 2 * jnp.sinh((q1 - q2) / 2) ** 2) - jnp.expm1(-shift)) / 2


def _sin_slope(q1, q2, gap, plus):
    k, mean = safe_sqrt(q1 * q2) * (1 - gap), (q1 + q2) / 2
    return (jnp.exp(k - mean) + jnp.exp(-k - mean)) / 2


def _smooth(name: str, fn, aligned, drop, spread, slope) -> Activation:
    return Activation(name, fn, aligned, drop, partial(_mismatch, aligned, spread), slope)


CLOSED_FORMS = (
    _relu_family("relu", 0.0, jax.nn.relu),
    _relu_family("leaky_relu", 0.01, jax.nn.leaky_relu),
    _relu_family("linear", 1.0, lambda z: z),
    _smooth("erf", jax.scipy.special.erf, _erf_aligned, _erf_drop, _erf_spread, _erf_slope),
    _smooth(
        "gelu", partial(jax.nn.gelu, approximate=False), _gelu_aligned, _gelu_drop, _gelu_spread, _gelu_slope
    ),
    _smooth("sin", jnp.sin, _sin_aligned, _sin_drop, _sin_spread, _sin_slope),
)
