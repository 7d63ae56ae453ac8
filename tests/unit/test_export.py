"""Every kernel lowers for CUDA and TPU, on a machine that has neither."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from ntk_helpers import MLP, empirical_ntk, nngp, ntk, sample_ntk
from ntk_helpers.networks import activation_names

PLATFORMS = ("cuda", "tpu")


def lowered(f, *shapes):
    arguments = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple) and all(isinstance(n, int) for n in s),
    )
    return export.export(jax.jit(f), platforms=PLATFORMS)(*arguments)


def holds_a_program(exported):
    return exported.platforms == PLATFORMS and "stablehlo" in exported.mlir_module()


@pytest.mark.slow
@pytest.mark.parametrize("name", activation_names())
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_infinite_kernels(name, parameterization):
    net = MLP(3, 8, activation=name, parameterization=parameterization)
    assert holds_a_program(lowered(lambda a, b: (nngp(net, a, b), ntk(net, a)), (4, 3), (5, 3)))


@pytest.mark.parametrize("method", ["structured", "jacobian", "ntk_vp"])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_empirical_kernels(method, output):
    net = MLP(2, 8, 2)
    params = [{"w": (3, 8), "b": (8,)}, {"w": (8, 2), "b": (2,)}]
    assert holds_a_program(
        lowered(lambda p, a, b: empirical_ntk(net, p, a, b, output, method), params, (4, 3), (5, 3))
    )


def test_sampled_kernels():
    key = jax.random.key(0)
    assert holds_a_program(
        lowered(lambda x: sample_ntk(MLP(4, (20, 20, 3), sigma_b2=0.1), key, x, 5), (4, 3))
    )
