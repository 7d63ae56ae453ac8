"""Moments of the finite kernel: networks of one unit by hand, drawn networks, closed forms, limits of large
width and depth."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from ntk_helpers import MLP, ntk, ntk_moments, sample_ntk
from ntk_helpers._lib.old_jax import enable_x64

X = np.random.default_rng(3).normal(size=(3, 5)) * np.array([[1.0], [0.3], [4.0]])


@pytest.mark.parametrize("depth", [2, 3])
def test_one_unit_by_hand(depth):
    """Standard parameterization. The masks are coins, and squares of weights have moments s, 3s² with s =
    σ_w²."""
    found = ntk_moments(MLP(depth, 1, 1, "relu", 1.3, 0.0, "standard"), X)
    size, s = (X**2).sum(1), 1.3
    alpha, t = size + 1, s * size / 5  # Θ = 1 + [on] S, and of the first preactivation E z² = t
    if depth == 2:  # S = α w² + z²
        first, second = alpha * s + t, 3 * alpha**2 * s**2 + 3 * t**2 + 2 * alpha * s * t
    else:  # S = α w² v² + (z² + 1) v² + w² z², v of the last layer; on where both units are
        first = alpha * s**2 + (t + 1) * s + s * t
        second = 9 * alpha**2 * s**4 + (3 * t**2 + 2 * t + 1) * 3 * s**2 + 9 * s**2 * t**2
        second += 6 * alpha * s**3 * (t + 1) + 6 * alpha * s**3 * t + 2 * s**2 * (3 * t**2 + t)
    on = 0.5 ** (depth - 1)
    np.testing.assert_allclose(found.mean, 1 + on * first, rtol=1e-13)
    np.testing.assert_allclose(found.second, 1 + on * (2 * first + second), rtol=1e-13)
    np.testing.assert_allclose(found.ratio, found.second / found.mean**2, rtol=1e-15)


SLOPES = {"relu": 0.0, "leaky_relu": 0.01, "linear": 1.0}


def simulated(net, x, draws, rng):
    """Θ(x, x) of networks drawn in numpy, in both parameterizations, layer by layer."""
    inputs, weights, slopes = [np.tile(x, (draws, 1))], [], []
    for m, n in zip(net.fan_in(len(x)), (*net.widths, 1)):
        weights.append(rng.standard_normal((draws, m, n)) * np.sqrt(net.sigma_w2 / m))
        z = np.einsum("sm,smn->sn", inputs[-1], weights[-1])
        slopes.append(np.where(z > 0, 1.0, SLOPES[net.activation]))
        inputs.append(slopes[-1] * z)
    delta, kernels = np.ones((draws, 1)), {"ntk": 0.0, "standard": 0.0}
    for k in reversed(range(net.depth)):
        size, back = (inputs[k] ** 2).sum(1), (delta**2).sum(1)
        kernels["ntk"] += net.sigma_w2 / inputs[k].shape[1] * size * back
        kernels["standard"] += (size + 1) * back
        delta = np.einsum("smn,sn->sm", weights[k], delta) * slopes[k - 1] if k else None
    return kernels


def assert_moments(kernels, exact):
    for drawn, expected in zip((kernels, kernels**2), exact):
        assert abs(drawn.mean() - expected[0]) < 5 * drawn.std() / len(drawn) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [
        MLP(2, 3, 1, "relu", 1.7),
        MLP(3, (4, 9), 1, "relu", 2.0),
        MLP(4, (4, 2, 6), 1, "relu", 1.6),
        MLP(4, (6, 20, 3), 1, "leaky_relu", 1.6),
        MLP(4, (4, 9, 3), 1, "linear", 1.1),
        MLP(6, 10, 1, "relu", 1.7),
    ],
    ids=lambda net: f"{net.activation}-{net.width}",
)
def test_moments_are_those_of_networks_in_numpy(net):
    """200,000 draws at 5 standard errors, each 0.2 to 0.6% of the mean and 0.4 to 3% of the second moment."""
    for parameterization, kernels in simulated(net, X[0], 200_000, np.random.default_rng(0)).items():
        assert_moments(kernels, ntk_moments(replace(net, parameterization=parameterization), X[:1]))


@pytest.mark.parametrize(
    "net", [MLP(3, (4, 9), 1, "relu", 2.0), MLP(4, 12, 1, "leaky_relu", 1.6, 0.0, "standard")], ids=str
)
def test_moments_are_those_of_sampled_networks(net):
    """4,000 draws at 5 standard errors."""
    assert_moments(
        np.asarray(sample_ntk(net, jax.random.key(11), X[:1], 4000))[:, 0, 0], ntk_moments(net, X[:1])
    )


@pytest.mark.parametrize(
    "parameterization, expected", [("ntk", 0.4 * (X**2).sum(1) / 5), ("standard", (X**2).sum(1) + 1)]
)
def test_one_layer_is_not_random(parameterization, expected):
    found = ntk_moments(MLP(1, 9, 1, "relu", 0.4, 0.0, parameterization), X)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-14)
    np.testing.assert_allclose(found.ratio, 1, rtol=1e-14)


@pytest.mark.parametrize("sigma_w2", [0.8, 2.0, 2.3])
def test_mean_in_closed_form(sigma_w2):
    """E Θ = a^{L-1} (1 + (L-1) M/n₀) + Σ_{k<L} a^k at |x| = 1, a = σ_w²/2 (Hanin & Nica 2020), but for dead
    layers, 1 in 10^9."""
    a = sigma_w2 / 2
    for depth, width, d in ((2, 30, 3), (9, 40, 7), (60, 100, 100)):
        expected = a ** (depth - 1) * (1 + (depth - 1) * width / d) + sum(a**k for k in range(depth))
        found = ntk_moments(MLP(depth, width, 1, "relu", sigma_w2, 0.0, "standard"), np.eye(2, d)).mean
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(
    "net",
    [
        MLP(4, (5, 1, 3), 1, "relu", 1.7),
        MLP(4, (5, 1, 3), 1, "leaky_relu", 1.7, 0.0, "standard"),
        MLP(4, (5, 1, 3), 1, "linear", 1.1, 0.0, "standard"),
        MLP(4, (50, 40, 60), 1, "relu", 1.7, 0.0, "standard"),
    ],
    ids=str,
)
def test_mean_is_the_kernel_of_infinite_width(net):
    np.testing.assert_allclose(ntk_moments(net, X).mean, np.diag(ntk(net, X)), rtol=1e-9)


def parts(lam):
    """Of weights, biases, and mixed, for L - 1 = λM and M → ∞ (Hanin & Nica 2020; Seleznova & Kutyniok
    2022)."""
    e5 = np.exp(5 * lam)
    weights = e5 / 3 * (1 + 2 / (3 * lam) * (1 - (1 - np.exp(-6 * lam)) / (6 * lam)))
    biases = 2 / (25 * lam**2) * (e5 - 5 * lam - 1)
    mixed = biases / 2 + (lam * e5 / 15 + 3 / 25 * (e5 - 1) - (e5 - np.exp(-lam)) / 9) / lam**2
    return weights, biases, mixed


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_limits_of_width_and_depth_are_reached_as_one_over_width(parameterization, lam):
    weights, biases, mixed = parts(lam)
    limit = weights if parameterization == "ntk" else (weights + 2 * mixed + biases) / 4
    errors = []
    for width in (400, 800, 1600):
        net = MLP(round(lam * width) + 1, width, 1, "relu", 2.0, 0.0, parameterization)
        errors.append(ntk_moments(net, np.eye(1, width)).ratio[0] / limit - 1)
    assert abs(errors[0]) < 0.07
    np.testing.assert_allclose(2 * np.array(errors[1:]), errors[:-1], rtol=0.05)
    assert abs(errors[0] - 6 * errors[1] + 8 * errors[2]) < 1e-3 * abs(
        errors[0]
    )  # without the terms in 1/M and 1/M²


@pytest.mark.parametrize("sigma_w2", [0.5, 1.5, 1.9])
def test_limit_of_depth_in_the_ordered_phase(sigma_w2):
    """The biases of the last layers, (1 - a²)/(1 - a²(1 + 5/M))."""
    a2 = (sigma_w2 / 2) ** 2
    found = ntk_moments(MLP(2000, 100, 1, "relu", sigma_w2, 0.0, "standard"), X).ratio
    np.testing.assert_allclose(found, (1 - a2) / (1 - a2 * (1 + 5 / 100)), rtol=1e-12)


def test_ratio_has_no_scale_in_ntk_parameterization():
    net = MLP(5, (4, 7, 2, 9), 1, "relu", 2.0)
    expected = ntk_moments(net, X).ratio
    np.testing.assert_allclose(expected, expected[0], rtol=1e-13)
    for sigma_w2 in (0.3, 5.0):
        np.testing.assert_allclose(
            ntk_moments(replace(net, sigma_w2=sigma_w2), X).ratio, expected, rtol=1e-13
        )
    small = ntk_moments(net, 1e-3 * X)
    np.testing.assert_allclose(small.mean, 1e-6 * ntk_moments(net, X).mean, rtol=1e-13)


def test_inputs_are_taken_one_by_one_and_in_any_precision():
    net = MLP(4, 5, 1, "relu", 2.0, 0.0, "standard")
    found = ntk_moments(net, X)
    for i in range(3):
        np.testing.assert_allclose(
            np.ravel(ntk_moments(net, X[i : i + 1])), [found.mean[i], found.second[i]], rtol=1e-14
        )
    single = ntk_moments(net, X.astype(np.float32))
    assert single.mean.dtype == single.second.dtype == np.float64
    np.testing.assert_allclose(single, found, rtol=1e-5)
    with enable_x64(False):
        np.testing.assert_allclose(ntk_moments(net, X.astype(np.float32)), single, rtol=1e-12)
