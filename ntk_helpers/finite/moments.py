r"""The first two moments of the tangent kernel of a finite ReLU network: exact, at every width and depth.

By the signs of a layer's weights, the mask $\phi'(z)$ of a homogeneous activation may be taken as independent
of everything else (Hanin & Nica 2020, for ReLU). Then a network is a product of independent matrices, of
which the kernel needs the second and fourth moments.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.inputs import check_points
from ntk_helpers.networks.mlp import MLP, check_network

__all__ = ["NTKMoments", "ntk_moments"]


class NTKMoments(NamedTuple):
    r"""$E[\Theta(x, x)]$ and $E[\Theta(x, x)^2]$ over initializations, for each input."""

    mean: Float[np.ndarray, " n"]
    second: Float[np.ndarray, " n"]

    @property
    def ratio(self) -> Float[np.ndarray, " n"]:
        r"""$E[\Theta^2]/E[\Theta]^2$, 1 where the kernel is deterministic."""
        return self.second / self.mean**2


def ntk_moments(net: MLP, x: Float[Array, "n d"]) -> NTKMoments:
    r"""Moments of the tangent kernel $\Theta(x, x)$ of a finite network at initialization, exactly.

    With $A_l = |a^l|^2$ of a layer's activations, $\Delta_l = |\delta^l|^2$ of the gradients in its
    preactivations and $w_l$, $b$ from `net.scales`, $\Theta = \sum_l (w_l^2 A_{l-1} + b^2)\Delta_l$, times
    the square of `net.output_scale`: μP has moments at every finite width, too. Let $s^2 = \sigma_w^2/m$ be a
    weight's variance, $\mu_2$, $\mu_4$ the moments of $\phi'$ (both 1/2 for ReLU).
    A layer with n units multiplies $A$ and $\Delta$ by $s^2 n \mu_2$ on average, and $A^2$ and $\Delta^2$ by
    $s^4 (n(n-1)\mu_2^2 + 3n\mu_4)$, that is $s^4 n(n+5)/4$. For $l < k$ the factors $A_{k-1}$ and $\Delta_l$
    share the layers between: $E[A_{k-1}\Delta_l]$ sums $E[|u|^2|v|^2]$ over pairs of vectors that pass
    through the same layers,

    $$\begin{aligned}
    X &= E[|u|^2|v|^2], & X' &= s^4\left((n(n-1)\mu_2^2 + n\mu_4) X + 2n\mu_4 Y\right), \\
    Y &= E[(u^\top v)^2], & Y' &= s^4\left(n\mu_4 X + (n(n-1)\mu_2^2 + 2n\mu_4) Y\right).
    \end{aligned}$$

    A layer of ReLU whose n units are all off, with probability $2^{-n}$, switches off those above it: this is
    in the moments, too. It takes O(L) operations. Limits at large width and depth are in Hanin & Nica (2020)
    and Seleznova & Kutyniok (2022).

    Raises

    - `ValueError` for an activation that is not homogeneous;
    - `ValueError` for a `sigma_b2` other than 0, or a `d_out` other than 1;
    - `ValueError` for inputs that are not a finite (n, d) array, or hold a row of zeros;
    - `ValueError` for moments that leave the range of floats.

    >>> ntk_moments(MLP(depth=8, width=64), np.ones((1, 64))).ratio.round(3)  # 1: it would not vary
    array([1.466])
    """
    check_network(net)
    x, _ = check_points(x)
    if not net.phi.homogeneous:
        raise ValueError(
            f"activation is {net.phi.name!r}; expected a homogeneous one, relu, leaky_relu or linear."
        )
    if float(net.sigma_b2) != 0 or net.d_out != 1:
        raise ValueError(f"net has sigma_b2 {net.sigma_b2} and d_out {net.d_out}; expected 0 and 1.")
    if not np.any(x, 1).all():
        raise ValueError("x holds an input of norm 0; expected inputs at which the network has a gradient.")
    scales, b = net.scales(x.shape[1])
    s2 = float(net.sigma_w2) / np.array(net.fan_in(x.shape[1]), float)
    with np.errstate(over="ignore", invalid="ignore"):
        found = _moments(
            net, np.square(np.asarray(x, float)).sum(1), np.asarray(scales, float) ** 2, float(b) ** 2, s2
        )
    if not ((found.second > np.finfo(float).tiny) & (found.second < np.inf)).all():
        at = f"at depth {net.depth} with sigma_w2 {net.sigma_w2}"
        raise ValueError(
            f"the moments leave the range of floats {at}; expected less depth, or another scale."
        )
    return found


def _moments(net: MLP, size: np.ndarray, w2: np.ndarray, b2: float, s2: np.ndarray) -> NTKMoments:
    """From the inputs' squared norms, the squared scales of `net`, and the variances of the weights of layers
    1 to L."""
    slopes = np.asarray(net.phi.derivative(np.array([-1.0, 1.0])), float)
    mu2, mu4, off = (slopes**2).mean(), (slopes**4).mean(), (slopes == 0).mean()
    units = np.array(net.widths, float)
    other, same = (
        units * (units - 1) * mu2**2,
        units * mu4,
    )  # pairs of different units, and units with themselves
    products = lambda factors: np.cumprod([1.0, *factors])
    fourth = other + 3 * same
    a, a2 = (
        np.outer(products(s2[:-1] * units * mu2), size),
        np.outer(products(s2[:-1] ** 2 * fourth), size**2),
    )
    back = s2[1:] * units * mu2
    delta, delta2 = products(back[::-1])[::-1], products((s2[1:] ** 2 * fourth)[::-1])[::-1]
    alive = np.append(
        products(1 - off**units)[:-1], 1.0
    )  # layers 1 to l - 1; the last layer's bias counts in any case
    mean = ((w2[:, None] * a + b2 * alive[:, None]) * delta[:, None]).sum(0)

    second, x_sum, y_sum, b_sum = np.zeros(
        (4, len(size))
    )  # the last three: X, Y and the biases' part, summed over layers below
    for k in range(net.depth):
        own = w2[k] ** 2 * a2[k] + 2 * w2[k] * b2 * a[k] + b2**2 * alive[k]
        second += (own + 2 * (w2[k] * s2[k] * x_sum + b_sum)) * delta2[k]
        if k < net.depth - 1:
            pair = s2[k] * (w2[k] * a2[k] + b2 * a[k])
            x_sum, y_sum = (
                s2[k] ** 2 * ((other[k] + same[k]) * x_sum + 2 * same[k] * y_sum)
                + (other[k] + same[k]) * pair,
                s2[k] ** 2 * (same[k] * x_sum + (other[k] + 2 * same[k]) * y_sum) + same[k] * pair,
            )
            b_sum = back[k] * (b_sum + b2 * (w2[k] * a[k] + b2 * alive[k]))
    square = net.output_scale**2
    return NTKMoments(square * mean, square**2 * second)
