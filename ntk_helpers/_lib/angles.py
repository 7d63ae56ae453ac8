r"""Roots and angles that keep their digits where a correlation is close to 1 or -1, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["angle", "arc", "bend", "safe_sqrt"]


def safe_sqrt(x: Array) -> Array:
    r"""$\sqrt{\max(x, 0)}$ with derivative 0, not infinity, where $x \le 0$."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def _arc_coefficients(degree: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Polynomials in $2w - 1$, $w = 1 - \cos\theta \in [0, 1]$, for $\theta/\sqrt w$ and
    $(\sin\theta - \theta\cos\theta)/w^{3/2}$.

    Interpolated at Chebyshev points from the Taylor series in $w$, whose terms are positive; that of
    the second is the integral of the first, since $d(\sin\theta - \theta\cos\theta) = \theta\,dw$.
    """
    k = np.arange(60)
    taylor = np.sqrt(2) * np.cumprod([1.0, *((2 * k[1:] - 1) / (4 * k[1:]))]) / (2 * k + 1)
    series = (np.polynomial.Polynomial(t, domain=[0, 1], window=[0, 1]) for t in (taylor, taylor / (k + 1.5)))
    fits = (np.polynomial.Chebyshev.interpolate(f, degree, domain=[0, 1]) for f in series)
    return tuple(np.polynomial.chebyshev.cheb2poly(fit.coef)[::-1] for fit in fits)


_ARC = {np.dtype(dtype): _arc_coefficients(degree) for dtype, degree in (("float32", 9), ("float64", 19))}


def _arc_series(w: Array, which: int) -> Array:
    coefficients = _ARC[np.promote_types(w.dtype, np.float32)][which]
    return jnp.polyval(jnp.asarray(coefficients, w.dtype), 2 * w - 1, unroll=len(coefficients))


@jax.custom_jvp
def arc(sine: Array, cosine: Array) -> Array:
    r"""The angle with that sine and cosine, in $[-\pi/2, \pi]$; for a negative sine the cosine must not be
    negative.

    The library's `arctan2` calls a scalar routine for every element on CPUs, which takes ten times as long.
    """
    root = sine / jnp.sqrt(1 + jnp.abs(cosine))
    acute = root * _arc_series(root**2, 0)
    return jnp.where(cosine < 0, jnp.pi - acute, acute)


@arc.defjvp
def _arc_jvp(primals, tangents):
    (sine, cosine), (dsine, dcosine) = primals, tangents
    return arc(sine, cosine), cosine * dsine - sine * dcosine


@jax.custom_jvp
def angle(gap: Array, plus: Array) -> Array:
    r"""$\theta = \arccos c$ from $1 - c$ and $1 + c$, with all its digits near 0 and near $\pi$.

    Derivatives are taken along gap + plus = 2. At both ends they are infinite, and taken as 0.
    """
    w = jnp.minimum(gap, plus)
    acute = safe_sqrt(w) * _arc_series(w, 0)
    return jnp.where(gap > plus, jnp.pi - acute, acute)


@angle.defjvp
def _angle_jvp(primals, tangents):
    (gap, plus), (dgap, dplus) = primals, tangents
    sine2 = gap * plus
    # Of the smaller one, whose rounding is not divided by a sine near 0.
    dgap = jnp.where(gap > plus, -dplus, dgap)
    return angle(gap, plus), jnp.where(sine2 > 0, dgap / jnp.sqrt(jnp.where(sine2 > 0, sine2, 1.0)), 0.0)


@jax.custom_jvp
def bend(gap, plus):
    r"""$\sin\theta - \theta\cos\theta$, with all its digits near 0."""
    w = jnp.minimum(gap, plus)
    acute = w * safe_sqrt(w) * _arc_series(w, 1)
    return jnp.where(gap > plus, acute + jnp.pi * (1 - w), acute)


@bend.defjvp
def _bend_jvp(primals, tangents):
    gap, plus = primals
    return bend(gap, plus), angle(gap, plus) * tangents[0]
