r"""The kernels of an `MLP` as its width goes to infinity.

One recursion over layers carries, for every pair of inputs, the preactivations' correlation $c$ as
`gap` $= 1 - c$ and `anti` $= 1 + c$, the tangent kernel, and for every input the variance $q$. Each
layer adds a bias and rescales, which in terms of the gap needs no difference of nearly equal numbers.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_helpers._inputs import check_points
from ntk_helpers.activations import safe_sqrt
from ntk_helpers.mlp import MLP

__all__ = ["nngp", "ntk"]


class _Pairs(NamedTuple):
    """Variances (n1,), (n2,) and correlation (n1, n2), as 1 - c and 1 + c, of a layer's values."""

    q1: Array
    q2: Array
    gap: Array
    anti: Array

    def covariance(self) -> Array:
        return safe_sqrt(self.q1[:, None] * self.q2) * (1 - self.gap)


def nngp(net: MLP, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None) -> Float[Array, "n1 n2"]:
    r"""Covariance of the output of an infinitely wide network at initialization, between inputs.

    $K^1 = \sigma_w^2 x^\top x'/d + \sigma_b^2$, $K^{l+1} = \sigma_w^2 E[\phi(u)\phi(v)] + \sigma_b^2$ with $(u, v)$
    Gaussian of covariance $K^l$ (Lee et al. 2018, eq. 5; Jacot et al. 2018, Prop. 1). `x2` defaults to
    `x1`. The width does not enter. Raises `ValueError` for inputs that are not finite (n, d) arrays.
    """
    return _kernels(net, *check_points(x1, x2))[0]


def ntk(net: MLP, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None) -> Float[Array, "n1 n2"]:
    r"""Neural tangent kernel of an infinitely wide network, one output.

    $\Theta^1 = K^1$, $\Theta^{l+1} = K^{l+1} + \sigma_w^2 E[\phi'(u)\phi'(v)]\,\Theta^l$ (Jacot et al. 2018, Thm 1).

    In the standard parameterization the sum over parameters grows with the width $n$, and the value at
    `net.width` is returned: $\Theta^1 = x^\top x' + 1$,
    $\Theta^{l+1} = n\,E[\phi(u)\phi(v)] + 1 + \sigma_w^2 E[\phi'(u)\phi'(v)]\,\Theta^l$, which the mean of the finite
    kernel approaches with relative error $O(1/n)$ (Hanin & Nica 2020; the parameterization: Sohl-Dickstein et al. 2020).
    `x2` defaults to `x1`. Raises `ValueError` for inputs that are not finite (n, d) arrays.
    """
    return _kernels(net, *check_points(x1, x2))[1]


def _kernels(net: MLP, x1: Array, x2: Array | None) -> tuple[Array, Array]:
    one_for_all_sizes = replace(net, width=1, d_out=1)  # one compilation
    return _kernels_at(one_for_all_sizes, net.width, x1, x2)


@jax.jit
def _kernels_at(net: MLP, width: int, x1: Array, x2: Array | None) -> tuple[Array, Array]:
    standard = net.parameterization == "standard"
    bias = 1.0 if standard else net.sigma_b2

    def theta(weight, covariance):
        return weight * covariance + bias

    def layer(state, _):
        pairs, tangent = state
        phi = _activate(net, pairs)
        slope = net.phi.slope(pairs.q1[:, None], pairs.q2, pairs.gap, pairs.anti)
        tangent = theta(width if standard else net.sigma_w2, phi.covariance()) + net.sigma_w2 * slope * tangent
        return (_affine(net, phi), tangent), None

    inputs = _input_pairs(x1, x2)
    start = _affine(net, inputs), theta(x1.shape[1] if standard else net.sigma_w2, inputs.covariance())
    (pairs, tangent), _ = jax.lax.scan(layer, start, length=net.depth - 1)
    return pairs.covariance(), tangent


def _affine(net: MLP, pairs: _Pairs) -> _Pairs:
    """Scale by sigma_w2 and add sigma_b2: the bias is a common part of both, so it only closes the gap."""
    a1, a2 = net.sigma_w2 * pairs.q1, net.sigma_w2 * pairs.q2
    q1, q2 = a1 + net.sigma_b2, a2 + net.sigma_b2
    norm = safe_sqrt(q1[:, None] * q2)
    common = safe_sqrt(a1[:, None] * a2)
    lengths = (safe_sqrt(a1)[:, None] - safe_sqrt(a2)) ** 2
    divisor = jnp.where(norm > 0, norm, 1.0)
    unequal = net.sigma_b2 * lengths / jnp.where(norm > 0, norm + common + net.sigma_b2, 1.0)
    gap = jnp.where(norm > 0, (common * pairs.gap + unequal) / divisor, 1.0)
    anti = jnp.where(norm > 0, (norm - common + net.sigma_b2 + common * pairs.anti) / divisor, 1.0)
    return _Pairs(q1, q2, gap, anti)


def _activate(net: MLP, pairs: _Pairs) -> _Pairs:
    phi = net.phi
    e1, e2 = phi.aligned(pairs.q1, pairs.q1), phi.aligned(pairs.q2, pairs.q2)
    q1, q2 = pairs.q1[:, None], pairs.q2[None, :]
    norm = safe_sqrt(e1[:, None] * e2)
    drop = norm - phi.aligned(q1, q2) + phi.drop(q1, q2, pairs.gap, pairs.anti)
    gap = jnp.where(norm > 0, drop / jnp.where(norm > 0, norm, 1.0), 1.0)
    return _Pairs(e1, e2, gap, 2 - gap)


def _input_pairs(x1: Array, x2: Array | None) -> _Pairs:
    """The inputs as a layer of values: q = |x|²/d and the correlation, exact near c = 1 and c = -1."""
    u1, q1 = _unit(x1)
    u2, q2 = (u1, q1) if x2 is None else _unit(x2)
    c = jnp.matmul(u1, u2.T, precision="highest")  # TF32 would leave three digits of 1 - c
    gap, anti = _refine(u1, u2, c, skip_diagonal=x2 is None)
    return _Pairs(q1, q2, gap, anti)


def _unit(x: Array) -> tuple[Array, Array]:
    q = (x**2).mean(1)
    norm = safe_sqrt(q * x.shape[1])
    return x / jnp.where(norm > 0, norm, 1.0)[:, None], q


def _refine(u1: Array, u2: Array, c: Array, skip_diagonal: bool, rows: int = 32) -> tuple[Array, Array]:
    """1 - c and 1 + c, by differences of unit vectors in the blocks of rows that hold |c| close to 1.

    A product of matrices leaves an error of machine precision in 1 - c, and its square root in the
    angle. Where a pair is that close, |u - u'|²/2 has all its digits.
    """
    close = 1 - jnp.abs(c) < jnp.sqrt(jnp.finfo(c.dtype).eps)
    if skip_diagonal:
        diagonal = jnp.eye(len(c), dtype=bool) & ((u1**2).sum(1) > 0.5)
        close &= ~diagonal

    def differences(u, c, close):
        minus, plus = (((u[:, None] + sign * u2) ** 2).sum(-1) / 2 for sign in (-1, 1))
        return jnp.where(close & (c > 0), minus, 1 - c), jnp.where(close & (c < 0), plus, 1 + c)

    def block(args):
        return jax.lax.cond(args[2].any(), differences, lambda u, c, close: (1 - c, 1 + c), *args)

    gap, anti = _by_rows(block, rows, u1, c, close)
    if skip_diagonal:
        return jnp.where(diagonal, 0.0, gap), jnp.where(diagonal, 2.0, anti)
    return gap, anti


def _by_rows(fn, rows: int, *arrays: Array) -> tuple[Array, ...]:
    n = len(arrays[0])
    blocks = -(-n // rows)
    padded = tuple(jnp.pad(a, ((0, blocks * rows - n), (0, 0))).reshape(blocks, rows, -1) for a in arrays)
    return jax.tree.map(lambda y: y.reshape(-1, y.shape[-1])[:n], jax.lax.map(fn, padded))
