"""Theories of double descent against their papers' values, one another, and simulations."""

import numpy as np
import pytest
from jax import random

from ntk_helpers import least_squares
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.learning import random_features
from ntk_helpers.theory import (
    descent_risk,
    hermite_parts,
    linear_risk,
    optimal_ridge,
    random_features_risk,
    ridgeless_risk,
    weak_features_risk,
)


def isotropic(n, p, noise, ridge=0.0):
    return linear_risk(n, np.ones(p), np.full(p, 1 / p), noise, ridge)


@pytest.mark.parametrize("gamma, expected", [(0.5, 0.25), (2.0, 0.75)])
def test_known_answers_of_least_squares(gamma, expected):
    assert ridgeless_risk(gamma, 1.0, 0.25).total == pytest.approx(expected, rel=1e-14)
    assert isotropic(200, int(200 * gamma), 0.25).total == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count, expected", [(1000, 0.9219), (9000, 0.5113)])
def test_known_answers_of_random_features(count, expected):
    assert random_features_risk(3000, count, 1000, 1.0, 0.5).total == pytest.approx(expected, abs=5e-5)


def test_hermite_parts():
    zeroth, first, rest = hermite_parts("relu")
    np.testing.assert_allclose([zeroth, first, first / rest], [1 / (2 * np.pi), 0.25, 2.7519384], rtol=1e-7)


def test_hermite_parts_are_kept_for_each_precision():
    with enable_x64(False):
        single = hermite_parts("tanh")
    double = hermite_parts("tanh")
    assert single != double  # each computed in its own precision
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("p", [20, 60, 150, 400])
def test_parts_of_the_isotropic_limits_agree(p):
    np.testing.assert_allclose(
        isotropic(100, p, 0.3), ridgeless_risk(p / 100, 1.0, 0.3), rtol=1e-10, atol=1e-14
    )
    large = weak_features_risk(100_000, 1000 * p, 1.0, 0.0, 0.3)
    np.testing.assert_allclose(large, ridgeless_risk(p / 100, 1.0, 0.3), rtol=1e-4, atol=1e-12)


def simulated(rng, n, spectrum, beta, noise, ridge, draws=200):
    found = []
    for _ in range(draws):
        x = rng.standard_normal((n, len(spectrum))) * np.sqrt(spectrum)
        fit = least_squares(x, (x @ beta + np.sqrt(noise) * rng.standard_normal(n))[:, None])
        found.append(spectrum @ (fit.coefficients(ridge)[:, 0] - beta) ** 2)
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(draws)


@pytest.mark.slow
@pytest.mark.parametrize("p, ridge", [(40, 0.0), (160, 0.0), (80, 5.0), (160, 5.0)])
def test_correlated_features_are_simulated(p, ridge, rng):
    n, spectrum = 80, np.arange(1, p + 1) ** -0.5
    beta = rng.standard_normal(p) / np.sqrt(p)
    mean, se = simulated(rng, n, spectrum, beta, 0.3, ridge)
    expected = linear_risk(n, spectrum, beta**2, 0.3, ridge).total
    assert abs(mean - expected) < 5 * se + 4 / n * expected  # an equivalent for large n, off by O(1/n)


@pytest.mark.parametrize("n, p", [(30, 10), (30, 60)])
def test_weak_features_are_exact(n, p, rng):
    d = 80
    beta = np.full(d, d**-0.5)
    found = []
    for _ in range(2000):
        x = rng.standard_normal((n, d))
        w = least_squares(x[:, :p], (x @ beta + 0.5 * rng.standard_normal(n))[:, None]).coefficients()[:, 0]
        found.append(((w - beta[:p]) ** 2).sum() + (beta[p:] ** 2).sum())
    expected = weak_features_risk(n, p, p / d, 1 - p / d, 0.25).total
    assert abs(np.mean(found) - expected) < 5 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize(
    "n, p, noise", [(100, 20, 0.3), (100, 100, 0.3), (100, 150, 0.3), (5, 200, 0.1), (2000, 5, 100.0)]
)
def test_the_best_ridge_is_that_of_the_prior(n, p, noise):
    assert optimal_ridge(lambda rho: isotropic(n, p, noise, rho)) == pytest.approx(p * noise, rel=1e-5)


@pytest.mark.parametrize(
    "risk",
    [
        lambda rho: random_features_risk(300, 300, 100, 1.0, 0.5, ridge=rho),
        lambda rho: random_features_risk(
            300, 900, 100, 1.0, 0.0, activation="tanh", ridge=rho, nonlinear=0.2
        ),
        lambda rho: linear_risk(50, 1 / np.arange(1, 101), 1 / np.arange(1, 101), 0.1, rho),
    ],
    ids=["peak", "tanh", "correlated"],
)
def test_no_ridge_on_a_fine_grid_is_better_than_the_best(risk):
    best = optimal_ridge(risk)
    around = [risk(rho).total for rho in best * np.geomspace(0.01, 100, 401)]
    assert risk(best).total <= min(around) * (1 + 1e-12)
    assert 198 <= int(np.argmin(around)) <= 202  # 2 % steps, and best is the one in the middle
    assert risk(best).total < risk(0.0).total


@pytest.mark.parametrize("p", [50, 200])
def test_without_noise_no_ridge_is_best(p):
    assert optimal_ridge(lambda rho: isotropic(100, p, 0.0, rho)) == 0


def test_the_best_ridge_of_any_function_and_bounds():
    assert optimal_ridge(lambda rho: float(np.log(rho / 7) ** 2) if rho else np.inf) == pytest.approx(
        7, rel=1e-7
    )
    wells = lambda rho: float(np.cos(np.log(rho)) + 0.01 * np.log(rho)) if rho else np.inf
    assert np.log(optimal_ridge(wells, (0.1, 100.0))) == pytest.approx(np.pi - 0.01, abs=1e-4)


def mei_montanari(psi1, psi2, lam, mu1, rest, signal, noise):
    """Theorem 2 by the fixed point of its definition, in complex numbers."""
    zeta2, xi = mu1 / rest, 1j * np.sqrt(psi1 * psi2 * lam / rest)
    nu1 = nu2 = 1j / abs(xi)
    for _ in range(20_000):
        ratio = lambda a, b: zeta2 * a / (1 - zeta2 * a * b)
        new1 = psi1 / (-xi - nu2 - ratio(nu2, nu1))
        new2 = psi2 / (-xi - nu1 - ratio(nu1, nu2))
        nu1, nu2 = (nu1 + new1) / 2, (nu2 + new2) / 2
    x, z2 = (nu1 * nu2).real, zeta2
    e0 = (
        -(x**5) * z2**3
        + 3 * x**4 * z2**2
        + (psi1 * psi2 - psi2 - psi1 + 1) * x**3 * z2**3
        - 2 * x**3 * z2**2
        - 3 * x**3 * z2
        + (psi1 + psi2 - 3 * psi1 * psi2 + 1) * x**2 * z2**2
        + 2 * x**2 * z2
        + x**2
        + 3 * psi1 * psi2 * x * z2
        - psi1 * psi2
    )
    e1 = psi2 * x**3 * z2**2 - psi2 * x**2 * z2 + psi1 * psi2 * x * z2 - psi1 * psi2
    e2 = (
        x**5 * z2**3
        - 3 * x**4 * z2**2
        + (psi1 - 1) * x**3 * z2**3
        + 2 * x**3 * z2**2
        + 3 * x**3 * z2
        - (psi1 + 1) * x**2 * z2**2
        - 2 * x**2 * z2
        - x**2
    )
    return signal * e1 / e0 + noise * e2 / e0


@pytest.mark.parametrize("count", [100, 300, 900])
@pytest.mark.parametrize("ridge", [5.0, 200.0])
def test_random_features_with_ridge_are_the_fixed_point_of_mei_and_montanari(count, ridge):
    d, n = 100, 300
    _, mu1, rest = hermite_parts("relu")
    expected = mei_montanari(count / d, n / d, ridge * d / (n * count), mu1, rest, 1.0, 0.5)
    assert random_features_risk(n, count, d, 1.0, 0.5, ridge=ridge).total == pytest.approx(expected, rel=1e-8)


def test_a_vanishing_ridge_and_endless_features():
    for count in (150, 600):
        np.testing.assert_allclose(
            random_features_risk(300, count, 100, 1.0, 0.5, ridge=1e-9),
            random_features_risk(300, count, 100, 1.0, 0.5),
            rtol=1e-5,
        )
    wide = random_features_risk(300, 10**7, 100, 1.0, 0.5)
    _, mu1, rest = hermite_parts("relu")
    np.testing.assert_allclose(wide, isotropic(300, 100, 0.5, 100 * rest / mu1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [60, 120, 179, 181, 500, 4000])
def test_parts_are_not_negative(count):
    for ridge in (0.0, 1e-6, 1.0, 1e3):
        parts = random_features_risk(180, count, 60, 1.0, 0.5, ridge=ridge, nonlinear=0.3)
        assert min(parts) >= -1e-12 and np.isfinite(parts).all()


@pytest.mark.slow
def test_the_parts_are_simulated(rng):
    d, n, count, ridge, features, data = 60, 180, 120, 3.0, 4, 24
    sphere = lambda m: (lambda x: x * np.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True))(
        rng.standard_normal((m, d))
    )
    found = []
    for k in range(data):
        x, new = sphere(n), sphere(1000)
        y = np.stack([x[:, 0], rng.standard_normal(n)], axis=1)
        maps = [random_features(key, d, count, "erf") for key in random.split(random.key(k), features)]
        errors = np.array([least_squares(f(x), y).predict(f(new), ridge) for f in maps]) - np.stack(
            [new[:, 0], 0 * new[:, 0]], axis=1
        )
        spread = errors[..., 0].var(0, ddof=1).mean()
        found.append(
            [
                (errors[..., 0].mean(0) ** 2).mean() - spread / features,
                spread,
                0.5 * (errors[..., 1] ** 2).mean(),
            ]
        )
    theory = random_features_risk(n, count, d, 1.0, 0.5, activation="erf", ridge=ridge)
    expected = np.array([theory.bias + theory.sampling, theory.initialization, theory.noise])
    se = np.std(found, axis=0, ddof=1) / np.sqrt(data)
    np.testing.assert_array_less(
        abs(np.mean(found, axis=0) - expected), 5 * se + 4 / d * expected
    )  # a limit d → ∞


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.5])
def test_descent_goes_from_the_signal_to_the_ridgeless_risk(gamma):
    times = np.array([0.0, 1e-3, 1e7])
    found = descent_risk(times, gamma, 1.3, 0.0 if gamma == 1 else 0.4)
    assert found[0] == pytest.approx(1.3, rel=1e-6)
    assert found[-1] == pytest.approx(
        ridgeless_risk(gamma, 1.3, 0.0 if gamma == 1 else 0.4).total, rel=1e-4, abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_descent_is_simulated(gamma, rng):
    n, times = 400, np.array([0.1, 1.0, 10.0, 100.0])
    p, found = int(gamma * n), []
    for _ in range(20):
        x = rng.standard_normal((n, p))
        beta = np.full(p, p**-0.5)
        rate, v = np.linalg.eigh(x.T @ x / n)
        rate = np.maximum(rate, 1e-14)
        target = v.T @ (x.T @ (x @ beta + 0.6 * rng.standard_normal(n)) / n)
        w = v @ (-np.expm1(-rate[:, None] * times) / rate[:, None] * target[:, None])
        found.append(((w - beta[:, None]) ** 2).sum(0))
    se = np.std(found, axis=0, ddof=1) / np.sqrt(20)
    np.testing.assert_array_less(
        abs(np.mean(found, axis=0) - descent_risk(times, gamma, 1.0, 0.36)), 5 * se + 0.01
    )


def test_thresholds_are_infinite_without_warnings():
    assert ridgeless_risk(1.0, 1.0, 0.1).total == np.inf
    assert ridgeless_risk(1.0, 1.0, 0.0).total == 0
    assert isotropic(50, 50, 0.1).total == np.inf
    assert isotropic(50, 50, 0.0).total == 0
    assert random_features_risk(100, 100, 50, 1.0, 0.1).total == np.inf
    for p in (49, 50, 51):
        assert weak_features_risk(50, p, 1.0, 0.0, 0.1).total == np.inf


@pytest.mark.parametrize("ridge", [0.0, 1e-12, 1e12])
@pytest.mark.parametrize("n, p", [(1, 1), (1, 50), (50, 1), (10, 10_000)])
def test_extremes_are_numbers(n, p, ridge):
    for risk in (isotropic(n, p, 0.1, ridge), random_features_risk(n, p, 5, 1.0, 0.1, ridge=ridge)):
        assert not np.isnan(risk).any()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ridgeless_risk(0.0, 1.0, 1.0), "gamma is 0.0"),
        (lambda: ridgeless_risk(2.0, -1.0, 1.0), "signal"),
        (lambda: weak_features_risk(0, 3, 1.0, 0.0, 1.0), "n is 0"),
        (lambda: weak_features_risk(5, 3, 1.0, 0.0, np.nan), "noise"),
        (lambda: linear_risk(5, np.ones(3), np.ones(4), 1.0), "one shape"),
        (lambda: linear_risk(5, np.zeros(3), np.ones(3), 1.0), "> 0"),
        (lambda: linear_risk(5, np.ones(3), np.ones(3), 1.0, -1.0), "ridge"),
        (lambda: linear_risk(5, np.ones(3), np.ones(3), np.ones(2)), "noise has shape"),
        (lambda: descent_risk([-1.0], 0.5, 1.0, 1.0), "t goes down to"),
        (lambda: descent_risk(1.0, np.inf, 1.0, 1.0), "gamma"),
        (
            lambda: descent_risk(1.0, 0.5, 1.0, 1.0, points=0),
            "points is 0; expected an integer of at least 1",
        ),
        (lambda: descent_risk(1.0, 0.5, 1.0, 1.0, points=2.5), "points is 2.5; expected an integer"),
        (lambda: optimal_ridge(0.5), "risk is 0.5; expected a function"),
        (
            lambda: optimal_ridge(lambda rho: np.nan),
            "risk gives nan at ridge 1e-08; expected a Risk or a number",
        ),
        (lambda: optimal_ridge(lambda rho: np.ones(2)), r"risk gives array\(\[1., 1.\]\)"),
        (lambda: optimal_ridge(lambda rho: 1 / (1 + rho)), r"risk is least at 1e\+08, one of the bounds"),
        (
            lambda: optimal_ridge(lambda rho: isotropic(100, 150, 0.3, rho), (1e-3, 1.0)),
            "risk is least at 1, one of",
        ),
        (
            lambda: optimal_ridge(lambda rho: isotropic(100, 150, 0.3, rho), (100, 1e3)),
            "risk is least at 100, one of",
        ),
        (lambda: optimal_ridge(lambda rho: rho, (0.0, 1.0)), "bounds are 0 and 1; expected positive"),
        (
            lambda: optimal_ridge(lambda rho: rho, (2.0, 1.0)),
            "bounds are 2 and 1; expected positive ones, the lower first",
        ),
        (lambda: optimal_ridge(lambda rho: rho, 1.0), r"bounds has shape \(\); expected \(2,\)"),
        (lambda: hermite_parts("nothing"), "nothing"),
        (lambda: random_features_risk(5, 5, 0, 1.0, 1.0), "dim is 0"),
        (lambda: random_features_risk(5, 5, 5, 1.0, 1.0, ridge=-1.0), "ridge"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
