"""The loop of `train`: steps of many networks, each of which can end."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ntk_helpers.learning.conventions import loss_scale

__all__ = ["State", "advance", "value_of"]

LIMIT = 1e8
"""A loss so many times as large as the first, or as 1, has diverged."""
GROUP_BYTES = 2**20
"""On a CPU members of an ensemble advance side by side as long as their parameters fit into its caches."""


class State(NamedTuple):
    """Of every member, on the first axis."""

    params: PyTree
    memory: PyTree
    losses: Array
    stopped: Array
    diverged: Array


@partial(jax.jit, static_argnames=("optimizer", "loss", "stop", "size"))
def advance(f, state, x, y, key, start, end, *, optimizer, loss, stop, size):
    """Steps `start` to `end` of all members that have not ended, a group at a time."""
    count = len(state.stopped)
    group = _group(state.params, count)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count))
    step = partial(_step, f, x, y, optimizer, loss, stop, size)

    each = step if group == 1 else jax.vmap(step, (0, 0, None))  # one alone is twice as fast

    def run(members):
        state, keys = members

        def going(carry):
            return (carry[0] < end) & ((carry[1].stopped < 0) & (carry[1].diverged < 0)).any()

        def body(carry):
            return carry[0] + 1, each(carry[1], keys, carry[0])

        return jax.lax.while_loop(going, body, (start, state))[1]

    if group == 1:
        return jax.lax.map(run, (state, keys))
    groups = jax.tree.map(lambda leaf: leaf.reshape(count // group, group, *leaf.shape[1:]), (state, keys))
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), jax.lax.map(run, groups))


def _step(f, x, y, optimizer, loss, stop, size, state, key, i):
    rows = _rows(key, i, len(x), size)
    value, gradient = jax.value_and_grad(lambda p: value_of(loss, f(p, x[rows]), y[rows]))(state.params)
    active = (state.stopped < 0) & (state.diverged < 0)
    losses = state.losses.at[i].set(jnp.where(active, value, jnp.nan))
    lost = active & ~(jnp.isfinite(value) & (value <= LIMIT * (1 + losses[0])))
    ends = active & ~lost & (False if stop is None else stop(i, losses))
    going = active & ~lost & ~ends
    updates, memory = optimizer.update(gradient, state.memory, state.params)
    updates = jax.tree.map(lambda u: jnp.where(going, u, 0), updates)
    memory = jax.tree.map(lambda new, old: jnp.where(going, new, old), memory, state.memory)
    stopped, diverged = (
        jnp.where(now, i, before) for now, before in ((ends, state.stopped), (lost, state.diverged))
    )
    return State(optax.apply_updates(state.params, updates), memory, losses, stopped, diverged)


def _rows(key, i, n: int, size: int):
    """The points of step i: all, or the next `size` of an epoch's permutation."""
    if size == n:
        return slice(None)
    epoch, k = jnp.divmod(i, n // size)
    return jax.lax.dynamic_slice_in_dim(
        jax.random.permutation(jax.random.fold_in(key, epoch), n), k * size, size
    )


def value_of(loss, outputs, y):
    if callable(loss):
        return loss(outputs, y)
    return loss_scale(loss, len(outputs), outputs.size // len(outputs)) * ((outputs - y) ** 2).sum() / 2


def _group(params: PyTree, count: int) -> int:
    """How many members advance side by side; it divides their number."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) // count
    fit = count if jax.default_backend() != "cpu" else max(1, GROUP_BYTES // max(size, 1))
    return max(k for k in range(1, count + 1) if count % k == 0 and k <= fit)
