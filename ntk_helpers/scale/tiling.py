r"""A kernel too large for one call, in blocks: on all devices, within a budget, into a file that survives."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from math import prod

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array
from tqdm import tqdm

from ntk_helpers._lib.inputs import check_batches, check_size, pieces
from ntk_helpers._lib.memory import default_budget
from ntk_helpers.scale._blockfile import BlockFile
from ntk_helpers.scale._blockprogram import BlockProgram, compiled_for, device_dtype, differ

__all__ = ["tiled"]


def tiled(
    kernel: Callable[[Array, Array], Array],
    x1,
    x2=None,
    *,
    path: str | os.PathLike | None = None,
    memory_budget: int | None = None,
    block: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray | np.memmap:
    r"""The kernel $K_{ij} = k(x_i, x'_j)$ of two batches of any size, (n1, n2, ...), computed in blocks.

    `block` is the number of points at each side of a block. `kernel(a, b)` is any function of two batches to
    a floating (n_a, n_b, ...) array, each entry by itself, for example `partial(ntk, net)` or
    `lambda a, b: empirical_ntk(net, params, a, b, "trace")`. It is compiled once, for one shape of block; the
    block behind every edge starts early enough to be whole. The inputs, (n1, ...) and (n2, ...), stay on the
    host and may be memory maps. Without `x2` the kernel must be symmetric: only blocks on and above the
    diagonal are computed, and written transposed too, with the last two axes of a 4-D kernel exchanged.

    - `devices`: a block is computed on each at the same time; by default all of this process.
    - `memory_budget` in bytes, by default half of the device's memory: holds inputs (but memory maps), the
      work of one batch of blocks and, without `path`, the result. Where the devices are not CPUs, their work
      is held by half of a device's memory too. Python and JAX themselves, 0.3 GiB, come on top.
    - `block`: by default the one the file was begun with, or the largest that fits and leaves eight blocks
      for each device.
    - `path`: the result is this `.npy` file, returned as a read-only memory map; `numpy.load` reads it.
      Beside it `path`.blocks journals each block once it is on the disk. After a kill the same call goes on:
      journaled blocks are verified by checksum and not computed again, except one, which must agree. A
      finished file is returned after the same checks.

    With several processes (`jax.distributed`) each takes its share of the blocks on its own devices, and all
    return the file; a process that raises leaves the others waiting until `jax.distributed` ends them. All
    must see one `path`, with writes through memory maps coherent between them: one machine, or a shared
    parallel file system such as Lustre or GPFS; NFS is not.

    A progress bar appears after two seconds; the environment variable TQDM_DISABLE=1 switches it off.

    Raises, before any work,

    - `ValueError` for inputs that are not finite, or not alike;
    - `ValueError` for a kernel of another shape, or not of type float16, float32 or float64;
    - `ValueError` for a result or a block that does not fit into the budget;
    - `ValueError` for a file that was begun with other inputs, another shape or another block;

    and, with the file left as it was,

    - `ValueError` where the kernel is not the one of the file, by more than the root of machine precision;
    - `ValueError` for a kernel that is not symmetric, without `x2`. It is found on a diagonal block.

    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> tiled(lambda a, b: ntk(MLP(3, 1), a, b), x, block=40).shape
    (100, 100)
    """
    x1, x2 = check_batches(x1, x2, np.asanyarray)
    columns = x1 if x2 is None else x2
    result = _result(kernel, x1, columns, symmetric=x2 is None)
    devices = _devices(jax.local_devices() if devices is None else devices)
    if path is None and jax.process_count() > 1:
        raise ValueError(
            f"path is None in one of {jax.process_count()} processes; expected a file that all of them see."
        )
    block = None if block is None else check_size("block", block)
    budget = _budget(memory_budget, x1, x2, None if path is not None else result)
    file = None if path is None else BlockFile(path, jax.process_index())
    if jax.process_index():
        _wait_for_all("file")
    begun = None if file is None else file.header()
    if block is None and begun is not None:
        block = begun.get("block")
    block = None if block is None else tuple(np.minimum(block, result.shape[:2]).tolist())
    header = {} if file is None else _header(result, block, x1, x2)
    if begun is not None:
        file.check(header)
    program = compiled_for(kernel, (x1, columns), x2 is None, block, budget, devices)
    if file is None:
        return _in_memory(program, result)
    if not jax.process_index():
        file.begin(header | {"block": program.grid.block})
        _wait_for_all("file")
    return _in_file(program, file)


# --- checks


def _result(kernel, x1, columns, symmetric: bool) -> jax.ShapeDtypeStruct:
    """Shape and type of the whole kernel, from what `kernel` makes of 2 and 3 points."""
    shapes = [jax.ShapeDtypeStruct((n, *x1.shape[1:]), device_dtype(x)) for n, x in ((2, x1), (3, columns))]
    expected = "one array (2, 3, ...) of type float16, float32 or float64"
    try:
        found = jax.eval_shape(kernel, *shapes)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"kernel fails for 2 and 3 points: {type(error).__name__}: {reason}; expected {expected}."
        ) from error
    shape, dtype = getattr(found, "shape", ()), getattr(found, "dtype", None)
    if shape[:2] != (2, 3) or dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"kernel maps 2 and 3 points to {found}; expected {expected}.")
    if symmetric and len(shape) == 4 and shape[2] != shape[3]:
        raise ValueError(f"kernel has last axes {shape[2:]}; expected two of one size without x2.")
    return jax.ShapeDtypeStruct((len(x1), len(columns), *shape[2:]), dtype)


def _devices(devices) -> list[jax.Device]:
    found = list(devices) if isinstance(devices, Iterable) else []
    if (
        not found
        or not all(isinstance(device, jax.Device) for device in found)
        or len(set(found)) < len(found)
    ):
        raise ValueError(
            f"devices is {devices!r}; expected different devices, at least one, of {jax.devices()}."
        )
    return found


def _budget(memory_budget, x1, x2, result) -> int:
    """What is left for the work on blocks, or `ValueError` where nothing is."""
    budget = default_budget() if memory_budget is None else check_size("memory_budget", memory_budget)
    inputs = sum(x.nbytes for x in (x1, x2) if x is not None and not isinstance(x, np.memmap))
    kept = 0 if result is None else prod(result.shape) * result.dtype.itemsize
    if inputs + kept >= budget:
        what = f"the inputs take {inputs:,} bytes" + (
            f" and the result {result.shape} takes {kept:,}" if kept else ""
        )
        maps, file = (
            "inputs that are memory maps (numpy.load with mmap_mode)",
            "path=, which keeps the result in a file",
        )
        remedy = file if inputs < budget else maps
        raise ValueError(
            f"memory_budget is {budget:,} bytes, and {what}; expected a larger budget, or {remedy}."
        )
    return budget - inputs - kept


def _header(result, block, x1, x2) -> dict:
    inputs = {"x1": _fingerprint(x1), "x2": None if x2 is None else _fingerprint(x2)}
    return {"shape": list(result.shape), "dtype": result.dtype.str, "block": block and list(block), **inputs}


def _fingerprint(x) -> str:
    digest = sha256(f"{x.shape} {x.dtype}".encode())
    for piece in pieces(x):
        digest.update(np.ascontiguousarray(piece).view(np.uint8))
    return digest.hexdigest()


# --- the work


def _in_memory(program: BlockProgram, result: jax.ShapeDtypeStruct) -> np.ndarray:
    matrix = np.empty(result.shape, result.dtype)
    for at, part in _computed(program, program.grid.blocks()):
        program.grid.write(matrix, at, part)
    return matrix


def _in_file(program: BlockProgram, file: BlockFile) -> np.memmap:
    whole = set(file.whole(program.grid))
    for at in sorted(whole)[-1:]:
        _check_same_kernel(program, file, at)
    _wait_for_all("journals")  # nobody adds to one before all have read them
    missing = [at for at in program.grid.blocks() if at not in whole]
    for at, part in _computed(program, missing[jax.process_index() :: jax.process_count()]):
        file.write(program.grid, at, part)
    _wait_for_all("blocks")
    return file.open()


def _check_same_kernel(program: BlockProgram, file: BlockFile, at: tuple[int, int]) -> None:
    rows, columns = program.grid.owned(at)
    for _, part in program.parts([at]):
        if differ(part, file.open()[rows, columns]):
            remedy = "Choose another path, or delete it."
            raise ValueError(f"{file.path} holds another kernel: its block {at} differs. {remedy}")


def _computed(
    program: BlockProgram, blocks: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The blocks, a batch at a time, behind a progress bar."""
    hidden = {"disable": True} if jax.process_index() else {}  # else its environment variable has the word
    with tqdm(total=len(blocks), desc="kernel", unit="block", delay=2, **hidden) as bar:
        for start in range(0, len(blocks), program.sharding.mesh.size):
            for at, part in program.parts(blocks[start : start + program.sharding.mesh.size]):
                yield at, part
                bar.update()


def _wait_for_all(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"ntk_helpers.tiled: {what}")
