r"""The recursion over layers of the infinite-width kernels, for given variances and correlations.

It carries, for every pair of inputs, the preactivations' correlation $c$ as `gap` $= 1 - c$, the
tangent kernel, and for every input the variance $q$. Each layer adds a bias and rescales, which in
terms of the gap takes no difference of nearly equal numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ntk_helpers._lib.angles import safe_sqrt
from ntk_helpers.networks.mlp import MLP

__all__ = ["Pairs", "norm", "recursion", "root"]


class Pairs(NamedTuple):
    """Variances (n1,), (n2,) and correlation (n1, n2), as 1 - c and 1 + c, of a layer's values.

    Where a variance is 0, c is 0, and the root of the variance is taken as 1: in the inputs this keeps
    the gradient of the covariance.
    """

    q1: Array
    q2: Array
    gap: Array
    plus: Array

    def covariance(self) -> Array:
        r"""$\sqrt{q_1 q_2}\,c$, (n1, n2)."""
        return _covariance(self.q1, self.q2, self.gap)


def _covariance(q1: Array, q2: Array, gap: Array) -> Array:
    return root(q1)[:, None] * root(q2) * (1 - gap)


def root(q: Array) -> Array:
    """The square root, and 1 at 0."""
    return jnp.sqrt(jnp.where(q > 0, q, 1.0))


def recursion(net: MLP, fan_in: Float[Array, " depth"], inputs: Pairs) -> tuple[Array, Array]:
    """NNGP and tangent kernel of the output, given |x|²/d and the correlations of the inputs."""
    net, fan_in = jax.tree.map(lambda v: jnp.asarray(v, inputs.gap.dtype), (net, fan_in))
    standard = net.parameterization == "standard"
    weight = fan_in if standard else jnp.broadcast_to(net.sigma_w2, net.depth)
    bias = 1.0 if standard else net.sigma_b2

    def layer(state, at):
        weight, first = at
        q1, q2, gap, tangent = state
        pairs = Pairs(q1, q2, gap, jnp.where(first, start.plus, 2 - gap))
        phi = _activate(net, pairs)
        slope = net.phi.slope(q1.reshape(-1, 1), q2.reshape(1, -1), pairs.gap, pairs.plus)
        tangent = weight * phi.covariance() + bias + net.sigma_w2 * slope * tangent
        return (*_affine(net, phi)[:3], tangent), None

    start = _affine(net, inputs)
    tangent = weight[0] * inputs.covariance() + bias
    # The first layer takes 1 + c from the inputs, with all its digits; those of others make no difference.
    layers = weight[1:], jnp.arange(1, net.depth) == 1
    (*pairs, tangent), _ = jax.lax.scan(layer, (*start[:3], tangent), layers)
    return _covariance(*pairs), tangent


def _affine(net: MLP, pairs: Pairs) -> Pairs:
    """Scale by sigma_w2 and add sigma_b2: the bias is a common part of both, so it only closes the gap."""
    a1, a2 = net.sigma_w2 * pairs.q1, net.sigma_w2 * pairs.q2
    q1, q2 = a1 + net.sigma_b2, a2 + net.sigma_b2
    size, common = norm(q1, q2), norm(a1, a2)
    lengths = (safe_sqrt(a1)[:, None] - safe_sqrt(a2)) ** 2
    unequal = net.sigma_b2 * lengths / jnp.where(size > 0, size + common + net.sigma_b2, 1.0)
    at_zero = net.sigma_w2 * pairs.covariance()  # 0 where it is used; its gradient is not
    common_gap = jnp.where(common > 0, common * pairs.gap, -at_zero)
    common_plus = jnp.where(common > 0, common * pairs.plus, at_zero)
    divisor = root(q1)[:, None] * root(q2)
    gap = jnp.where(size > 0, unequal + common_gap, divisor - at_zero) / divisor
    # size - common + sigma_b2, of which no derivative is left where there is no bias
    opened = net.sigma_b2 * (1 + (q1[:, None] + a2) / jnp.where(size > 0, size + common, 1.0))
    plus = jnp.where(size > 0, opened + common_plus, divisor + at_zero) / divisor
    return Pairs(q1, q2, gap, plus)


def norm(q1: Array, q2: Array) -> Array:
    r"""$\sqrt{q_1 q_2}$, (n1, n2)."""
    return safe_sqrt(q1)[:, None] * safe_sqrt(q2)


def _activate(net: MLP, pairs: Pairs) -> Pairs:
    phi = net.phi
    e1, e2 = phi.aligned(pairs.q1, pairs.q1), phi.aligned(pairs.q2, pairs.q2)
    size = norm(e1, e2)
    if phi.homogeneous:
        closed = phi.drop(1.0, 1.0, pairs.gap, pairs.plus) / phi.aligned(1.0, 1.0)
    else:
        q1, q2 = pairs.q1.reshape(-1, 1), pairs.q2.reshape(1, -1)
        drop = phi.drop(q1, q2, pairs.gap, pairs.plus)
        closed = phi.mismatch(q1, q2) + drop / jnp.where(size > 0, size, 1.0)
    gap = jnp.where(size > 0, closed, 1.0)
    return Pairs(e1, e2, gap, 2 - gap)
