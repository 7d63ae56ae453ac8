"""A kernel in blocks of rows and columns, so that what is kept of the inputs fits into memory."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ntk_helpers._lib.progress import tick

__all__ = ["count_blocks", "in_blocks", "transposed"]


def transposed(block):
    """The entries of a symmetric kernel, (n, n), (n, n, o) or (n, n, o, o), on the other side of the
    diagonal."""
    return block.swapaxes(0, 1).swapaxes(-1, -2) if block.ndim == 4 else block.swapaxes(0, 1)


def count_blocks(x1: Array, x2: Array | None, block: tuple[int, int]) -> int:
    """How many blocks `in_blocks` computes."""
    rows, columns = (-(-len(x) // size) for x, size in zip((x1, x1 if x2 is None else x2), block))
    return rows * (rows + 1) // 2 if x2 is None else rows * columns


def in_blocks(
    prepare, combine, x1: Array, x2: Array | None, block: tuple[int, int], ticks: bool = False
) -> Array:
    """`combine(prepare(x1), prepare(x2))`, (n1, n2, ...), over blocks of at most (rows, columns) points.

    Without `x2` the blocks are square and those below the diagonal are transposed copies. The last block of a
    row starts early enough to be whole. `ticks` moves the bar of `progress` at every block.
    """
    if block[0] >= len(x1) and block[1] >= len(x1 if x2 is None else x2):
        left = prepare(x1)
        return combine(left, left if x2 is None else prepare(x2))
    columns = x1 if x2 is None else x2
    counts = [-(-len(x) // size) for x, size in zip((x1, columns), block)]
    part = jax.eval_shape(lambda a, b: combine(prepare(a), prepare(b)), x1[: block[0]], columns[: block[1]])

    def piece(x, k, size):
        start = jnp.minimum(k * size, len(x) - size)
        return start, prepare(lax.dynamic_slice_in_dim(x, start, size))

    def row(i, kernel):
        top, left = piece(x1, i, block[0])

        def cell(j, kernel):
            side, right = piece(columns, j, block[1])
            found = combine(left, right)
            if ticks:
                tick()
            rest = (0,) * (found.ndim - 2)
            kernel = lax.dynamic_update_slice(kernel, found, (top, side, *rest))
            if x2 is None:
                kernel = lax.dynamic_update_slice(kernel, transposed(found), (side, top, *rest))
            return kernel

        return lax.fori_loop(i if x2 is None else 0, counts[1], cell, kernel)

    return lax.fori_loop(0, counts[0], row, jnp.zeros((len(x1), len(columns), *part.shape[2:]), part.dtype))
