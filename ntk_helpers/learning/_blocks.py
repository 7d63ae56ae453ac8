"""A symmetric kernel that is given in blocks, by a file or a function, and never whole in memory."""

from collections.abc import Callable, Iterator

import numpy as np

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_numbers

__all__ = ["KernelBlocks"]

BLOCK = 2048  # points at a side at most: 32 MiB in float64


class KernelBlocks:
    """Of `size` points, from an array (n, n), which may be a memory map, or a function of two arrays of
    indices.

    All blocks have one shape, for one compilation; the last one starts early enough to be whole. `tick` is
    called after each.
    """

    def __init__(self, kernel, size: int, tick: Callable = lambda: None):
        points = np.arange(size)
        if callable(kernel):
            self.block = lambda rows, columns: kernel(points[rows], points[columns])
        else:
            kernel = check_numbers("kernel", kernel, np.asanyarray)
            if kernel.shape != (size, size):
                raise ValueError(f"kernel has shape {kernel.shape}; expected {(size, size)}, or a function.")
            self.block = lambda rows, columns: kernel[rows, columns]
        self.points, self.size, self.tick = points, size, tick
        self.side = -(-size // -(-size // BLOCK))

    def diagonal(self) -> np.ndarray:
        return self._filled(np.empty(self.size), lambda whole: np.diagonal(self._read(whole, whole)))

    def columns(self, at: np.ndarray) -> np.ndarray:
        """The kernel with a few points, (n, few)."""
        return self._filled(np.empty((self.size, len(at))), lambda whole: self._read(whole, at))

    def rows(self) -> Iterator[slice]:
        """The points in order, a few at a time."""
        return (own for own, _ in self._rows())

    def product(self, v: np.ndarray) -> np.ndarray:
        """The kernel times (n, o), from the blocks on and above its diagonal."""
        found = np.zeros_like(v)
        for own, whole in self._rows():
            for other, others in self._rows(own.start):
                block = self._read(whole, others)[own.start - whole.start :, other.start - others.start :]
                found[own] += block @ v[other]
                if own != other:
                    found[other] += block.T @ v[own]
        return found

    def _rows(self, start: int = 0) -> Iterator[tuple[slice, slice]]:
        """The rows of each block that no block before has, and all that it has."""
        for first in range(start, self.size, self.side):
            stop = min(first + self.side, self.size)
            yield slice(first, stop), slice(stop - self.side, stop)

    def _filled(self, found: np.ndarray, read: Callable) -> np.ndarray:
        for own, whole in self._rows():
            found[own] = read(whole)[own.start - whole.start :]
        return found

    def _read(self, rows: slice, columns) -> np.ndarray:
        block = np.asarray(self.block(rows, columns))
        self.dtype = block.dtype
        found = numbers("a block of the kernel", block, (len(self.points[rows]), len(self.points[columns])))
        self.tick()
        return found
