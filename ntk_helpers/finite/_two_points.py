r"""$E[\phi_a\phi_b]$ and $E[\phi'_a\phi'_b]$ as functions of the covariance, with their derivatives.

A derivative of a Gaussian expectation in the covariance is one of the density, not of what is averaged, so
kinks are fine (Price 1958). Here the plane is cut at the rays where an activation's argument is 0. The cuts
move with the correlation: differentiating the sum over nodes counts what passes through them.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.angles import angle, safe_sqrt
from ntk_helpers.finite._four_points import coincide, gauss, radial

__all__ = ["Map", "two_points"]

ANGLES, RADII = 64, 64  # nodes of a piece of the circle, and of the radius


class Map(NamedTuple):
    r"""A function $m_{ab}$ of $K_{aa}$, $K_{bb}$ and $K_{ab}$, (n, n): its values and derivatives.

    On the diagonal, where the three are one, `own` has half of the derivative in it and `own_own` the second
    one; the others that would count it again are 0.
    """

    value: Float[Array, "n n"]
    own: Float[Array, "n n"]  # in K_aa
    cross: Float[Array, "n n"]  # in K_ab
    own_own: Float[Array, "n n"]
    own_other: Float[Array, "n n"]  # in K_aa and K_bb
    own_cross: Float[Array, "n n"]
    cross_cross: Float[Array, "n n"]

    def change(self, x: Float[Array, "... n n"]) -> Float[Array, "... n n"]:
        """The first-order change of all entries for changes `x` of K."""
        own = jnp.diagonal(x, axis1=-2, axis2=-1)
        return self.own * own[..., :, None] + self.own.T * own[..., None, :] + self.cross * x

    def curvature(self, v: Float[Array, "n n n n"]) -> Float[Array, "n n"]:
        """Half the second derivatives, summed against the covariances `v` of the entries of K."""
        own, both = jnp.einsum("aaaa->a", v), jnp.einsum("abab->ab", v)
        mixed, with_own = jnp.einsum("aabb->ab", v), jnp.einsum("aaab->ab", v)
        one = self.own_own * own[:, None] / 2 + self.own_cross * with_own
        return one + one.T + self.cross_cross * both / 2 + self.own_other * mixed


def two_points(fn: Callable[[Array], Array], k: Float[Array, "n n"]) -> tuple[Map, Map]:
    r"""$E[\phi_a\phi_b]$ and $E[\phi'_a\phi'_b]$ at the covariance `k`."""
    n = len(k)
    i, j = np.triu_indices(n)
    of_pair = jax.checkpoint(lambda at: _derivatives(partial(_means, fn), at))
    q12 = k[i, i], k[j, j]
    value, first, second = jax.lax.map(of_pair, (*q12, k[i, j]))

    def matrix(upper, lower, diagonal):
        whole = jnp.zeros((n, n), k.dtype).at[j, i].set(lower).at[i, j].set(upper)
        return jnp.where(jnp.eye(n, dtype=bool), diagonal[i == j], whole)

    zero, maps = jnp.zeros_like(value[:, 0]), []
    for at, cross in enumerate((value[:, 1], zero)):
        one, two = first[:, :, at], second[:, :, :, at]
        own1, own2, moved = one[:, 0], one[:, 1], one[:, 2]
        if at == 0:  # Price: E φφ changes with K_ab as E φ'φ' says, also where c was held
            own1, own2 = (own - _over((cross - moved) * k[i, j], 2 * q) for own, q in zip((own1, own2), q12))
            moved = cross
        slots = [
            (value[:, at], value[:, at], value[:, at]),
            (own1, own2, (one.sum(1) - cross) / 2),
            (moved, moved, cross),
            (two[:, 0, 0], two[:, 1, 1], zero),
            (two[:, 0, 1], two[:, 0, 1], zero),
            (two[:, 0, 2], two[:, 1, 2], zero),
            (two[:, 2, 2], two[:, 2, 2], two.sum((1, 2))),
        ]
        maps.append(Map(*(matrix(*slot) for slot in slots)))
    return tuple(maps)


def _derivatives(f: Callable, at: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """The value (...), first derivatives (i, ...) and second ones (i, j, ...) in three numbers."""
    along = lambda f: (
        lambda *at: jax.vmap(lambda d: jax.jvp(f, at, tuple(d))[1])(jnp.eye(3, dtype=at[0].dtype))
    )
    return f(*at), along(f)(*at), along(along(f))(*at)


def _over(x: Array, q: Array) -> Array:
    """x / q, and 0 where q is."""
    return jnp.where(q > 0, x / jnp.where(q > 0, q, 1.0), 0.0)


def _means(fn: Callable, q1: Array, q2: Array, k: Array) -> Array:
    """Both means, (2,). At |c| = 1 a point is a multiple of the other in every network, so that c stays."""
    root1, root2 = safe_sqrt(q1), safe_sqrt(q2)
    norm = root1 * root2
    c = _over(k, norm)
    gap, plus = (jnp.where(each < coincide(k), 0.0, each) for each in (1 - c, 1 + c))
    gap, plus = jnp.where(plus == 0, 2.0, gap), jnp.where(gap == 0, 2.0, plus)
    turn = angle(gap, plus)
    t, share = (jnp.asarray(a, k.dtype) for a in gauss(ANGLES))
    start, length = jnp.stack([jnp.zeros_like(turn), turn]), jnp.stack([turn, jnp.pi - turn])
    theta = start[:, None] + length[:, None] * t - jnp.pi / 2
    radius, mass = (jnp.asarray(a, k.dtype) for a in radial(RADII))
    radius = jnp.stack([radius, -radius])[:, :, None, None]
    u, v = root1 * radius * jnp.cos(theta), root2 * radius * jnp.cos(theta - turn)
    slope = lambda z: jax.jvp(fn, (z,), (jnp.ones_like(z),))[1]
    weight = mass[:, None, None] * (length[:, None] * share / (2 * jnp.pi))
    return jnp.stack([(weight * fn(u) * fn(v)).sum(), (weight * slope(u) * slope(v)).sum()])
