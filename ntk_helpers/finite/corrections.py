r"""What a large but finite width does to the kernels of a network at initialization: the order 1/width.

`_layers` is the recursion, `_two_points` and `_four_points` are the Gaussian means that it asks for.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.host import in_float64
from ntk_helpers._lib.inputs import check_points, is_traced
from ntk_helpers.finite._layers import Order, first_layer, next_layer
from ntk_helpers.networks.mlp import MLP, check_kernel_limit

__all__ = ["KernelCorrections", "kernel_corrections"]


class KernelCorrections(NamedTuple):
    r"""Coefficients of 1/n, n the width, for inputs a, b, c and d and one output f.

    - `ntk_covariance[a, b, c, d]` is $n\,\mathrm{Cov}(\Theta_{ab}, \Theta_{cd})$;
    - `ntk_output_covariance[a, b, c, d]` is $n\,\mathrm{Cov}(\Theta_{ab}, f_c f_d)$;
    - `output_cumulant[a, b, c, d]` is n times the fourth cumulant of $f_a, f_b, f_c, f_d$;
    - `nngp_mean[a, b]` is $n\,(E[f_a f_b] - K_{ab})$, with K from `nngp`;
    - `ntk_mean[a, b]` is $n\,(E[\Theta_{ab}] - \Theta^\infty_{ab})$, with $\Theta^\infty$ from `ntk`;
    - `movement[a, b]` is $-n\,E[d\Theta_{ab}/dt]$ at $t = 0$ of gradient flow on the one training point
      $x_b$: the entry that moves $f_a$. On the diagonal the point's own kernel entry grows by it.
    """

    ntk_covariance: Float[Array, "n n n n"]
    ntk_output_covariance: Float[Array, "n n n n"]
    output_cumulant: Float[Array, "n n n n"]
    nngp_mean: Float[Array, "n n"]
    ntk_mean: Float[Array, "n n"]
    movement: Float[Array, "n n"]


def kernel_corrections(net: MLP, x: Float[Array, "n d"]) -> KernelCorrections:
    r"""The leading corrections of finite width at initialization, each as the coefficient of 1/width.

    Given a layer, the units of the next are independent and Gaussian, so what is connected between them comes
    from the layer's means over units alone. With a unit's covariance $K$, tangent kernel $\Theta$,
    $s = \langle\phi\phi\rangle$, $t = \langle\phi'\phi'\rangle$,
    $\omega = \sigma_w^2(\phi\phi + \phi'\phi'\,\Theta)$ and $n\,\mathrm{Cov}(\hat K, \hat K) = V$, of one
    input for short,

    $$\begin{aligned}
    V^+ &= \sigma_w^4 \mathrm{Var}(\phi^2) + (\sigma_w^2 \partial_K s)^2\,V, \\
    A^+ &= \mathrm{Var}(\omega) + (\partial_K \langle\omega\rangle)^2\,V
          + 2\,\sigma_w^2 t\,\partial_K \langle\omega\rangle\,D + (\sigma_w^2 t)^2 A,
    \end{aligned}$$

    where D is the covariance of $\hat\Theta$ with $\hat K$ and A that of $\hat\Theta$ between units;
    `ntk_covariance` is A and what two units share in $\hat\Theta_{ij}$. The means add half the second
    derivatives times V. The movement is by the differential of the kernel, whose mean under the loss
    $(f - y)^2/2$ is that of $\nabla\Theta \cdot \nabla f\,f$: the target's part is 0 by symmetry.

    The next order is smaller by L/n and a factor that grows with depth: ReLU's kernel at $L = 6$, $n = 64$
    has a variance 14 % above its leading order. Numbers are for one of the outputs, whatever `d_out`. With
    unequal hidden widths n is their harmonic mean, and a layer counts by n over its width. In the standard
    parameterization $\Theta$ and its moments are those at `net.width`, as for `ntk`: they grow with it, and
    what is expanded in 1/n is $\Theta/n$. `net.alpha` scales the two means by its square, the rest by its
    fourth power.

    At a kink $\phi''$ is the limit of smooth activations: the movement has the units that cross it, which a
    derivative along the flow does not see. Gaussian means are good to 1e-9 or so where variances are near 1
    on the scale on which $\phi$ bends, to 1e-7 at 6, and for ReLU alike at every variance. Inputs that
    coincide count as one; at small angles a kinked activation loses digits of the means, half of them at
    1e-3.

    An entry for four different inputs takes an integral of a second or so per layer and core, of which n
    inputs have n(n-1)(n-2)(n-3)/24; one for three takes a tenth of that: up to six inputs, in seconds to
    a minute. It is JAX in float64, on the CPU; inside `jit` or `grad` in JAX's default floating type, which
    should have 64 bits.

    Raises

    - `ValueError` for what is no network, and for inputs that are not a finite (n, d) array;
    - `ValueError` for μP, whose kernels have no limit to be corrected;
    - `ValueError` for variances at which the activation's dual maps are not known, and for results that leave
      the range of floats.

    V is in Yaida (2020) and in ch. 4 of Roberts, Yaida & Hanin (2022), A, B, D and F in their ch. 8, the
    differential in ch. 11; which powers of 1/n appear, in Dyer & Gur-Ari (2020). For ReLU at one input
    variance and movement are in Hanin & Nica (2020), and `ntk_moments` is exact. Bordelon & Pehlevan (2023)
    have corrections along training. The recursion of the kernel's mean, kinks, the standard parameterization
    and unequal widths are worked out here.

    >>> found = kernel_corrections(MLP(depth=4, width=64), np.ones((1, 3)))
    >>> [round(float(value.squeeze()), 6) for value in (found.ntk_covariance, found.movement)]
    [640.0, 320.0]
    """
    check_kernel_limit(net)
    x, _ = check_points(x)
    widths = np.array(net.widths, float)
    share = 1 / (widths * np.mean(1 / widths)) if len(widths) else widths
    arguments = replace(net, width=1, d_out=1, alpha=1.0), np.array(net.fan_in(x.shape[1]), float), share
    if is_traced(net, x):
        return _scaled(net.alpha, _corrections(*arguments, x))
    with in_float64():
        found = _scaled(net.alpha, _corrections(*arguments, np.asarray(x, float)))
    _check_range(net, found)
    return found


def _check_range(net: MLP, found: KernelCorrections) -> None:
    if all(np.isfinite(each).all() for each in found):
        return
    if net.phi.reach() < np.inf and any(np.isnan(each).any() for each in found):
        raise ValueError(
            f"variances of these inputs in {net} are beyond {net.phi.reach():.2g}, up to which dual maps of "
            f"activation {net.phi.name!r} are good; expected smaller inputs or weights."
        )
    raise ValueError(
        f"the corrections leave the range of floats at depth {net.depth} with sigma_w2 {net.sigma_w2}; "
        "expected less depth, or another scale."
    )


@jax.jit
def _corrections(net: MLP, fan_in: Array, share: Array, x: Array) -> KernelCorrections:
    """Of a network whose widths are in `fan_in`; `share` is n over each hidden width."""
    x = x.astype(float)
    net, fan_in, share = jax.tree.map(lambda v: jnp.asarray(v, x.dtype), (net, fan_in, share))
    standard = net.parameterization == "standard"
    own = fan_in if standard else jnp.broadcast_to(net.sigma_w2, net.depth)
    bias = jnp.ones((), x.dtype) if standard else net.sigma_b2
    gram = jnp.matmul(x, x.T, precision="highest") / x.shape[1]
    start = first_layer(net.sigma_w2 * gram + net.sigma_b2, own[0] * gram + bias)
    last, _ = jax.lax.scan(lambda at, each: (next_layer(net, bias, *each, at), None), start, (own[1:], share))
    return _of_outputs(last)


def _scaled(alpha: float, found: KernelCorrections) -> KernelCorrections:
    """Of an output alpha times as large: its kernels have a factor alpha squared, and all but their means
    are of two kernels."""
    means = {name: alpha**2 * getattr(found, name) for name in ("nngp_mean", "ntk_mean")}
    return jax.tree.map(lambda each: alpha**4 * each, found)._replace(**means)


def _of_outputs(last: Order) -> KernelCorrections:
    """From moments between units to those of one output, whose units are all the same."""
    turned = lambda x: x + x.transpose(0, 1, 3, 2)
    of_one = last.p + last.q + last.q.transpose(0, 2, 1, 3)  # H of the first point
    v = last.v
    return KernelCorrections(
        ntk_covariance=last.a + turned(last.b),
        ntk_output_covariance=last.d + turned(last.f),
        output_cumulant=v + v.transpose(0, 2, 1, 3) + v.transpose(0, 2, 3, 1),
        nngp_mean=last.k1,
        ntk_mean=last.theta1,
        movement=jnp.einsum("abbb->ab", of_one + of_one.transpose(1, 0, 2, 3)),
    )
