"""μP, the scale of the output, and the learning rates that belong to a parameterization: by hand, by the
published table, by exact dynamics."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntk_helpers import MLP, empirical_ntk, kernels, linearize, nngp, ntk, ntk_moments, sample_ntk
from ntk_helpers.finite import kernel_corrections
from ntk_helpers.infinite import fully_connected
from ntk_helpers.learning.training import scale_by_parameterization, train
from ntk_helpers.theory import fixed_point, phase, propagate, trainable_depth

KEY = jax.random.key(0)
NTK = MLP(3, 7, 2, "tanh", 1.7, 0.3)
MUP = replace(NTK, parameterization="mup", alpha=3.0)


# --- networks and their kernels


def test_mup_by_hand(x1):
    net = MLP(2, 7, 1, "tanh", 1.7, 0.3, "mup", alpha=3.0)
    first, second = net.init(KEY, 3)
    hidden = np.tanh((1.7 / 3) ** 0.5 * x1 @ first["w"] + 0.3**0.5 * first["b"])
    out = 3 / 7**0.5 * ((1.7 / 7) ** 0.5 * hidden @ second["w"] + 0.3**0.5 * second["b"])
    np.testing.assert_allclose(net.apply([first, second], x1), out, rtol=1e-12)
    same = [jax.tree.leaves(each.init(KEY, 3)) for each in (net, replace(net, parameterization="ntk"))]
    for a, b in zip(*same):
        np.testing.assert_array_equal(a, b)


def test_two_layers_of_mup_are_the_mean_field_scale(x1):
    net = MLP(2, 50, activation="relu", sigma_w2=1.0, parameterization="mup")
    first, second = net.init(KEY, 3)
    mean = (second["w"][:, 0] * jax.nn.relu(x1 @ first["w"] / 3**0.5)).mean(1, keepdims=True)
    for same in (net, replace(net, parameterization="ntk", alpha=50**-0.5)):
        np.testing.assert_allclose(same.apply([first, second], x1), mean, rtol=1e-12)


def test_mup_at_its_base_width_is_the_ntk_parameterization(x1):
    base, params = replace(NTK, width=9), replace(NTK, width=9).init(KEY, 3)
    np.testing.assert_allclose(replace(MUP, width=9).apply(params, x1), base.apply(params, x1), rtol=1e-14)
    for optimizer in ("sgd", "adam"):
        ups = [
            scale_by_parameterization(net, optimizer).update(params, optax.EmptyState())[0]
            for net in (base, replace(MUP, width=9))
        ]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-14), *ups)


@pytest.mark.slow
@pytest.mark.parametrize(
    "net, scale",
    [
        (MUP, 3 / 7**0.5),
        (replace(MUP, width=(7, 4)), 1.5),
        (replace(NTK, alpha=0.25), 0.25),
        (replace(NTK, alpha=4, parameterization="standard"), 4.0),
        (MLP(1, 9, 2, sigma_b2=0.2, parameterization="mup", alpha=3), 3.0),
    ],
    ids=str,
)
def test_finite_networks_scale(net, scale, x1):
    plain = replace(
        net, alpha=1.0, parameterization={"mup": "ntk"}.get(net.parameterization, net.parameterization)
    )
    params = plain.init(KEY, 3)
    np.testing.assert_allclose(net.apply(params, x1), scale * plain.apply(params, x1), rtol=1e-12)
    for a, b in zip(net.preactivations(params, x1)[:-1], plain.preactivations(params, x1)):
        np.testing.assert_array_equal(a, b)
    jacobian = jax.tree.leaves(jax.jacobian(lambda p: net.apply(p, x1))(params))
    by_hand = sum(np.einsum("iap,jbp->ijab", *[np.reshape(j, (4, 2, -1))] * 2) for j in jacobian)
    for method in ("structured", "jacobian", "ntk_vp"):
        np.testing.assert_allclose(
            empirical_ntk(net, params, x1, method=method), by_hand, rtol=1e-10, atol=1e-12
        )
    np.testing.assert_allclose(by_hand, scale**2 * empirical_ntk(plain, params, x1), rtol=1e-10, atol=1e-12)
    moved = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    _, slope = jax.jvp(lambda p: net.apply(p, x1), (params,), (jax.tree.map(jnp.subtract, moved, params),))
    linear = linearize(net, params)(moved, x1)
    np.testing.assert_allclose(linear, net.apply(params, x1) + slope, rtol=1e-10)


@pytest.mark.parametrize("net", [MUP, replace(NTK, alpha=0.25)], ids=["mup", "alpha"])
def test_draws_scale(net, x1):
    net, plain = replace(net, d_out=1), replace(NTK, d_out=1)
    found, same = (sample_ntk(each, KEY, x1, 5, parts=True) for each in (net, plain))
    for name, power in (("kernel", 2), ("weights", 2), ("biases", 2), ("outputs", 1)):
        expected = net.output_scale**power * getattr(same, name)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-10, atol=1e-13)


def test_draws_of_mup_have_its_exact_moments(x1):
    net = MLP(3, 10, parameterization="mup", alpha=2.0)
    kernel = np.asarray(sample_ntk(net, KEY, x1[:1], 20_000))[:, 0, 0]
    moments = ntk_moments(net, x1[:1])
    for power, exact in ((1, moments.mean[0]), (2, moments.second[0])):
        sample = kernel**power
        assert abs(sample.mean() - exact) < 4.5 * sample.std() / len(sample) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ntk", "standard"])
def test_limits_scale(kind, x1, x2, monkeypatch):
    net = replace(NTK, parameterization=kind)
    scaled, unit = replace(net, alpha=3.0), x1 / np.linalg.norm(x1, axis=1, keepdims=True)
    for inputs in ((x1, x2), (x1,), (unit,)):
        for a, b in zip(kernels(scaled, *inputs), kernels(net, *inputs)):
            np.testing.assert_allclose(a, 9 * b, rtol=1e-12)
    expected = kernels(net, unit)
    monkeypatch.setattr(fully_connected, "PROFILE_FROM", 1)
    for a, b in zip(kernels(scaled, unit), expected):
        np.testing.assert_allclose(a, 9 * b, rtol=1e-9)
    for single in (np.float32(3), np.float64(3)):  # whatever alpha's type, numbers are those of the inputs
        assert ntk(replace(net, alpha=single), x1.astype(np.float32)).dtype == np.float32
    layers, same = propagate(scaled, d_in=3), propagate(net, d_in=3)
    np.testing.assert_allclose(layers.theta_ab, 9 * same.theta_ab, rtol=1e-14)
    np.testing.assert_array_equal(layers.q, same.q)


def test_the_limit_of_a_scaled_affine_model_is_its_kernel(x1):
    """Which is not random: no width, and no code in common."""
    for kind in ("ntk", "standard", "mup"):
        net = MLP(1, 9, sigma_w2=1.5, sigma_b2=0.2, parameterization=kind, alpha=3.0)
        exact = empirical_ntk(net, net.init(KEY, 3), x1, output="trace")
        np.testing.assert_allclose(ntk(net, x1), exact, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(nngp(net, x1), 9 * (1.5 / 3 * x1 @ x1.T + 0.2), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_corrections_scale(x1):
    """The variance is that of exact moments; the movement is a property of one network, by derivatives."""
    net, x = MLP(3, 100_000, alpha=3.0), x1[:2]
    found, moments = kernel_corrections(net, x), ntk_moments(net, x)
    variance = net.width * (moments.second - moments.mean**2)
    np.testing.assert_allclose(np.einsum("aaaa->a", found.ntk_covariance), variance, rtol=1e-3)
    plain = kernel_corrections(replace(net, alpha=1.0), x)
    for name in ("ntk_output_covariance", "output_cumulant", "movement"):
        np.testing.assert_allclose(getattr(found, name), 81 * getattr(plain, name), rtol=1e-12)
    for name in ("nngp_mean", "ntk_mean"):
        np.testing.assert_allclose(getattr(found, name), 9 * getattr(plain, name), rtol=1e-12)

    def movement(net, params):
        value = lambda p: net.apply(p, x)[0, 0]
        along = jax.tree.map(lambda g: value(params) * g, jax.grad(value)(params))
        return jax.jvp(lambda p: empirical_ntk(net, p, x), (params,), (along,))[1]

    small = replace(NTK, d_out=1)
    params = small.init(KEY, 3)
    np.testing.assert_allclose(
        movement(replace(small, alpha=3.0), params), 81 * movement(small, params), rtol=1e-9
    )


@pytest.mark.parametrize(
    "ask",
    [ntk, nngp, kernels, kernel_corrections, lambda net, x: propagate(net)],
    ids=["ntk", "nngp", "kernels", "kernel_corrections", "propagate"],
)
def test_what_has_no_limit_is_refused(ask, x1):
    with pytest.raises(
        ValueError, match="(?s)'mup', whose kernels have no limit.*Expected 'ntk' or 'standard'"
    ):
        ask(replace(MUP, d_out=1), x1)


@pytest.mark.slow
def test_what_has_a_limit_is_not_refused():
    """Signals in infinitely wide layers do not know of the output; an affine model is its own limit."""
    assert fixed_point(MUP) == fixed_point(NTK) and phase(MUP) == phase(NTK)
    assert trainable_depth(MUP, 5, 10) == trainable_depth(NTK, 5, 10)
    affine = MLP(1, 9, parameterization="mup", alpha=2.0)
    np.testing.assert_allclose(
        propagate(affine).theta, propagate(replace(affine, parameterization="ntk")).theta
    )
    assert kernel_corrections(affine, np.eye(2)).ntk_covariance.max() == 0


def test_alpha_inside_jit_is_refused():
    with pytest.raises(ValueError, match="alpha is .*; expected a positive number"):
        jax.jit(lambda alpha: MLP(2, 3, alpha=alpha).apply)(2.0)


# --- learning rates

BASE = 8
"""The base width, and the number of inputs."""
X = np.random.default_rng(0).normal(size=(6, BASE))
Y = np.random.default_rng(1).normal(size=(6, 1))


def by_the_table(net, params, optimizer, steps):
    """Outputs along the training of a network in standard coordinates with one output, by Table 3 of Yang et
    al. 2022: variances 1/fan-in, 1/fan-in² in the output; rates by fan-in and fan-out, where only widths
    count, relative to the base; biases are as input weights."""
    n = net.width / BASE
    scale = [net.sigma_w2**0.5 / m**0.5 for m in (BASE, net.width, net.width)]
    scale[-1] /= n**0.5
    biases = [net.sigma_b2**0.5] * 2 + [(net.sigma_b2 / n) ** 0.5]
    own = [{"w": s * p["w"], "b": b * p["b"]} for s, b, p in zip(scale, biases, params)]
    weights, bias = {"sgd": ([n, 1, 1 / n], [n, n, 1]), "adam": ([1, 1 / n, 1 / n], [1, 1, 1])}[optimizer]
    rates = [{"w": w, "b": b} for w, b in zip(weights, bias)]

    def apply(p, x):
        for layer in p[:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        return x @ p[-1]["w"] + p[-1]["b"]

    def step(p, memory):
        gradient = jax.grad(lambda p: ((apply(p, X) - Y) ** 2).mean())(p)
        updates, memory = rule.update(gradient, memory)
        constant = {"w": BASE**0.5, "b": BASE**0.5} if optimizer == "adam" else {"w": 1.0, "b": 1.0}
        constants = [{"w": 1.0, "b": 1.0}] * 2 + [constant]  # of each layer, which the table leaves open
        change = jax.tree.map(lambda u, r, c: -0.02 * r * c * u, updates, rates, constants)
        return jax.tree.map(jnp.add, p, change), memory

    rule = optax.scale_by_adam(eps=1e-30) if optimizer == "adam" else optax.trace(0.5)
    memory, outputs, step = rule.init(own), [apply(own, X)], jax.jit(step)
    for _ in range(steps):
        own, memory = step(own, memory)
        outputs.append(apply(own, X))
    return np.array(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("width", [BASE, 4 * BASE, 25])
def test_mup_trains_as_the_published_table(width, optimizer):
    """Rates in our coordinates are those of the table, over the square of a weight's scale, or the scale."""
    variance = 1.5 / BASE ** (1 if optimizer == "sgd" else 2)  # at which biases have the hidden layers' rate
    net = MLP(3, width, 1, "tanh", 1.5, variance, "mup", alpha=BASE**0.5)
    rate = 0.02 * BASE / 1.5 if optimizer == "sgd" else 0.02 * BASE**1.5 / 1.5**0.5
    params = net.init(KEY, BASE)
    rule = optax.sgd(rate, 0.5) if optimizer == "sgd" else optax.adam(rate, eps=1e-30)
    chain = optax.chain(rule, scale_by_parameterization(net, optimizer))
    see = {"f": lambda p: net.apply(p, X)}
    run = train(net, params, X, Y, chain, 5, loss="mean", at=range(6), observe=see)
    expected = by_the_table(net, params, optimizer, 5)
    assert np.abs(expected[-1] - expected[0]).max() > 0.1
    np.testing.assert_allclose(run.observed["f"], expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["ntk", "standard", "mup"])
def test_a_small_step_moves_the_output_alike_at_every_alpha(kind, optimizer):
    """For SGD by the kernel of the network without a scale."""
    plain = MLP(3, 20, 1, "tanh", 1.5, 0.2, "ntk" if kind == "mup" else kind)
    params = plain.init(KEY, BASE)
    theta = empirical_ntk(plain, params, X, output="trace")
    moved = []
    for alpha in (1 / 16, 1.0, 16.0):
        net = replace(plain, parameterization=kind, alpha=alpha)
        f0 = net.apply(params, X)
        rule = optax.sgd(1e-6) if optimizer == "sgd" else optax.adam(1e-6, eps=1e-30)
        chain = optax.chain(rule, scale_by_parameterization(net, optimizer))
        run = train(net, params, X, f0 + Y, chain, 1, loss="sum_half")
        moved.append((net.apply(run.params, X) - f0) / 1e-6)
    expected = theta @ Y if optimizer == "sgd" else moved[1]
    for each in moved:
        np.testing.assert_allclose(each, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_a_linear_network_of_two_layers_ends_where_it_must(gamma):
    """f = v·u/(γn) under flow at a rate nγ² keeps H² - 4γ²f², H = (|u|² + |v|²)/n: exact at every width. At
    large width H₀ = 2 and f₀ = 0, so that H ends at √(1 + γ²y²) times its start."""
    n, target, x = 2_500, 1.0, jnp.ones((1, 4))
    by_alpha = [("mup", 1 / gamma), ("ntk", 1 / (gamma * n**0.5))]
    for kind, alpha in by_alpha:
        net = MLP(2, n, 1, "linear", 1.0, 0.0, kind, alpha)
        params = net.init(KEY, 4)
        of_flow = lambda p: float(empirical_ntk(net, p, x).squeeze()) / net.output_scale**2
        ends = []
        for rate in (0.004, 0.002):  # flow is the limit: the error of a step is removed to first order
            chain = optax.chain(optax.sgd(rate), scale_by_parameterization(net, "sgd"))
            run = train(net, params, x, jnp.array([target]), chain, round(6 / rate), loss="sum_half")
            assert float(run.loss[-1]) < 1e-8
            ends.append(of_flow(run.params))
        start, f0 = of_flow(params), float(net.apply(params, x).squeeze())
        conserved = (start**2 + 4 * gamma**2 * (target**2 - f0**2)) ** 0.5
        np.testing.assert_allclose(2 * ends[1] - ends[0], conserved, rtol=1e-5)
        np.testing.assert_allclose(ends[1] / start, (1 + gamma**2) ** 0.5, rtol=4 / n**0.5)


def test_wrong_arguments_of_rates():
    for net in (None, MLP, X):
        with pytest.raises(ValueError, match="net is .*; expected an MLP"):
            scale_by_parameterization(net, "sgd")
    for optimizer in (None, "adamw", optax.sgd(0.1), "SGD"):
        with pytest.raises(ValueError, match="(?s)optimizer is .*; expected one of 'sgd', 'adam'"):
            scale_by_parameterization(NTK, optimizer)
    rates = scale_by_parameterization(NTK, "sgd")
    for params in ({}, X, MLP(2, 7, 2).init(KEY, 3), replace(NTK, width=8).init(KEY, 3)):
        with pytest.raises(ValueError, match="params hold .*; expected shapes"):
            rates.init(params)
