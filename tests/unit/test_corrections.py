"""Corrections in 1/width: known answers, exact moments of ReLU, exact relations, limits of smooth
activations, drawn networks, and the Gaussian means under them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import roots_hermitenorm

from ntk_helpers import MLP, nngp, ntk, ntk_moments, sample_ntk
from ntk_helpers.finite import kernel_corrections
from ntk_helpers.finite._four_points import four_points
from ntk_helpers.finite._two_points import two_points
from ntk_helpers.networks import get_activation, quadrature

X = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0]])
Y = np.array([[1.0, 1.0, 1.0, 1.0], [1.5, 0.5, -1.0, 0.5]])  # of different norms
RELU = MLP(4, 64)
TANH = MLP(4, 64, activation="tanh", sigma_w2=1.5, sigma_b2=0.1)


def test_relu_at_two_inputs():
    """One input: by hand, as polynomials in L; both entries of the pair: by code that shares nothing with
    this."""
    found = kernel_corrections(RELU, X)
    depth = RELU.depth
    v, d, f = 5 * (depth - 1), 3 * depth * (depth - 1), depth * (depth - 1)
    a, b = f * (7 * depth - 2) / 3, f * (2 * depth - 1) / 3
    np.testing.assert_allclose(found.output_cumulant[0, 0, 0, 0], 4 * 3 * v, rtol=1e-12)  # K = 2
    np.testing.assert_allclose(found.ntk_output_covariance[0, 0, 0, 0], 4 * (d + 2 * f), rtol=1e-12)
    np.testing.assert_allclose(found.ntk_covariance[0, 0, 0, 0], 4 * (a + 2 * b), rtol=1e-12)
    np.testing.assert_allclose(found.movement[0, 0], 16 / 3 * (depth**2 - 1) * depth, rtol=1e-12)
    np.testing.assert_allclose(np.diag(found.nngp_mean), 0, atol=1e-11)
    np.testing.assert_allclose(np.diag(found.ntk_mean), 0, atol=1e-11)
    np.testing.assert_allclose(found.ntk_covariance[0, 1, 0, 1], 177.924, atol=1e-3)
    for moments in (found.ntk_covariance, found.output_cumulant):
        for axes in ((1, 0, 2, 3), (2, 3, 0, 1)):
            np.testing.assert_allclose(moments, moments.transpose(axes), rtol=1e-10)
    pair = np.asarray(found.ntk_covariance)[[0, 0, 1], [0, 1, 1]][:, [0, 0, 1], [0, 1, 1]]
    assert np.linalg.eigvalsh(pair).min() > 0


def test_tanh_at_two_inputs():
    found, one = kernel_corrections(TANH, X), kernel_corrections(TANH, X[:1])
    known = {(0, 0, 0, 0): 0.85306 + 2 * 5.83588, (0, 1, 0, 1): 3.306, (0, 0, 1, 1): 8.235}
    for at, expected in known.items():
        np.testing.assert_allclose(found.ntk_covariance[at], expected, rtol=2e-4)
    np.testing.assert_allclose(found.movement[0, 0], -8.11, rtol=1e-3)
    for pair, alone in zip(found, one):  # by other nodes
        np.testing.assert_allclose(pair[(0,) * pair.ndim], alone.squeeze(), rtol=1e-9)


@pytest.mark.parametrize("width", [100_000, (50_000, 100_000, 400_000)], ids=str)
def test_relu_is_that_of_exact_moments(width):
    """The next order is a 50,000th; with unequal widths a layer counts by the inverse of its own."""
    net = MLP(4, width)
    moments, n = ntk_moments(net, X), 1 / np.mean(1 / np.array(net.widths))
    found = np.einsum("aaaa->a", kernel_corrections(net, X).ntk_covariance)
    np.testing.assert_allclose(n * (moments.second - moments.mean**2), found, rtol=1e-4)


@pytest.mark.parametrize("name", ["relu", pytest.param("tanh", marks=pytest.mark.slow)])
def test_standard_parameterization_is_the_other_one_rescaled(name):
    """At as many features as units and σ_b² = σ_w²/n the two kernels are one and the same but for σ_b²."""
    net = MLP(3, 4, activation=name, sigma_w2=1.6, sigma_b2=0.4)
    found, same = kernel_corrections(replace(net, parameterization="standard"), Y), kernel_corrections(net, Y)
    for at, power in enumerate((2, 1, 0, 0, 1, 2)):
        np.testing.assert_allclose(found[at], same[at] / net.sigma_b2**power, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_equal_inputs_and_other_orders():
    points = np.stack([Y[0], Y[1], Y[0]])
    found = kernel_corrections(TANH, points)
    two = kernel_corrections(TANH, Y)
    for three, pair in zip(found, two):
        at = np.ix_(*[[0, 1, 0]] * pair.ndim)
        np.testing.assert_allclose(three, np.asarray(pair)[at], rtol=1e-7, atol=1e-8)


def test_one_layer_is_not_random_and_the_second_is_right_on_average():
    for value in kernel_corrections(replace(TANH, depth=1), X):
        assert not np.any(value)
    found = kernel_corrections(replace(TANH, depth=2), X)
    assert not np.any(found.nngp_mean) and not np.any(found.ntk_mean)
    np.testing.assert_allclose(found.movement[0, 0], -1.8825, atol=1e-4)


def test_two_layers_by_hand():
    """The variance of Σ ω over the units, and of what two units share."""
    net = MLP(2, 64, activation="tanh", sigma_w2=1.5, sigma_b2=0.1)
    found = kernel_corrections(net, Y)
    q = np.asarray(nngp(replace(net, depth=1), Y))
    z = np.linspace(-10, 10, 4001)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    for a in range(2):
        u = np.sqrt(q[a, a]) * z
        omega = 1.5 * (np.tanh(u) ** 2 + np.cosh(u) ** -4.0 * q[a, a])
        own = weights @ omega**2 - (weights @ omega) ** 2
        crossed = 2 * 1.5**2 * (weights @ np.cosh(u) ** -8.0) * q[a, a] ** 2
        np.testing.assert_allclose(found.ntk_covariance[a, a, a, a], own + crossed, rtol=1e-10)


def test_an_input_of_zeros_and_any_number_of_outputs():
    points = np.stack([X[0], 0 * X[0]])
    one, two = (kernel_corrections(MLP(4, 64, d_out), points) for d_out in (1, 2))
    for value, other in zip(one, two):
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(value, other)
    np.testing.assert_allclose(one.ntk_covariance[0, 0, 0, 0], 640, rtol=1e-12)


@pytest.mark.slow
def test_derivatives_are_those_of_differences():
    def total(s2, x):
        found = kernel_corrections(replace(RELU, sigma_b2=s2), x)
        return found.ntk_covariance[0, 1, 0, 1] + found.movement[0, 1] + found.ntk_mean[0, 1]

    step = np.zeros_like(X)
    step[1, 2] = 1e-4
    s2, x = jax.jit(jax.grad(total, (0, 1)))(0.1, X)
    np.testing.assert_allclose(x[1, 2], (total(0.1, X + step) - total(0.1, X - step)) / 2e-4, rtol=1e-5)
    np.testing.assert_allclose(s2, (total(0.1 + 1e-4, X) - total(0.1 - 1e-4, X)) / 2e-4, rtol=1e-5)


# --- Gaussian means

K = np.array([[1.0, 0.6, -0.2, 0.3], [0.6, 1.5, 0.1, 0.2], [-0.2, 0.1, 0.8, 0.4], [0.3, 0.2, 0.4, 1.2]])
HALF = (np.ones((4, 4)) + np.eye(4)) / 2


@pytest.mark.parametrize("name", ["relu", "tanh", pytest.param("gelu", marks=pytest.mark.slow)])
def test_means_of_two_points_are_the_dual_maps(name):
    phi, q = get_activation(name), np.diag(K)
    values, slopes = jax.jit(lambda k: two_points(phi.fn, k))(K)
    np.testing.assert_allclose(values.value, phi.dual(q[:, None], q, K), rtol=1e-11)
    np.testing.assert_allclose(slopes.value, phi.dual_derivative(q[:, None], q, K), rtol=1e-11)
    off = ~np.eye(4, dtype=bool)
    for ours, price in (
        (values.own_cross, slopes.own),
        (values.cross_cross, slopes.cross),
        (values.own_other, slopes.cross / 4),
        (slopes.own_other, slopes.cross_cross / 4),
    ):
        np.testing.assert_allclose(ours[off], price[off], rtol=1e-10, atol=1e-12)


def test_means_of_three_points_are_gauss_hermite_sums():
    """For a smooth activation; the last moment has the kinks' part beside it for others."""
    z, weights = roots_hermitenorm(40)
    grid = np.stack(np.meshgrid(z, z, z, indexing="ij")).reshape(3, -1)
    weight = np.einsum("i,j,k->ijk", *[weights / weights.sum()] * 3).ravel()
    u = np.linalg.cholesky(K[:3, :3]) @ grid
    phi, slope, bend = np.sin(u), np.cos(u), -np.sin(u)
    found = jax.jit(lambda k: four_points(jnp.sin, k))(K[:3, :3])
    for ours, factors in zip(found, [(phi,) * 4, (slope, slope, phi, phi), (slope,) * 4]):
        expected = np.einsum("az,bz,cz,dz,z->abcd", *factors, weight, optimize=True)
        np.testing.assert_allclose(ours, expected, atol=1e-10)
    expected = np.einsum("az,bz,cz,dz,z->abcd", bend, slope, slope, phi, weight, optimize=True)
    np.testing.assert_allclose(found.bends, expected, atol=1e-10)


def test_orthants_of_three_points():
    """1/8 + Σ arcsin(c)/4π, of which ReLU's slopes are the mean; at 1/2 it is 1/4."""
    k, c = K[:3, :3], K[:3, :3] / np.sqrt(np.outer(np.diag(K)[:3], np.diag(K)[:3]))
    found = jax.jit(lambda k: four_points(jax.nn.relu, k))(k)
    expected = 1 / 8 + np.arcsin(c[np.triu_indices(3, 1)]).sum() / (4 * np.pi)
    np.testing.assert_allclose(found.slopes[0, 1, 2, 2], expected, rtol=1e-11)


@pytest.mark.slow
def test_four_points():
    """The orthant of four points at correlation 1/2 is 1/5; another order takes other integrals."""
    of = jax.jit(lambda k: four_points(jax.nn.relu, k))
    np.testing.assert_allclose(of(HALF).slopes[0, 1, 2, 3], 1 / 5, rtol=1e-9)
    order = [2, 0, 3, 1]
    for ours, turned in zip(of(K), of(K[np.ix_(order, order)])):
        expected = np.asarray(ours)[np.ix_(*[order] * 4)]
        np.testing.assert_allclose(turned, expected, atol=1e-8 * np.abs(expected).max())


# --- against others' limits and drawn networks


@pytest.mark.slow
def test_a_kink_is_the_limit_of_smooth_bends():
    """In steps of 1/β, and of what crosses the kink in the movement."""
    soft = {b: quadrature(f"softplus {b}", lambda z, b=b: jax.nn.softplus(b * z) / b) for b in (20, 40)}
    net = MLP(3, 64, sigma_b2=0.1)
    near, nearer = (kernel_corrections(replace(net, activation=phi), X) for phi in soft.values())
    for coarse, fine, limit in zip(near, nearer, kernel_corrections(net, X)):
        size = np.abs(limit).max()
        np.testing.assert_allclose(2 * fine - coarse, limit, atol=5e-3 * size)
        assert np.abs(fine - limit).max() < 0.05 * size


def estimates(net, points, draws):
    """Of width times moments: the kernel's covariances and corrected means, and their standard errors."""
    mean, rows = np.asarray(ntk(net, points)), []
    for i in range(20):
        samples = sample_ntk(net, jax.random.fold_in(jax.random.key(3), i), points.astype(np.float32), draws)
        moved = np.asarray(samples, float) - mean
        centred = moved - moved.mean(0)
        rows.append(
            [*np.einsum("sab,scd->abcd", centred, centred).ravel() / (draws - 1), *moved.mean(0).ravel()]
        )
    return net.width * np.mean(rows, 0), net.width * np.std(rows, 0, ddof=1) / 20**0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "net",
    [MLP(3, 64, activation="gelu", sigma_b2=0.05), MLP(3, 64, sigma_b2=0.1)],
    ids=lambda net: net.activation,
)
def test_they_are_those_of_sampled_networks(net):
    """At widths 32 and 64, extrapolated; at 5 standard errors and the order after the next."""
    result = kernel_corrections(net, Y)
    expected = np.concatenate([np.ravel(result.ntk_covariance), np.ravel(result.ntk_mean)])
    (near, error), (nearer, smaller) = (estimates(replace(net, width=n), Y, 2000) for n in (32, 64))
    limit, error = 2 * nearer - near, np.hypot(2 * smaller, error)
    assert (np.abs(limit - expected) < 5 * error + 0.02 * np.abs(expected)).all()
