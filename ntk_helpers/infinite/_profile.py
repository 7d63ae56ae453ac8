r"""The kernels as functions of one angle, fitted once: then depth costs nothing.

For inputs of equal norms, and for homogeneous activations without bias up to the norms' product, NNGP
and tangent kernel depend on the inputs' angle $\theta$ alone, and analytically: the square-root
singularities that they have in $c = \cos\theta$ at both ends are not there in $\theta$. A Chebyshev
interpolant converges geometrically (Trefethen 2013, Approximation Theory and Approximation Practice,
ch. 8). Depth puts a peak at $\theta = 0$, of width $1/L$ at criticality; in $s = \sqrt{\theta/\pi}$ the peak
is wider, and the degree grows like $L^{1/4}$.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev

from ntk_helpers._lib.angles import angle
from ntk_helpers._lib.host import in_float64
from ntk_helpers.infinite._recursion import Pairs, norm, recursion
from ntk_helpers.networks.mlp import MLP

__all__ = ["Profile", "fit_profile", "kernels_of_profile"]

NODES = 128
BLOCK = 16  # terms a step of Clenshaw's sum; degrees are multiples of it, so that few are compiled
TOLERANCE = 1e-11  # of the fit in float64, relative to the largest value
DROPPED = 1e-13  # coefficients that are left out
_PROBES = np.concatenate([[0.0], np.geomspace(1e-6, 1.0, 64)])  # in s: a peak at 0 can hide between nodes


class Profile(NamedTuple):
    """Chebyshev coefficients of NNGP and tangent kernel in 2s - 1, and whether the norms scale them."""

    coefficients: Float[Array, "degree 2"]
    scaled: Array


def fit_profile(net: MLP, fan_in: np.ndarray, x1: Array, x2: Array | None) -> Profile | None:
    """The kernels of these inputs as functions of their angle; None where they are not, or no fit is good."""
    inputs = [x for x in (x1, x2) if x is not None]
    dtype = jnp.result_type(*inputs)
    eps = float(jnp.finfo(dtype).eps)
    q = np.concatenate([np.square(np.asarray(x, float)).mean(1) for x in inputs])
    scaled = net.phi.homogeneous and float(net.sigma_b2) == 0 and net.parameterization == "ntk"
    if not scaled and (q.max() == 0 or np.ptp(q) > 8 * eps * q.max()):
        return None
    values = _values(net, fan_in, 1.0 if scaled else q.mean(), np.concatenate([_nodes(), _PROBES]))
    size = np.abs(values).max(0)
    coefficients = chebyshev.chebinterpolate(lambda _: values[:NODES], NODES - 1)
    needed = np.flatnonzero((np.abs(coefficients) > max(DROPPED, eps / 20) * size).any(1))
    coefficients = coefficients[: BLOCK * -(-(1 + needed.max(initial=0)) // BLOCK)]
    error = np.abs(chebyshev.chebval(2 * _PROBES - 1, coefficients).T - values[NODES:])
    if not (error <= max(TOLERANCE, eps) * size).all():
        return None
    return Profile(jnp.asarray(coefficients, dtype), jnp.asarray(scaled))


def _nodes() -> np.ndarray:
    return (1 + chebyshev.chebpts1(NODES)) / 2


def _values(net: MLP, fan_in: np.ndarray, q: float, s: np.ndarray) -> np.ndarray:
    """NNGP and tangent kernel in float64, (len(s), 2)."""
    half = np.pi * s**2 / 2
    with in_float64():
        return np.asarray(
            _kernels_at_angles(
                net, fan_in, np.asarray(q, float), 2 * np.sin(half) ** 2, 2 * np.cos(half) ** 2
            )
        )


@jax.jit
def _kernels_at_angles(net: MLP, fan_in, q, gap, plus) -> Array:
    pairs = Pairs(q[None], jnp.broadcast_to(q, gap.shape), gap[None], plus[None])
    return jnp.stack([kernel[0] for kernel in recursion(net, fan_in, pairs)], axis=1)


def kernels_of_profile(profile: Profile, inputs: Pairs) -> tuple[Array, Array]:
    """NNGP and tangent kernel of these inputs."""
    y = 2 * jnp.sqrt(angle(inputs.gap, inputs.plus) / jnp.pi) - 1
    norms = jnp.where(profile.scaled, norm(inputs.q1, inputs.q2), 1.0)
    return tuple(norms * _clenshaw(coefficients, y) for coefficients in profile.coefficients.T)


def _clenshaw(coefficients: Float[Array, " degree"], y: Array) -> Array:
    def step(state, coefficient):
        b1, b2 = state
        return (coefficient + 2 * y * b1 - b2, b1), None

    zero = jnp.zeros_like(y)
    b1, b2 = jax.lax.scan(step, (zero, zero), coefficients[:0:-1], unroll=BLOCK)[0]
    return coefficients[0] + y * b1 - b2
