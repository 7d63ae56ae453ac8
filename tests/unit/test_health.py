"""What is wrong with a kernel matrix: each illness by itself, and a matrix that has none."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_helpers import MLP, empirical_ntk, ntk
from ntk_helpers.trust import kernel_health

X = np.random.default_rng(0).standard_normal((12, 4))
BIASED = MLP(3, 64, sigma_b2=0.1)


def kernel(net=BIASED, x=X):
    return np.array(ntk(net, x))


def test_a_healthy_kernel_has_no_advice_and_the_right_numbers():
    theta = kernel()
    health, values = kernel_health(theta), np.linalg.eigvalsh(theta)
    assert health.advice == () and str(health).endswith("Nothing is wrong with it.")
    assert health.jitter == health.not_finite == health.repeated == 0
    np.testing.assert_allclose([health.least, health.largest], values[[0, -1]], rtol=1e-12)
    np.testing.assert_allclose(health.condition, values[-1] / values[0], rtol=1e-12)
    shares = values / values.sum()
    np.testing.assert_allclose(health.effective_rank, np.exp(-(shares * np.log(shares)).sum()), rtol=1e-12)


def test_the_effective_rank_counts_equal_modes():
    assert kernel_health(np.diag([2.0, 2.0, 2.0, 1e-14])).effective_rank == pytest.approx(3)


def test_the_kernel_of_several_outputs_has_a_row_for_each(rng):
    net = MLP(2, 64, 3)
    theta = empirical_ntk(net, net.init(jax.random.key(0), 4), X[:5])
    assert kernel_health(theta).rows == 15 and kernel_health(theta).advice == ()


ILL = {
    "2 of 144 entries are NaN or infinite": lambda theta: np.where(theta == theta[0, 1], np.nan, theta),
    "not symmetric": lambda theta: theta + 0.01 * np.triu(np.ones_like(theta)),
    "below 0 by more than rounding": lambda theta: theta - 1.01 * np.linalg.eigvalsh(theta)[0] * np.eye(12),
    "One mode has": lambda theta: theta + 1e6,
    "No eigenvalue is above 0": lambda theta: 0 * theta,
    "is singular: 1 of 12.* 1 rows are repeated": lambda theta: theta[np.r_[:11, 0]][:, np.r_[:11, 0]],
}


@pytest.mark.parametrize("said", ILL)
def test_each_illness_is_named_and_no_other(said):
    (advice,) = kernel_health(ILL[said](kernel())).advice
    assert re.search(said, advice), advice


@pytest.mark.parametrize(("net", "zero"), [(MLP(3, 1), 10), (MLP(1, 1), 11)])
def test_the_rank_of_kernels_in_one_dimension_is_seen(net, zero):
    advice = kernel_health(kernel(net, np.linspace(-1, 1, 12)[:, None])).advice[0]
    assert f"{zero} of 12 eigenvalues are zero" in advice and "biases" in advice


def test_single_precision_is_offered_double():
    theta = kernel(BIASED, np.linspace(-1, 1, 200)[:, None])
    assert "or float64" in kernel_health(theta.astype(np.float32)).advice[0]
    assert not any("float64" in said for said in kernel_health(theta).advice)


@given(st.integers(2, 60), st.integers(1, 60), st.booleans(), st.integers(0, 2**31 - 1))
def test_the_jitter_is_enough_for_a_cholesky_factor(n, rank, single, seed):
    features = np.random.default_rng(seed).standard_normal((n, rank))
    theta = (features @ features.T).astype(np.float32 if single else float)
    health = kernel_health(theta)
    assert np.isfinite(
        np.linalg.cholesky(theta + theta.dtype.type(health.jitter) * np.eye(n, dtype=theta.dtype))
    ).all()
    assert (health.jitter == 0) == (health.least >= 2 * health.rounding)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.ones((3, 2)), r"theta has shape \(3, 2\)"),
        (np.ones(3), r"theta has shape \(3,\)"),
        (np.ones((2, 2, 3, 2)), "theta has shape"),
        (np.ones((0, 0)), "theta has shape"),
        (np.eye(2) * 1j, "expected real numbers"),
        ("kernel", "expected an array of numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        kernel_health(given)


def test_inside_jit_it_is_refused():
    with pytest.raises(ValueError, match="inside jit"):
        jax.jit(lambda theta: jnp.asarray(kernel_health(theta).least))(kernel())
