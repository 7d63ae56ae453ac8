"""Dual maps: every closed form against quadrature, cubature, Monte Carlo and its own limits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import integrate

from ntk_helpers import MLP
from ntk_helpers.networks import activation_names, get_activation, quadrature, register_activation
from ntk_helpers.networks import registry as module

NAMES = activation_names()
SMOOTH = ("linear", "erf", "gelu", "sin")
Q1 = np.array([1.3, 0.2, 2.0, 1.0, 0.5])
Q2 = np.array([0.7, 1.5, 2.0, 1.0, 1.9])
K = np.array([0.4, -0.3, 1.9, 0.0, -0.9])
SLOPES = {"relu": 0.0, "leaky_relu": 0.01}


def cubature(fn, q1, q2, k):
    """E[fn(u) fn(v)], one quadrant after the other: fn may have its kink at 0."""
    det = q1 * q2 - k**2
    ends = 9 * max(q1, q2) ** 0.5

    def integrand(u, v):
        return fn(u) * fn(v) * np.exp(-(q2 * u * u - 2 * k * u * v + q1 * v * v) / (2 * det))

    halves = ((-ends, 0.0), (0.0, ends))
    total = sum(
        integrate.dblquad(integrand, *a, *b, epsabs=1e-11, epsrel=1e-10)[0] for a in halves for b in halves
    )
    return total / (2 * np.pi * det**0.5)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(module, "_REGISTRY", dict(module._REGISTRY))


@pytest.mark.parametrize(
    "name, dual, derivative", [("relu", 0.26537809, 0.31886467), ("erf", 0.17547966, 0.45015816)]
)
def test_known_answers(name, dual, derivative):
    phi = get_activation(name)
    assert phi.dual(1.3, 0.7, 0.4) == pytest.approx(dual, abs=1e-8)
    assert phi.dual_derivative(1.3, 0.7, 0.4) == pytest.approx(derivative, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_closed_form_equals_gauss_hermite_quadrature(name):
    phi = get_activation(name)
    by_nodes = quadrature(name, phi.fn)
    np.testing.assert_allclose(phi.dual(Q1, Q2, K), by_nodes.dual(Q1, Q2, K), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        phi.dual_derivative(Q1, Q2, K), by_nodes.dual_derivative(Q1, Q2, K), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(phi.aligned(Q1, Q2), by_nodes.aligned(Q1, Q2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SLOPES)
def test_kinked_duals_equal_cubature(name):
    phi, slope = get_activation(name), SLOPES[name]
    for q1, q2, k in zip(Q1[:2], Q2, K):
        assert phi.dual(q1, q2, k) == pytest.approx(
            cubature(lambda z: z * (1 if z > 0 else slope), q1, q2, k), abs=1e-8
        )
        assert phi.dual_derivative(q1, q2, k) == pytest.approx(
            cubature(lambda z: 1 if z > 0 else slope, q1, q2, k), abs=1e-8
        )


def test_tanh_quadrature_equals_cubature():
    phi = get_activation("tanh")
    for q1, q2, k in zip(Q1[:2], Q2, K):
        assert phi.dual(q1, q2, k) == pytest.approx(cubature(np.tanh, q1, q2, k), abs=1e-8)
        assert phi.dual_derivative(q1, q2, k) == pytest.approx(
            cubature(lambda z: 1 / np.cosh(z) ** 2, q1, q2, k), abs=1e-8
        )


@pytest.mark.parametrize("name", NAMES)
def test_duals_equal_monte_carlo(name):
    """400,000 draws; 4.5 standard errors, estimated from the draws themselves."""
    phi, draws = get_activation(name), 400_000
    z = np.random.default_rng(0).normal(size=(draws, 2)) @ np.linalg.cholesky([[1.3, 0.4], [0.4, 0.7]]).T
    for fn, exact in (
        (phi.fn, phi.dual(1.3, 0.7, 0.4)),
        (phi.derivative, phi.dual_derivative(1.3, 0.7, 0.4)),
    ):
        samples = np.prod(fn(jnp.asarray(z)), axis=1)
        assert abs(samples.mean() - exact) <= 4.5 * samples.std() / draws**0.5 + 1e-15


@pytest.mark.parametrize("name", NAMES)
def test_price_theorem(name):
    """d E[φφ] / dk = E[φ'φ'] (Price 1958)."""
    phi = get_activation(name)
    by_k = jax.grad(lambda k: phi.dual(Q1, Q2, k).sum())(jnp.asarray(K))
    np.testing.assert_allclose(by_k, phi.dual_derivative(Q1, Q2, K), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_mismatch_is_what_unequal_variances_cost(name):
    """Beside a variance of 1e-19 too, where all other numbers are close to 0."""
    phi = get_activation(name)
    for q1, q2 in ((Q1, Q2), (np.full(3, 0.6), np.array([1e-19, 0.3, 0.59]))):
        by_aligned = 1 - phi.aligned(q1, q2) / np.sqrt(phi.aligned(q1, q1) * phi.aligned(q2, q2))
        np.testing.assert_allclose(phi.mismatch(q1, q2), by_aligned, rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {"gelu"}))  # gelu takes the difference
def test_mismatch_has_its_digits_where_variances_meet(name):
    """In float32, for variances 1 % apart: with an error of 2 % of the rounding of a number close to 1."""
    q1, q2 = np.float32(1.3), np.float32([1.287, 1.313])
    single = get_activation(name).mismatch(q1, q2)
    assert single.dtype == np.float32
    exact = get_activation(name).mismatch(q1.astype(float), q2.astype(float))
    np.testing.assert_allclose(single, exact, rtol=0, atol=0.02 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("name", NAMES)
def test_aligned_is_the_dual_at_full_correlation(name):
    phi = get_activation(name)
    np.testing.assert_allclose(phi.aligned(Q1, Q2), phi.dual(Q1, Q2, np.sqrt(Q1 * Q2)), rtol=0, atol=1e-14)
    assert phi.drop(1.3, 0.7, jnp.array(0.0), jnp.array(2.0)) == 0


@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-9, 1e-15])
@pytest.mark.parametrize("name", SLOPES)
def test_kinked_drop_is_accurate_relative_to_itself(name, gap):
    slope = mpmath.mpf(SLOPES[name])
    with mpmath.workdps(60):
        theta = mpmath.acos(1 - mpmath.mpf(gap))
        relu = (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta)) / (2 * mpmath.pi)
        exact = (1 + slope**2) / 2 - slope * mpmath.cos(theta) - (1 - slope) ** 2 * relu
        exact = float(exact * mpmath.sqrt(mpmath.mpf(1.3) * mpmath.mpf(0.7)))
    drop = get_activation(name).drop(1.3, 0.7, jnp.array(gap), jnp.array(2 - gap))
    assert drop == pytest.approx(exact, rel=1e-13, abs=0)


@pytest.mark.parametrize("gap", [0.5, 1e-3, 1e-9, 1e-15])
def test_erf_drop_is_accurate_relative_to_itself(gap):
    with mpmath.workdps(60):
        q1, q2 = mpmath.mpf(1.3), mpmath.mpf(0.7)
        s = 2 * mpmath.sqrt(q1 * q2 / ((1 + 2 * q1) * (1 + 2 * q2)))
        exact = float(2 / mpmath.pi * (mpmath.asin(s) - mpmath.asin(s * (1 - mpmath.mpf(gap)))))
    assert get_activation("erf").drop(1.3, 0.7, jnp.array(gap), jnp.array(2 - gap)) == pytest.approx(
        exact, rel=1e-13, abs=0
    )


@pytest.mark.parametrize("name", [*SMOOTH, "tanh"])
def test_smooth_drop_closes_with_the_slope(name):
    """drop / gap -> sqrt(q1 q2) E[φ'φ'] at c = 1, to the last digits that float64 has."""
    phi, zero, gap = get_activation(name), jnp.array(0.0), jnp.array(1e-14)
    expected = float(1e-14 * (1.3 * 0.7) ** 0.5 * phi.slope(1.3, 0.7, zero, 2 + zero))
    assert phi.drop(1.3, 0.7, gap, 2 - gap) == pytest.approx(expected, rel=2e-13, abs=0)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_accurate_relative_to_itself(name):
    """For variances of raw pixels too (1e4), except where sin has averaged out."""
    phi, sizes = get_activation(name), [1e-3, 1.3] if name == "sin" else [1e-3, 1.3, 1e4]
    gap, q1 = np.float32([1.0, 1e-2, 1e-5, 1e-8, 1e-12]), np.float32(sizes)[:, None]
    q2 = np.float32(0.7) * q1
    for map_, arguments in (
        (phi.aligned, (q1, q2)),
        (phi.drop, (q1, q2, gap, 2 - gap)),
        (phi.slope, (q1, q2, gap, 2 - gap)),
    ):
        single, exact = map_(*map(jnp.asarray, arguments)), map_(*(jnp.asarray(a, float) for a in arguments))
        assert single.dtype == jnp.float32
        # GELU's drop is what two terms larger by sqrt(q) leave when they cancel; others keep their digits.
        lost = q1**0.5 * np.finfo(np.float32).eps if map_ is get_activation("gelu").drop else 0.0
        assert (np.abs(single - exact) <= np.maximum(2e-6, lost) * np.abs(exact)).all()


@pytest.mark.parametrize("gap", [0.0, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_where_inputs_align_and_oppose(name, gap):
    phi = get_activation(name)
    for map_ in (phi.drop, phi.slope):
        assert np.isfinite(
            jax.grad(map_, argnums=(0, 1, 2, 3))(1.3, 0.7, jnp.array(gap), jnp.array(2 - gap))
        ).all()
    assert np.isfinite(jax.grad(phi.aligned, argnums=(0, 1))(0.0, 0.7)).all()


@pytest.mark.slow
def test_registered_activation_is_known_everywhere(registry):
    register_activation(quadrature("softplus", jax.nn.softplus))
    assert "softplus" in activation_names()
    phi = MLP(depth=2, width=4, activation="softplus").phi
    expected = cubature(lambda z: np.logaddexp(z, 0), 1.3, 0.7, 0.4)
    assert phi.dual(1.3, 0.7, 0.4) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "activation, message",
    [
        (quadrature("relu", jax.nn.relu), "'relu' is the package's own; expected another name"),
        (
            quadrature("norm", jnp.linalg.norm),
            "'norm' maps shape \\(2, 3\\) to .*; expected an elementwise function",
        ),
    ],
)
def test_registration_refuses(registry, activation, message):
    with pytest.raises(ValueError, match=message):
        register_activation(activation)
    assert activation_names() == NAMES


def test_unknown_activation_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="activation is 'rleu'; expected one of 'relu', 'leaky_relu'"):
        get_activation("rleu")
