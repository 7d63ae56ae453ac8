"""A kernel compiled for one block of points on each device, and the choice of the block that fits."""

from collections.abc import Iterator
from math import ceil, prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntk_helpers._lib.blocks import transposed
from ntk_helpers._lib.kept import remembered
from ntk_helpers._lib.memory import default_budget
from ntk_helpers.scale._blockfile import Grid

__all__ = ["BlockProgram", "compiled_for", "device_dtype", "differ"]

TRIAL = 512  # points of the block from which the largest that fits is estimated
BLOCKS_PER_DEVICE = 8
"""At least, so that no device waits long, half of a symmetric kernel is saved, and a kill loses little."""
FULL_ENOUGH = 0.6  # of the budget


class BlockProgram(NamedTuple):
    """The kernel compiled for one block on each device, and the host's inputs."""

    inputs: tuple[np.ndarray, np.ndarray]
    grid: Grid
    sharding: NamedSharding
    run: jax.stages.Compiled

    def bytes(self) -> tuple[int, int]:
        """Memory of a batch of blocks on the host, and on a device where that has its own."""
        sizes, devices = self.run.memory_analysis(), self.sharding.mesh.size
        device = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        # Five outputs: pages of the file, and checks.
        host = devices * sizes.argument_size_in_bytes + 5 * sizes.output_size_in_bytes
        shared = self.sharding.mesh.devices.flat[0].platform == "cpu"
        return host + devices * device * shared, device * (not shared)

    def parts(self, batch: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """The blocks of a batch, at most one a device, and what each owns. A device left over repeats the
        last one."""
        padded = batch + [batch[-1]] * (self.sharding.mesh.size - len(batch))
        starts = zip(*map(self.grid.starts, padded))
        stacks = [
            np.stack([x[k : k + side] for k in first])
            for x, side, first in zip(self.inputs, self.grid.block, starts)
        ]
        found = self.run(*jax.device_put(stacks, self.sharding))
        shards = sorted(found.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        for at, shard in zip(batch, shards):
            yield at, self._symmetric(at, self.grid.part(at, np.asarray(shard.data)[0]))

    def _symmetric(self, at, part: np.ndarray) -> np.ndarray:
        if self.grid.mirrored and at[0] == at[1] and differ(part, transposed(part)):
            raise ValueError(
                "kernel is not symmetric; expected kernel(a, b)[i, j] equal to kernel(b, a)[j, i], or x2=x1."
            )
        return part


def compiled_for(kernel, inputs, mirrored: bool, block, budget: int, devices) -> BlockProgram:
    """The kernel compiled for `block`, or for the largest that fits; `ValueError` where that does not."""
    sizes = tuple(map(len, inputs))
    sharding = NamedSharding(Mesh(np.array(devices), "blocks"), PartitionSpec("blocks"))
    if block is not None:
        program = _compiled(kernel, inputs, Grid(sizes, block, mirrored), sharding)
        if _share(program, budget) > 1:
            raise ValueError(_too_large(program, budget))
        return program
    blocks = 2 * BLOCKS_PER_DEVICE * len(devices) * jax.process_count()  # half of them copies
    low, high, fitting = 0, ceil((prod(sizes) / blocks) ** 0.5) + 1, None
    size = min(TRIAL, high - 1)
    while True:
        program = _compiled(
            kernel, inputs, Grid(sizes, tuple(_even(n, size) for n in sizes), mirrored), sharding
        )
        share = _share(program, budget)
        low, high, fitting = (size, high, program) if share <= 1 else (low, size, fitting)
        if high == 1:
            raise ValueError(_too_large(program, budget))
        if low + 1 == high or fitting is program and share > FULL_ENOUGH:
            return fitting
        size = min(max(int(size * (0.95 / share) ** 0.5), low + 1), high - 1)


def _even(size: int, block: int) -> int:
    return ceil(size / ceil(size / block))


def _compiled(kernel, inputs, grid: Grid, sharding: NamedSharding) -> BlockProgram:
    """The program for these blocks, compiled once as long as the kernel lives."""
    points = tuple((x.shape[1:], device_dtype(x)) for x in inputs)
    run = remembered(kernel, (grid.block, points, sharding), lambda: _compile(kernel, inputs, grid, sharding))
    return BlockProgram(inputs, grid, sharding, run)


def _compile(kernel, inputs, grid: Grid, sharding: NamedSharding) -> jax.stages.Compiled:
    @jax.jit
    @jax.shard_map(mesh=sharding.mesh, in_specs=sharding.spec, out_specs=sharding.spec, check_vma=False)
    def run(a, b):
        return kernel(a[0], b[0])[None]

    shapes = [
        jax.ShapeDtypeStruct((sharding.mesh.size, side, *x.shape[1:]), device_dtype(x), sharding=sharding)
        for x, side in zip(inputs, grid.block)
    ]
    lowered = run.lower(*shapes)
    found = lowered.out_info.shape
    if found[1:3] != grid.block:
        points = f"{grid.block[0]} and {grid.block[1]} points"
        raise ValueError(f"kernel maps {points} to shape {found[1:]}; expected {(*grid.block, *found[3:])}.")
    return lowered.compile()


def _share(program: BlockProgram, budget: int) -> float:
    """The memory of a batch as a fraction of what there is."""
    host, device = program.bytes()
    return max(host / budget, device / default_budget())


def _too_large(program: BlockProgram, budget: int) -> str:
    host, device = program.bytes()
    return (
        f"blocks of {program.grid.block} points on {program.sharding.mesh.size} devices take "
        f"{host:,} bytes of memory, and {device:,} of each device's own; expected at most {budget:,}, and "
        f"{default_budget():,}: a smaller block, fewer devices or a larger memory_budget."
    )


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether arrays differ by more than the root of machine precision, relative to the largest entry."""
    largest = np.abs(a).max(where=np.isfinite(a), initial=0.0)
    return not np.allclose(a, b, rtol=0, atol=float(jnp.finfo(a.dtype).eps ** 0.5 * largest), equal_nan=True)


def device_dtype(x) -> np.dtype:
    """The type of `x` on a device: float32 for float64, unless JAX is told otherwise."""
    return jax.dtypes.canonicalize_dtype(x.dtype)
