"""Which layers move as width grows: the test by which a parameterization is told from another."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ntk_helpers._lib.inputs import check_key, check_points, check_size
from ntk_helpers.learning.training import train
from ntk_helpers.networks.mlp import MLP, check_network

__all__ = ["CoordinateCheck", "coordinate_check"]


class CoordinateCheck(NamedTuple):
    """What `coordinate_check` returns: `print` shows it as a table. Layers are in order, the output last."""

    widths: Int[np.ndarray, " widths"]
    movement: Float[np.ndarray, "widths layers draws"]
    """Root mean square over units and inputs of how far a layer's preactivations, or the outputs, moved."""
    slopes: Float[np.ndarray, " layers"]
    """Of log movement against log width, the mean over draws."""
    errors: Float[np.ndarray, " layers"]
    """The slopes' standard errors."""

    def __str__(self):
        rows = [["layer", *(f"n = {n}" for n in self.widths), "slope"]]
        for layer, moved in enumerate(self.movement.mean(2).T, 1):
            name = "output" if layer == len(self.slopes) else f"z^{layer}"
            slope = f"{self.slopes[layer - 1]:+.3f} ± {self.errors[layer - 1]:.3f}"
            rows.append([name, *(f"{each:.3g}" for each in moved), slope])
        sizes = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(cell.rjust(size) for cell, size in zip(row, sizes)) for row in rows)


def coordinate_check(
    net: MLP,
    widths: Sequence[int],
    x: Float[Array, "n d"],
    y: Float[Array, "n o"] | Float[Array, " n"],
    optimizer: Callable[[MLP], optax.GradientTransformation],
    steps: int,
    *,
    loss: str | Callable[[Array, Array], Array],
    key: Array,
    draws: int,
) -> CoordinateCheck:
    r"""How much each layer of `net` moves in the first `steps` of training, as its width grows.

    For every width n and every one of the `draws` a network is drawn and trained by `optimizer(net)` on all
    points. A layer's movement is the root mean square of $z^l_t - z^l_0$ over its units and the points, the
    output's that of $f_t - f_0$; the slope of its logarithm against $\log n$ is the exponent by which a limit
    is known (Yang et al. 2022, app. D.1). At the rates of `scale_by_parameterization` the output moves alike
    at every width, and hidden layers with slope -1/2 in the NTK parameterization, where features are not
    learned, and 0 in μP. In the standard one something grows with width, until training diverges.

    What is trained is $f - f_0$: in μP the output at initialization vanishes as $1/\sqrt n$, and with it a
    part of the residual at small widths, which would show as slopes that are not there.

    Slopes are fitted draw by draw, so that their scatter gives the standard error. They belong to widths
    where the next order in 1/n is small, and to few steps.

    Raises:

    - `ValueError` for what is no network, a network without hidden layers, and less than two widths or draws;
    - `ValueError` for a training that diverges, a layer that does not move, and what `train` refuses.

    >>> import optax
    >>> x = jax.random.normal(jax.random.key(0), (8, 4))
    >>> sgd = lambda net: optax.chain(optax.sgd(0.1), scale_by_parameterization(net, "sgd"))
    >>> found = coordinate_check(
    ...     MLP(3, 16, parameterization="mup"), (16, 32), x, x[:, 0], sgd, 2,
    ...     loss="mean", key=jax.random.key(1), draws=2,
    ... )
    >>> found.movement.shape, found.slopes.shape
    ((2, 3, 2), (3,))
    """
    check_network(net)
    check_key(key)
    x, _ = check_points(x)
    if not callable(optimizer):
        raise ValueError(f"optimizer is {optimizer!r}; expected a function of a network that returns one.")
    if np.ndim(widths) != 1:
        raise ValueError(f"widths is {widths!r}; expected a sequence of numbers of units.")
    draws, widths = check_size("draws", draws), [check_size("width", n) for n in widths]
    if net.depth == 1 or draws < 2 or len(set(widths)) < 2:
        raise ValueError(
            f"net has depth {net.depth}, widths are {widths}, draws is {draws}; expected at least 2 of each."
        )
    movement = np.empty((len(widths), net.depth, draws))
    for row, n in enumerate(widths):
        wide = replace(net, width=n)
        for column, draw in enumerate(jax.random.split(jax.random.fold_in(key, n), draws)):
            start = wide.init(draw, x.shape[1], x.dtype)
            before = _layers(wide, start, x)
            run = train(_centred(wide, before[-1]), start, x, y, optimizer(wide), steps, loss=loss)
            moved = map(np.subtract, _layers(wide, run.params, x), before)
            movement[row, :, column] = [np.sqrt(np.mean(each**2)) for each in moved]
            if run.diverged >= 0:
                raise ValueError(f"training at width {n} diverged; expected a smaller learning rate there.")
    if not (movement > 0).all():
        raise ValueError("a layer does not move at all; expected targets and a rate that make it move.")
    return CoordinateCheck(np.array(widths), movement, *_slopes(widths, movement))


@jax.jit
def _layers(net: MLP, params, x: Array) -> list[Array]:
    return net.preactivations(params, x)


def _centred(net: MLP, at_start: Array) -> Callable:
    return lambda params, x: net.apply(params, x) - at_start


def _slopes(widths: list[int], movement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over draws of each layer's slope, and its standard error."""
    _, layers, draws = movement.shape
    lines = np.polyfit(np.log(widths), np.log(movement.reshape(len(widths), -1)), 1)
    slopes = lines[0].reshape(layers, draws)
    return slopes.mean(1), slopes.std(1, ddof=1) / draws**0.5
