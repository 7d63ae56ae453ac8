"""Leave-one-out errors and the choices by them: by refits, by definition, by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_helpers import MLP, gp_log_likelihood, kernel_regression, kernels, least_squares, ntk
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.learning import loo_error

RIDGES = [0.0, 1e-3, 1.0, 1e4]
N = 12


def refitted(fit, rows, y, ridge):
    """Errors of as many fits as there are points, each without one of them."""
    errors = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        if fit is least_squares:
            found = fit(rows[others], y[others]).predict(rows[i : i + 1], ridge)[0]
        else:
            found = fit(rows[np.ix_(others, others)], y[others]).predict(rows[i : i + 1, others], ridge)[0]
        errors.append(y[i] - found)
    return np.array(errors)


@pytest.mark.parametrize("ridge", RIDGES)
@pytest.mark.parametrize("p", [1, 5, N - 1, N, 30])
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_leave_one_out_is_a_refit_without_each_point(p, ridge, outputs, rng):
    f, y = rng.standard_normal((N, p)), rng.standard_normal((N, *outputs))
    for fit, rows in ((least_squares, f), (kernel_regression, f @ f.T)):
        found, expected = fit(rows, y).leave_one_out(ridge), refitted(fit, rows, y, ridge)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * abs(expected).max())


def test_a_point_of_its_own_among_dependent_ones(rng):
    """Without a ridge the modes fit its target alone; what the others have in no mode is not of it."""
    f = np.zeros((8, 4))
    f[:7, :3], f[7, 3] = rng.standard_normal((7, 3)), 2.0
    y = rng.standard_normal(8)
    found = least_squares(f, y).leave_one_out([0.0, 1e-9])
    np.testing.assert_allclose(found[0], refitted(least_squares, f, y, 0.0), rtol=1e-9)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert found[0, 7] == pytest.approx(y[7])


def test_features_that_are_zero_predict_zero():
    fit = least_squares(np.zeros((4, 2)), np.arange(4.0))
    np.testing.assert_array_equal(fit.leave_one_out([0.0, 1.0]), [np.arange(4.0)] * 2)
    np.testing.assert_array_equal(fit.leverages(), np.zeros(4))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_many_ridges_are_each_one(shape, rng):
    f, y = rng.standard_normal((N, 5)), rng.standard_normal((N, 2))
    ridges = np.geomspace(0.1, 10, int(np.prod(shape))).reshape(shape)
    fit = least_squares(f, y)
    assert fit.leave_one_out(ridges).shape == (*shape, N, 2)
    assert fit.leverages(ridges).shape == (*shape, N) and fit.log_likelihood(ridges).shape == shape
    for ask in (fit.leave_one_out, fit.leverages, fit.log_likelihood):
        for index in np.ndindex(shape):
            np.testing.assert_allclose(ask(ridges)[index], ask(ridges[index]), rtol=1e-12)


@given(st.integers(1, 20), st.integers(1, 25), st.sampled_from([1e-6, 0.1, 10.0]), st.integers(0, 2**32 - 1))
def test_by_definition(n, p, ridge, seed):
    rng = np.random.default_rng(seed)
    f, y = rng.standard_normal((n, p)), rng.standard_normal((n, 2))
    kernel = f @ f.T
    inverse = np.linalg.inv(kernel + ridge * np.eye(n))
    fit = kernel_regression(kernel, y)
    errors = inverse @ y / np.diagonal(inverse)[:, None]
    np.testing.assert_allclose(fit.leave_one_out(ridge), errors, rtol=1e-6, atol=1e-7)
    leverages = fit.leverages(ridge)
    np.testing.assert_allclose(leverages, np.diagonal(kernel @ inverse), atol=1e-7)
    assert (leverages > 0).all() and (leverages <= 1 + 1e-12).all()
    assert fit.leverages(0.0).sum() == pytest.approx(min(n, p))
    np.testing.assert_allclose(loo_error(kernel, y, ridge), (errors**2).mean(), rtol=1e-6)
    np.testing.assert_allclose(least_squares(f, y).leave_one_out(ridge), errors, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("p", [5, N, 30])
@pytest.mark.parametrize("ridge", [1e-3, 1.0, 1e4])
def test_the_likelihood_is_that_of_the_gaussian_process(p, ridge, rng):
    f, y = rng.standard_normal((N, p)), rng.standard_normal((N, 3))
    expected = gp_log_likelihood(f @ f.T, y, ridge)
    for fit in (kernel_regression(f @ f.T, y), least_squares(f, y)):
        np.testing.assert_allclose(fit.log_likelihood(ridge), expected, rtol=1e-9)
    flat = kernel_regression(f @ f.T, y[:, 0])
    np.testing.assert_allclose(
        flat.log_likelihood(ridge), gp_log_likelihood(f @ f.T, y[:, 0], ridge), rtol=1e-9
    )
    if p == 30:
        np.testing.assert_allclose(
            flat.log_likelihood(0.0), gp_log_likelihood(f @ f.T, y[:, 0], 0.0), rtol=1e-9
        )


def test_the_best_ridge_is_that_of_the_criterion(rng):
    f, y = rng.standard_normal((40, 30)), rng.standard_normal((40, 2))
    y += 2 * f[:, :2]
    ridges = np.geomspace(1e-3, 1e4, 30)
    fit = least_squares(f, y)
    by_error = [(fit.leave_one_out(ridge) ** 2).mean() for ridge in ridges]
    by_evidence = [fit.log_likelihood(ridge) for ridge in ridges]
    assert fit.best_ridge(ridges) == ridges[np.argmin(by_error)]
    assert fit.best_ridge(ridges, by="log_likelihood") == ridges[np.argmax(by_evidence)]
    for best in (fit.best_ridge(ridges), fit.best_ridge(ridges, by="log_likelihood")):
        assert isinstance(best, float) and ridges[0] < best < ridges[-1]


def test_evidence_finds_the_variance_of_the_noise(rng):
    f = rng.standard_normal((300, 100))
    y = f @ rng.standard_normal((100, 20)) + 3.0 * rng.standard_normal((300, 20))
    ridges = np.geomspace(0.1, 1000, 201)
    assert least_squares(f, y).best_ridge(ridges, by="log_likelihood") == pytest.approx(9.0, rel=0.15)


def test_known_answers_on_digits(digits):
    x, y = digits
    covariance, tangent = (np.asarray(kernel) for kernel in kernels(MLP(3, 1, sigma_b2=0.1), x[:500]))
    fit = kernel_regression(tangent[:100, :100], y[:100])
    assert (fit.leave_one_out(0.1) ** 2).mean() == pytest.approx(0.0241542951, rel=1e-7)
    assert loo_error(tangent[:100, :100], y[:100], 0.1) == pytest.approx(0.0241542951, rel=1e-7)
    assert kernel_regression(tangent, y[:500]).leverages(1.0).sum() == pytest.approx(314.486047, rel=1e-7)


def test_the_test_error_on_digits_is_known_too(digits):
    x, y = digits
    net = MLP(3, 1, sigma_b2=0.1)
    found = kernel_regression(ntk(net, x[:500]), y[:500]).predict(ntk(net, x[500:], x[:500]), 0.1)
    assert (found.argmax(1) != y[500:].argmax(1)).sum() == 23
    assert ((found - y[500:]) ** 2).mean() == pytest.approx(0.0097083355, rel=1e-7)


@pytest.mark.parametrize("kernel", [ntk, lambda net, x: kernels(net, x).nngp])
def test_the_gradient_through_a_kernel_is_that_of_differences(kernel, rng):
    """In sigma_w2, sigma_b2 and the ridge: of the error of leaving one out, a learned kernel."""
    x = rng.standard_normal((N, 3))
    y = np.sin(2 * x[:, 0])

    @jax.jit
    def error(at):
        net = MLP(3, 1, activation="erf", sigma_w2=at[0], sigma_b2=at[1])
        return loo_error(kernel(net, x), y, at[2])

    at, step = np.array([1.5, 0.2, 0.1]), 1e-5
    found = jax.grad(error)(at)
    assert found.dtype == np.float64
    for k, slope in enumerate(found):
        ahead, behind = (float(error(at + sign * step * np.eye(3)[k])) for sign in (1, -1))
        assert abs(slope) > 1e-4
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


def test_descent_of_the_error_learns_a_kernel(rng):
    x = rng.standard_normal((30, 3))
    y = np.sin(2 * x[:, 0])

    @jax.jit
    @jax.value_and_grad
    def error(logs):
        w2, b2, ridge = jnp.exp(logs)
        return loo_error(ntk(MLP(2, 1, activation="erf", sigma_w2=w2, sigma_b2=b2), x), y, ridge)

    logs, values = jnp.log(jnp.array([1.0, 0.5, 0.5])), []
    for _ in range(20):
        value, slope = error(logs)
        values.append(float(value))
        logs = logs - 0.5 * slope / jnp.linalg.norm(slope)
    assert min(values) < 0.9 * values[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out(dtype, rng):
    f, y = rng.standard_normal((N, 30)).astype(dtype), rng.standard_normal(N).astype(dtype)
    expected = (kernel_regression(f @ f.T, y).leave_one_out(0.5) ** 2).mean()
    for x64 in (True, False):
        with enable_x64(x64):
            found = loo_error(f @ f.T, y, 0.5)
            assert isinstance(loo_error(jnp.asarray(f @ f.T), y, 0.5), jax.Array)
        assert isinstance(found, np.ndarray | np.generic) and found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-10 if dtype == np.float64 else 1e-4)


def test_half_precision_is_computed_in_single():
    found = loo_error(jnp.eye(3).astype("bfloat16"), jnp.ones(3, "bfloat16"), 1.0)
    assert found.dtype == np.float32 and found == 1


FIT = kernel_regression(np.eye(3), np.ones(3))
SINGULAR = kernel_regression(np.ones((3, 3)), np.ones(3))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: FIT.leave_one_out(-1.0), "ridge is -1.0; expected at least 0"),
        (lambda: FIT.leave_one_out(np.nan), "ridge holds 1 values"),
        (lambda: FIT.leverages(-1.0), "ridge is -1.0; expected at least 0"),
        (lambda: FIT.log_likelihood([1.0, -1.0]), "ridge is -1.0; expected at least 0"),
        (lambda: SINGULAR.log_likelihood([1.0, 0.0]), "ridge is 0, and the kernel of 3 points has rank 1"),
        (lambda: SINGULAR.best_ridge([1.0, 0.0], by="log_likelihood"), "ridge is 0, and the kernel of 3"),
        (lambda: FIT.best_ridge([]), r"ridge has shape \(0,\)"),
        (lambda: FIT.best_ridge([1.0], by="luck"), "by is 'luck'; expected one of 'leave_one_out', 'log_l"),
        (lambda: loo_error(np.eye(3)[:2], np.ones(3), 0.1), r"k_train is \(2, 3\)"),
        (lambda: loo_error(np.eye(3), np.ones(2), 0.1), r"y \(2,\)"),
        (lambda: loo_error(np.eye(3), np.ones(3), -0.1), "ridge is -0.1; expected a variance"),
        (lambda: loo_error(np.eye(3), np.ones(3), [0.1]), r"ridge (has shape \(1,\)|is \[0.1\])"),
        (lambda: loo_error(np.eye(3) + np.eye(3, k=1), np.ones(3), 0.1), "k_train is not symmetric"),
        (lambda: loo_error(-np.eye(3), np.ones(3), 0.1), r"k_train \+ 0.1 · I is not positive definite"),
        (lambda: loo_error("abc", np.ones(3), 0.1), "k_train is 'abc'; expected an array of numbers"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
