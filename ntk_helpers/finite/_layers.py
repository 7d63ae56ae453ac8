r"""The recursion over layers of what is of order 1/width, for all pairs and quadruples of points.

Indices are points; units i, j, k are different, and n is a width. To leading order, given that the sum over
units of the layer below has this form by the symmetry of its weights,

- $\mathrm{Cov}(\hat K_{ab}, \hat K_{cd}) = V_{ab,cd}/n$, of a unit's covariance given the layer below;
- $\mathrm{Cov}(\hat\Theta_{ii,ab}, \hat K_{cd}) = D_{ab,cd}/n$ and
  $E[\hat\Theta_{ij,ab}\,z_{i,c}\,z_{j,d}] = F_{ab,cd}/n$;
- $\mathrm{Cov}(\hat\Theta_{ii,ab}, \hat\Theta_{jj,cd}) = A_{ab,cd}/n$ and
  $E[\hat\Theta_{ij,ab}\hat\Theta_{ij,cd}] = B_{ab,cd}/n$;
- with $H_{ijk,abc} = \nabla z_{j,b}^\top (\nabla^2 z_{i,a}) \nabla z_{k,c}$,
  $E[H_{ijj,abc}\,z_{i,d}] = P_{abcd}/n$ and $E[H_{iij,abc}\,z_{j,d}] = Q_{abcd}/n$;
- means: $E \hat K = K + K_1/n$, $E \hat\Theta_{ii} = \Theta + \Theta_1/n$.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_helpers.finite._four_points import FourPoints, four_points
from ntk_helpers.finite._two_points import Map, two_points
from ntk_helpers.networks.mlp import MLP

__all__ = ["Order", "first_layer", "next_layer"]


class Order(NamedTuple):
    """A layer's kernels, the corrections of their means, and its connected moments."""

    k: Float[Array, "n n"]
    theta: Float[Array, "n n"]
    k1: Float[Array, "n n"]
    theta1: Float[Array, "n n"]
    v: Float[Array, "n n n n"]
    d: Float[Array, "n n n n"]
    a: Float[Array, "n n n n"]
    f: Float[Array, "n n n n"]
    b: Float[Array, "n n n n"]
    p: Float[Array, "n n n n"]
    q: Float[Array, "n n n n"]


def first_layer(covariance: Array, theta: Array) -> Order:
    """It is Gaussian and linear in its parameters: nothing is random but the preactivations."""
    pairs, quadruples = jnp.zeros_like(covariance), jnp.zeros(covariance.shape * 2, covariance.dtype)
    return Order(covariance, theta, pairs, pairs, *[quadruples] * 7)


class Below(NamedTuple):
    r"""What a layer takes from the one below: the coefficients of its own parameters, n over the lower width,
    and Gaussian means at the lower kernel."""

    w: Array  # σ_w²
    own: Array  # of E φφ in Θ
    share: Array
    values: Map
    slopes: Map
    four: FourPoints


def next_layer(net: MLP, bias: Array, own: Array, share: Array, at: Order) -> Order:
    r"""One layer up. The weights' own part of $\hat\Theta$ is `own` $E[\phi\phi]$ and the biases' is `bias`;
    `share` is n over the width of the layer below."""
    maps = two_points(net.phi.fn, at.k)
    below = Below(net.sigma_w2, own, share, *maps, four_points(net.phi.fn, at.k))
    s, t = (each.value for each in maps)
    k, theta = below.w * s + net.sigma_b2, own * s + below.w * t * at.theta + bias
    above = Order(
        k,
        theta,
        *_means(below, at),
        *_same_unit(below, at),
        *_two_units(below, at),
        *_differential(below, at),
    )
    known = (jnp.diagonal(at.k) <= net.phi.reach()).all()
    return jax.tree.map(lambda x: jnp.where(known, x, jnp.nan), above)


def _means(below: Below, at: Order) -> tuple[Array, Array]:
    r"""$K_1$ and $\Theta_1$: of $\phi\phi$, and of $\phi'\phi'\hat\Theta$ with the moments that
    $\hat\Theta$ has with two preactivations of the same unit."""
    w, own, _, values, slopes, _ = below
    with_two = at.d + at.f + at.f.swapaxes(2, 3)
    moved = values.change(at.k1) + values.curvature(at.v)
    turned = slopes.value * at.theta1 + at.theta * (slopes.change(at.k1) + slopes.curvature(at.v))
    return w * moved, own * moved + w * (turned + jnp.einsum("abab->ab", slopes.change(with_two)))


def _same_unit(below: Below, at: Order) -> tuple[Array, Array, Array]:
    r"""V, D and A, from $\omega = $ own $\phi\phi + \sigma_w^2 \phi'\phi'\,\hat\Theta$ of a unit below."""
    w, own, share, values, slopes, four = below
    s, t, left = values.value, slopes.value, at.theta[:, :, None, None]
    connected = lambda moment, x, y: moment - x[:, :, None, None] * y
    same_values = connected(four.values, s, s)
    same_mixed = w * left * connected(four.mixed, t, s)
    same_slopes = w**2 * left * at.theta * connected(four.slopes, t, t)
    omega_value = own * same_values + same_mixed
    omega_omega = own * (omega_value + _turned(same_mixed)) + same_slopes

    # Of two units below: ω moves with K and with its own Θ.
    with_k = lambda x: w * values.change(x)
    omega_with_k = lambda x: own * values.change(x) + w * at.theta * slopes.change(x)
    with_theta = w * t[:, :, None, None]
    cross = with_theta * omega_with_k(at.d)
    v = share * w**2 * same_values + _first(with_k, with_k(at.v))
    d = share * w * omega_value + _first(omega_with_k, with_k(at.v)) + with_theta * with_k(at.d)
    a = share * omega_omega + _first(omega_with_k, omega_with_k(at.v)) + cross + _turned(cross)
    return v, d, a + w * with_theta * t * at.a


def _two_units(below: Below, at: Order) -> tuple[Array, Array]:
    r"""F and B, from $\phi'_i\phi'_j\,\hat\Theta_{ij}$ of two units below, or of one twice."""
    w, _, share, _, slopes, four = below
    t, left = slopes.value, at.theta[:, :, None, None]
    of_two = t[:, None, :, None] * t[None, :, None, :] * at.b
    return w**2 * _f(below, at), w**2 * (share * four.slopes * left * at.theta + of_two)


def _f(below: Below, at: Order) -> Array:
    bend, t = 2 * below.values.own, below.slopes.value
    return below.share * below.four.mixed * at.theta[:, :, None, None] + _joined(bend, t, bend, t, at.f)


def _differential(below: Below, at: Order) -> tuple[Array, Array]:
    r"""P and Q. Where the weights' own gradient meets $\hat\Theta_{ij}$ below, Q has F's sum."""
    w, own, share, values, slopes, four = below
    bend, t, left = 2 * values.own, slopes.value, at.theta[:, :, None, None]  # bend: E φ''_a φ_c
    bends = share * four.bends * left * at.theta[:, None, :, None]
    p = jnp.einsum("ad,bc,abac->abcd", bend, t, at.b)
    p = p + jnp.einsum("bc,abcd->abcd", t, _last(bend, t, at.p, "ad"))
    q = left * _joined(2 * slopes.own, slopes.cross, bend, t, at.f).swapaxes(1, 2)
    q = q + t[:, :, None, None] * _last(bend, t, at.q, "cd")
    return w**2 * (bends + p), w**2 * (bends + q) + own * w * _f(below, at).swapaxes(1, 2)


def _turned(x: Array) -> Array:
    """With its two pairs exchanged."""
    return x.transpose(2, 3, 0, 1)


def _first(change, x: Array) -> Array:
    """`change` of the first pair."""
    return _turned(change(_turned(x)))


def _last(bend: Array, t: Array, x: Array, pair: str) -> Array:
    """Σ_e E[∂_e(φ'φ)] x_{abc,e} over the two points of a pair of x's last axis with another."""
    repeated = jnp.einsum(f"abc{pair[0]}->abc", x)
    return jnp.einsum(f"{pair},abc->abcd", bend, repeated) + jnp.einsum(f"{pair},abcd->abcd", t, x)


def _joined(one: Array, other: Array, bend: Array, t: Array, f: Array) -> Array:
    r"""$\sum_{e \in \{a,c\}, f \in \{b,d\}} E[\partial_e g_{ac}]\,E[\partial_f(\phi'_b\phi_d)]\,F_{ab,ef}$ at
    ab, cd; `one` and `other` are the derivatives of g in a and in c."""
    both, left, right = (
        jnp.einsum(f"{name}->{to}", f) for name, to in (("abab", "ab"), ("abad", "abd"), ("abcb", "abc"))
    )
    total = jnp.einsum("ac,bd,ab->abcd", one, bend, both) + jnp.einsum("ac,bd,abd->abcd", one, t, left)
    total = total + jnp.einsum("ac,bd,abc->abcd", other, bend, right)
    return total + jnp.einsum("ac,bd,abcd->abcd", other, t, f)
