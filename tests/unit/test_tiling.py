"""Kernels in blocks: equal to the whole, on devices and processes, within budgets, and in files that go on
after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_helpers import MLP, empirical_ntk, nngp, ntk, tiled
from ntk_helpers.scale._blockfile import Grid

ROOT = Path(__file__).parents[2]
NET = MLP(3, 6, 2, "relu", 1.7, 0.3)
PARAMS = NET.init(jax.random.key(0), 3)
POINTS = np.random.default_rng(3).normal(size=(13, 3))
OTHERS = np.random.default_rng(4).normal(size=(6, 3))
KERNELS = {
    "ntk": partial(ntk, NET),
    "nngp": partial(nngp, NET),
    "trace": lambda a, b: empirical_ntk(NET, PARAMS, a, b, "trace"),
    "diagonal": lambda a, b: empirical_ntk(NET, PARAMS, a, b, "diagonal"),
    "full": lambda a, b: empirical_ntk(NET, PARAMS, a, b),
}


def products(a, b):
    return a @ b.T


class Counting:
    """`products`, which counts the blocks that are computed."""

    blocks = 0

    def _count(self, _):
        self.blocks += 1
        return np.zeros((), np.float64)

    def __call__(self, a, b):
        return a @ b.T + jax.pure_callback(self._count, jax.ShapeDtypeStruct((), np.float64), a[0, 0])


def journaled(path):
    """The blocks of the lines of a journal."""
    return [tuple(map(int, line.split()[:2])) for line in Path(f"{path}.blocks").read_text().splitlines()[1:]]


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kernel.npy"


# --- equal to the whole kernel


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("given", [True, False])
def test_equals_the_whole_kernel(name, given, path):
    x2 = OTHERS if given else None
    whole = KERNELS[name](POINTS, OTHERS if given else POINTS)
    written = tiled(KERNELS[name], POINTS, x2, block=5, path=path)
    assert isinstance(written, np.memmap) and not written.flags.writeable
    close(np.load(path), whole)


@pytest.mark.parametrize("block", [1, 4, 12, 13, 50, None])
def test_any_block(block):
    close(tiled(products, POINTS, block=block), POINTS @ POINTS.T)
    close(tiled(products, POINTS, OTHERS, block=block), POINTS @ OTHERS.T)
    close(tiled(products, OTHERS, POINTS, block=block), OTHERS @ POINTS.T)


@pytest.mark.parametrize("side", [1, 3, 4, 13])
@pytest.mark.parametrize(
    "sizes, mirrored",
    [((13, 13), True), ((1, 1), True), ((13, 13), False), ((13, 6), False), ((1, 1), False), ((4, 9), False)],
)
def test_every_entry_is_written_once(sizes, mirrored, side):
    grid = Grid(sizes, tuple(min(side, size) for size in sizes), mirrored)
    written = np.zeros(sizes, int)
    for at in grid.blocks():
        rows, columns = grid.owned(at)
        count = np.zeros(sizes, int)
        grid.write(count, at, np.ones((rows.stop - rows.start, columns.stop - columns.start), int))
        written += count
    assert (written == 1).all()


def test_only_blocks_on_and_above_the_diagonal_are_computed():
    kernel = Counting()
    close(tiled(kernel, POINTS, block=4), POINTS @ POINTS.T)
    assert kernel.blocks == 10


def test_points_of_any_shape_and_type_and_memory_maps(tmp_path):
    images = np.random.default_rng(5).integers(0, 9, size=(5, 2, 3), dtype=np.int8)
    np.save(tmp_path / "images.npy", images)
    kernel = lambda a, b: jnp.einsum("iuv,juv->ij", a, b).astype(float)
    expected = np.einsum("iuv,juv->ij", images, images).astype(np.int8)
    assert (tiled(kernel, np.load(tmp_path / "images.npy", mmap_mode="r"), block=2) == expected).all()


def test_a_kernel_that_is_not_symmetric_needs_both_batches():
    kernel = lambda a, b: a @ jnp.triu(jnp.ones((3, 3))) @ b.T
    close(tiled(kernel, POINTS, POINTS, block=5), kernel(POINTS, POINTS))
    with pytest.raises(ValueError, match="kernel is not symmetric"):
        tiled(kernel, POINTS, block=5)


def test_nan_and_infinity_of_a_kernel_are_kept(path):
    kernel = lambda a, b: jnp.log(jnp.abs(a[:, :1]) - 1) + jnp.log(jnp.abs(b[:, 0]) - 1)
    points = np.array([[2.0], [1.0], [0.5]])
    for _ in range(2):
        np.testing.assert_array_equal(tiled(kernel, points, block=2, path=path), kernel(points, points))


# --- devices and processes


def python(script, *arguments, devices=1, **options):
    """A process that runs `script`, with as many CPU devices."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_ENABLE_X64": "1",
    }
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], env=environment, **options)


ON_DEVICES = """
import sys, jax, numpy as np
from functools import partial
from ntk_helpers import MLP, empirical_ntk, ntk, tiled
from ntk_helpers.scale._blockprogram import BlockProgram
x, net = np.random.default_rng(0).normal(size=(41, 3)), MLP(3, 6, 2, "tanh", 1.7, 0.3)
params = net.init(jax.random.key(0), 3)
for kernel, x2 in (partial(ntk, net), None), (lambda a, b: empirical_ntk(net, params, a, b), x[:17] + 1):
    one = tiled(kernel, x, x2, block=7, devices=jax.devices()[:1])
    assert np.abs(tiled(kernel, x, x2, block=7) - one).max() <= 1e-12 * np.abs(one).max()
    assert np.abs(kernel(x, x if x2 is None else x2) - one).max() <= 1e-12 * np.abs(one).max()
parts, batches = BlockProgram.parts, []
def counted(self, batch):
    batches.append((len(batch), len(self.sharding.device_set)))
    return parts(self, batch)
BlockProgram.parts = counted
tiled(lambda a, b: a @ b.T, x, path=sys.argv[1])
assert all(batch == (8, 8) for batch in batches[:-1]) and len(batches) >= 8
"""


@pytest.mark.slow
def test_eight_devices_equal_one_and_all_work(path):
    assert python(ON_DEVICES, path, devices=8).wait() == 0
    assert len(journaled(path)) >= 64


IN_PROCESSES = """
import sys, jax, numpy as np
from functools import partial
from ntk_helpers import MLP, ntk, tiled
address, process, path, block = sys.argv[1:]
jax.distributed.initialize(address, num_processes=2, process_id=int(process))
x = np.random.default_rng(0).normal(size=(41, 3))
kernel = partial(ntk, MLP(3, 6, 1, "tanh"))
try:
    tiled(kernel, x)
except ValueError as error:
    assert "path is None in one of 2 processes" in str(error)
else:
    raise AssertionError
written = tiled(kernel, x, path=path, block=eval(block))
whole = np.asarray(kernel(x, x))
assert np.abs(written - whole).max() <= 1e-12 * np.abs(whole).max()
"""


def in_two_processes(path, block):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [python(IN_PROCESSES, address, k, path, block, devices=2) for k in range(2)]
    assert [process.wait() for process in both] == [0, 0]


@pytest.mark.slow
def test_two_processes_share_the_blocks_of_one_file(path):
    in_two_processes(path, 6)
    theirs = [line.split()[:2] for line in Path(f"{path}.blocks.1").read_text().split("\n")[1:]]
    ours = journaled(path)
    shares = [set(ours), {(int(i), int(j)) for i, j in theirs}]
    assert [len(share) for share in shares] == [14, 14] and len(shares[0] | shares[1]) == 28
    os.truncate(f"{path}.blocks", os.path.getsize(f"{path}.blocks") - 4)
    in_two_processes(path, None)  # with the block of the file; the torn one is left to do
    assert journaled(path)[:14] == ours and len(journaled(path)) == 15
    x = np.random.default_rng(0).normal(size=(41, 3))
    before = Path(f"{path}.blocks").read_bytes()
    tiled(partial(ntk, MLP(3, 6, 1, "tanh")), x, path=path)  # one process reads both journals
    assert Path(f"{path}.blocks").read_bytes() == before


# --- files


KILLED = """
import itertools, os, signal, sys, jax, numpy as np
from ntk_helpers import tiled
count = itertools.count(1)
def block(_):
    if next(count) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros(())
kernel = lambda a, b: a @ b.T + jax.pure_callback(block, jax.ShapeDtypeStruct((), float), a[0, 0])
tiled(kernel, np.load(sys.argv[1]), path=sys.argv[2], block=2)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(path, tmp_path):
    np.save(tmp_path / "points.npy", POINTS)
    process = python(KILLED, tmp_path / "points.npy", path)
    assert process.wait() == -signal.SIGKILL
    finished, kernel = journaled(path), Counting()
    assert 4 <= len(finished) < 28
    close(tiled(kernel, POINTS, path=path), POINTS @ POINTS.T)
    assert kernel.blocks == 28 - len(finished) + 1  # and one to see that the kernel is the same
    assert journaled(path) == Grid((13, 13), (2, 2), True).blocks()


def test_a_finished_file_is_only_read(path):
    tiled(products, POINTS, path=path, block=4)
    before, kernel = (
        [(Path(f"{path}{end}").read_bytes(), os.stat(f"{path}{end}").st_mtime_ns) for end in ("", ".blocks")],
        Counting(),
    )
    close(tiled(kernel, POINTS, path=path, block=4), POINTS @ POINTS.T)
    assert kernel.blocks == 1
    assert before == [
        (Path(f"{path}{end}").read_bytes(), os.stat(f"{path}{end}").st_mtime_ns) for end in ("", ".blocks")
    ]


@pytest.mark.parametrize("entry", [(0, 5), (5, 0), (9, 9), (12, 11)])
def test_a_torn_block_is_computed_again(path, entry):
    tiled(products, POINTS, path=path, block=4)
    np.lib.format.open_memmap(path, "r+")[entry] += 1e-14
    kernel = Counting()
    assert (tiled(kernel, POINTS, path=path, block=4) == tiled(products, POINTS, block=4)).all()
    assert kernel.blocks == 2
    assert journaled(path)[-1] == tuple(sorted(k // 4 for k in entry))


@pytest.mark.parametrize("cut", [1, 8, 9, 11, 12])
def test_a_torn_line_of_the_journal_is_computed_again(path, cut):
    tiled(products, POINTS, path=path, block=4)
    journal, kernel = Path(f"{path}.blocks"), Counting()
    whole = journal.read_text()
    os.truncate(journal, len(whole) - cut)
    close(tiled(kernel, POINTS, path=path, block=4), POINTS @ POINTS.T)
    assert kernel.blocks == 2
    assert journal.read_text().splitlines()[-1] == whole.splitlines()[-1]
    tiled(kernel, POINTS, path=path, block=4)
    assert kernel.blocks == 3


def test_a_run_killed_before_its_file_was_made_goes_on(path):
    tiled(products, POINTS, path=path)
    path.unlink()
    close(tiled(products, POINTS, path=path), POINTS @ POINTS.T)


def test_a_line_follows_its_block_onto_the_disk(path, monkeypatch):
    """Each block: its entries are flushed while the journal lacks its line, and the line is synchronized
    before the next."""
    flush, sync, events = np.memmap.flush, os.fsync, []

    def flushed(matrix):
        flush(matrix)
        events.append(
            (
                "flush",
                len(journaled(path)) if Path(f"{path}.blocks").exists() else None,
                int(np.count_nonzero(matrix)),
            )
        )

    def synced(descriptor):
        sync(descriptor)
        events.append(("sync", len(journaled(path)) if Path(f"{path}.blocks").exists() else None))

    monkeypatch.setattr(np.memmap, "flush", flushed)
    monkeypatch.setattr(os, "fsync", synced)
    tiled(products, POINTS, path=path, block=7)
    owned = [49, 49 + 2 * 42, 169]
    assert events[-6:] == [event for k in range(3) for event in (("flush", k, owned[k]), ("sync", k + 1))]


def test_a_block_that_does_not_reach_the_disk_is_not_journaled(path, monkeypatch):
    tiled(products, POINTS, path=path, block=7)
    os.truncate(f"{path}.blocks", Path(f"{path}.blocks").read_text().index("\n"))

    def full(matrix):
        raise OSError("no space left")

    monkeypatch.setattr(np.memmap, "flush", full)
    with pytest.raises(OSError, match="no space"):
        tiled(products, POINTS, path=path, block=7)
    assert journaled(path) == []


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x1=POINTS + 1), "was begun with x1"),
        (dict(x1=POINTS[::-1].copy()), "was begun with x1"),
        (dict(x2=POINTS), "was begun with x2 None"),
        (dict(x1=POINTS[:12]), r"was begun with shape \[13, 13\], not \[12, 12\]"),
        (dict(block=5), r"was begun with block \[4, 4\], not \[5, 5\]"),
        (dict(kernel=lambda a, b: 1.001 * (a @ b.T)), "holds another kernel"),
        (dict(kernel=lambda a, b: (a @ b.T).astype(np.float32)), "was begun with dtype <f8, not <f4"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_file_of_another_call_is_refused_and_left(path, change, message, finished):
    tiled(products, POINTS, path=path, block=4)
    if not finished:
        os.truncate(f"{path}.blocks", os.path.getsize(f"{path}.blocks") - 30)
    before = path.read_bytes(), Path(f"{path}.blocks").read_bytes()
    arguments = dict(kernel=products, x1=POINTS, x2=None, block=4) | change
    with pytest.raises(ValueError, match=f"{message}.*Choose another path, or delete"):
        tiled(arguments.pop("kernel"), arguments.pop("x1"), arguments.pop("x2"), path=path, **arguments)
    assert before == (path.read_bytes(), Path(f"{path}.blocks").read_bytes())


def test_a_foreign_file_is_refused_and_left(path):
    np.save(path, np.zeros((13, 13)))
    with pytest.raises(ValueError, match="has no journal .*Choose another path"):
        tiled(products, POINTS, path=path)
    Path(f"{path}.blocks").write_text("notes")
    with pytest.raises(ValueError, match="has no header in its first line"):
        tiled(products, POINTS, path=path)
    assert not np.load(path).any() and Path(f"{path}.blocks").read_text() == "notes"


@pytest.mark.parametrize("content", [b"text", np.lib.format.magic(1, 0), None])
def test_a_journal_beside_a_foreign_file_is_refused(path, content):
    tiled(products, POINTS, path=path)
    path.unlink()
    if content is None:
        np.save(path, np.zeros((13, 12)))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is not the file of .*Choose another path"):
        tiled(products, POINTS, path=path)
    assert path.read_bytes() == before


def test_the_journal_says_what_it_is(path):
    tiled(products, POINTS, OTHERS, path=path, block=8)
    header = json.loads(Path(f"{path}.blocks").read_text().splitlines()[0])
    assert (header["shape"], header["dtype"], header["block"]) == ([13, 6], "<f8", [8, 6])
    assert len(header["x1"]) == len(header["x2"]) == 64 and header["x1"] != header["x2"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["kernel.npy", "kernel.npy.blocks"]


# --- memory


def points(n, d=4):
    return np.random.default_rng(n).normal(size=(n, d))


@pytest.mark.slow
def test_the_block_is_the_largest_that_fits(path):
    """Products of n points of dimension 4 keep their entries, the file's pages and checks: 6 blocks of
    float64."""
    x = points(4000)
    for budget, least, most in ((2**24, 400, 600), (2**22, 200, 300), (2**40, 1000, 1000)):
        tiled(products, x, path=path, memory_budget=budget)
        (side, _) = json.loads(Path(f"{path}.blocks").read_text().splitlines()[0])["block"]
        assert least <= side <= most and (side == most or 6 * 8 * side**2 > 0.5 * (budget - x.nbytes))
        assert 6 * 8 * side**2 + x.nbytes <= budget
        path.unlink(), Path(f"{path}.blocks").unlink()


def test_a_result_that_does_not_fit_needs_a_file(path):
    with pytest.raises(
        ValueError, match=r"the result \(400, 400\) takes 1,280,000; expected a larger budget, or path="
    ):
        tiled(products, points(400), memory_budget=2**20)
    assert tiled(products, points(400), memory_budget=2**20, path=path).shape == (400, 400)


def test_inputs_that_do_not_fit_may_be_memory_maps(tmp_path, path):
    np.save(tmp_path / "x.npy", points(20, 10_000))
    with pytest.raises(ValueError, match="the inputs take 1,600,000 bytes; .*memory maps"):
        tiled(products, points(20, 10_000), memory_budget=2**20, path=path)
    tiled(products, np.load(tmp_path / "x.npy", mmap_mode="r"), memory_budget=2**20, path=path)


@pytest.mark.parametrize("block, budget", [(1000, 2**22), (None, 200_000)])
def test_a_block_that_does_not_fit_is_refused(block, budget, path):
    x = points(1000) if block else points(2, 12_000)
    with pytest.raises(
        ValueError,
        match="points on 1 devices take .*a smaller block, fewer devices or a larger memory_budget",
    ):
        tiled(products, x, block=block, memory_budget=budget, path=path)
    assert not path.exists() and not Path(f"{path}.blocks").exists()


# --- bad input, and the bar


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x1=np.array(1.0)), r"x1 has shape \(\); expected \(points, ...\)"),
        (dict(x1=np.zeros((0, 3))), r"x1 has shape \(0, 3\)"),
        (dict(x1=np.full((4, 3), np.nan)), "x1 holds 12 values that are NaN"),
        (dict(x2=np.zeros((4, 2))), r"x1 has points of shape \(3,\) and x2 of \(2,\)"),
        (dict(kernel=lambda a, b: b @ a.T), r"expected one array \(2, 3, ...\)"),
        (dict(kernel=lambda a, b: (a @ b.T, a @ b.T)), r"expected one array \(2, 3, ...\)"),
        (dict(kernel=lambda a, b: (a @ b.T).astype(jnp.bfloat16)), "of type float16, float32 or float64"),
        (dict(kernel=lambda a, b: a[:, None, :, None] * b[:, None, :2]), r"kernel has last axes \(3, 2\)"),
        (dict(block=0), "block is 0; expected an integer of at least 1"),
        (dict(block=2.0), "block is 2.0; expected an integer"),
        (dict(devices=[]), r"devices is \[\]; expected different devices"),
        (dict(memory_budget=0), "memory_budget is 0; expected an integer of at least 1"),
        (dict(path="no/such/folder/kernel.npy"), "path is .*expected a file in an existing folder"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = dict(kernel=products, x1=POINTS, x2=None) | change
    with pytest.raises(ValueError, match=message):
        tiled(arguments.pop("kernel"), arguments.pop("x1"), arguments.pop("x2"), **arguments)


SLOW = """
import time, jax, numpy as np
from ntk_helpers import tiled
sleep = lambda _: time.sleep(0.25) or np.zeros(())  # ten of them: a bar waits for two seconds
wait = lambda a: jax.pure_callback(sleep, jax.ShapeDtypeStruct((), float), a[0, 0])
tiled(lambda a, b: a @ b.T + wait(a), np.ones((7, 2)), block=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("disabled", [True, False])
def test_the_bar_can_be_switched_off(disabled, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1" if disabled else "")
    process = python(SLOW, stderr=subprocess.PIPE, text=True)
    shown = process.communicate()[1]
    assert process.returncode == 0 and ("10/10" in shown) is not disabled
