"""Whether a function treats every row of a batch by itself, as a kernel between points takes for granted."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.inputs import is_traced
from ntk_helpers.finite._row import Row

__all__ = ["BATCH", "rows_are_independent"]

BATCH = 3
"""Rows of the batches in which a row is tried."""


def rows_are_independent(row: Row, batch: Callable, held: list, params: list, x: Array) -> bool:
    """Raise `ValueError` if a row's output changes with its place in the batch or its neighbours.

    The change is measured against the rounding error of the output, which is that of what is subtracted in
    it: of a network minus itself at the start, say. Gives whether the check was made: where anything is
    traced, as inside `jit`, no value is known.
    """
    if is_traced(held, params, x):
        return False
    change, rounding = _change_and_rounding(row, batch, held, params, x[0], _another(x))
    if is_traced(change):  # the function closes over a traced value
        return False
    if not change <= rounding:  # NaN is a change, too
        raise ValueError(
            f"f changes a row's output by {change:.2g} with its place in the batch or the rows beside it; "
            "expected rows that do not depend on one another, up to rounding. Normalization over the batch "
            "needs its running averages, dropout must be off. If you know better: check_rows=False."
        )
    return True


def _another(x: Array) -> Array:
    """A row that differs from the first: one of `x`, or else the first, rotated."""
    rows = np.asarray(x).reshape(len(x), -1)
    different = (rows != rows[0]).any(1)
    return x[int(different.argmax())] if different.any() else jnp.roll(x[0], 1)


def _change_and_rounding(row: Row, batch: Callable, held, params, one, other) -> tuple[Array, Array]:
    """How far outputs at one row differ: alone, in each place of a batch of copies, before and after others.

    At parameters moved by a tenth: a network minus itself, or with weights of zero, would show nothing.
    """

    @jax.jit
    def measure(held, params, one, other):
        keys = jax.random.split(jax.random.key(0), len(params))
        moved = [_moved(key, leaf) for key, leaf in zip(keys, params)]
        batches = jnp.stack(
            [jnp.stack(xs) for xs in ([one] * BATCH, [one, other, other], [other, other, one])]
        )
        copies, before, after = jax.lax.map(lambda xs: batch(held, moved, xs), batches)
        alone, pullback = jax.vjp(lambda moved: row.outputs(held, moved, one), moved)
        found = jnp.stack([*copies, before[0], after[-1]])
        never = jnp.isnan(alone) & jnp.isnan(found).all(0)  # a network may give NaN, if it always does
        return jnp.where(never, 0.0, jnp.abs(found - alone)).max(), _rounding(alone, pullback, moved)

    return measure(held, params, one, other)


def _moved(key: Array, leaf: Array) -> Array:
    size = jnp.sqrt(jnp.square(leaf).mean()) if leaf.size else 0.0
    return leaf + 0.1 * jnp.where(size > 0, size, 1.0).astype(leaf.dtype) * jax.random.normal(
        key, leaf.shape, leaf.dtype
    )


def _rounding(found: Float[Array, " o"], pullback: Callable, params: list[Array]) -> Array:
    """More than what relative errors of eps in all parameters change in the output."""
    cotangent = jax.random.normal(jax.random.key(0), found.shape, found.dtype)
    (gradient,) = pullback(cotangent)
    spread = sum((jnp.square(g * p).sum() for g, p in zip(gradient, params)), jnp.zeros((), found.dtype))
    return jnp.finfo(found.dtype).eps ** 0.75 * (jnp.sqrt(spread) + jnp.abs(found).max())
