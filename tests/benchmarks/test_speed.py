"""Times of the kernels against neural-tangents, jitted, float32, each after the results were compared. Run by
`make bench`."""

import subprocess
import sys
from collections import namedtuple
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from rivals import ARCHITECTURES, NT_METHODS, cnn, draw, jacobian_products, nt_empirical, nt_infinite

from ntk_helpers import MLP, empirical_ntk, empirical_ntk_cost, kernel_dynamics, nngp, ntk, sample_ntk
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.learning.training import train
from ntk_helpers.neural_tangents_compat import nt

NET = MLP(depth=5, width=512, d_out=10, activation="relu", sigma_w2=2.0, sigma_b2=0.1)


@pytest.fixture(scope="module")
def finite():
    """Parameters, and 64 against 64 inputs of dimension 64."""
    keys = random.split(random.key(0), 3)
    return NET.init(keys[0], 64), random.normal(keys[1], (64, 64)), random.normal(keys[2], (64, 64))


@pytest.fixture(scope="module")
def points():
    return random.normal(random.key(1), (1000, 784))


def time(benchmark, fn, *arguments, rounds=10, expected=None, rtol=None):
    """Compile `fn`, compare its result with what is expected, and only then time it."""
    run = jax.jit(fn)
    result = jax.block_until_ready(run(*arguments))
    if expected is not None:
        assert result.dtype == expected.dtype == np.float32 and result.shape == expected.shape
        assert np.abs(result - expected).max() <= rtol * np.abs(expected).max()
    benchmark.pedantic(lambda: jax.block_until_ready(run(*arguments)), rounds=rounds)


@pytest.mark.parametrize("who", ["ours", *NT_METHODS])
@pytest.mark.parametrize("output", ["full", "trace"])
def test_empirical_ntk(benchmark, finite, output, who):
    benchmark.group = f"empirical NTK, {output}, ReLU 4 × 512, 64 × 64 inputs"
    ours = partial(empirical_ntk, NET, output=output)
    if who == "ours":
        benchmark.extra_info["flops"] = empirical_ntk_cost(NET, *finite, output=output).flops
        time(benchmark, ours, *finite)
        return
    theirs = nt_empirical(NET.apply, output, who)
    time(benchmark, theirs, *finite, rounds=2, expected=ours(*finite), rtol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:No Jacobian rule found for gather"
)  # theirs then takes that Jacobian whole
@pytest.mark.parametrize("who", ["ours", *NT_METHODS])
@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_empirical_ntk_of_architectures(benchmark, name, output, who):
    benchmark.group = f"empirical NTK, {output}, {name}"
    f, shapes, shape = ARCHITECTURES[name]
    params = draw(random.key(3), shapes)
    x = random.normal(random.key(4), shape) if f is cnn else random.randint(random.key(4), shape, 0, 100)
    ours = partial(empirical_ntk, f, output=output)
    if who == "ours":
        time(benchmark, ours, params, x, rounds=5)
        return
    theirs = nt_empirical(f, output, who)
    time(benchmark, theirs, params, x, rounds=2, expected=ours(params, x), rtol=1e-4)


# Not getrusage's: a child begins with the peak of the process that started it.
PEAK = """
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""
reads_its_peak = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads a peak from /proc")


def peak_kibibytes(program: str, *arguments) -> int:
    command = [sys.executable, "-c", program + PEAK, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


TRACED = """
import jax
from ntk_helpers import MLP, empirical_ntk
net = MLP(depth=5, width=512, d_out=10)
params, x = net.init(jax.random.key(0), 64), jax.random.normal(jax.random.key(1), (2000, 64))
jax.block_until_ready(empirical_ntk(net, params, x, output="trace"))
"""


@reads_its_peak
def test_memory_of_a_large_traced_kernel():
    """2,000 × 2,000 inputs, ReLU 4 × 512: the whole process stays within 2 GiB."""
    assert peak_kibibytes(TRACED) < 2 * 2**20


TILED = """
import sys, jax, numpy as np
from functools import partial
from ntk_helpers import MLP, ntk, tiled
x = np.random.default_rng(0).normal(size=(20_000, 784)).astype(np.float32)
kernel = partial(ntk, MLP(depth=4, width=1))
written = tiled(kernel, x, path=sys.argv[1], memory_budget=2**30)
assert written.shape == (20_000, 20_000) and written.dtype == np.float32
first, middle, last = slice(50), slice(7990, 8010), slice(-50, None)
for rows, columns in ((first, last), (last, first), (middle, middle)):
    np.testing.assert_allclose(written[rows, columns], kernel(x[rows], x[columns]), rtol=1e-5)
"""


@reads_its_peak
def test_memory_of_a_kernel_in_a_file(tmp_path):
    """20,000 × 20,000 inputs of dimension 784, ReLU depth 4, 1.6 GB: the whole process stays within 1 GiB,
    Python and JAX included."""
    assert peak_kibibytes(TILED, tmp_path / "kernel.npy") < 2**20


@pytest.mark.parametrize("who", ["ours", "stax"])
@pytest.mark.parametrize("depth", [4, 21])
def test_infinite_ntk(benchmark, points, depth, who):
    """In float32 stax loses the angle at x = x': at depth 21 its diagonal is 2.5e-3 from the float64 value,
    ours 5e-7."""
    benchmark.group = f"infinite NTK, ReLU depth {depth}, 1000 points of dimension 784"
    ours = partial(ntk, MLP(depth=depth, width=1, d_out=1, activation="relu", sigma_w2=2.0, sigma_b2=0.1))
    if who == "ours":
        time(benchmark, ours, points)
    else:
        time(benchmark, nt_infinite(depth), points, expected=ours(points), rtol=5e-3)


@pytest.mark.parametrize("who", ["ours", "stax"])
def test_infinite_ntk_with_compilation(benchmark, points, who):
    """From a fresh process's state to the first result."""
    benchmark.group = "infinite NTK, ReLU depth 21, 1000 points of dimension 784, with compilation"
    ours = partial(ntk, MLP(depth=21, width=1, sigma_b2=0.1))
    fn = ours if who == "ours" else nt_infinite(21)
    benchmark.pedantic(lambda: jax.block_until_ready(jax.jit(fn)(points)), setup=jax.clear_caches, rounds=3)


@pytest.fixture(scope="module")
def on_sphere(points):
    return points / jnp.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("who", ["ours", "stax"])
@pytest.mark.parametrize("depth", [4, 21])
def test_infinite_ntk_of_equal_norms(benchmark, on_sphere, depth, who):
    """Ours is not inside `jit`, where it is not known that norms are equal; theirs is."""
    benchmark.group = f"infinite NTK, ReLU depth {depth}, 1000 points of equal norms"
    ours = partial(ntk, MLP(depth=depth, width=1, sigma_b2=0.1), on_sphere)
    if who == "ours":
        jax.block_until_ready(ours())
        benchmark.pedantic(lambda: jax.block_until_ready(ours()), rounds=10)
    else:
        time(benchmark, nt_infinite(depth), on_sphere, expected=ours(), rtol=5e-3)


@pytest.mark.parametrize("who, depth", [("ours", 1001), ("depth 4", 4)])
def test_infinite_ntk_of_equal_norms_at_any_depth(benchmark, on_sphere, who, depth):
    """Not inside `jit`, as above."""
    benchmark.group = "infinite NTK, ReLU depth 1001, 1000 points of equal norms"
    net, x = MLP(depth=depth, width=1, sigma_b2=0.1), on_sphere
    single = jax.block_until_ready(ntk(net, x))
    with enable_x64(True):
        double = np.asarray(ntk(net, np.asarray(x, np.float64)))
    assert np.abs(single - double).max() <= 2e-5 * double.max()
    benchmark.pedantic(lambda: jax.block_until_ready(ntk(net, x)), rounds=10)


@pytest.mark.parametrize("who", ["ours"])
def test_matrix_product(benchmark, who):
    """The machine's float32 peak, for comparison."""
    benchmark.group = "float32 matrix product, 4096 × 4096 × 4096"
    benchmark.extra_info["flops"] = 2 * 4096**3
    a, b = random.normal(random.key(2), (2, 4096, 4096))
    time(benchmark, jax.numpy.matmul, a, b)


# --- the law of the kernel at initialization: seconds for each draw, so that each side may choose how many


def time_draws(benchmark, draws, run):
    """Time `run`, which makes that many draws, and report one: the call's time divided by their number."""
    run()
    benchmark.extra_info["draws"] = draws
    benchmark.pedantic(run, rounds=3)


@pytest.mark.parametrize("who", ["ours", "Jacobian products"])
@pytest.mark.parametrize("width, ours, theirs", [(100, 500, 20), (1000, 50, 1)])
def test_sample_ntk(benchmark, width, ours, theirs, who):
    benchmark.group = f"a draw of the NTK, ReLU {width}, depth 51, 11 inputs"
    net, x = MLP(51, width), random.normal(random.key(3), (11, 100))
    if who == "ours":
        time_draws(benchmark, ours, lambda: jax.block_until_ready(sample_ntk(net, random.key(4), x, ours)))
        return
    draw = jacobian_products(net, x)
    params = net.init(random.key(4), 100)
    np.testing.assert_allclose(
        draw(random.key(4)), empirical_ntk(net, params, x, output="trace"), rtol=1e-3, atol=1e-3
    )
    time_draws(benchmark, theirs, lambda: [draw(key) for key in random.split(random.key(4), theirs)])


@pytest.mark.parametrize("who", ["ours"])
def test_sample_ntk_of_a_million_units(benchmark, who):
    benchmark.group = "a draw of the NTK, ReLU 1,000,000, depth 3, 4 inputs"
    x = random.normal(random.key(3), (4, 100))
    time_draws(benchmark, 1, lambda: jax.block_until_ready(sample_ntk(MLP(3, 10**6), random.key(4), x, 1)))


IMPORTS = {
    "ours": "ntk_helpers",
    "jax alone": "jax",
    "the neural-tangents layer": "ntk_helpers.neural_tangents_compat",
}


@pytest.mark.parametrize("who", IMPORTS)
def test_import(benchmark, who):
    benchmark.group = "a Python process that imports ntk_helpers"
    command = [sys.executable, "-c", f"import {IMPORTS[who]}"]
    benchmark.pedantic(partial(subprocess.run, command, check=True), rounds=5, warmup_rounds=1)


# --- training under a constant kernel, and of networks: seconds for each time, or for each network and step


@pytest.fixture(scope="module")
def double():
    """Kernels of 500 training and 500 test points, in float64 on both sides, and the infinite network's
    kernel function."""
    with enable_x64(True):
        x = np.asarray(random.normal(random.key(5), (1000, 20)))
        y = np.sin(x[:500, :1])
        net = MLP(depth=3, width=1, activation="erf", sigma_b2=0.1)
        both = [np.asarray(kernel(net, x)) for kernel in (ntk, nngp)]
        theta, theta_test, nngp_train, nngp_cross, nngp_test = (
            np.ascontiguousarray(kernel[rows, columns])
            for kernel, rows, columns in (
                (both[0], slice(500), slice(500)),
                (both[0], slice(500, None), slice(500)),
                (both[1], slice(500), slice(500)),
                (both[1], slice(500, None), slice(500)),
                (both[1], slice(500, None), slice(500, None)),
            )
        )
    return x[:500], x[500:], y, theta, theta_test, (nngp_train, nngp_cross, nngp_test)


TIMES = np.geomspace(1, 1e6, 1000)


@pytest.mark.parametrize("who", ["ours", "gradient_descent_mse"])
def test_outputs_in_time(benchmark, double, who):
    """Ours: 1,000 times in one call, eigendecomposition included. Theirs: 20 calls of one time each, set up
    before."""
    benchmark.group = "outputs at 500 test points at one of 1000 times, 500 training points"
    _, _, y, theta, theta_test, _ = double
    zero = np.zeros_like(y)
    ours = lambda: kernel_dynamics(theta, y, loss="mean_half").test(TIMES, zero, zero, theta_test)
    if who == "ours":
        time_draws(benchmark, len(TIMES), ours)
        return
    with enable_x64(True):
        predict = nt.predict.gradient_descent_mse(jnp.asarray(theta), jnp.asarray(y))
        arguments = [jnp.asarray(a) for a in (zero, zero, theta_test)]
        np.testing.assert_allclose(
            np.stack([predict(t, *arguments)[1] for t in TIMES[::50]]), ours()[::50], rtol=0, atol=1e-7
        )
        time_draws(
            benchmark, 20, lambda: [jax.block_until_ready(predict(t, *arguments)) for t in TIMES[::50]]
        )


@pytest.mark.parametrize("who", ["ours", "gradient_descent_mse_ensemble"])
def test_distributions_in_time(benchmark, double, who):
    """Ours: variances at 100 times in one call. Theirs: whole covariances, 3 calls of one time each, their
    kernels kept."""
    benchmark.group = "means and variances at 500 test points at one of 100 times, 500 training points"
    x, x_test, y, theta, theta_test, covariances = double
    times = TIMES[::10]

    def ours():
        return kernel_dynamics(theta, y, loss="mean_half").distribution(
            times, theta_test, *covariances, "diagonal"
        )

    if who == "ours":
        time_draws(benchmark, len(times), ours)
        return
    both = namedtuple("both", ["nngp", "ntk"])
    kept = {
        "train": (covariances[0], theta),
        "cross": (covariances[1], theta_test),
        "test": (covariances[2], None),
    }

    def kernel_fn(x1, x2=None, get=None):
        found = kept["cross" if x2 is not None else "train" if x1 is x else "test"]
        found = both(*(None if kernel is None else jnp.asarray(kernel) for kernel in found))
        return (
            getattr(found, get)
            if isinstance(get, str)
            else getattr(found, get[0])
            if len(get) == 1
            else found
        )

    with enable_x64(True):
        predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, jnp.asarray(y), diag_reg=0.0)
        mean, covariance = predict(times[::40], x_test, "ntk", True)
        found = ours()
        np.testing.assert_allclose(mean, found.mean[::40], rtol=0, atol=1e-7)
        np.testing.assert_allclose(
            np.diagonal(covariance, axis1=1, axis2=2), found.covariance[::40], rtol=0, atol=1e-7
        )
        time_draws(
            benchmark,
            3,
            lambda: [jax.block_until_ready(predict(t, x_test, "ntk", True)) for t in times[::40]],
        )


@pytest.mark.parametrize("who", ["ours", "loop over networks"])
@pytest.mark.parametrize("width, members, steps", [(512, 8, 200), (64, 100, 200)])
def test_training_of_an_ensemble(benchmark, width, members, steps, who):
    """128 inputs of dimension 64, 10 outputs, momentum. Ours: the whole call, but for its compilation."""
    benchmark.group = f"a step of each of {members} networks, ReLU {width}, depth 3"
    net, optimizer = MLP(3, width, 10), optax.sgd(0.1, 0.9)
    x, y = random.normal(random.key(6), (128, 64)), random.normal(random.key(7), (128, 10))
    params = jax.vmap(lambda key: net.init(key, 64))(random.split(random.key(8), members))
    ours = partial(train, net, params, x, y, optimizer, loss="mean", ensemble=True)
    if who == "ours":
        time_draws(benchmark, members * steps, lambda: jax.block_until_ready(ours(steps=steps).params))
        return

    @jax.jit
    def step(params, memory):
        updates, memory = optimizer.update(
            jax.grad(lambda p: ((net.apply(p, x) - y) ** 2).mean())(params), memory
        )
        return optax.apply_updates(params, updates), memory

    starts = [jax.tree.map(lambda leaf: leaf[k], params) for k in range(members)]

    def theirs(steps):
        ends = []
        for p in starts:
            memory = optimizer.init(p)
            for _ in range(steps):
                p, memory = step(p, memory)
            ends.append(p)
        return jax.block_until_ready(ends)

    few = 20  # then rounding has not grown yet
    for k, (end, whole) in enumerate(zip(theirs(few), [ours(steps=few).params] * members)):
        for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(whole)):
            assert a.dtype == b.dtype == np.float32 and np.abs(a - b[k]).max() <= 1e-3
    time_draws(benchmark, members * steps, partial(theirs, steps))
