"""What holds for every network and every input: symmetry, positivity, equivariance, scaling, agreement, on
drawn examples.

Points are equal, opposite, close, zero, tiny and large. A network's statics are few and its variances drawn,
so that little is compiled. Errors are measured on the correlation of two entries, relative to the root of
their diagonals.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_helpers import MLP, empirical_ntk, gp_log_likelihood, gp_posterior, nngp, ntk, sample_ntk, tiled
from ntk_helpers.networks import activation_names, get_activation

pytestmark = pytest.mark.slow

N, D = 6, 3
EPS = np.finfo(float).eps
# A correlation's rounding, EPS, is one of EPS / √gap in an angle; below a gap of √EPS the kernels take
# differences.
ANGLE = 4 * EPS**0.75
NETS = [
    MLP(1, 4, activation="relu"),
    MLP(6, 5, activation="relu", parameterization="standard"),
    MLP(3, 4, activation="leaky_relu"),
    MLP(4, (4, 1, 6), activation="linear", parameterization="standard"),
    MLP(2, 8, activation="erf", parameterization="standard"),
    MLP(5, 4, activation="erf"),
    MLP(3, (7, 3), activation="gelu", parameterization="standard"),
    MLP(4, 4, activation="sin"),
    MLP(3, 4, activation="tanh"),
]
FINITE = [
    MLP(1, 1, 3, "relu"),
    MLP(6, 3, 1, "relu", parameterization="standard"),
    MLP(3, (4, 3), 2, "tanh", parameterization="standard"),
    MLP(4, 8, 2, "gelu"),
]
HOMOGENEOUS = [
    MLP(depth, 4, activation=name) for depth, name in ((3, "leaky_relu"), (6, "relu"), (4, "linear"))
]
ODD = ("linear", "erf", "sin", "tanh")

variances = st.tuples(st.floats(0.25, 3.0), st.just(0.0) | st.floats(0.01, 2.0))
factors = st.floats(1e-3, 1e3)
seeds = st.integers(0, 2**31)


@st.composite
def points(draw, n=N):
    """Random directions of norms 1e-6 to 30; some rows are 0, or equal, opposite, parallel or close to an
    earlier one."""
    x = np.random.default_rng(draw(seeds)).normal(size=(n, D))
    for i in range(n):
        kind, j = draw(st.sampled_from("nnneopcz")), draw(st.integers(0, max(i - 1, 0)))
        image = {"n": x[i], "e": x[j], "o": -x[j], "p": 3 * x[j], "c": x[j] + 1e-9 * x[i], "z": 0 * x[i]}[
            kind
        ]
        x[i] = image * (10 ** draw(st.floats(-6, 1)) if kind == "n" else 1)
    return x


def with_variances(net, drawn):
    return replace(net, sigma_w2=drawn[0], sigma_b2=drawn[1])


def correlation(kernel, rows, columns):
    """Entries over the root of the diagonals; 0 over 0 is 0."""
    left, right = (np.sqrt(np.where(diagonal > 0, diagonal, 1)) for diagonal in (rows, columns))
    return kernel / left[:, None] / right


def assert_close(a, b, rows, columns, tolerance):
    np.testing.assert_allclose(
        correlation(a, rows, columns), correlation(b, rows, columns), rtol=0, atol=tolerance
    )


def assert_positive(kernel, size, tolerance):
    """A perturbation of each entry by `tolerance` moves an eigenvalue by n times as much."""
    scaled = correlation(kernel, size, size)
    np.testing.assert_allclose(scaled, scaled.T, rtol=0, atol=tolerance)
    assert np.linalg.eigvalsh(scaled)[0] >= -len(scaled) * tolerance


# --- infinite width


def per_net(nets):
    return pytest.mark.parametrize(
        "net", nets, ids=lambda net: f"{net.activation}-{net.depth}-{net.parameterization}"
    )


@per_net(NETS)
@given(drawn=variances, x=points())
def test_kernels_are_symmetric_and_positive_and_the_tangent_one_is_larger(net, drawn, x):
    net = with_variances(net, drawn)
    covariance, tangent = (np.asarray(kernel(net, x)) for kernel in (nngp, ntk))
    for kernel in (covariance, tangent):
        assert_positive(kernel, np.diag(kernel), net.depth * ANGLE)
    if net.parameterization == "ntk":
        assert_positive(tangent - covariance, np.diag(tangent), net.depth * ANGLE)


@per_net(NETS)
@given(drawn=variances, x=points(), order=st.permutations(range(N)), cut=st.integers(0, N))
def test_kernels_follow_their_inputs(net, drawn, x, order, cut):
    """Permuted, exchanged, given twice, and beside other points."""
    net, y = with_variances(net, drawn), np.concatenate([x[cut:], x[:cut]])[::-1].copy()
    for kernel in (nngp, ntk):
        whole = np.asarray(kernel(net, x))
        size, sizes_y = np.diag(whole), np.diag(kernel(net, y))
        across = np.asarray(kernel(net, x, y))
        assert_close(
            kernel(net, x[order]), whole[np.ix_(order, order)], size[order], size[order], net.depth * ANGLE
        )
        assert_close(kernel(net, x, x.copy()), whole, size, size, net.depth * ANGLE)
        assert_close(kernel(net, y, x).T, across, size, sizes_y, net.depth * ANGLE)
        assert np.abs(correlation(across, size, sizes_y)).max() <= 1 + net.depth * ANGLE  # Cauchy–Schwarz


@per_net(NETS)
@given(drawn=variances, x=points(), seed=seeds)
def test_kernels_are_invariant_to_rotations_and_reflections(net, drawn, x, seed):
    net = with_variances(net, drawn)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]
    for kernel in (nngp, ntk):
        whole = np.asarray(kernel(net, x))
        assert_close(kernel(net, x @ rotation), whole, np.diag(whole), np.diag(whole), D * net.depth * ANGLE)


@per_net(HOMOGENEOUS)
@given(sigma_w2=st.floats(0.25, 3.0), x=points(), y=points(), a=factors, b=factors)
def test_homogeneous_kernels_scale_with_inputs_and_variance(net, sigma_w2, x, y, a, b):
    net = replace(net, sigma_w2=sigma_w2)
    sizes = [np.diag(ntk(net, z)) for z in (x, y)]
    for kernel in (nngp, ntk):
        expected = np.asarray(kernel(net, x, y))
        assert_close(kernel(net, a * x, b * y) / (a * b), expected, *sizes, net.depth * ANGLE)
        assert_close(
            kernel(replace(net, sigma_w2=a * sigma_w2), x, y) / a**net.depth,
            expected,
            *sizes,
            net.depth * ANGLE,
        )


@per_net(HOMOGENEOUS[:1])
@given(sigma_w2=st.floats(0.25, 3.0), x=points())
def test_derivatives_of_homogeneous_kernels_obey_euler(net, sigma_w2, x):
    """a ∂K(ax, x)/∂a = K and σ² ∂K/∂σ² = depth · K."""
    net = replace(net, sigma_w2=sigma_w2)
    both, (by_scale, by_variance) = _with_derivatives(net, jnp.asarray(x))
    for kernel, scaled, varied in zip(both, by_scale, by_variance):
        size = np.diag(both[1])
        assert_close(scaled, kernel, size, size, net.depth * ANGLE)
        assert_close(net.sigma_w2 * varied, net.depth * kernel, size, size, net.depth**2 * ANGLE)


@jax.jit
def _with_derivatives(net, x):
    def both(a, sigma_w2):
        other = replace(net, sigma_w2=sigma_w2)
        return nngp(other, a * x, x), ntk(other, a * x, x)

    at = (1.0, net.sigma_w2)
    return both(*at), [jax.jvp(both, at, direction)[1] for direction in ((1.0, 0.0), (0.0, 1.0))]


@given(sigma_w2=st.floats(0.25, 3.0), x=points())
def test_the_tangent_kernel_of_a_linear_network_is_depth_times_its_covariance(sigma_w2, x):
    for net in (MLP(depth, 4, activation="linear", sigma_w2=sigma_w2) for depth in (1, 4)):
        kernel = np.asarray(ntk(net, x))
        assert_close(net.depth * nngp(net, x), kernel, np.diag(kernel), np.diag(kernel), net.depth * ANGLE)


@given(sigma_w2=st.floats(0.25, 3.0), x=points(), seed=seeds)
def test_parameterizations_differ_by_a_factor_where_all_layers_are_as_wide_as_the_inputs(sigma_w2, x, seed):
    """Θ = σ_w²/d Θ_standard for widths d and σ_b² = σ_w²/d: every parameter is then scaled alike."""
    scaled, standard = (MLP(4, D, 1, "erf", sigma_w2, sigma_w2 / D, kind) for kind in ("ntk", "standard"))
    kernel = np.asarray(ntk(scaled, x))
    assert_close(sigma_w2 / D * ntk(standard, x), kernel, np.diag(kernel), np.diag(kernel), 4 * ANGLE)
    found, other = (
        empirical_ntk(*drawn_network(net, (sigma_w2, sigma_w2 / D), seed), x) for net in (scaled, standard)
    )
    found, other = found[..., 0, 0], other[..., 0, 0]
    assert_close(sigma_w2 / D * other, found, np.diag(found), np.diag(found), 4 * ANGLE)


# --- finite width


def matrix(kernel):
    """(n1, n2, o, o) as (n1 o, n2 o)."""
    n1, n2, o, _ = kernel.shape
    return np.asarray(kernel).transpose(0, 2, 1, 3).reshape(n1 * o, n2 * o)


def drawn_network(net, drawn, seed):
    net = with_variances(net, drawn)
    return net, net.init(jax.random.key(seed), D)


@per_net(FINITE)
@given(drawn=variances, x=points(), seed=seeds, order=st.permutations(range(N)))
def test_empirical_kernels_are_symmetric_positive_and_follow_their_inputs(net, drawn, x, seed, order):
    net, params = drawn_network(net, drawn, seed)
    full = np.asarray(empirical_ntk(net, params, x))
    flat = matrix(full)
    size = np.full(
        len(flat), np.diag(flat).max()
    )  # a backward pass that cancels keeps the digits of its largest terms
    assert_positive(flat, size, net.depth * ANGLE)
    y = x[order]
    both = np.repeat(np.asarray(order), net.d_out) * net.d_out + np.tile(np.arange(net.d_out), N)
    assert_close(
        matrix(empirical_ntk(net, params, y)), flat[np.ix_(both, both)], size, size, net.depth * ANGLE
    )
    across = matrix(empirical_ntk(net, params, x, y))
    assert_close(across, flat[:, both], size, size, net.depth * ANGLE)
    assert_close(matrix(empirical_ntk(net, params, y, x)).T, across, size, size, net.depth * ANGLE)


@per_net(FINITE)
@given(drawn=variances, x=points(), seed=seeds)
def test_methods_and_outputs_of_the_empirical_kernel_agree(net, drawn, x, seed):
    net, params = drawn_network(net, drawn, seed)
    full = np.asarray(empirical_ntk(net, params, x, method="structured"))
    tolerance = net.depth * ANGLE * np.abs(full).max()
    for method in ("jacobian", "ntk_vp"):
        np.testing.assert_allclose(empirical_ntk(net, params, x, method=method), full, rtol=0, atol=tolerance)
    diagonal = np.einsum("ijaa->ija", full)
    np.testing.assert_allclose(
        empirical_ntk(net, params, x, output="diagonal"), diagonal, rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(
        empirical_ntk(net, params, x, output="trace"), diagonal.mean(-1), rtol=0, atol=tolerance
    )


@settings(max_examples=3)
@given(drawn=variances, x=points(7), block=st.integers(1, 8), given_twice=st.booleans())
def test_a_kernel_in_blocks_is_the_whole(drawn, x, block, given_twice):
    net = MLP(2, 4, sigma_w2=drawn[0], sigma_b2=drawn[1])
    whole = np.asarray(ntk(net, x))
    found = tiled(lambda a, b: ntk(net, a, b), x, x.copy() if given_twice else None, block=block)
    assert_close(found, whole, np.diag(whole), np.diag(whole), 2 * ANGLE)


@per_net([MLP(3, (30, 2))])
@given(drawn=variances, x=points(), seed=seeds)
def test_sampled_kernels_are_symmetric_and_positive_and_so_are_their_parts(net, drawn, x, seed):
    sample = sample_ntk(with_variances(net, drawn), jax.random.key(seed), x, 2, parts=True)
    for i in range(2):
        size = np.full(N, np.diag(sample.kernel[i]).max())
        for part in (sample.kernel[i], *sample.weights[i], *sample.biases[i]):
            assert_positive(np.asarray(part), size, net.depth * ANGLE)


@given(sigma_w2=st.floats(0.25, 3.0), x=points(), seed=seeds, power=st.integers(-8, 8))
def test_sampled_kernels_of_relu_scale_with_their_inputs(sigma_w2, x, seed, power):
    net, key = MLP(3, (30, 2), sigma_w2=sigma_w2), jax.random.key(seed)
    expected, found = (
        np.asarray(sample_ntk(net, key, s * x, 2, parts=True).kernel) / s**2 for s in (1.0, 2.0**power)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=net.depth * ANGLE * np.abs(expected).max())


# --- regression


@given(
    drawn=variances,
    x=points(),
    z=points(),
    noise=st.floats(1e-4, 10.0),
    more=st.floats(1.0, 100.0),
    seed=seeds,
)
def test_a_posterior_is_below_its_prior_and_grows_with_the_noise(drawn, x, z, noise, more, seed):
    """By Cholesky's factorization errors are n · EPS · condition, relative to the largest variance."""
    net, y = MLP(3, 1, sigma_w2=drawn[0], sigma_b2=drawn[1]), np.random.default_rng(seed).normal(size=(N, 2))
    k_train, k_cross, k_test = (np.asarray(k) for k in (nngp(net, x), nngp(net, z, x), nngp(net, z)))
    noise *= max(np.diag(k_train).max(), 1e-12)
    largest = max(np.diag(k_train).max(), np.diag(k_test).max())
    tolerance = 3 * ANGLE + N * EPS * (1 + N * np.diag(k_train).max() / noise)
    (mean, small), (_, large) = (gp_posterior(k_train, k_cross, k_test, y, s) for s in (noise, more * noise))
    size = np.full(N, largest if largest > 0 else 1.0)
    for smaller, larger in ((0 * k_test, small), (small, large), (large, k_test)):
        assert_positive(np.asarray(larger - smaller), size, tolerance)
    order = np.random.default_rng(seed).permutation(N)
    other = gp_posterior(k_train[np.ix_(order, order)], k_cross[:, order], k_test, y[order], noise)
    bound = np.abs(y).max() * np.abs(k_cross).max(initial=0) / noise
    np.testing.assert_allclose(other.mean, mean, rtol=0, atol=N * tolerance * bound)


@given(drawn=variances, x=points(), noise=st.floats(1e-3, 10.0), seed=seeds)
def test_a_posterior_at_its_data_misses_them_by_the_noise(drawn, x, noise, seed):
    """y - μ = σ² (K + σ² I)⁻¹ y, and outputs are independent."""
    y = np.random.default_rng(seed).normal(size=(N, 2))
    kernel = np.asarray(nngp(MLP(3, 1, sigma_w2=drawn[0], sigma_b2=drawn[1]), x))
    noise *= max(np.diag(kernel).max(), 1e-12)
    mean, _ = gp_posterior(kernel, kernel, kernel, y, noise)
    condition = 1 + N * np.diag(kernel).max() / noise
    missed = noise * np.linalg.solve(kernel + noise * np.eye(N), y)
    np.testing.assert_allclose(y - mean, missed, rtol=0, atol=N * EPS * condition**2 * np.abs(y).max())
    apart = [float(gp_log_likelihood(kernel, y[:, a : a + 1], noise)) for a in range(2)]
    assert float(gp_log_likelihood(kernel, y, noise)) == pytest.approx(
        sum(apart), abs=N * EPS * condition * np.abs(apart).sum()
    )


# --- dual maps


@cache
def maps(name):
    phi = get_activation(name)
    return jax.jit(
        lambda q1, q2, c: (
            phi.dual(q1, q2, c * jnp.sqrt(q1 * q2)),
            phi.dual_derivative(q1, q2, c * jnp.sqrt(q1 * q2)),
        )
    )


@cache
def by_polar_quadrature(name):
    """E φ(u)φ(v) and E φ'(u)φ'(v) by Gauss–Legendre nodes of angle, between the four kinks, and of radius to
    9.5."""
    phi = get_activation(name)
    nodes, weights = np.polynomial.legendre.leggauss(100)

    @jax.jit
    def expectations(q1, q2, c):
        tilt = jnp.arccos(c)  # u = √q1 r cos θ, v = √q2 r cos(θ - tilt)
        kinks = (
            jnp.sort(jnp.mod(jnp.stack([0.5, 1.5, 0.5 + tilt / jnp.pi, 1.5 + tilt / jnp.pi]), 2.0)) * jnp.pi
        )
        widths = jnp.diff(kinks, append=kinks[:1] + 2 * jnp.pi)
        angles = (kinks[:, None] + widths[:, None] * (1 + nodes) / 2).ravel()
        radii = 9.5 * (1 + nodes) / 2
        density = (widths[:, None] * weights / 2).ravel()[:, None] * (
            9.5 * weights / 2 * radii * jnp.exp(-(radii**2) / 2)
        )
        u, v = (
            jnp.sqrt(q) * jnp.cos(angles - shift)[:, None] * radii for q, shift in ((q1, 0.0), (q2, tilt))
        )
        return tuple((density * f(u) * f(v)).sum() / (2 * jnp.pi) for f in (phi.fn, phi.derivative))

    return expectations


log_q = st.floats(-3, 0.3)
correlations = st.floats(-1, 1)


@pytest.mark.parametrize("name", activation_names())
@given(a=log_q, b=log_q, c=correlations)
def test_dual_maps_equal_a_quadrature_of_the_activation(name, a, b, c):
    """To the 1e-12 of tanh's own quadrature, or where arccos c has lost digits to the ANGLE's."""
    q1, q2 = 10**a, 10**b
    for found, expected in zip(maps(name)(q1, q2, c), by_polar_quadrature(name)(q1, q2, c)):
        assert float(found) == pytest.approx(
            float(expected), abs=max(1e-12, EPS / max(1 - abs(c), EPS) ** 0.5)
        )


@pytest.mark.parametrize("name", activation_names())
@given(a=st.floats(-6, 3), b=st.floats(-6, 3), c=correlations, d=correlations)
def test_dual_maps_are_kernels_of_the_correlation(name, a, b, c, d):
    """Σ a_k(q1) a_k(q2) c^k (Mehler): Cauchy–Schwarz; for equal variances largest at 1 and growing with c;
    parity."""
    q1, q2, (low, high) = 10**a, 10**b, sorted((abs(c), abs(d)))
    one, other, mixed, least, most, negative = (
        np.array(maps(name)(*arguments))
        for arguments in (
            (q1, q1, 1.0),
            (q2, q2, 1.0),
            (q1, q2, c),
            (q1, q1, low),
            (q1, q1, high),
            (q1, q1, -high),
        )
    )
    slack = 1 + ANGLE
    assert (np.abs(mixed) <= slack * np.sqrt(one * other)).all()
    assert (np.abs(negative) <= most + ANGLE * one).all() and (most <= slack * one).all()
    assert (least <= most + ANGLE * one).all()
    if name in ODD:
        np.testing.assert_allclose(negative / one, most / one * [-1, 1], rtol=0, atol=ANGLE)
