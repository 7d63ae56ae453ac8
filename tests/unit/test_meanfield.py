"""Fixed points, phases and layers of infinite networks against Gaussian integrals in numpy, against `ntk`,
and known answers.

The oracle takes integrals by the trapezoidal rule, whose error for these functions is below 1e-14, iterates
the variance as a network does, and bisects for the correlation.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import optimize
from scipy.special import erf, expit, ndtr

from ntk_helpers import MLP, critical_sigma_w2, fixed_point, nngp, ntk, phase, propagate
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.networks import quadrature, registry
from ntk_helpers.theory import trainable_depth

Z = np.linspace(-10, 10, 201)
WEIGHTS = np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi) / 10
DENSITY = lambda z: np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
PHI = {  # φ, φ', φ''
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)),
    "erf": (
        erf,
        lambda z: 2 / np.sqrt(np.pi) * np.exp(-(z**2)),
        lambda z: -4 * z / np.sqrt(np.pi) * np.exp(-(z**2)),
    ),
    "gelu": (lambda z: z * ndtr(z), lambda z: ndtr(z) + z * DENSITY(z), lambda z: (2 - z**2) * DENSITY(z)),
    "sin": (np.sin, np.cos, lambda z: -np.sin(z)),
    "swish": (
        lambda z: z * expit(z),
        lambda z: expit(z) * (1 + z * expit(-z)),
        lambda z: expit(z) * expit(-z) * (2 + z * (expit(-z) - expit(z))),
    ),
    "wavy": (lambda z: z - np.sin(3 * z) / 3, lambda z: 1 - np.cos(3 * z), lambda z: 3 * np.sin(3 * z)),
}
ORDERED = [("tanh", 1.3, 0.1), ("erf", 1.0, 0.1), ("gelu", 1.5, 0.1), ("sin", 0.8, 0.1), ("gelu", 2.4, 0.05)]
CHAOTIC = [("tanh", 2.5, 0.05), ("erf", 3.0, 0.1), ("sin", 3.0, 0.1), ("tanh", 3.0, 0.0), ("sin", 6.0, 0.0)]
NETS = [(*values, name) for name, rows in (("ordered", ORDERED), ("chaotic", CHAOTIC)) for values in rows]
LINEAR = [
    MLP(2, 1, 1, *values)
    for values in (("linear", 1.0, 0.0), ("linear", 0.5, 0.0), ("tanh", 0.5, 0.0), ("tanh", 1.0, 0.0))
]


def mean(f, q):
    return WEIGHTS @ f(np.sqrt(q) * Z)


def mean_of_pair(f, q, c):
    u, v = Z[:, None], c * Z[:, None] + np.sqrt(1 - c**2) * Z
    return WEIGHTS @ (f(np.sqrt(q) * u) * f(np.sqrt(q) * v)) @ WEIGHTS


def settled(name, w2, b2, q0):
    q, before = w2 * q0 + b2, 0.0
    while abs(q - before) > 1e-14 * q and q < 1e6:
        q, before = w2 * mean(lambda z: PHI[name][0](z) ** 2, q) + b2, q
    return q


def expected_fixed_point(name, w2, b2, q0):
    phi, slope, bend = PHI[name]
    q = settled(name, w2, b2, q0)
    moved = lambda c: (w2 * mean_of_pair(phi, q, c) + b2) / q - c
    c = optimize.bisect(moved, -1e-12, 0.99, xtol=1e-14) if moved(0.99) < 0 else 1.0
    chi_1, chi_c = w2 * mean(lambda z: slope(z) ** 2, q), w2 * mean_of_pair(slope, q, c)
    growth = chi_1 + w2 * mean(lambda z: bend(z) * phi(z), q)
    return q, c, chi_1, chi_c, -1 / np.log(growth), -1 / np.log(chi_c)


@pytest.mark.parametrize("name, w2, b2, expected", NETS)
def test_fixed_points_are_those_of_gaussian_integrals(name, w2, b2, expected):
    net, q0 = MLP(3, 7, 1, name, w2, b2), 0.01 if name == "gelu" else 1.0
    found = fixed_point(net, q0)
    np.testing.assert_allclose(found, expected_fixed_point(name, w2, b2, q0), rtol=1e-10, atol=1e-11)
    assert (found.c == 0) == (b2 == 0)
    assert phase(net, q0).name == expected


@pytest.mark.slow
def test_an_activation_by_quadrature(monkeypatch):
    monkeypatch.setitem(registry._REGISTRY, "swish", quadrature("swish", jax.nn.swish))
    for w2, b2 in ((1.5, 0.1), (3.0, 0.02)):
        found = fixed_point(MLP(2, 1, 1, "swish", w2, b2), 0.01)
        np.testing.assert_allclose(found, expected_fixed_point("swish", w2, b2, 0.01), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(critical_sigma_w2("swish", 0.05), expected_critical("swish", 0.05), rtol=1e-8)


@pytest.mark.parametrize("name, slope", [("relu", 0.0), ("leaky_relu", 0.01), ("linear", 1.0)])
def test_homogeneous_activations_in_closed_form(name, slope):
    share = (1 + slope**2) / 2
    net = MLP(2, 1, 1, name, 0.75 / share, 0.3)
    np.testing.assert_allclose(fixed_point(net), [1.2, 1, 0.75, 0.75, *[-1 / np.log(0.75)] * 2], rtol=1e-12)
    for sigma_b2 in (0.0, 1e-6, 0.1, 3.0):
        assert critical_sigma_w2(name, sigma_b2) == pytest.approx(1 / share, rel=1e-14)
        critical, chaotic = (replace(net, sigma_w2=w2 / share, sigma_b2=sigma_b2) for w2 in (1, 1.25))
        c = np.nan if name == "linear" else 1.0
        np.testing.assert_allclose(
            fixed_point(critical), [np.inf if sigma_b2 else 1 / share, c, 1, c, np.inf, np.inf]
        )
        np.testing.assert_allclose(fixed_point(chaotic), [np.inf, c, 1.25, c, np.inf, np.inf])
        assert [phase(each).name for each in (critical, chaotic)] == ["critical", "chaotic"]
        assert phase(chaotic).distance == pytest.approx(0.25 / share, rel=1e-12)


def expected_critical(name, b2):
    square, slope = (lambda q, f=f: mean(lambda z: f(z) ** 2, q) for f in PHI[name][:2])
    q = optimize.bisect(lambda q: q - square(q) / slope(q) - b2, b2, 100 * b2, xtol=1e-14)
    return 1 / slope(q)


@pytest.mark.parametrize(
    "name, b2, known",
    [
        ("tanh", 0.05, 1.7610),
        ("tanh", 0.25, 2.4015),
        ("tanh", 1.0, 3.443),
        ("erf", 0.05, 1.3758),
        ("sin", 0.5, None),
    ],
)
def test_critical_variances(name, b2, known):
    found = critical_sigma_w2(name, b2)
    assert known is None or found == pytest.approx(known, abs=5e-4 if known == 3.443 else 5e-5)
    np.testing.assert_allclose(found, expected_critical(name, b2), rtol=1e-8)
    at, below, above = (phase(MLP(2, 1, 1, name, found + off, b2)) for off in (0.0, -1e-3, 1e-3))
    assert (at.name, below.name, above.name) == ("critical", "ordered", "chaotic")
    np.testing.assert_allclose(
        [at.chi_1 - 1, at.distance, below.distance, above.distance], [0, 0, -1e-3, 1e-3], atol=1e-8
    )


@pytest.mark.parametrize(
    "b2, known", [(10, 7.63039970439784), (1e3, 61.2083268176984), (1e6, 1881.73807552301)]
)
def test_critical_variances_of_tanh_at_large_variances(b2, known):
    """By mpmath: the root of q - E φ²/E φ'² - σ_b², as integrals of 25 digits split at the scales of 1/√q."""
    assert critical_sigma_w2("tanh", b2) == pytest.approx(known, rel=1e-11)
    assert phase(MLP(2, 1, 1, "tanh", known, b2)).name == "critical"


def test_critical_gelu():
    """Its critical variance is fixed but repels, so that networks there are ordered, or without bounds."""
    np.testing.assert_allclose(critical_sigma_w2("gelu", 0.05), expected_critical("gelu", 0.05), rtol=1e-8)
    net = MLP(2, 1, 1, "gelu", critical_sigma_w2("gelu", 0.05), 0.05)
    assert [phase(net, q0).name for q0 in (0.01, 1.0)] == ["ordered", "chaotic"]


@pytest.mark.parametrize("name, expected", [("tanh", 1.0), ("erf", np.pi / 4), ("sin", 1.0), ("gelu", 4.0)])
def test_critical_variances_without_bias(name, expected):
    assert critical_sigma_w2(name, 0) == pytest.approx(expected, rel=1e-12)


def test_where_activations_become_linear_every_correlation_is_fixed():
    for net in LINEAR:
        found = fixed_point(net)
        assert np.isnan([found.c, found.chi_c]).all() and found.xi_c == np.inf
        assert found.q == (1.0 if net.activation == "linear" and net.sigma_w2 == 1 else 0.0)
        assert found.chi_1 == pytest.approx(net.sigma_w2, rel=1e-9)
        assert found.xi_q == (np.inf if net.sigma_w2 == 1 else pytest.approx(1 / np.log(2), rel=1e-8))


@pytest.mark.parametrize("q0", [1e-12, 1e-3, 1.0, 1e10])
@pytest.mark.parametrize("w2, b2", [(2.0, 0.0), (2.0, 0.1), (1.2, 0.05)])
def test_the_one_fixed_point_of_tanh_is_found_from_everywhere(q0, w2, b2):
    net = MLP(2, 1, 1, "tanh", w2, b2)
    np.testing.assert_allclose(fixed_point(net, q0)[:4], fixed_point(net)[:4], rtol=1e-9)


def test_the_variance_of_gelu_may_have_two_fixed_points():
    """It settles on the start's side of the upper one, which repels; near 2.41607 they meet."""
    for w2, q0 in ((2.3, 0.01), (2.3, 0.15), *((2.4159, q0) for q0 in np.linspace(0.01, 0.06, 6))):
        q = settled("gelu", w2, 0.05, q0)
        assert fixed_point(MLP(2, 1, 1, "gelu", w2, 0.05), q0).q == pytest.approx(q, rel=1e-8)
    for w2, q0 in ((2.3, 1.0), (2.42, 0.01)):
        assert settled("gelu", w2, 0.05, q0) > 1e6
        found = fixed_point(MLP(2, 1, 1, "gelu", w2, 0.05), q0)
        np.testing.assert_allclose(found, [np.inf, 1, w2 / 2, 1, np.inf, np.inf], rtol=1e-8)


def test_the_first_of_three_fixed_points_is_found(monkeypatch):
    monkeypatch.setitem(
        registry._REGISTRY, "wavy", quadrature("wavy", lambda z: z - jax.numpy.sin(3 * z) / 3)
    )
    found = [fixed_point(MLP(2, 1, 1, "wavy", 0.98, 0.01), q0).q for q0 in (1e-3, 0.3, 1.0, 20.0)]
    np.testing.assert_allclose(
        found, [settled("wavy", 0.98, 0.01, q0) for q0 in (1e-3, 0.3, 1.0, 20.0)], rtol=1e-8
    )
    assert found[0] < 0.02 and found[-1] > 2


def test_a_variance_that_swings_to_its_fixed_point(monkeypatch):
    """E cos² = (1 + exp(-2q))/2 falls."""
    monkeypatch.setitem(registry._REGISTRY, "cosine", quadrature("cosine", jax.numpy.cos))
    found = fixed_point(MLP(2, 1, 1, "cosine", 1.0, 0.1))
    assert found.q == pytest.approx((1 + np.exp(-2 * found.q)) / 2 + 0.1, rel=1e-10)
    assert found.xi_q == pytest.approx(1 / (2 * found.q), rel=1e-8)
    with pytest.raises(
        ValueError,
        match="no critical sigma_w2 of activation 'cosine' is found for sigma_b2 = 0; expected another",
    ):
        critical_sigma_w2("cosine", 0)


def test_no_root_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setitem(registry._REGISTRY, "log", quadrature("log", jax.numpy.log))
    with pytest.raises(ValueError, match="'log' are good up to variances of 0, and 2.1 is asked for"):
        fixed_point(MLP(2, 1, 1, "log", 2.0, 0.1))


# --- layers


def expected_layers(name, w2, b2, q0, c0, depth):
    """The fields of `Layers` in NTK parameterization, the kernels by sums over layers."""
    phi, slope, _ = PHI[name]
    hats, rows = (q0, c0 * q0), []
    for _ in range(depth):
        q, c = w2 * hats[0] + b2, (w2 * hats[1] + b2) / (w2 * hats[0] + b2)
        rows.append((q, 1 - c, *hats, w2 * mean(lambda z: slope(z) ** 2, q), w2 * mean_of_pair(slope, q, c)))
        hats = mean(lambda z: phi(z) ** 2, q), mean_of_pair(phi, q, c)
    q, gap, q_hat, q_hat_ab, chi, chi_ab = np.array(rows).T
    backward = lambda chi, depth: np.array([chi[k : depth - 1].prod() for k in range(depth)])
    sums = [
        [(scale * hat[:k] + bias) @ backward(x, k) for k in range(1, depth + 1)]
        for scale, bias in ((1, 0), (w2, b2))
        for hat, x in ((q_hat, chi), (q_hat_ab, chi_ab))
    ]
    return [q, gap, q_hat, q_hat_ab, backward(chi, depth), backward(chi_ab, depth), *sums]


@pytest.mark.parametrize("name, w2, b2", [CHAOTIC[0], ORDERED[2]])
@pytest.mark.parametrize("c0", [-1.0, -0.4, 0.0, 0.7])
def test_layers_are_those_of_gaussian_integrals(name, w2, b2, c0):
    found = propagate(MLP(6, 1, 1, name, w2, b2), 0.8, c0)
    for ours, expected in zip(found, expected_layers(name, w2, b2, 0.8, c0, 6), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "net, depths",
    [
        (MLP(1, 1, 1, "relu", 1.7, 0.2), [1]),
        (MLP(2, 4, 1, "tanh", 2.5, 0.05), [2]),
        (MLP(5, 30, 1, "erf", 1.3, 0.0), [5]),
        (MLP(7, 30, 1, "relu", 2.0, 0.0), [3, 7]),
        (MLP(4, (20, 3, 90), 1, "gelu", 1.5, 0.1), [4]),
    ],
    ids=str,
)
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_layers_are_in_the_kernels(net, depths, parameterization):
    d, net = 5, replace(net, parameterization=parameterization)
    correlations = np.array([1.0, 0.95, 0.0, -0.3, -1.0])
    x = np.sqrt(0.8 * d) * np.stack(
        [correlations, np.sqrt(1 - correlations**2), *np.zeros((d - 2, 5))], axis=1
    )
    for depth in depths:
        cut, at = replace(net, depth=depth, width=net.widths[: depth - 1]), depth - 1
        k, theta = np.asarray(nngp(cut, x)), np.asarray(ntk(cut, x))
        for i, c in enumerate(correlations):
            layers = propagate(net, 0.8, c, d)
            np.testing.assert_allclose([layers.q[at], layers.theta[at]], [k[0, 0], theta[0, 0]], rtol=1e-12)
            np.testing.assert_allclose(
                layers.q[at] * (1 - layers.gap[at]), k[0, i], rtol=0, atol=1e-12 * k[0, 0]
            )
            np.testing.assert_allclose(layers.theta_ab[at], theta[0, i], rtol=0, atol=1e-12 * theta[0, 0])
            assert layers.kappa_1[-1] == pytest.approx(layers.q_hat @ layers.p, rel=1e-12)
            assert layers.kappa_2[-1] == pytest.approx(layers.q_hat_ab @ layers.p_ab, rel=1e-12, abs=1e-12)


def equicorrelated(m, c):
    return np.linalg.cholesky((1 - c) * np.eye(m) + c) * np.sqrt(m)


@pytest.mark.parametrize(
    "net, m, c",
    [
        (MLP(6, 1), 12, 0.0),
        (MLP(4, 3, 1, "relu", 1.5, 0.2, "standard"), 12, 0.4),
        (MLP(6, 1, 1, "erf", 1.2, 0.0), 3, -0.45),
        (MLP(6, 1, 1, "sin", 2.0, 0.0), 2, -0.9),
    ],
    ids=str,
)
def test_condition_numbers_are_those_of_matrices(net, m, c):
    found = propagate(net, 1.0, c, m).condition_number(m)
    assert found[-1] == pytest.approx(np.linalg.cond(ntk(net, equicorrelated(m, c))), rel=1e-9)
    assert found[0] == pytest.approx(
        np.linalg.cond(ntk(replace(net, depth=1, width=1), equicorrelated(m, c))), rel=1e-9
    )


def test_condition_numbers_of_critical_relu():
    """By the closed form (Cho & Saul 2009), of 12 points: 5.8225 at 50 hidden layers, after 6.5551 at
    most."""
    c, theta_ab, slope, found = 0.0, 0.0, 0.0, []
    for depth in range(1, 52):
        theta_ab = 2 * c + slope * theta_ab
        found.append((2 * depth + 11 * theta_ab) / (2 * depth - theta_ab))
        c, slope = (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi, 1 - np.arccos(c) / np.pi
    ours = propagate(MLP(51, 1)).condition_number(12)
    np.testing.assert_allclose(ours, found, rtol=1e-10)
    np.testing.assert_allclose([ours[-1], ours.max()], [5.8225, 6.5551], atol=5e-5)


@pytest.mark.parametrize(
    "name, b2, limit", [("relu", 0.0, lambda m: (m + 3) / 3), ("erf", 0.05, lambda m: (m + 2) / 2)]
)
def test_condition_numbers_at_criticality_tend_to_limits_slowly(name, b2, limit):
    """As log(l)/l: a fit of both terms finds the limit (Xiao et al. 2020, Table 1)."""
    layers = propagate(MLP(8000, 1, 1, name, critical_sigma_w2(name, b2), b2))
    at = np.array([1000, 2000, 4000, 8000])
    for m in (2, 12):
        found = layers.condition_number(m)[at - 1]
        fit = np.linalg.lstsq(np.stack([at**0, np.log(at) / at, 1 / at], 1), found)[0]
        assert fit[0] == pytest.approx(limit(m), rel=1e-4)
        assert 1e-3 < abs(found[-1] / limit(m) - 1) < 1e-2


@pytest.mark.parametrize("name, w2, b2", [("tanh", 1.2, 0.05), ("sin", 0.8, 0.1)])
def test_condition_numbers_in_the_ordered_phase_grow_as_one_over_l_chi_to_the_l(name, w2, b2):
    """Xiao et al. 2020, Table 1; the first correction is another 1/l."""
    net = MLP(141, 1, 1, name, w2, b2)
    at = np.array([20, 40, 60]) if name == "sin" else np.array([60, 100, 140])
    scaled = propagate(net).condition_number(12)[at - 1] * at * fixed_point(net).chi_1 ** at
    constants = np.diff(at * scaled) / np.diff(at)
    assert constants[1] / constants[0] == pytest.approx(1, abs=0.01)


def test_condition_numbers_of_ordered_relu_grow_with_half_the_rate():
    """Its slope has a kink of the root of 1 - c, and 1 - c falls as χ^l."""
    found = propagate(MLP(100, 1, 1, "relu", 1.5, 0.3)).condition_number(12)
    assert found[99] / found[79] == pytest.approx(0.75**-10, rel=1e-4)


@pytest.mark.parametrize(
    "net, points, steps, c0",
    [
        (MLP(3, 5, 1, "erf", 0.8, 0.05, "standard"), 12, 1000, -0.05),
        (MLP(3, 5, 1, "relu", 2.0, 0.0), 12, 6, 0.0),
    ],
)
def test_trainable_depth_is_the_last_that_descent_can_fit(net, points, steps, c0):
    depth = int(trainable_depth(net, points, steps, c0=c0))
    assert depth > 3
    for deep, fits in ((depth, True), (depth + 1, False)):
        kernel = ntk(replace(net, depth=deep, parameterization="ntk"), equicorrelated(points, c0))
        assert (np.linalg.cond(kernel) <= steps) == fits


def test_trainable_depth_where_it_is_none_or_endless():
    assert trainable_depth(MLP(2, 1), 12, 7) == np.inf
    assert trainable_depth(MLP(2, 1), 12, 1, c0=0.5) == 0
    for net in (MLP(2, 1, 1, "erf", 3.0, 0.1), MLP(2, 1, 1, "relu", 2.5, 0.3)):
        assert trainable_depth(net, 12, 100) == np.inf


@pytest.mark.parametrize(
    "call",
    [
        lambda: fixed_point(MLP(2, 1, 1, "tanh", 2.5, 0.05)),
        lambda: fixed_point(MLP(2, 1, 1, "gelu", 1.5, 0.1)),
        lambda: critical_sigma_w2("erf", 0.05),
        lambda: phase(MLP(2, 1, 1, "sin", 2.0, 0.1))[1:],
        lambda: propagate(MLP(6, 3, 1, "tanh", 2.5, 0.05, "standard"), 0.8, 0.3, 5),
        lambda: trainable_depth(MLP(2, 1, 1, "erf", 1.1, 0.1), 12, 100),
    ],
    ids=range(6),
)
def test_without_64_bit_numbers_all_is_the_same(call):
    expected = call()
    with enable_x64(False):
        assert jax.numpy.ones(1).dtype == np.float32
        found = call()
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert np.asarray(found).dtype == np.float64
