r"""The kernels of an `MLP` as its width goes to infinity."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.inputs import check_points, is_traced
from ntk_helpers.infinite._profile import fit_profile, kernels_of_profile
from ntk_helpers.infinite._recursion import Pairs, recursion, root
from ntk_helpers.networks.mlp import MLP, check_kernel_limit

__all__ = ["Kernels", "kernels", "nngp", "ntk"]

PROFILE_FROM = 1_000_000  # pairs times layers from which fitting a profile, a second of compilation, pays
SMALL = 2**18  # pairs times inputs, below which all differences take a tenth of a millisecond
FEW = 8  # close points in a row that are corrected one by one
LAYERS_OF_A_PROFILE = 6  # of a homogeneous activation, whose layers are cheap, that cost as much as a profile


class Kernels(NamedTuple):
    """Both kernels of an infinitely wide network on the same inputs."""

    nngp: Float[Array, "n1 n2"]
    ntk: Float[Array, "n1 n2"]


def kernels(net: MLP, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None) -> Kernels:
    r"""NNGP and tangent kernel at once, as `nngp` and `ntk` give them, at the cost of one.

    The recursion of the tangent kernel runs through the NNGP anyhow.

    >>> covariance, tangent = kernels(MLP(depth=2, width=1), np.eye(2, dtype=np.float32))
    >>> [round(float(value), 4) for value in tangent[0]]  # ReLU at two orthogonal inputs: 2 and 1/π
    [2.0, 0.3183]
    """
    return _kernels(net, *check_points(x1, x2))


def nngp(net: MLP, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None) -> Float[Array, "n1 n2"]:
    r"""Covariance of the output of an infinitely wide network at initialization, between inputs.

    $K^1 = \sigma_w^2 x^\top x'/d + \sigma_b^2$, $K^{l+1} = \sigma_w^2 E[\phi(u)\phi(v)] + \sigma_b^2$ with
    $(u, v)$ Gaussian of covariance $K^l$ (Lee et al. 2018, eq. 5; Jacot et al. 2018, Prop. 1). `x2` defaults
    to `x1`. The width does not enter, and `net.alpha` scales by its square. Raises `ValueError` for inputs
    that are not finite (n, d) arrays, and for μP, where outputs vanish as width grows.

    Where all norms are equal, or for ReLU and its like without bias in the NTK parameterization, a kernel is
    a function of one angle, and a large or deep one is read off a fit of that function (to 1e-11 of its
    largest value, or to rounding; not inside `jit`, where norms are not known). Derivatives where a layer's
    variance is 0, that is at x = 0 without bias, are those of the first layer only.

    >>> [round(float(value), 4) for value in nngp(MLP(depth=2, width=1), np.eye(2, dtype=np.float32))[0]]
    [1.0, 0.3183]
    """
    return kernels(net, x1, x2).nngp


def ntk(net: MLP, x1: Float[Array, "n1 d"], x2: Float[Array, "n2 d"] | None = None) -> Float[Array, "n1 n2"]:
    r"""Neural tangent kernel of an infinitely wide network, one output.

    $\Theta^1 = K^1$, $\Theta^{l+1} = K^{l+1} + \sigma_w^2 E[\phi'(u)\phi'(v)]\,\Theta^l$ (Jacot et al. 2018,
    Thm 1).

    In the standard parameterization the sum over parameters grows with the widths $n_l$ of the hidden layers,
    and the value at `net.width` is returned: $\Theta^1 = x^\top x' + 1$,
    $\Theta^{l+1} = n_l\,E[\phi(u)\phi(v)] + 1 + \sigma_w^2 E[\phi'(u)\phi'(v)]\,\Theta^l$, which the mean of
    the finite kernel approaches with relative error $O(1/n)$ (for ReLU: Hanin & Nica 2020; the
    parameterization: Sohl-Dickstein et al. 2020). `x2` defaults to `x1`, and `net.alpha` scales by its
    square. Raises `ValueError` for inputs that are not finite (n, d) arrays, and for μP, whose kernel has no
    limit (Yang & Hu 2021). Profiles of one angle and derivatives at 0: as for `nngp`.

    >>> [round(float(value), 4) for value in ntk(MLP(depth=2, width=1), np.eye(2, dtype=np.float32))[0]]
    [2.0, 0.3183]
    """
    return kernels(net, x1, x2).ntk


def _kernels(net: MLP, x1: Array, x2: Array | None) -> Kernels:
    check_kernel_limit(net)
    fan_in = np.asarray(net.fan_in(x1.shape[1]), float)
    alpha, net = net.alpha, replace(net, width=1, d_out=1, alpha=1.0)  # one compilation for all of them
    profile = fit_profile(net, fan_in, x1, x2) if _profile_pays(net, x1, x2) else None
    found = (
        _kernels_by_layers(net, fan_in, alpha, x1, x2)
        if profile is None
        else _kernels_by_profile(profile, alpha, x1, x2)
    )
    _check_reach(net, *found)
    return Kernels(*found)


def _check_reach(net: MLP, *found: Array) -> None:
    """Raise `ValueError` for the NaN of variances at which the activation's dual maps are not known."""
    if net.phi.reach() < np.inf and not is_traced(found) and any(jnp.isnan(k).any() for k in found):
        raise ValueError(
            f"variances of these inputs in {net} are beyond {net.phi.reach():.2g}, up to which dual maps of "
            f"activation {net.phi.name!r} are good; expected smaller inputs or weights."
        )


def _profile_pays(net: MLP, x1: Array, x2: Array | None) -> bool:
    if is_traced(net, x1, x2):
        return False  # inside jit the norms are not known
    layers = net.depth - 1
    work = len(x1) * len(x1 if x2 is None else x2) * layers
    return work >= PROFILE_FROM and (layers > LAYERS_OF_A_PROFILE or not net.phi.homogeneous)


@jax.jit
def _kernels_by_layers(net: MLP, fan_in: Array, alpha, x1: Array, x2: Array | None) -> tuple[Array, Array]:
    return _of_outputs(alpha, recursion(net, fan_in, _input_pairs(x1, x2)))


@jax.jit
def _kernels_by_profile(profile, alpha, x1: Array, x2: Array | None) -> tuple[Array, Array]:
    return _of_outputs(alpha, kernels_of_profile(profile, _input_pairs(x1, x2)))


def _of_outputs(alpha, found: tuple[Array, Array]) -> tuple[Array, Array]:
    """The kernels of the output, alpha times the last layer."""
    return tuple(jnp.asarray(alpha, kernel.dtype) ** 2 * kernel for kernel in found)


def _input_pairs(x1: Array, x2: Array | None) -> Pairs:
    """The inputs as a layer of values: q = |x|²/d and the correlation, exact near c = 1 and c = -1."""
    u1, q1 = _unit(x1)
    u2, q2 = (u1, q1) if x2 is None else _unit(x2)
    c = jnp.matmul(u1, u2.T, precision="highest")  # TF32 would leave three digits of 1 - c
    gap, plus = _refine(u1, u2, c, skip_diagonal=x2 is None)
    return Pairs(q1, q2, gap, plus)


def _unit(x: Array) -> tuple[Array, Array]:
    q = (x**2).mean(1)
    return x / (root(q) * x.shape[1] ** 0.5)[:, None], q


def _refine(u1: Array, u2: Array, c: Array, skip_diagonal: bool) -> tuple[Array, Array]:
    """1 - c and 1 + c, by differences of unit vectors in the rows that hold |c| close to 1.

    A product of matrices leaves an error of machine precision in 1 - c, and its square root in the
    angle. Where a pair is that close, |u - u'|²/2 has all its digits. Few inputs have all their differences
    taken, which compiles in a sixth of the time.
    """
    close = 1 - jnp.abs(c) < jnp.sqrt(jnp.finfo(c.dtype).eps)
    if skip_diagonal:
        diagonal = jnp.eye(len(c), dtype=bool) & ((u1**2).sum(1) > 0.5)
        close &= ~diagonal

    def plain(u, c, close):
        return 1 - c, 1 + c

    def corrected(u, u2, c, close):
        minus, plus = (((u + sign * u2) ** 2).sum(1) / 2 for sign in (-1, 1))
        return jnp.where(close & (c > 0), minus, 1 - c), jnp.where(close & (c < 0), plus, 1 + c)

    def few(u, c, close):
        at = jnp.nonzero(close, size=min(FEW, len(c)))[0]
        gap, plus = corrected(u, u2[at], c[at], close[at])
        return (1 - c).at[at].set(gap), (1 + c).at[at].set(plus)

    def all_of_them(u, c, close):
        return corrected(u, u2, c, close)

    def by_rows(u, c, close):
        kinds = (close.sum(1) > 0).astype(int) + (close.sum(1) > FEW)
        return jax.lax.map(
            lambda row: jax.lax.switch(row[0], (plain, few, all_of_them), *row[1:]), (kinds, u, c, close)
        )

    if c.size * u1.shape[1] <= SMALL:
        gap, plus = jax.vmap(corrected, in_axes=(0, None, 0, 0))(u1, u2, c, close)
    else:
        gap, plus = jax.lax.cond(close.any(), by_rows, plain, u1, c, close)
    if skip_diagonal:
        return jnp.where(diagonal, 0.0, gap), jnp.where(diagonal, 2.0, plus)
    return gap, plus
