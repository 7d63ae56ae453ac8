"""The loop of `train`: steps of many networks, each of which can end."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ntk_helpers.learning.conventions import loss_scale

__all__ = ["State", "advance", "step_of", "value_of"]

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


def step_of(f, optimizer, loss, stop):
    """Step i of one member, as a function of arrays alone; without `rows` all points make the batch."""

    def step(x, y, state: State, rows, i) -> State:
        if rows is not None:
            x, y = x[rows], y[rows]
        value, gradient = jax.value_and_grad(lambda p: value_of(loss, f(p, x), y))(state.params)
        active = _active(state)
        losses = state.losses.at[i].set(jnp.where(active, value, jnp.nan))
        lost = active & ~(jnp.isfinite(value) & (value <= LIMIT * (1 + losses[0])))
        ends = active & ~lost & (False if stop is None else stop(i, losses))
        going = active & ~lost & ~ends
        updates, memory = optimizer.update(gradient, state.memory, state.params)
        new = optax.apply_updates(state.params, updates), memory
        params, memory = jax.tree.map(partial(jnp.where, going), new, (state.params, state.memory))
        stopped = jnp.where(ends, i, state.stopped)
        diverged = jnp.where(lost, i, state.diverged)
        return State(params, memory, losses, stopped, diverged)

    return step


@partial(jax.jit, static_argnames="size")
def advance(step, state: State, x, y, key, start, end, *, size: int) -> State:
    """Steps `start` to `end` of all members that have not ended, a group at a time."""
    count = len(state.stopped)
    group = _group(state.params, count)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count))
    shuffled = partial(_shuffled, n=len(x))
    if group == 1:  # one alone, without an axis of members, is twice as fast
        run = partial(_run, partial(step, x, y), shuffled, len(x), size, start, end)
        return jax.lax.map(lambda member: run(*member), (state, keys))
    side_by_side = jax.vmap(partial(step, x, y), (0, None if size == len(x) else 0, None))
    run = partial(_run, side_by_side, jax.vmap(shuffled, (0, None)), len(x), size, start, end)
    groups = jax.tree.map(lambda leaf: leaf.reshape(count // group, group, *leaf.shape[1:]), (state, keys))
    ended = jax.lax.map(lambda members: run(*members), groups)
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), ended)


def _run(step, shuffled, n: int, size: int, start, end, state: State, keys) -> State:
    """Steps `start` to `end`, epoch by epoch: its order is drawn once, as that costs more than a step."""

    def steps(i, state, last, batch):
        return jax.lax.while_loop(
            lambda at: (at[0] < last) & _active(at[1]).any(),
            lambda at: (at[0] + 1, step(at[1], batch(at[0]), at[0])),
            (i, state),
        )

    if size == n:
        return steps(start, state, end, lambda i: None)[1]

    def epoch(at):
        number = at[0] // (n // size)
        order = shuffled(keys, number)
        batch = lambda i: jax.lax.dynamic_slice_in_dim(order, i % (n // size) * size, size, -1)
        return steps(*at, jnp.minimum(end, (number + 1) * (n // size)), batch)

    going = lambda at: (at[0] < end) & _active(at[1]).any()
    return jax.lax.while_loop(going, epoch, (start, state))[1]


def _shuffled(key, epoch, n: int) -> Array:
    return jax.random.permutation(jax.random.fold_in(key, epoch), n)


def _active(state: State) -> Array:
    return (state.stopped < 0) & (state.diverged < 0)


def value_of(loss, outputs, y):
    if callable(loss):
        return loss(outputs, y)
    return loss_scale(loss, len(outputs), outputs.size // len(outputs)) * ((outputs - y) ** 2).sum() / 2


def _group(params: PyTree, count: int) -> int:
    """How many members advance side by side; it divides their number."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params)) // count
    fit = count if jax.default_backend() != "cpu" else max(1, GROUP_BYTES // max(size, 1))
    return max(k for k in range(1, count + 1) if count % k == 0 and k <= fit)
