"""A matrix in blocks, in a `.npy` file, and beside it the journal that says which of its blocks are whole."""

import glob
import json
import os
import re
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.lib.format import open_memmap

from ntk_helpers._lib.blocks import transposed

__all__ = ["BlockFile", "Grid"]

WHOLE_LINE = re.compile(r"^(\d+) (\d+) ([0-9a-f]{8})$", re.MULTILINE)


class Grid(NamedTuple):
    """A (rows, columns, ...) matrix in blocks of one shape. Where it is `mirrored`, those below the diagonal
    are copies.

    The last block of a row or column starts early enough to be whole; every entry is owned by one block.
    """

    sizes: tuple[int, int]
    block: tuple[int, int]
    mirrored: bool

    def blocks(self) -> list[tuple[int, int]]:
        """Row and column numbers of the blocks that are not copies."""
        rows, columns = (-(-size // side) for size, side in zip(self.sizes, self.block))
        return [(i, j) for i in range(rows) for j in range(i if self.mirrored else 0, columns)]

    def starts(self, at: tuple[int, int]) -> tuple[int, int]:
        """First row and column of a block."""
        return tuple(min(k * side, size - side) for k, side, size in zip(at, self.block, self.sizes))

    def owned(self, at: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the matrix that this block writes, and no other does."""
        return tuple(
            slice(k * side, min((k + 1) * side, size)) for k, side, size in zip(at, self.block, self.sizes)
        )

    def part(self, at: tuple[int, int], found: np.ndarray) -> np.ndarray:
        """What a block owns of its computed entries, contiguous."""
        kept = (
            slice(own.start - start, own.stop - start) for own, start in zip(self.owned(at), self.starts(at))
        )
        return np.ascontiguousarray(found[tuple(kept)])

    def write(self, matrix: np.ndarray, at: tuple[int, int], part: np.ndarray) -> None:
        """Put what a block owns into the matrix, and its copy."""
        rows, columns = self.owned(at)
        matrix[rows, columns] = part
        if self.mirrored and at[0] != at[1]:
            matrix[columns, rows] = transposed(part)

    def checksums(self, matrix: np.ndarray, at: tuple[int, int]) -> set[int]:
        """CRC32 of what a block owns and of its copy, as the matrix holds them: one number where both are
        whole."""
        rows, columns = self.owned(at)
        copies = [
            matrix[rows, columns],
            *([transposed(matrix[columns, rows])] if self.mirrored and at[0] != at[1] else []),
        ]
        return {crc32(np.ascontiguousarray(copy)) for copy in copies}


class BlockFile:
    """The file at `path`, and `path`.blocks: a header in JSON, and a line `row column crc32` for each whole
    block.

    A second process writes its lines to `path`.blocks.1, and so on. A line follows its block onto the disk.
    The file is opened anew for each block, so that no more of it is kept in memory.
    """

    def __init__(self, path: str | os.PathLike, process: int = 0):
        if not isinstance(path, str | bytes | os.PathLike) or not os.fspath(path):
            raise ValueError(f"path is {path!r}; expected the path of a file.")
        self.path = os.fsdecode(path)
        self.header_path = f"{self.path}.blocks"
        self.journal = f"{self.header_path}.{process}" if process else self.header_path
        if not Path(self.path).absolute().parent.is_dir():
            raise ValueError(
                f"path is {self.path!r}, whose folder does not exist; expected a file in an existing folder."
            )

    def header(self) -> dict | None:
        """What the file was begun with, None where there is no file, or `ValueError` for a file that is not
        ours."""
        try:
            with open(self.header_path, encoding="utf-8") as journal:
                return dict(json.loads(journal.readline()))
        except FileNotFoundError:
            if not os.path.exists(self.path):
                return None
            raise ValueError(
                f"{self.path} has no journal {self.header_path} beside it. {self._remedy()}"
            ) from None
        except ValueError:
            raise ValueError(
                f"{self.header_path} has no header in its first line. {self._remedy()}"
            ) from None

    def begin(self, header: dict) -> None:
        """Make what is missing of journal and file, each in one step, for a header that `check` accepts."""
        if not os.path.exists(self.header_path):
            with open(f"{self.header_path}.new", "w", encoding="utf-8") as journal:
                journal.write(json.dumps(header))
                _to_disk(journal)
            os.replace(journal.name, self.header_path)
        if not os.path.exists(self.path):
            new = f"{self.path}.new"
            open_memmap(new, "w+", np.dtype(header["dtype"]), tuple(header["shape"])).flush()
            os.replace(new, self.path)

    def check(self, header: dict) -> None:
        """Raise `ValueError` where journal or file were made for something else."""
        found = self.header()
        for name, expected in header.items():
            if found.get(name) != expected:
                raise ValueError(
                    f"{self.path} was begun with {name} {found.get(name)}, not {expected}. {self._remedy()}"
                )
        if os.path.exists(self.path):
            try:
                matrix = self.open()
                matching = (list(matrix.shape), matrix.dtype.str) == (header["shape"], header["dtype"])
            except ValueError:
                matching = False
            if not matching:
                raise ValueError(f"{self.path} is not the file of {self.header_path}. {self._remedy()}")

    def open(self, mode: str = "r") -> np.memmap:
        """The matrix, by default read-only."""
        return open_memmap(self.path, mode)

    def whole(self, grid: Grid) -> list[tuple[int, int]]:
        """The blocks in any process's journal whose entries in the file have the journal's checksum."""
        journaled = {}
        for name in [self.header_path, *sorted(glob.glob(f"{glob.escape(self.header_path)}.[0-9]*"))]:
            if os.path.exists(name):
                for i, j, crc in WHOLE_LINE.findall(Path(name).read_text(encoding="utf-8")):
                    journaled.setdefault((int(i), int(j)), set()).add(int(crc, 16))
        return [at for at in grid.blocks() if at in journaled and self._whole(grid, at, journaled[at])]

    def write(self, grid: Grid, at: tuple[int, int], part: np.ndarray) -> None:
        """Write what a block owns and its copy; once they are on the disk, the line in the journal."""
        matrix = self.open("r+")
        grid.write(matrix, at, part)
        matrix.flush()
        with open(self.journal, "a", encoding="utf-8") as journal:
            journal.write(
                f"\n{at[0]} {at[1]} {crc32(part):08x}"
            )  # the line end first, for the line before may be torn
            _to_disk(journal)

    def _whole(self, grid: Grid, at: tuple[int, int], journaled: set[int]) -> bool:
        found = grid.checksums(self.open(), at)
        return len(found) == 1 and found <= journaled

    def _remedy(self) -> str:
        return f"Choose another path, or delete {self.path} and {self.header_path}*."


def _to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())
