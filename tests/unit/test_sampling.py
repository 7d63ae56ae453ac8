"""The sampled kernels have the law of direct ones: Kolmogorov–Smirnov, exact means, singular Gram matrices,
parts.

Every statistical test has fixed keys and a level below 1e-4; the power of the same statistics is a test of
its own.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

from ntk_helpers import MLP, empirical_ntk, sample_ntk
from ntk_helpers.finite import NTKSamples, sampling
from ntk_helpers.networks import quadrature, registry

KEY = jax.random.key(7)


@partial(jax.jit, static_argnums=3)
def direct(net, key, x, draws):
    """Kernels and outputs of networks with weight matrices."""

    def draw(key):
        params = net.init(key, x.shape[1], x.dtype)
        return empirical_ntk(net, params, x, output="trace"), net.apply(params, x)[:, 0]

    return jax.lax.map(draw, jax.random.split(key, draws), batch_size=500)


def statistics(kernels, outputs):
    """Diagonal, off-diagonal, determinant of the pair, an output, a difference of outputs, and the outputs'
    share.

    The last, f²/Θ, has no common factor of the layers' sizes that would hide how the two passes depend on
    each other.
    """
    kernels, outputs = np.asarray(kernels, float), np.asarray(outputs, float)
    first, last, cross = kernels[:, 0, 0], kernels[:, -1, -1], kernels[:, 0, -1]
    f, share = outputs[:, 0], outputs[:, 0] ** 2 / np.where(first > 0, first, 1)
    columns = first, last, cross, first * last - cross**2, f, f - outputs[:, -1], share
    assert all(np.isfinite(column).all() for column in columns)
    return columns


def least_p_value(net, x, draws):
    x = jnp.asarray(x, jnp.float32)
    ours = sample_ntk(net, KEY, x, draws, parts=True)
    pairs = zip(statistics(ours.kernel, ours.outputs), statistics(*direct(net, jax.random.key(8), x, draws)))
    return min(ks_2samp(a, b, method="asymp").pvalue for a, b in pairs)


@pytest.mark.parametrize(
    "net, draws",
    [
        (MLP(2, 5, 1, "relu", 1.5, 0.5, "standard"), 2000),
        (MLP(4, 16, 1, "tanh", 1.8, 0.0), 4000),
        (MLP(3, 200, 1, "erf", 1.5, 0.3), 1000),
        (MLP(10, 8, 1, "relu", 2.0, 0.0), 4000),
        (MLP(20, 200, 1, "relu", 2.0, 0.1, "standard"), 200),
        (MLP(3, 12, 1, "tanh", 1.5, 0.4, "standard"), 2000),
        (MLP(5, 24, 1, "erf", 2.0, 0.0), 2000),
        (MLP(5, (30, 9, 9, 40), 1, "gelu", 1.7, 0.2, "standard"), 2000),
    ],
    ids=str,
)
@pytest.mark.slow
def test_law_is_that_of_direct_sampling(net, draws, x1):
    """7 statistics at 1e-5."""
    assert least_p_value(net, x1[:3], draws) > 1e-5


@pytest.mark.slow
def test_the_same_test_rejects_independent_weights_in_the_backward_pass(x1, monkeypatch):
    def independent(self, d, gram):
        return sampling._root(gram) @ self.rest

    net = MLP(10, 8)
    monkeypatch.setattr(sampling._Conditioned, "transposed", independent)
    jax.clear_caches()
    assert least_p_value(net, x1[:3], 4000) < 1e-8
    jax.clear_caches()


@pytest.mark.parametrize("rows", [[0, 1, 0, 2, 2, 3], [3, 3, 3, 3]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_inputs_have_equal_kernels_in_a_chaotic_network_too(rows, dtype, x1):
    net = MLP(40, 30, 1, "tanh", 9.0, 0.1)
    sample = sample_ntk(net, KEY, x1[rows].astype(dtype), 3, parts=True)
    assert sample.kernel.dtype == dtype
    for i, j in zip(*np.nonzero(np.equal.outer(rows, rows))):
        np.testing.assert_allclose(sample.kernel[:, i], sample.kernel[:, j], rtol=1e-5)
        np.testing.assert_array_equal(sample.outputs[:, i], sample.outputs[:, j])


def test_opposite_inputs_have_opposite_outputs_in_an_odd_network(x1):
    x = np.concatenate([x1[:2], -x1[:2], np.zeros((1, 3))])
    for name, sigma_w2 in (("linear", 1.0), ("tanh", 9.0)):
        sample = sample_ntk(MLP(40, 30, 1, name, sigma_w2, 0.0, "standard"), KEY, x, 3, parts=True)
        np.testing.assert_array_equal(sample.outputs[:, :2], -sample.outputs[:, 2:4])
        np.testing.assert_array_equal(sample.outputs[:, 4], 0)
        np.testing.assert_allclose(sample.biases[:, :, 0], sample.biases[:, :, 2], rtol=1e-9)
        np.testing.assert_allclose(sample.weights[:, :, 0], -sample.weights[:, :, 2], rtol=1e-9)


def test_opposite_inputs_of_an_even_network_have_opposite_slopes(x1, monkeypatch):
    """f(-x) = f(x) for every parameter, so all entries of the kernel on a pair are equal."""
    monkeypatch.setitem(registry._REGISTRY, "cosine", quadrature("cosine", jnp.cos))
    kernel = sample_ntk(MLP(3, 8, 1, "cosine", 2.0, 0.0), KEY, np.stack([x1[0], -x1[0]]), 20)
    np.testing.assert_allclose(kernel[:, 0, 1], kernel[:, 0, 0], rtol=1e-10)
    np.testing.assert_allclose(kernel[:, 1, 1], kernel[:, 0, 0], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "net, rows",
    [
        (MLP(4, 16, 1, "relu", 1.5, 0.2), [0, 0, 1]),
        (MLP(4, 16, 1, "erf", 1.5, 0.0), [0, -1, 1]),
        (MLP(4, 16, 1, "leaky_relu", 1.5, 0.0, "standard"), [0, 2, 1]),
    ],
    ids=["equal", "opposite", "parallel"],
)
def test_law_at_singular_inputs(net, rows, x1):
    x = np.stack([x1[0] * {0: 1, -1: -1, 2: 2, 1: 1}[row] if row != 1 else x1[1] for row in rows])
    assert least_p_value(net, x, 2000) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("net", [MLP(4, 3), MLP(4, (40, 1, 40), 1, "relu", 2.0, 0.0, "standard")], ids=str)
def test_law_where_layers_die(net, x1):
    """A ReLU layer without a positive unit leaves an output of 0, and with 4,000 draws often does."""
    x = np.concatenate([x1[:1], -x1[:1], x1[1:2]]).astype(np.float32)
    ours = sample_ntk(net, KEY, x, 4000, parts=True)
    _, outputs = direct(net, jax.random.key(8), jnp.asarray(x), 4000)
    dead, expected = (float((np.asarray(f)[:, 0] == 0).mean()) for f in (ours.outputs, outputs))
    assert dead > 0.05 and abs(dead - expected) < 4.5 * (2 * dead * (1 - dead) / 4000) ** 0.5
    assert np.isfinite(ours.kernel).all()
    assert least_p_value(net, x, 4000) > 1e-5


def test_mean_of_relu():
    """E Θ = a^{L-1} (1 + (L-1) M/n₀) + Σ_{k<L} a^k at |x| = 1, a = σ_w²/2 (Hanin & Nica 2020)."""
    depth, width, d, sigma_w2, draws = 8, 20, 6, 1.6, 10_000
    a = sigma_w2 / 2
    exact = a ** (depth - 1) * (1 + (depth - 1) * width / d) + sum(a**k for k in range(depth))
    kernel = sample_ntk(MLP(depth, width, 1, "relu", sigma_w2, 0.0, "standard"), KEY, jnp.eye(2, d), draws)
    for i in range(2):
        diagonal = np.asarray(kernel[:, i, i])
        assert abs(diagonal.mean() - exact) < 4.5 * diagonal.std() / draws**0.5


@pytest.mark.parametrize(
    "net",
    [
        MLP(1, 9, 1, "relu", 1.5, 0.2),
        MLP(3, 40, 1, "erf", 1.5, 0.2),
        MLP(4, (40, 2, 30), 1, "gelu", 1.5, 0.0, "standard"),
    ],
    ids=str,
)
def test_parts_sum_to_the_kernel(net, x1):
    sample = sample_ntk(net, KEY, x1, 7, parts=True)
    assert isinstance(sample, NTKSamples)
    assert sample.kernel.shape == (7, 4, 4) and sample.outputs.shape == (7, 4)
    assert sample.weights.shape == sample.biases.shape == (7, net.depth, 4, 4)
    np.testing.assert_allclose((sample.weights + sample.biases).sum(1), sample.kernel, rtol=1e-12)
    np.testing.assert_allclose(sample_ntk(net, KEY, x1, 7), sample.kernel, rtol=1e-12)
    np.testing.assert_allclose(sample.kernel, sample.kernel.swapaxes(1, 2), rtol=1e-10)
    _, b_scale = net.scales(3)
    np.testing.assert_allclose(sample.biases[:, -1], b_scale**2, rtol=1e-12)


def test_depth_1_is_its_inputs(x1):
    sample = sample_ntk(MLP(1, 9, 1, "relu", 1.5, 0.2), KEY, x1, 3)
    np.testing.assert_allclose(
        sample, np.broadcast_to(0.5 * x1 @ x1.T + 0.2, (3, 4, 4)), rtol=1e-12, atol=1e-12
    )


def test_outputs_of_bias_free_relu_are_bounded_by_every_layer(x1):
    """f = h · δ at every layer, so f² ≤ |φ(h)|² |δ|²: what a backward pass with weights of its own breaks."""
    sample = sample_ntk(MLP(10, 8, 1, "relu", 2.0, 0.0, "standard"), KEY, x1[:3], 500, parts=True)
    deltas = np.einsum("slii->sli", sample.biases)
    inputs = np.einsum("slii->sli", sample.weights) / np.where(deltas > 0, deltas, 1)
    assert (sample.outputs[:, None] ** 2 <= inputs[:, 1:] * deltas[:, :-1] * (1 + 1e-9)).all()


def test_a_draw_depends_on_its_key_and_number_alone(x1, monkeypatch):
    net = MLP(3, 20, 1, "tanh")
    ten = sample_ntk(net, KEY, x1, 10)
    np.testing.assert_allclose(sample_ntk(net, KEY, x1, 4), ten[:4], rtol=1e-12)
    monkeypatch.setattr(sampling, "BATCH_BYTES", 1)
    np.testing.assert_allclose(sample_ntk(net, KEY, x1, 9), ten[:9], rtol=1e-12)
    assert np.abs(sample_ntk(net, jax.random.key(9), x1, 10) - ten).min() > 0
    assert np.unique(np.asarray(ten)[:, 0, 0]).size == 10


def test_inside_jit_and_vmap_over_variances(x1):
    x = jnp.asarray(x1)
    sample = jax.vmap(lambda s: sample_ntk(MLP(3, 20, sigma_w2=s), KEY, x, 2))(jnp.array([1.0, 2.0]))
    for kernel, s in zip(sample, (1.0, 2.0)):
        np.testing.assert_allclose(kernel, sample_ntk(MLP(3, 20, sigma_w2=s), KEY, x, 2), rtol=1e-10)
    np.testing.assert_allclose(jax.jit(lambda x: sample_ntk(MLP(3, 20), KEY, x, 2))(x), sample[1], rtol=1e-10)


def test_bad_arguments_are_refused(x1):
    for net, x, draws, message in (
        (MLP(2, 3, 2), x1, 5, "d_out 2; expected 1"),
        (MLP(2, 3), x1, 0, "draws is 0"),
        (MLP(2, 3), x1, 2.5, "draws is 2.5"),
        (MLP(2, 3), x1[0], 5, r"x1 has shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_ntk(net, KEY, x, draws)
