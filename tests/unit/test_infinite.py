"""Infinite-width kernels: known answers, neural-tangents, finite differences, accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_helpers import MLP, nngp, ntk
from ntk_helpers.infinite import fully_connected as infinite
from ntk_helpers.infinite._recursion import Pairs, recursion
from ntk_helpers.infinite.fully_connected import _kernels, _kernels_by_layers
from ntk_helpers.networks import activation_names
from ntk_helpers.neural_tangents_compat import stax

STAX = {
    "relu": stax.Relu,
    "leaky_relu": lambda: stax.LeakyRelu(0.01),
    "erf": stax.Erf,
    "gelu": stax.Gelu,
    "sin": stax.Sin,
    "linear": stax.Identity,
}
ORTHOGONAL = np.sqrt(2) * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def assert_equals_stax(net, x1, x2):
    dense = stax.Dense(
        net.width, net.sigma_w2**0.5, net.sigma_b2**0.5 or None, parameterization=net.parameterization
    )
    kernel = stax.serial(*[dense, STAX[net.activation]()] * (net.depth - 1), dense)[2]
    theirs = kernel(jnp.asarray(x1), jnp.asarray(x2), ("nngp", "ntk"))
    np.testing.assert_allclose(nngp(net, x1, x2), theirs.nngp, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ntk(net, x1, x2), theirs.ntk, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "depth, orthogonal, antipodal", [(1, 0.0, -2.0), (2, 0.63661977, 0.0), (3, 1.37141727, 0.63661977)]
)
def test_known_answers_of_critical_relu(depth, orthogonal, antipodal):
    kernel = ntk(MLP(depth, 1), ORTHOGONAL)[0]
    np.testing.assert_allclose(kernel, [2 * depth, orthogonal, antipodal], rtol=0, atol=1e-8)
    assert nngp(MLP(depth, 1), ORTHOGONAL)[0, 0] == pytest.approx(2, abs=1e-12)


def test_kernel_of_jacots_figure_1():
    angles = np.array([0, np.pi / 2, np.pi])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(
        ntk(MLP(4, 1, sigma_w2=1.0, sigma_b2=0.01), x)[0], [0.2825, 0.092702, 0.064354], atol=5e-7
    )


def test_very_deep_critical_relu_tends_to_a_quarter():
    kernel = ntk(MLP(10_000, 1), ORTHOGONAL[:2])
    assert kernel[0, 1] / kernel[0, 0] == pytest.approx(0.250417, abs=1e-4)


@pytest.mark.parametrize("name", STAX)
@pytest.mark.parametrize("depth, sigma_b2", [(2, 0.0), (4, 0.3)])
def test_equals_neural_tangents(name, depth, sigma_b2, x1, x2):
    assert_equals_stax(MLP(depth, 1, activation=name, sigma_w2=1.7, sigma_b2=sigma_b2), x1, x2)


@pytest.mark.parametrize("name", ["relu", "erf"])
def test_equals_neural_tangents_in_standard_parameterization(name, x1, x2):
    """With a bias variance: without one, stax has no biases to train, and the constant 1 of every layer is
    not there."""
    assert_equals_stax(
        MLP(3, 37, activation=name, sigma_w2=1.7, sigma_b2=0.3, parameterization="standard"), x1, x2
    )


@pytest.mark.parametrize("name", activation_names())
def test_second_inputs_given_or_not(name, x1):
    net = MLP(3, 1, activation=name, sigma_b2=0.2)
    points = np.concatenate([x1, x1[:1], -x1[:1], 3 * x1[:1], np.zeros((1, 3))])
    for kernel in (nngp, ntk):
        alone, paired = kernel(net, points), kernel(net, points, points.copy())
        assert np.isfinite(alone).all()
        np.testing.assert_allclose(alone, paired, rtol=0, atol=1e-10)
        np.testing.assert_allclose(alone[0], alone[len(x1)], rtol=1e-12)


def test_no_more_rows_than_a_block_or_many():
    many = np.random.default_rng(5).normal(size=(70, 3))
    many[69] = many[0]
    kernel = ntk(MLP(3, 1), many)
    np.testing.assert_allclose(kernel[0, 69], kernel[0, 0], rtol=1e-12)
    np.testing.assert_allclose(kernel[40:], ntk(MLP(3, 1), many[40:], many), rtol=1e-12)


@pytest.mark.parametrize("copies", [1, 3, 12])
def test_any_number_of_close_inputs_in_a_row(copies):
    """Corrected one by one, or the whole row at once."""
    x = np.random.default_rng(6).normal(size=(8, 20))
    x = np.concatenate([x, -x[:2]])
    net, few = MLP(3, 1), np.tile(x, (copies, 1))
    kernel = np.asarray(ntk(net, x))
    for many in (ntk(net, few), ntk(net, few, few.copy())):
        np.testing.assert_allclose(many, np.tile(kernel, (copies, copies)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("copies", [1, 3, 12])
def test_few_inputs_and_many_are_refined_alike(monkeypatch, copies, itself):
    x = np.random.default_rng(6).normal(size=(8, 20))
    x = np.concatenate([x, -x[:2] + 1e-9, x[:3] * (1 + 1e-9), x[3:4] + 1e-6])
    u = jnp.tile(x / np.linalg.norm(x, axis=1, keepdims=True), (copies, 1))
    few = infinite._refine(u, u, u @ u.T, itself)
    monkeypatch.setattr(infinite, "SMALL", 0)
    many = infinite._refine(u, u, u @ u.T, itself)
    assert float(jnp.where(few[0] > 0, few[0], 1.0).min()) < 1e-15
    for one, other in zip(few, many):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-32)


@pytest.mark.parametrize("name", ["relu", "erf", "tanh"])
def test_float32_stays_accurate_in_depth(name):
    # Nearly parallel and nearly orthogonal unit vectors, exact in both precisions up to the inputs' rounding.
    x = np.random.default_rng(3).normal(size=(6, 40)).astype(np.float32)
    net = MLP(21, 1, activation=name, sigma_w2=2.0 if name == "relu" else 1.5, sigma_b2=0.1)
    exact = np.asarray(ntk(net, x.astype(np.float64)))
    single = np.asarray(ntk(net, x))
    assert single.dtype == np.float32
    assert np.abs(single - exact).max() / exact.max() < 1e-4


ANGLES = np.array([0, 1e-4, 1e-2, 1, np.pi / 2, np.pi])
VARIANCES = {
    "relu": [(2.0, 0.0, 1e-5), (2.0, 0.1, 1.5e-5), (1.0, 1.0, 1e-5)],
    "erf": [(1.3758, 0.05, 5e-5), (1.0, 0.1, 1e-5), (2.8, 1.0, 1e-4)],
    "tanh": [(1.0, 0.1, 1e-4)],
}  # with the tolerance in float32: a thousand layers add up roundings, in another order on every JAX


def tangent_at_angles(net, dtype):
    """Θ for |x|²/d = 1 against itself, then against 1, 0.99 and 0.3 at ANGLES; the same numbers in both
    precisions."""
    theta = np.concatenate([[0.0], ANGLES, ANGLES, ANGLES])
    gap, plus = (
        np.float32(v).astype(dtype)[None] for v in (2 * np.sin(theta / 2) ** 2, 2 * np.cos(theta / 2) ** 2)
    )
    q2 = np.float32([1.0] * 7 + [0.99] * 6 + [0.3] * 6).astype(dtype)
    tangent = jax.jit(recursion)(net, np.ones(net.depth), Pairs(q2[:1], q2, gap, plus))[1][0]
    assert tangent.dtype == dtype
    return np.asarray(tangent, float)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANCES)
@pytest.mark.parametrize("depth", [2, 20, 200, 1000])
def test_float32_given_norms_and_angle(name, depth):
    """At every depth, at criticality too, relative to Θ(x, x)."""
    for sigma_w2, sigma_b2, tolerance in VARIANCES[name]:
        net = MLP(depth, 1, activation=name, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
        single, exact = (tangent_at_angles(net, dtype) for dtype in (np.float32, np.float64))
        rounding = depth * np.finfo(np.float32).eps  # once in each layer, as this processor rounds
        assert np.abs(single - exact).max() < max(tolerance, rounding) * exact[0]


def on_the_sphere(n, d=5, norm=1.7, seed=6):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x *= norm / np.linalg.norm(x, axis=1, keepdims=True)
    x[1], x[2] = x[0], -x[0]
    x[3] = x[0] + 1e-9 * x[4]
    return x * (norm / np.linalg.norm(x, axis=1, keepdims=True))


@pytest.mark.parametrize(
    "net",
    [
        MLP(300, 7),
        MLP(40, 7, sigma_b2=0.1, parameterization="standard"),
        MLP(40, 7, activation="leaky_relu"),
        MLP(3, 7, activation="erf", sigma_w2=2.8, sigma_b2=0.1),
    ],
    ids=lambda net: f"{net.activation}-{net.depth}",
)
def test_profile_equals_the_recursion(net, monkeypatch):
    x = on_the_sphere(50)
    by_layers = _kernels(net, x, None)
    monkeypatch.setattr(infinite, "PROFILE_FROM", 1)
    assert infinite._profile_pays(net, x, None)
    for kernel, expected in zip(_kernels(net, x, None), by_layers):
        np.testing.assert_allclose(kernel, expected, atol=1e-10 * expected.max())


def test_profile_of_homogeneous_activations_takes_any_norms(monkeypatch):
    x = np.random.default_rng(8).normal(size=(40, 3))
    x[5] = 0
    expected = _kernels(MLP(30, 1), x, None)
    monkeypatch.setattr(infinite, "PROFILE_FROM", 1)
    assert infinite.fit_profile(MLP(30, 1), np.ones(30), x, None) is not None
    for kernel, by_layers in zip(_kernels(MLP(30, 1), x, None), expected):
        np.testing.assert_allclose(kernel, by_layers, atol=1e-10 * by_layers.max())


@pytest.mark.parametrize(
    "why, net, x",
    [
        ("norms differ", MLP(30, 1, sigma_b2=0.1), np.random.default_rng(8).normal(size=(40, 3))),
        (
            "the peak at 0 is too narrow",
            MLP(200, 1, activation="erf", sigma_w2=2.8, sigma_b2=0.1),
            on_the_sphere(40),
        ),
        ("it overflows", MLP(3000, 1, sigma_w2=10.0), on_the_sphere(40)),
        ("all inputs are 0", MLP(30, 1, sigma_b2=0.1), np.zeros((40, 3))),
    ],
)
def test_no_profile_where(why, net, x):
    assert infinite.fit_profile(net, np.ones(net.depth), x, None) is None


@pytest.mark.parametrize(
    "net", [MLP(1, 1), MLP(3, 1, sigma_b2=0.5), MLP(3, 1, activation="erf", sigma_b2=0.5)]
)
@pytest.mark.parametrize("kernel", [nngp, ntk])
def test_gradient_at_a_zero_input(net, kernel, x1):
    def value(z):
        return kernel(net, z[None], jnp.asarray(x1[:1]))[0, 0]

    numeric = [(value(step) - value(-step)) / 2e-5 for step in 1e-5 * jnp.eye(3)]
    np.testing.assert_allclose(jax.grad(value)(jnp.zeros(3)), numeric, rtol=1e-8)


@pytest.mark.parametrize("name", activation_names())
@pytest.mark.slow
def test_gradients_are_finite_at_equal_antipodal_and_zero_inputs_and_right_elsewhere(name, x1, x2):
    weights = jnp.asarray([1.0, 2.0, 3.0, 4.0])

    @jax.jit
    def total(sigma_w2, sigma_b2, a, b):
        net = MLP(3, 1, activation=name, sigma_w2=sigma_w2, sigma_b2=sigma_b2)
        return weights @ sum(_kernels(net, a, b)) @ weights

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))
    special = jnp.concatenate([jnp.asarray(x1[:2]), -x1[:1], jnp.zeros((1, 3))])
    for sigma_b2 in (0.0, 0.2):
        for part in gradient(1.5, sigma_b2, special, special):
            assert np.isfinite(part).all()

    point = (1.5, 0.1, jnp.asarray(x1), jnp.asarray(x2[:4]))
    towards = (0.7, 0.3, jnp.asarray(x1[::-1]), jnp.asarray(x2[1:]))
    ahead, behind = (total(*(p + s * 1e-5 * v for p, v in zip(point, towards))) for s in (1, -1))
    slope = sum(jnp.sum(g * v) for g, v in zip(gradient(*point), towards))
    assert float(slope) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-7)


@pytest.mark.parametrize("depth", [2, 3])
def test_gradient_along_the_ray_to_an_input_on_its_other_side(depth):
    """K(ax, y) = a K(x, y), at y = -7x too, where the rounding of 1 + c is all that is left of it."""
    x = jnp.array([[1.0, 2.0, 3.0]])
    for y in (-7 * x, -0.3 * x):
        for kernel in (nngp, ntk):
            value, slope = jax.value_and_grad(lambda a: kernel(MLP(depth, 1), a * x, y)[0, 0])(1.0)
            assert float(slope) == pytest.approx(float(value), rel=1e-12, abs=1e-12)


def test_gradient_of_the_covariance_at_equal_inputs_is_the_limit(x1):
    """K is differentiable at x = x' for ReLU too, and its derivative in x is there half that of K(x, x)."""
    net, a = MLP(3, 1, sigma_b2=0.1), jnp.asarray(x1[:1])
    one_sided = jax.grad(lambda x: nngp(net, x, a)[0, 0])(a)
    both = jax.grad(lambda x: nngp(net, x, x)[0, 0])(a)
    np.testing.assert_allclose(one_sided, both / 2, rtol=1e-10)


@pytest.mark.parametrize("depth, width", [(2, 16), (5, 40)])
def test_standard_relu_without_bias_variance_is_the_exact_mean(depth, width):
    """E Θ(x, x) = a^{L-1} (1 + (L-1) M/n₀) + Σ_{k<L} a^k at |x| = 1 (Hanin & Nica 2020; a = σ_w²/2)."""
    sigma_w2, d = 1.4, 7
    a = sigma_w2 / 2
    exact = a ** (depth - 1) * (1 + (depth - 1) * width / d) + sum(a**k for k in range(depth))
    net = MLP(depth, width, sigma_w2=sigma_w2, parameterization="standard")
    assert ntk(net, np.eye(1, d))[0, 0] == pytest.approx(exact, rel=1e-12)


def test_standard_parameterization_is_the_rescaled_sum_of_layers(x1):
    """With L = 2 by hand: n E[φφ] + 1 + σ_w² E[φ'φ'] (x·x' + 1)."""
    net = MLP(2, 50, activation="erf", sigma_w2=1.3, sigma_b2=0.2, parameterization="standard")
    gram = x1 @ x1.T
    k = 1.3 * gram / 3 + 0.2
    q = np.diag(k)
    expected = (
        50 * net.phi.dual(q[:, None], q, k) + 1 + 1.3 * net.phi.dual_derivative(q[:, None], q, k) * (gram + 1)
    )
    np.testing.assert_allclose(ntk(net, x1), expected, rtol=1e-12)


def test_standard_parameterization_with_widths_by_layer(x1):
    """Each layer's Gram of weights grows with the width of the layer below, so the kernel is linear in each
    width."""

    def kernel(*width, kind="standard"):
        return np.asarray(ntk(MLP(3, width, activation="erf", sigma_w2=1.3, parameterization=kind), x1))

    np.testing.assert_allclose(
        kernel(40, 40), ntk(MLP(3, 40, activation="erf", sigma_w2=1.3, parameterization="standard"), x1)
    )
    np.testing.assert_allclose(kernel(10, 40) + kernel(40, 10), kernel(10, 10) + kernel(40, 40), rtol=1e-12)
    k = 1.3 * x1 @ x1.T / 3
    net = MLP(3, 1, activation="erf")
    for _ in range(2):
        phi = net.phi.dual(np.diag(k)[:, None], np.diag(k), k)
        k = 1.3 * phi
    np.testing.assert_allclose(kernel(10, 41) - kernel(10, 40), phi, rtol=1e-9)
    np.testing.assert_array_equal(kernel(10, 40, kind="ntk"), kernel(5, 3, kind="ntk"))


def test_one_compilation_serves_all_widths_and_variances(x1):
    x1 = jnp.asarray(x1)
    ntk(MLP(3, 7), x1)
    before = _kernels_by_layers._cache_size()
    for width, variance in ((8, 1.0), (900, 2.5), ((4, 5), 1.0)):
        ntk(MLP(3, width, 2, sigma_w2=variance), x1)
    assert _kernels_by_layers._cache_size() == before


def test_variances_of_a_wider_type_than_the_inputs(x1):
    x = jnp.asarray(x1, jnp.float32)
    kernel = ntk(MLP(3, 5, activation="erf", sigma_w2=np.float64(1.7), sigma_b2=jnp.asarray(0.2)), x)
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, ntk(MLP(3, 5, activation="erf", sigma_w2=1.7, sigma_b2=0.2), x))


@pytest.mark.parametrize(
    "x1, x2, message",
    [
        (np.zeros(3), None, r"x1 has shape \(3,\)"),
        (np.zeros((0, 3)), None, r"x1 has shape \(0, 3\)"),
        (np.ones((2, 3), int), None, "x1 has dtype int"),
        (np.full((2, 3), np.nan), None, "x1 holds 6 values that are NaN"),
        (np.ones((2, 3)), np.full((2, 3), np.inf), "x2 holds 6 values"),
        (np.ones((2, 3)), np.ones((2, 4)), "x1 has 3 features and x2 has 4"),
    ],
)
@pytest.mark.parametrize("kernel", [nngp, ntk])
def test_bad_inputs_are_refused(kernel, x1, x2, message):
    with pytest.raises(ValueError, match=message):
        kernel(MLP(2, 3), x1, x2)
