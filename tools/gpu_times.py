"""The second part of `make gpu`: how fast the kernels are, in float32 and compiled."""

import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from gpu_checks import PRECISIONS, points, weights
from rivals import NT_METHODS, jacobian_products, nt_empirical, nt_infinite, torch_empirical

from ntk_helpers import MLP, empirical_ntk, empirical_ntk_cost, ntk, sample_ntk, tiled
from ntk_helpers._lib.old_jax import enable_x64

__all__ = ["TINY", "Sizes", "measure"]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Those of `make bench`, and larger ones that fill a GPU."""

    product: int = 8192
    width: int = 512
    points: tuple[int, ...] = (64, 512)
    infinite: tuple[int, ...] = (1000, 8000)
    depth_of_draws: int = 51
    draws: tuple[tuple[int, int], ...] = ((100, 500), (1000, 50))
    """Widths, and how many draws a call makes."""
    tiled: int = 20_000


TINY = Sizes(32, 8, (3,), (12,), 4, ((6, 3),), 20)


def measure(run, sizes: Sizes) -> None:
    """Time everything; each rival's result is compared with ours before it is timed."""
    with enable_x64(False):
        peak = measure_products(run, sizes.product)
        rivals = available(run)
        for n, output in product(sizes.points, ("full", "trace")):
            problem = partial(finite_problem, sizes.width, n)
            what = f"empirical NTK, {output}, ReLU 4 × {sizes.width}, 10 outputs, {n} × {n} inputs"
            ours = run.case("time", what, partial(time_empirical, problem, output), who="ntk_helpers")
            share(ours, peak)
            if n == sizes.points[0]:  # the large one would take theirs too long, or too much memory
                measure_rivals(run, what, problem, output, rivals)
        for n, depth in product(sizes.infinite, (4, 21)):
            what = f"infinite NTK, ReLU depth {depth}, {n:,} points of dimension 784"
            share(run.case("time", what, partial(time_infinite, n, depth), who="ntk_helpers"), peak)
            if "neural-tangents" in rivals:
                run.case("time", what, partial(time_stax, n, depth), who="neural-tangents, stax")
        for width, draws in sizes.draws:
            net = MLP(sizes.depth_of_draws, width)
            what = f"a draw of the NTK, ReLU {width}, depth {net.depth}, 11 inputs"
            run.case("time", what, partial(time_draws, net, draws), who="ntk_helpers")
            run.case("time", what, partial(time_jacobian_products, net), who="Jacobian products with weights")
        what = f"tiled infinite NTK, in memory, ReLU depth 4, {sizes.tiled:,} points of dimension 784"
        run.case("time", what, partial(time_tiled, sizes.tiled), who="ntk_helpers")


def timed(
    call: Callable, expected=None, limit=1e-3, wait=jax.block_until_ready, get=np.asarray, rounds=5, per=1
) -> dict:
    """Seconds of a call, or of each of `per` parts of it: the median of rounds of at least 50 ms, and how far
    these lie apart. Two calls come before, which compile and warm up."""
    facts = {}
    start = time.perf_counter()
    out = call()
    wait(out)
    facts["first_call"] = time.perf_counter() - start
    if expected is not None:
        expected = np.asarray(expected)
        facts["apart"] = float(np.abs(get(out) - expected).max() / np.abs(expected).max())
        assert facts["apart"] <= limit, f"the result is {facts['apart']:.2g} from ours"
    start = time.perf_counter()
    wait(call())
    once = time.perf_counter() - start
    calls, times = max(1, int(0.05 / once)), []
    for _ in range(rounds if once < 2 else 1):
        start = time.perf_counter()
        for _ in range(calls):
            out = call()
        wait(out)
        times.append((time.perf_counter() - start) / calls)
    middle = statistics.median(times)
    return {"seconds": middle / per, "spread": (max(times) - min(times)) / middle, **facts}


# --- what there is to compare with


def measure_products(run, n: int) -> float | None:
    """The device's rate in float32 products; with TF32 and in float64 for comparison."""
    rates = []
    for name, dtype, precision in PRECISIONS[:3]:

        def time_product(dtype=dtype, precision=precision):
            with enable_x64(dtype is np.float64), jax.default_matmul_precision(precision):
                a = jax.device_put(points(n, n, dtype))
                found = timed(partial(jax.jit(jnp.matmul), a, a))
            return found | {"flops_per_second": 2 * n**3 / found["seconds"]}

        what = f"matrix product, {name}, {n} × {n}"
        rates.append(run.case("time", what, time_product, who="JAX").get("flops_per_second"))
    return rates[0]


def share(row: dict, peak: float | None) -> None:
    """Add to a row that counts operations what part of the peak they ran at."""
    if peak and "seconds" in row:
        row["of_peak"] = row["flops"] / row["seconds"] / peak


def available(run) -> list[str]:
    """The rivals that can be imported here and use this device; of the others, why not."""
    found = []
    for name, module in (("neural-tangents", "ntk_helpers.neural_tangents_compat"), ("torch", "torch")):
        try:
            imported = importlib.import_module(module)
            if name == "torch" and jax.default_backend() == "gpu" and not imported.cuda.is_available():
                raise ImportError("it sees no GPU")
            found.append(name)
        except ImportError as error:
            run.about[f"without {name}"] = str(error).partition("\n")[0]
    return found


def measure_rivals(run, what: str, problem: Callable, output: str, rivals: list[str]) -> None:
    for method in NT_METHODS if "neural-tangents" in rivals else ():
        theirs = partial(time_nt, problem, output, method)
        run.case("time", what, theirs, who=f"neural-tangents, {method}")
    if "torch" in rivals:
        run.case("time", what, partial(time_torch, problem, output), who="torch.func, Jacobian contraction")


# --- one case each, set-up included, so that a failure is that case's


def finite_problem(width: int, n: int) -> tuple[MLP, tuple]:
    net = MLP(5, width, 10, sigma_b2=0.1)
    return net, (weights(net, 64), points(n, 64), points(n + 1, 64)[1:])


def time_empirical(problem: Callable, output: str) -> dict:
    net, arguments = problem()
    flops = empirical_ntk_cost(net, *arguments, output=output).flops
    ours = jax.jit(partial(empirical_ntk, net, output=output))
    return timed(partial(ours, *jax.device_put(arguments))) | {"flops": flops}


def time_nt(problem: Callable, output: str, method: str) -> dict:
    net, arguments = problem()
    theirs = jax.jit(nt_empirical(net.apply, output, method))
    return timed(partial(theirs, *jax.device_put(arguments)), empirical_ntk(net, *arguments, output=output))


def time_torch(problem: Callable, output: str) -> dict:
    import torch

    net, arguments = problem()
    gpu = jax.default_backend() == "gpu"
    kernel, put = torch_empirical(net, output, "cuda" if gpu else "cpu")
    there, expected = put(arguments), empirical_ntk(net, *arguments, output=output)
    wait = (lambda out: torch.cuda.synchronize()) if gpu else (lambda out: None)
    return timed(lambda: kernel(*there), expected, wait=wait, get=lambda out: out.cpu().numpy())


def time_infinite(n: int, depth: int) -> dict:
    """The operations counted are those of the product of the inputs, the least that any way needs."""
    ours, x = jax.jit(partial(ntk, MLP(depth, 1, sigma_b2=0.1))), jax.device_put(points(n, 784))
    return timed(partial(ours, x)) | {"flops": 2 * n**2 * 784}


def time_stax(n: int, depth: int) -> dict:
    theirs, x = jax.jit(nt_infinite(depth)), jax.device_put(points(n, 784))
    return timed(
        partial(theirs, x), ntk(MLP(depth, 1, sigma_b2=0.1), x), limit=5e-3
    )  # in float32 its own error


def time_draws(net: MLP, draws: int) -> dict:
    x = jax.device_put(points(11, 100))
    return timed(lambda: sample_ntk(net, jax.random.key(0), x, draws), per=draws)


def time_jacobian_products(net: MLP) -> dict:
    draw_one = jacobian_products(net, jax.device_put(points(11, 100)))
    return timed(lambda: draw_one(jax.random.key(0)))


def time_tiled(n: int) -> dict:
    x, kernel = points(n, 784), partial(ntk, MLP(4, 1, sigma_b2=0.1))
    return timed(lambda: tiled(kernel, x), rounds=1)
