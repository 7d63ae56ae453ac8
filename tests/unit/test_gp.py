"""Gaussian-process regression against scikit-learn and neural-tangents, by definition, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from ntk_helpers import MLP, gp_log_likelihood, gp_posterior, nngp
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.neural_tangents_compat import nt

NOISE = 0.03


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)), rng.normal(size=(7, 3)), rng.normal(size=(20, 2))


def test_posterior_and_likelihood_equal_scikit_learns(points):
    x, x_test, y = points
    kernel = RBF(1.3)
    theirs = GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None).fit(x, y)
    mean, covariance = theirs.predict(x_test, return_cov=True)
    ours = gp_posterior(kernel(x), kernel(x_test, x), kernel(x_test), y, NOISE)
    np.testing.assert_allclose(ours.mean, mean, atol=1e-10)
    np.testing.assert_allclose(ours.covariance, covariance[..., 0], atol=1e-10)
    np.testing.assert_allclose(
        gp_log_likelihood(kernel(x), y, NOISE), theirs.log_marginal_likelihood_value_, rtol=1e-10
    )


@pytest.mark.slow
def test_posterior_of_the_nngp_equals_that_of_neural_tangents(points):
    x, x_test, y = points
    net = MLP(3, 1, activation="erf", sigma_b2=0.1)
    k_train, k_cross, k_test = nngp(net, x), nngp(net, x_test, x), nngp(net, x_test)
    predict = nt.predict.gp_inference(k_train, y, diag_reg=NOISE, diag_reg_absolute_scale=True)
    mean, covariance = predict("nngp", k_cross, k_test)
    ours = gp_posterior(k_train, k_cross, k_test, y, NOISE)
    np.testing.assert_allclose(ours.mean, mean, atol=1e-9)
    np.testing.assert_allclose(ours.covariance, covariance, atol=1e-9)


def test_posterior_without_noise_passes_through_the_data(points):
    x, _, y = points
    kernel = nngp(MLP(3, 1, sigma_b2=0.1), x)
    mean, covariance = gp_posterior(kernel, kernel, kernel, y, 0.0)
    np.testing.assert_allclose(mean, y, atol=1e-8)
    np.testing.assert_allclose(covariance, 0, atol=1e-8 * kernel.max())


def test_posterior_is_the_conditional_law_of_joint_draws():
    """Of 200,000 draws of (f(x), f(x*), noise), regressed on the observed value: 5 standard errors."""
    k = np.array([[1.3, 0.8], [0.8, 0.9]])
    draws = np.linalg.cholesky(k) @ np.asarray(jax.random.normal(jax.random.key(0), (2, 200_000)))
    observed = draws[0] + 0.5 * np.asarray(jax.random.normal(jax.random.key(1), (200_000,)))
    slope = (draws[1] @ observed) / (observed @ observed)
    left = draws[1] - slope * observed
    mean, covariance = gp_posterior(k[:1, :1], k[1:, :1], k[1:, 1:], np.ones((1, 1)), 0.25)
    assert abs(slope - mean[0, 0]) < 5 * np.sqrt(left.var() / (observed @ observed))
    assert abs(left.var() - covariance[0, 0]) < 5 * left.var() * np.sqrt(2 / 200_000)


def test_both_pass_through_jit_and_grad(points):
    x, _, y = points

    def loss(sigma_w2, noise):
        return -gp_log_likelihood(nngp(MLP(3, 1, sigma_w2=sigma_w2), x), y, noise)

    for argument, at in ((0, (1.5, 0.1)), (1, (1.5, 0.1))):
        step = [0.0, 0.0]
        step[argument] = 1e-5
        slope = (loss(*np.add(at, step)) - loss(*np.subtract(at, step))) / 2e-5
        np.testing.assert_allclose(jax.jit(jax.grad(loss, argument))(*at), slope, rtol=1e-6)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"k_train": np.eye(3)[:2]}, r"k_train is \(2, 3\)"),
        ({"y": np.ones((3, 1, 1))}, r"y \(3, 1, 1\); expected \(n, n\) and \(n, outputs\) or \(n,\)"),
        ({"y": np.ones((2, 1))}, r"y \(2, 1\)"),
        (
            {"k_cross": np.ones((2, 4))},
            r"k_cross is \(2, 4\) and k_test \(2, 2\); expected \(m, 3\) and \(m, m\)",
        ),
        ({"k_test": np.eye(3)}, r"k_test \(3, 3\)"),
        ({"noise": -0.1}, r"noise is -0.1; expected a variance"),
        ({"k_train": np.full((3, 3), np.nan)}, "k_train holds 9 values"),
        (
            {"k_train": np.eye(3) + np.eye(3, k=1) / 8},
            "k_train is not symmetric: entries differ from their transposes by 0.12, the largest is 1",
        ),
        ({"k_cross": np.full((2, 3), np.inf)}, "k_cross holds 6 values"),
        (
            {"k_train": -np.eye(3)},
            r"k_train \+ 0.0 · I is not positive definite, with a k_train in float64; expected distinct",
        ),
    ],
)
def test_bad_input_is_refused(change, says):
    good = {
        "k_train": np.eye(3),
        "k_cross": np.ones((2, 3)) / 9,
        "k_test": jnp.eye(2),
        "y": np.ones((3, 1)),
        "noise": 0.0,
    }
    gp_posterior(**good)
    with pytest.raises(ValueError, match=says):
        gp_posterior(**good | change)


def test_a_kernel_that_is_symmetric_but_for_rounding_passes(points):
    """Refused from the root of the kernel's rounding on: float32 kernels, and their likelihood, whichever
    half is meant."""
    x, _, y = points
    for dtype, passes, fails in ((np.float64, 1e-8, 1e-6), (np.float32, 1e-4, 1e-2)):
        kernel = np.asarray(RBF(1.3)(x), dtype)
        upper = np.triu(np.ones_like(kernel), 1)
        gp_posterior(kernel + passes * upper, kernel, kernel, y, NOISE)
        with pytest.raises(ValueError, match="k_train is not symmetric"):
            gp_log_likelihood(kernel + fails * upper, y, NOISE)


def test_targets_without_an_axis_of_outputs(points):
    x, x_test, y = points
    kernel = RBF(1.3)
    blocks = kernel(x), kernel(x_test, x), kernel(x_test)
    plain, flat = gp_posterior(*blocks, y[:, :1], NOISE), gp_posterior(*blocks, y[:, 0], NOISE)
    np.testing.assert_array_equal(flat.mean, plain.mean[:, 0])
    np.testing.assert_array_equal(flat.covariance, plain.covariance)
    assert gp_log_likelihood(blocks[0], y[:, 0], NOISE) == gp_log_likelihood(blocks[0], y[:, :1], NOISE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out_in_its_own_precision(points, dtype):
    """Whatever JAX's setting is, and inside jit too; JAX's arrays are JAX's."""
    x, x_test, y = points
    blocks = [np.asarray(RBF(1.3)(a, b), dtype) for a, b in ((x, x), (x_test, x), (x_test, x_test))]
    arguments, expected = (*blocks, y.astype(dtype), NOISE), gp_posterior(*blocks, y, NOISE)
    for x64 in (True, False):
        with enable_x64(x64):
            found, value = gp_posterior(*arguments), gp_log_likelihood(blocks[0], arguments[3], NOISE)
            inside = jax.jit(lambda: gp_posterior(*arguments).mean)()
            assert isinstance(gp_posterior(jnp.asarray(blocks[0]), *arguments[1:]).mean, jax.Array)
        for array in (*found, value):
            assert isinstance(array, np.ndarray | np.generic) and array.dtype == dtype
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12 if dtype == np.float64 else 1e-4)
        np.testing.assert_allclose(inside, expected.mean, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(points, dtype):
    x, x_test, y = points
    blocks = [jnp.asarray(RBF(1.3)(a, b)).astype(dtype) for a, b in ((x, x), (x_test, x), (x_test, x_test))]
    single = [block.astype("float32") for block in blocks]
    found = gp_posterior(*blocks, jnp.asarray(y, dtype), 0.5)
    expected = gp_posterior(*single, jnp.asarray(y, dtype).astype("float32"), 0.5)
    for a, b in zip(found, expected):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match=f"is not positive definite, with a k_train in {dtype}; expected"):
        gp_posterior(-blocks[0], *blocks[1:], jnp.asarray(y, dtype), 0.5)
