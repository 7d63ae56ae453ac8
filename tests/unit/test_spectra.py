"""Spectra on spheres and the learning curves that follow: closed forms, sums, brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special
from sklearn.datasets import load_digits

from ntk_helpers import MLP, nngp, ntk
from ntk_helpers.theory import (
    Spectrum,
    kernel_spectrum,
    label_power,
    learning_curve,
    linear_risk,
    sphere_power,
)

even = np.arange(2.0, 201, 2)


def test_relu_on_the_circle_in_closed_form():
    covariance = 8 / (np.pi * (even**2 - 1)) ** 2
    tangent = covariance + 2 / np.pi**2 * (1 / (even - 1) ** 2 + 1 / (even + 1) ** 2)
    for kernel, expected in (("nngp", covariance), ("ntk", tangent)):
        found = kernel_spectrum(MLP(2, 1), 2, 200, kernel)
        np.testing.assert_allclose(found.values[2::2], expected, rtol=1e-6, atol=1e-14)
        assert (found.values[3::2] == 0).all()
        assert found.values[1] == pytest.approx({"nngp": 0.5, "ntk": 1.0}[kernel], rel=1e-12)


def test_known_answers():
    sphere = kernel_spectrum(MLP(2, 1), 3, 4).values
    np.testing.assert_allclose(sphere, [1, 2 / 3, 0.15625, 0, 0.0104166667], rtol=1e-7, atol=1e-15)
    erf = kernel_spectrum(MLP(2, 1, activation="erf"), 2, 4).values
    np.testing.assert_allclose(erf, [0, 1.29386521, 0, 0.11890926, 0], rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("dim", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize(
    "net", [MLP(3, 1, sigma_b2=0.1), MLP(5, 7, activation="tanh", parameterization="standard")]
)
def test_the_sum_is_the_diagonal_and_partial_sums_are_the_kernel(net, dim):
    found = kernel_spectrum(net, dim, 200)
    assert np.isfinite(found.values).all() and (found.values >= -1e-14 * found.values[0]).all()
    x = dim**0.5 * np.eye(dim)[:1]
    assert found.values @ found.multiplicities + found.tail == pytest.approx(
        float(ntk(net, x)[0, 0]), rel=1e-10
    )
    assert found.tail >= -1e-10 * float(ntk(net, x)[0, 0])


def test_partial_sums_approach_the_kernel():
    found = kernel_spectrum(MLP(3, 1, activation="erf"), 5, 60)
    t = np.linspace(-1, 1, 41)
    polynomials = [
        special.eval_gegenbauer(k, 1.5, t) / special.eval_gegenbauer(k, 1.5, 1.0) for k in range(61)
    ]
    x = np.stack([t, np.sqrt(1 - t**2)], axis=1)
    exact = nngp(MLP(3, 1, activation="erf"), 2**0.5 * np.eye(2)[:1], 2**0.5 * x)[0]
    covariance = kernel_spectrum(MLP(3, 1, activation="erf"), 5, 60, "nngp")
    summed = (covariance.values * covariance.multiplicities) @ polynomials
    np.testing.assert_allclose(summed, exact, atol=2 * max(covariance.tail, 1e-12))
    assert found.multiplicities[:4].tolist() == [1, 5, 14, 30]


@pytest.mark.parametrize(("dim", "degree"), [(2, 7), (4, 3), (30, 2)])
def test_a_function_of_the_angle_by_brute_force(dim, degree):
    kernel = lambda angle: np.exp(-angle)
    found = kernel_spectrum(kernel, dim, degree).values[degree]
    alpha = dim / 2 - 1
    if dim == 2:
        polynomial = lambda t: np.cos(degree * t)
    else:
        polynomial = lambda t: (
            special.eval_gegenbauer(degree, alpha, np.cos(t)) / special.eval_gegenbauer(degree, alpha, 1.0)
        )
    weight = lambda t: np.sin(t) ** (dim - 2)
    over, _ = integrate.quad(lambda t: kernel(t) * polynomial(t) * weight(t), 0, np.pi, epsabs=1e-14)
    under, _ = integrate.quad(weight, 0, np.pi, epsabs=1e-14)
    assert found == pytest.approx(over / under, rel=1e-8)


def test_decay_is_that_of_the_circle():
    tangent, covariance = (kernel_spectrum(MLP(2, 1), 2, 200, kernel) for kernel in ("ntk", "nngp"))
    degrees = range(40, 201, 2)
    assert tangent.decay(degrees) == pytest.approx(2, abs=0.01)
    assert covariance.decay(degrees) == pytest.approx(4, abs=0.01)


def test_power_of_harmonics_on_the_sphere():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 4)) * rng.uniform(0.5, 2, (1500, 1))
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.stack([2 * u[:, 0], 3 * u[:, 1] * u[:, 2]], axis=1)  # E[u₀²] = 1/4, E[u₁²u₂²] = 1/24
    found = sphere_power(x, y, 3)
    np.testing.assert_allclose(found, [0, 1, 9 / 24, 0], atol=0.1)


def test_spectrum_and_power_of_a_matrix():
    images = load_digits().data
    x = images - images.mean(0)
    x = 8 * x / np.linalg.norm(x, axis=1, keepdims=True)
    x, y = x[:300], load_digits().target[:300] % 2 - 0.5
    theta = np.asarray(ntk(MLP(3, 1), x))
    spectrum, power = label_power(theta, y)
    assert spectrum.values.sum() == pytest.approx(np.trace(theta) / 300, rel=1e-12)
    assert power.sum() == pytest.approx((y**2).mean(), rel=1e-12)
    assert (np.diff(spectrum.values) <= 0).all()
    # After training on all points with a ridge, what is left is what each mode's share says.
    left = 10.0 * np.linalg.solve(theta + 10.0 * np.eye(300), y)
    shares = 10.0 / (300 * spectrum.values + 10.0)
    assert (left**2).mean() == pytest.approx(shares**2 @ power, rel=1e-9)


def test_isotropic_features_are_linear_regression():
    """One eigenvalue of p eigenfunctions: the risk of p Gaussian features with n points."""
    isotropic = Spectrum(np.array([1.0]), np.array([400.0]))
    for n in (100, 300, 800):
        for ridge, noise in ((0.0, 0.25), (30.0, 0.25)):
            expected = linear_risk(n, np.ones(400), np.full(400, 1 / 400), noise, ridge=ridge).total
            found = learning_curve(isotropic, [1.0], [n], ridge=ridge, noise=noise)
            assert found.risk[0] == pytest.approx(expected, rel=1e-9)


def test_training_error_of_gaussian_features():
    """Ridge regression on 200 of them, 10 draws of 300 points: the formula for the training points."""
    rng, ridge, noise = np.random.default_rng(2), 60.0, 0.25
    errors = []
    for _ in range(10):
        x = rng.standard_normal((300, 200))
        y = x @ np.full(200, 200**-0.5) + noise**0.5 * rng.standard_normal(300)
        errors.append(((ridge * np.linalg.solve(x @ x.T + ridge * np.eye(300), y)) ** 2).mean())
    found = learning_curve(
        Spectrum(np.array([1.0]), np.array([200.0])), [1.0], [300], ridge=ridge, noise=noise
    )
    assert found.training[0] == pytest.approx(np.mean(errors), rel=0.05)


def test_kernel_regression_on_the_sphere():
    """Degree 3 on S⁹, 512 points: the formula against 20 draws."""
    net, dim = MLP(3, 1), 10
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(20):
        x = rng.standard_normal((1012, dim))
        x *= dim**0.5 / np.linalg.norm(x, axis=1, keepdims=True)
        y = np.prod(x[:, :3], axis=1)
        theta = np.asarray(ntk(net, x[:512], x))
        errors.append(
            ((np.linalg.solve(theta[:, :512], y[:512]) @ theta[:, 512:] - y[512:]) ** 2).mean()
            / (y**2).mean()
        )
    power = np.eye(4)[3]
    found = learning_curve(kernel_spectrum(net, dim, 3), power, [512])
    assert found.risk[0] == pytest.approx(np.mean(errors), abs=0.05)


@given(
    st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=8),
    st.floats(0, 10),
    st.floats(0, 2),
    st.floats(0, 0.5),
)
def test_curves_are_bounded_and_learnabilities_grow(values, ridge, noise, tail):
    spectrum = Spectrum(np.array(values), np.arange(1.0, len(values) + 1), tail)
    power = np.ones(len(values))
    points = np.array([1, 2, 5, 20, 100, 1000])
    found = learning_curve(spectrum, power, points, ridge=ridge, noise=noise)
    assert (np.diff(found.learnabilities, axis=0) >= -1e-12).all()
    assert ((found.learnabilities >= 0) & (found.learnabilities <= 1)).all()
    assert (found.learnabilities @ spectrum.multiplicities <= points * (1 + 1e-9)).all()
    assert (found.overfitting >= 1).all() and (np.diff(found.kappa) <= 0).all()
    assert (found.risk >= -1e-9).all() and (found.training <= (found.risk + noise) * (1 + 1e-9)).all()
    solved = found.kappa > 0
    left = (found.learnabilities @ spectrum.multiplicities)[solved] + (ridge + tail) / found.kappa[solved]
    np.testing.assert_allclose(left, points[solved], rtol=1e-9)


def test_a_degree_is_learned_with_about_as_many_points_as_it_has_harmonics():
    """Before, the risk is more than that of the answer 0: what is seen is taken for lower degrees."""
    spectrum = kernel_spectrum(MLP(3, 1), 5, 30)
    few, many, more = learning_curve(spectrum, np.eye(31)[2], [3, 140, 1400]).risk
    assert few > 1 and many < 0.05 and more < 0.001


def test_all_learned_and_the_edge():
    few = Spectrum(np.array([1.0, 0.0]), np.array([3.0, 1.0]))
    found = learning_curve(few, [1.0, 0.0], [3, 6], noise=1.0)
    assert found.risk.tolist() == [np.inf, 1.0]  # of least squares with 3 weights: 6/(6 - 3) - 1
    assert learning_curve(few, [1.0, 0.0], [3]).risk[0] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_spectrum(MLP(2, 1), 1, 3), "dim is 1; expected 2"),
        (lambda: kernel_spectrum(MLP(2, 1), 3, -1), "degree is -1"),
        (lambda: kernel_spectrum(MLP(2, 1), 3, 2, "cntk"), "kernel is 'cntk'"),
        (lambda: kernel_spectrum("relu", 3, 2), "expected an MLP or a function of angles"),
        (lambda: kernel_spectrum(MLP(2, 4, parameterization="mup"), 3, 2), "mup"),
        (lambda: kernel_spectrum(lambda t: np.sign(t - 1), 3, 2), "do not converge"),
        (lambda: kernel_spectrum(lambda t: t * np.nan, 3, 2), "array of angles"),
        (lambda: kernel_spectrum(lambda t: 1.0, 3, 2), "array of angles"),
        (lambda: kernel_spectrum(np.cos, 5000, 2000), "more than 10"),
        (lambda: sphere_power(np.zeros((3, 2)), np.ones(3), 2), "none at 0"),
        (lambda: sphere_power(np.ones((3, 2)), np.ones(4), 2), "y has shape"),
        (lambda: label_power(np.ones((3, 2)), np.ones(3)), "theta has shape"),
        (lambda: label_power(-np.eye(3), np.ones(3)), "not positive"),
        (lambda: learning_curve(Spectrum(np.ones(2), np.ones(2)), [1.0], [3]), "power has 1"),
        (lambda: learning_curve(Spectrum(-np.ones(1), np.ones(1)), [1.0], [3]), "none below 0"),
        (lambda: learning_curve(Spectrum(np.ones(1), np.ones(1)), [-1.0], [3]), "least power"),
        (lambda: learning_curve(Spectrum(np.ones(1), np.ones(1)), [1.0], [0]), "number of points 0"),
        (lambda: learning_curve(Spectrum(np.ones(1), np.ones(1)), [1.0], [3], ridge=-1.0), "ridge"),
        (lambda: Spectrum(np.ones(3), np.ones(3)).decay([2]), "two or more"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_float32_and_lists_are_taken():
    assert kernel_spectrum(lambda t: jnp.cos(t), 3, 2).values[1] == pytest.approx(1 / 3, rel=1e-6)
    assert learning_curve(Spectrum(np.ones(1), np.ones(1)), [1], [2]).risk[0] == 0
