"""The first part of `make gpu`: every kernel against its float64 value on the CPU."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from rivals import ARCHITECTURES, cnn, draw

from ntk_helpers import MLP, empirical_ntk, kernels, ntk, ntk_moments, sample_ntk, tiled
from ntk_helpers._lib.host import in_float64
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.networks import activation_names

__all__ = ["PRECISIONS", "TINY", "Sizes", "check", "points", "weights"]

PRECISIONS = (
    ("float32", np.float32, "highest"),
    ("float32, TF32", np.float32, "tensorfloat32"),
    ("float64", np.float64, "highest"),
    ("float64, TF32", np.float64, "tensorfloat32"),
)
"""Names, types, and what JAX is told of matrix products around a call."""
LIMITS = {np.float32: 1e-4, np.float64: 1e-10}
"""Errors relative to the largest entry that are still rounding. TF32 would leave 1e-3."""
STANDARD_ERRORS = 5


@dataclasses.dataclass(frozen=True)
class Sizes:
    activations: tuple[str, ...] = activation_names()
    points: int = 24
    sphere: int = 400
    """Points of equal norms, enough for a profile of the kernel in place of its layers."""
    draws: int = 4000


TINY = Sizes(("relu", "tanh"), 5, 12, 400)


def check(run, sizes: Sizes) -> None:
    """Compare every kernel, several at a time: nearly all of it is compilation."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    found = {what: pool.submit(compare, kernel) for what, kernel in checked_kernels(sizes)}
    found["law of sample_ntk, standard errors"] = pool.submit(compare_law, sizes.draws)
    for what, future in found.items():
        run.case("check", what, lambda future=future: future.result(run.left()))
    pool.shutdown(wait=False, cancel_futures=True)


def checked_kernels(sizes: Sizes) -> Iterator[tuple[str, Callable[[type], jax.Array]]]:
    """Every kernel by name, as a function of the type of its inputs."""
    n, d, deep = sizes.points, 16, MLP(21, 1, sigma_b2=0.1)
    for name in sizes.activations:
        yield f"infinite, {name}, depth 4", partial(both, MLP(4, 1, 1, name, 1.5, 0.1), n, d)
    yield "infinite, relu, depth 21", partial(both, deep, n, d)
    yield "infinite, relu, inside jit", lambda dtype: jax.jit(partial(ntk, deep))(points(n, d, dtype))
    yield "infinite, tanh, equal norms", partial(on_sphere, MLP(9, 1, 1, "tanh", 1.5, 0.1), sizes.sphere)
    for method in ("structured", "jacobian", "ntk_vp"):
        for output in ("full", "diagonal", "trace"):
            yield f"empirical, {output}, {method}", partial(of_weights, n, d, output, method)
    for name in ARCHITECTURES:
        for method in ("structured", "jacobian"):
            yield f"empirical, {name.partition(',')[0]}, {method}", partial(of_architecture, name, method)
    yield "tiled", lambda dtype: tiled(partial(ntk, deep), points(n, d, dtype), block=n // 2)


def compare(kernel: Callable[[type], jax.Array]) -> dict:
    """The largest errors of a kernel, relative to its largest entry."""
    with in_float64():
        expected = kernel(np.float64)
    where = {device.platform for device in getattr(expected, "devices", set)()}  # tiled gives a NumPy array
    assert where <= {"cpu"}, f"the value to compare with was computed on {where}"
    expected, found, wrong = np.asarray(expected), {}, []
    assert expected.dtype == np.float64 and np.isfinite(expected).all(), "the value to compare with is none"
    for name, dtype, precision in PRECISIONS:
        with enable_x64(dtype is np.float64), jax.default_matmul_precision(precision):
            value = np.asarray(kernel(dtype))
        assert value.dtype == dtype, f"{name} gave {value.dtype}"
        found[name] = float(np.abs(value - expected).max() / np.abs(expected).max())
        if not found[name] <= LIMITS[dtype]:
            wrong.append(name)
    return found | ({"failed": f"too far from the CPU's value: {', '.join(wrong)}"} if wrong else {})


def compare_law(draws: int) -> dict:
    """Means of sampled kernels from the exact ones, in standard errors: draws differ from device to device,
    and their law does not."""
    net, found = MLP(4, 20), {}
    with in_float64():
        exact = np.asarray(ntk_moments(net, points(3, 5, np.float64)).mean)
    for name, dtype in (("float32", np.float32), ("float64", np.float64)):
        with enable_x64(dtype is np.float64):
            sample = np.asarray(sample_ntk(net, jax.random.key(0), points(3, 5, dtype), draws), float)
        own = np.diagonal(sample, axis1=1, axis2=2)
        found[name] = float(np.abs((own.mean(0) - exact) / (own.std(0) / draws**0.5)).max())
    wrong = [name for name, errors in found.items() if not errors <= STANDARD_ERRORS]
    return found | ({"failed": f"another law: {', '.join(wrong)}"} if wrong else {})


# --- the same numbers in both precisions: those of float32


def points(n: int, d: int, dtype=np.float32) -> np.ndarray:
    """Random inputs, two of them equal and two opposite."""
    x = np.random.default_rng(n * d).normal(size=(n, d)).astype(np.float32)
    x[1], x[2] = x[0], -x[0]
    return x.astype(dtype)


def weights(net: MLP, d: int, dtype=np.float32):
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), d))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32).astype(dtype), shapes)


# --- kernels as functions of the type


def both(net: MLP, n: int, d: int, dtype) -> jax.Array:
    return jnp.stack(kernels(net, points(n, d, dtype)))


def on_sphere(net: MLP, n: int, dtype) -> jax.Array:
    x = points(n, 3, np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.stack(kernels(net, x.astype(np.float32).astype(dtype)))


def of_weights(n: int, d: int, output: str, method: str, dtype) -> jax.Array:
    net = MLP(3, 32, 3, "relu", 2.0, 0.1)
    x1, x2 = points(n, d, dtype), points(n - 1, d, dtype)
    return empirical_ntk(net, weights(net, d, dtype), x1, x2, output, method)


def of_architecture(name: str, method: str, dtype) -> jax.Array:
    f, shapes, (_, *shape) = ARCHITECTURES[name]
    with enable_x64(False):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), draw(jax.random.key(1), shapes))
    x = points(5, int(np.prod(shape)), dtype)[3:].reshape(2, *shape)
    return empirical_ntk(f, params, x if f is cnn else (np.abs(x) * 30).astype(np.int32), method=method)
