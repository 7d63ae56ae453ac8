"""Least squares and its features against NumPy, scikit-learn, and the kernels of this package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.tree_util import Partial
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from ntk_helpers import MLP, empirical_ntk, gp_posterior, kernel_regression, least_squares
from ntk_helpers.learning import random_features, tangent_features
from ntk_helpers.networks import get_activation

N = 30


def data(rng, p, o=2, m=7):
    return rng.standard_normal((N, p)), rng.standard_normal((N, o)), rng.standard_normal((m, p))


@pytest.mark.parametrize("p", [1, 10, 29, 30, 31, 100])
def test_without_ridge_it_is_lstsq(p, rng):
    f, y, test = data(rng, p)
    fit = least_squares(f, y)
    expected = np.linalg.lstsq(f, y)[0]
    np.testing.assert_allclose(fit.coefficients(), expected, rtol=1e-8, atol=1e-10 * abs(expected).max())
    np.testing.assert_allclose(fit.predict(test), test @ expected, rtol=1e-8, atol=1e-9 * abs(expected).max())
    assert fit.rank == min(N, p)
    np.testing.assert_allclose(fit.smallest_singular_value, np.linalg.svd(f)[1].min(), rtol=1e-10)


@pytest.mark.parametrize("p", [10, 30, 100])
@pytest.mark.parametrize("ridge", [1e-3, 1.0, 1e4])
def test_with_a_ridge_it_is_scikit_learn(p, ridge, rng):
    f, y, test = data(rng, p)
    theirs = Ridge(alpha=ridge, fit_intercept=False).fit(f, y)
    np.testing.assert_allclose(least_squares(f, y).coefficients(ridge), theirs.coef_.T, rtol=1e-6, atol=1e-9)
    kernel = KernelRidge(alpha=ridge).fit(f, y)
    np.testing.assert_allclose(
        kernel_regression(f @ f.T, y).predict(test @ f.T, ridge), kernel.predict(test), rtol=1e-6, atol=1e-9
    )


def test_a_kernel_is_the_gram_matrix_of_features_and_a_posterior_mean(rng):
    f, y, test = data(rng, 100)
    kernel = kernel_regression(f @ f.T, y)
    for ridge in (0.0, 0.5):
        np.testing.assert_allclose(
            kernel.predict(test @ f.T, ridge), least_squares(f, y).predict(test, ridge), rtol=1e-8, atol=1e-8
        )
    posterior = gp_posterior(f @ f.T, test @ f.T, test @ test.T, y, 0.5).mean
    np.testing.assert_allclose(kernel.predict(test @ f.T, 0.5), posterior, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_many_ridges_are_each_one(shape, rng):
    f, y, test = data(rng, 50)
    ridges = np.geomspace(0.1, 10, int(np.prod(shape))).reshape(shape)
    fit = least_squares(f, y)
    assert fit.predict(test, ridges).shape == (*shape, 7, 2)
    assert fit.coefficients(ridges).shape == (*shape, 50, 2)
    for index in np.ndindex(shape):
        np.testing.assert_allclose(
            fit.predict(test, ridges)[index], fit.predict(test, ridges[index]), rtol=1e-12
        )


def test_dependent_features_are_left_out_and_the_norm_is_least(rng):
    f, y, _ = data(rng, 20)
    doubled = np.concatenate([f, f, np.zeros((N, 1))], axis=1)
    fit, single = least_squares(doubled, y), least_squares(f, y)
    assert fit.rank == 20
    np.testing.assert_allclose(fit.coefficients()[:20], single.coefficients() / 2, rtol=1e-8)
    np.testing.assert_allclose(fit.coefficients()[20:40], single.coefficients() / 2, rtol=1e-8)
    assert not fit.coefficients()[40].any()


def test_zero_features_predict_zero():
    fit = least_squares(np.zeros((N, 3)), np.ones((N, 1)))
    assert fit.rank == 0 and fit.smallest_singular_value == 0
    assert not fit.predict(np.ones((5, 3))).any()


def test_float32_features_are_cut_off_at_their_own_rounding(rng):
    f, y, _ = data(rng, 20)
    rank_deficient = (f[:, :10] @ rng.standard_normal((10, 20))).astype(np.float32)
    assert least_squares(rank_deficient, y).rank == 10
    assert least_squares(jnp.asarray(rank_deficient), y).rank == 10


def test_random_features_have_the_dual_map_for_their_mean(rng):
    d, count = 5, 200_000
    x = rng.standard_normal((4, d))
    f = np.asarray(random_features(random.key(0), d, count, "erf")(x))
    terms = (
        f[:, None] * f[None]
    )  # w is uniform on a sphere, so compare with a Gaussian of its own moments by simulation
    w = rng.standard_normal((count, d))
    other = np.asarray(get_activation("erf").fn(x @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T))
    mean, expected = terms.mean(-1), (other[:, None] * other[None]).mean(-1)
    np.testing.assert_array_less(abs(mean - expected), 5 * np.sqrt(2) * terms.std(-1) / np.sqrt(count))


def test_random_features_of_high_dimension_are_those_of_the_kernel(rng):
    d, count = 400, 20_000
    x = rng.standard_normal((3, d))
    x *= np.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True)
    f = np.asarray(random_features(random.key(1), d, count)(x))
    terms = f[:, None] * f[None]
    expected = get_activation("relu").dual(1.0, 1.0, x @ x.T / d)
    np.testing.assert_array_less(
        abs(terms.mean(-1) - expected), 5 * terms.std(-1) / np.sqrt(count) + 2 / d
    )  # sphere against Gauss: O(1/d)


def test_random_features_are_reproducible_and_of_unit_weights(rng):
    a, b = (random_features(random.key(2), 6, 50, "relu") for _ in range(2))
    x = rng.standard_normal((4, 6))
    np.testing.assert_array_equal(a(x), b(x))
    w = np.asarray(a(np.eye(6)) - a(-np.eye(6)))  # relu(w) - relu(-w) = w
    np.testing.assert_allclose(np.linalg.norm(w, axis=0), 1.0, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_tangent_features_are_rows_of_the_jacobian(activation, rng):
    net = MLP(3, 16, activation=activation, sigma_b2=0.1)
    x = rng.standard_normal((5, 4))
    params = net.init(random.key(3), 4)
    f = tangent_features(net, params, x)
    assert f.shape == (5, sum(leaf.size for leaf in jax.tree.leaves(params)))
    np.testing.assert_allclose(f @ f.T, empirical_ntk(net, params, x, output="trace"), rtol=1e-10, atol=1e-10)
    same = tangent_features(lambda p, a: net.apply(p, a)[:, 0], params, x)
    np.testing.assert_allclose(
        same, f, rtol=1e-12, atol=1e-14
    )  # two programs: the last bits are the compiler's


def test_tangent_features_of_a_partial_compile_once():
    traced = []

    def f(scale, params, x):
        traced.append(1)
        return scale * (x @ params)

    x, w = np.eye(3), jnp.ones((3, 1))
    one, two = (tangent_features(Partial(f, jnp.float64(scale)), w, x) for scale in (1.0, 2.0))
    np.testing.assert_array_equal(2 * one, two)
    assert len(traced) == 3  # a look at the shapes each time, and one compilation


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: least_squares(np.ones(3), np.ones((3, 1))), "features"),
        (lambda: least_squares(np.ones((3, 2)), np.ones((4, 1))), "expected as many"),
        (lambda: least_squares(np.ones((3, 2)), np.ones(())), "y has shape"),
        (lambda: least_squares(np.full((3, 2), np.nan), np.ones((3, 1))), "NaN"),
        (lambda: kernel_regression(np.ones((3, 2)), np.ones((3, 1))), "shape"),
        (lambda: kernel_regression(np.triu(np.ones((3, 3))), np.ones((3, 1))), "symmetric"),
        (lambda: kernel_regression(-np.eye(3), np.ones((3, 1))), "positive"),
        (lambda: least_squares(np.eye(3), np.ones((3, 1))).predict(np.ones((2, 4))), "test has shape"),
        (lambda: least_squares(np.eye(3), np.ones((3, 1))).predict(np.ones((2, 3)), -1.0), "ridge is -1.0"),
        (lambda: least_squares(np.eye(3), np.ones((3, 1))).coefficients(np.inf), "ridge"),
        (lambda: random_features(random.key(0), 0, 5), "dim is 0"),
        (lambda: random_features(random.key(0), 2, 5, "nothing"), "nothing"),
        (lambda: random_features(7.0, 2, 5), "key"),
        (lambda: random_features(random.key(0), 2, 5)(np.ones((3, 4))), r"expected \(n, 2\)"),
        (
            lambda: random_features(random.key(0), 2, 5)(np.ones((0, 2))),
            r"x has shape \(0, 2\); expected \(n, 2\), n at least 1",
        ),
        (
            lambda: random_features(random.key(0), 2, 5)(np.array([[0.0, np.nan]])),
            "x holds 1 values that are NaN or infinite",
        ),
        (lambda: random_features(random.key(0), 2, 5)("points"), "x is 'points'"),
        (
            lambda: tangent_features(MLP(2, 3, 2), MLP(2, 3, 2).init(random.key(0), 4), np.ones((5, 4))),
            "outputs have shape",
        ),
        (
            lambda: tangent_features(None, jnp.ones((2, 1)), np.ones((5, 2))),
            "f is None; expected an MLP, or a function",
        ),
        (
            lambda: tangent_features(lambda p, x: p["w"], jnp.ones((2, 1)), np.ones((5, 2))),
            "f fails: .*Error: ",
        ),
        (
            lambda: tangent_features(lambda p, x: x @ p, jnp.ones((3, 1)), np.ones((5, 2))),
            "f fails: TypeError: dot_general",
        ),
        (
            lambda: tangent_features(lambda p, x: None, jnp.ones((2, 1)), np.ones((5, 2))),
            "outputs have shape None",
        ),
        (
            lambda: tangent_features(lambda p, x: (x @ p).astype(int), jnp.ones((2, 1)), np.ones((5, 2))),
            "expected floating ones",
        ),
        (
            lambda: tangent_features(lambda p, x: x @ p, np.ones((2, 1), int), np.ones((5, 2))),
            "params has dtype int64; expected a floating type",
        ),
        (
            lambda: tangent_features(
                lambda p, x: x @ p["w"], {"w": np.full((2, 1), np.nan)}, np.ones((5, 2))
            ),
            r"params\['w'\] holds 2 values",
        ),
        (lambda: tangent_features(MLP(2, 3), MLP(2, 3).init(random.key(0), 4), np.ones((5, 3))), "expected"),
        (lambda: tangent_features(MLP(2, 3), None, np.ones((5, 3))), "params"),
        (
            lambda: tangent_features(lambda p, x: x @ p, jnp.ones((2, 1)), np.full((5, 2), np.inf)),
            "x holds 10 values",
        ),
        (
            lambda: tangent_features(lambda p, x: x @ p, jnp.ones((2, 1)), np.ones((0, 2))),
            r"x has shape \(0, 2\); expected \(points, ...\), no size 0",
        ),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_targets_without_an_axis_of_outputs(shape, rng):
    f, y, test = data(rng, 50, o=1)
    ridges = np.geomspace(0.1, 10, int(np.prod(shape))).reshape(shape)
    for fit, at in ((least_squares, f), (kernel_regression, f @ f.T)):
        plain, flat = fit(at, y), fit(at, y[:, 0])
        seen = test if fit is least_squares else test @ f.T
        np.testing.assert_allclose(
            flat.predict(seen, ridges), plain.predict(seen, ridges)[..., 0], rtol=1e-10
        )
        coefficients = plain.coefficients(ridges)[..., 0]
        np.testing.assert_allclose(flat.coefficients(ridges), coefficients, rtol=1e-9, atol=1e-12)


def test_half_precision_is_cut_off_at_its_own_rounding(rng):
    f = rng.standard_normal((N, 3)) @ rng.standard_normal((3, 20))
    for dtype in ("float16", "bfloat16"):
        half = jnp.asarray(f).astype(dtype)
        assert least_squares(half, np.ones(N)).rank == 3
        gram = jnp.asarray(f @ f.T).astype(dtype)
        assert kernel_regression((gram + gram.T) / 2, np.ones(N)).rank == 3


@pytest.mark.parametrize("fit, name", [(least_squares, "features"), (kernel_regression, "k_train")])
def test_inside_jit_and_grad_is_told_of(fit, name):
    for wrapped in (jax.grad, jax.jit):
        with pytest.raises(ValueError, match=f"{name} has no values inside jit, .*there is gp_posterior"):
            wrapped(lambda a: fit(a, np.ones(3)).coefficients().sum())(jnp.eye(3))
