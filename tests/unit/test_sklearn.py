"""The door to scikit-learn: its own tests of kernels and estimators, known answers, and its tools on ours."""

from inspect import signature

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning, SkipTestWarning
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, KernelOperator, WhiteKernel
from sklearn.gaussian_process.tests import test_kernels as theirs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

from ntk_helpers import MLP, gp_posterior, kernel_regression, kernels, nngp, ntk
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.adapters.sklearn import NNGPKernel, NTKClassifier, NTKKernel, NTKRegressor

FREE = [
    NTKKernel(),
    NNGPKernel(depth=2, activation="erf", sigma_w2=1.5, sigma_b2=0.3),
    NTKKernel(depth=4, activation="gelu", sigma_w2=1.2),
    NNGPKernel(depth=1, sigma_b2_bounds=(0.01, 2.0)),
]
BASIC = [*FREE, NNGPKernel(sigma_w2_bounds="fixed"), NTKKernel(sigma_b2=0.0, sigma_b2_bounds="fixed")]
COMPOSED = [2.0 * NTKKernel(), NNGPKernel() + NTKKernel(depth=2), NTKKernel(depth=2, sigma_w2=0.5) ** 2]
THEIRS = [
    name
    for name, test in vars(theirs).items()
    if name.startswith("test_") and list(signature(test).parameters) == ["kernel"]
]
OF_OTHERS = {"test_kernel_stationary"}  # for kernels of differences
CASES = [
    (name, kernel)
    for name in sorted(set(THEIRS) - OF_OTHERS)
    for kernel in (FREE if name == "test_kernel_theta" else BASIC + COMPOSED)  # theirs fixes each in turn
]


@pytest.mark.parametrize(
    ("name", "kernel"), CASES, ids=lambda each: each if isinstance(each, str) else repr(each)
)
def test_scikit_learns_own_tests_of_kernels(name, kernel):
    getattr(theirs, name)(kernel)


def test_their_tests_were_found():
    assert len(set(THEIRS) - OF_OTHERS) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [NTKRegressor(), NTKClassifier()], ids=lambda each: type(each).__name__)
@pytest.mark.filterwarnings(f"ignore::{SkipTestWarning.__module__}.{SkipTestWarning.__name__}")
def test_scikit_learns_own_checks_of_estimators(estimator):
    check_estimator(estimator)


@pytest.fixture(scope="module")
def diabetes():
    table = load_diabetes()
    rows = np.random.default_rng(0).permutation(442)
    x, y = table.data[rows] * 442**0.5, table.target[rows]
    return x, (y - y[:120].mean()) / y[:120].std()


def test_evidence_and_its_gradient_are_the_known_ones(diabetes):
    x, y = diabetes
    kernel = NNGPKernel(depth=3, sigma_w2=1.5, sigma_b2=0.2) + WhiteKernel(0.5)
    gp = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(x[:120], y[:120])
    evidence, (by_b2, by_w2, by_noise) = gp.log_marginal_likelihood(gp.kernel_.theta, eval_gradient=True)
    np.testing.assert_allclose(evidence, -146.70300114, rtol=1e-7)
    np.testing.assert_allclose([by_w2, by_b2, by_noise], [-8.777668, -0.191251, -0.205328], rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [
        (NNGPKernel, [2.27746751, -0.30156362], [0.13168238, 0.12279477]),
        (NTKKernel, [1.73193216, 0.15684377], [1.59110808, 0.53010059]),
    ],
)
def test_posteriors_are_the_known_ones(kind, mean, deviation):
    x = np.array([-1.6, -1.1, -0.7, 0.2, 0.5, 1.4])[:, None]
    gp = GaussianProcessRegressor(kind(sigma_b2=0.25), alpha=0.0, optimizer=None).fit(x, np.sin(3 * x[:, 0]))
    found = gp.predict(np.array([[-2.5], [0.0]]), return_std=True)
    np.testing.assert_allclose(found, [mean, deviation], rtol=1e-6)


def test_a_gaussian_process_learns_the_variances_and_the_bounds_hold(diabetes):
    x, y = diabetes
    learned = NNGPKernel(2, "erf", 0.6, sigma_w2_bounds=(0.5, 2.0), sigma_b2_bounds="fixed")
    start = ConstantKernel(1.0) * learned + WhiteKernel(0.5)
    with pytest.warns(ConvergenceWarning, match="k1__k2__sigma_w2 is close to the specified upper bound 2"):
        gp = GaussianProcessRegressor(start).fit(x[:60], y[:60])
    before = GaussianProcessRegressor(start, optimizer=None).fit(x[:60], y[:60])
    assert gp.log_marginal_likelihood_value_ > before.log_marginal_likelihood_value_ + 1
    assert 0.5 <= gp.kernel_.k1.k2.sigma_w2 <= 2.0


def test_a_classifier_by_a_gaussian_process_takes_the_kernel():
    x = np.random.default_rng(0).normal(size=(40, 2))
    labels = x[:, 0] * x[:, 1] > 0
    fixed = NNGPKernel(sigma_w2_bounds="fixed", sigma_b2_bounds="fixed")
    assert GaussianProcessClassifier(100 * fixed).fit(x, labels).score(x, labels) > 0.9


@pytest.mark.parametrize("x64", [False, True])
def test_kernels_are_ours_in_float64_and_can_be_written_to(x64, rng):
    x, z = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    net = MLP(4, 1, 1, "erf", 1.7, 0.3)
    with enable_x64(True):
        ours = kernels(net, x, z)
    with enable_x64(x64):
        for kind, expected in ((NTKKernel, ours.ntk), (NNGPKernel, ours.nngp)):
            kernel = kind(4, "erf", 1.7, 0.3)
            found = kernel(x, z)
            np.testing.assert_allclose(found, expected, rtol=1e-12)
            assert found.dtype == float and found.flags.writeable
            np.testing.assert_allclose(kernel.diag(x), kernel(x).diagonal(), rtol=1e-12)
            assert kernel.diag(x).flags.writeable and kernel(x, eval_gradient=True)[0].flags.writeable


def test_a_variance_of_0_has_no_slope(rng):
    _, slopes = NTKKernel(sigma_b2=0.0)(rng.standard_normal((4, 2)), eval_gradient=True)
    assert slopes.shape == (4, 4, 2) and not slopes[..., 0].any() and np.isfinite(slopes).all()


def test_support_vectors_take_the_kernel_as_a_function_and_as_a_matrix():
    x, labels = load_digits(return_X_y=True)
    x, labels, kernel = x[:300] / 4, labels[:300], NTKKernel()
    called = SVC(kernel=kernel).fit(x[:200], labels[:200]).predict(x[200:])
    given = SVC(kernel="precomputed").fit(kernel(x[:200]), labels[:200]).predict(kernel(x[200:], x[:200]))
    np.testing.assert_array_equal(called, given)
    assert (called == labels[200:]).mean() > 0.9


@pytest.mark.parametrize("outputs", [(), (1,), (3,)])
def test_the_regressor_is_kernel_regression_of_centred_targets(outputs, rng):
    x, y = rng.standard_normal((30, 4)), 5 + rng.standard_normal((30, *outputs))
    model = NTKRegressor(2, "erf", 1.5, 0.2, ridge=0.3).fit(x[:20], y[:20])
    net = MLP(2, 1, 1, "erf", 1.5, 0.2)
    fit = kernel_regression(np.asarray(ntk(net, x[:20])), y[:20] - y[:20].mean(0))
    expected = y[:20].mean(0) + fit.predict(np.asarray(ntk(net, x[20:], x[:20])), 0.3)
    np.testing.assert_allclose(model.predict(x[20:]), expected, rtol=1e-9)
    assert model.predict(x[20:]).shape == y[20:].shape


@pytest.mark.parametrize("outputs", [(), (3,)])
def test_deviations_are_those_of_the_likeliest_scale(outputs, rng):
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((30, *outputs))
    model = NTKRegressor(ridge=0.3).fit(x[:20], y[:20])
    _, deviation = model.predict(x[20:], return_std=True)
    assert deviation.shape == y[20:].shape
    net, centred = MLP(3, 1, sigma_b2=0.1), (y[:20] - y[:20].mean(0)).reshape(20, -1)
    theta = np.asarray(ntk(net, x[:20]))
    for k, targets in enumerate(centred.T):
        scale = targets @ np.linalg.solve(theta + 0.3 * np.eye(20), targets) / 20
        np.testing.assert_allclose(model.amplitude_[k], scale, rtol=1e-9)
        of_process = gp_posterior(
            scale * theta,
            scale * np.asarray(ntk(net, x[20:], x[:20])),
            scale * np.asarray(ntk(net, x[20:])),
            targets,
            noise=0.3 * scale,
        )
        found = deviation if not outputs else deviation[:, k]
        np.testing.assert_allclose(found, np.sqrt(np.diag(of_process.covariance)), rtol=1e-7)


def test_the_ridge_is_the_one_with_the_least_error_of_leaving_one_out(diabetes):
    x, y = diabetes
    asked = np.logspace(-2, 3, 26)
    model = NTKRegressor(ridge=asked).fit(x[:100], y[:100])
    theta = np.asarray(ntk(MLP(3, 1, sigma_b2=0.1), x[:100]))
    errors = kernel_regression(theta, y[:100] - y[:100].mean()).leave_one_out(asked)
    assert model.ridge_ == asked[(errors**2).mean(1).argmin()]
    free = NTKRegressor().fit(x[:100], y[:100])
    assert 0.3 < free.ridge_ / model.ridge_ < 3
    assert free.score(x[120:], y[120:]) > 0.4


def test_the_classifier_knows_digits_in_pipelines_searches_and_folds():
    x, labels = load_digits(return_X_y=True)
    x, labels = x[:400], np.array([f"digit {n}" for n in labels[:400]])
    machine = make_pipeline(StandardScaler(), NTKClassifier(ridge=1.0))
    assert cross_val_score(machine, x, labels, cv=3).mean() > 0.9
    grid = {"ntkclassifier__depth": [2, 4], "ntkclassifier__ridge": [0.1, 10.0]}
    search = GridSearchCV(machine, grid, cv=3).fit(x, labels)
    assert search.best_score_ > 0.9 and search.predict(x[:3]).tolist() == labels[:3].tolist()


def test_two_classes_have_one_output_of_the_second(rng):
    x = rng.standard_normal((50, 2))
    labels = np.where(x[:, 0] > 0, "yes", "no")
    model = NTKClassifier().fit(x, labels)
    outputs = model.decision_function(x)
    assert outputs.shape == (50,) and model.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(model.predict(x) == "yes", outputs > 0)


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (lambda x: NTKKernel(depth=0)(x), "depth is 0"),
        (lambda x: NTKKernel(activation="sine wave")(x), "sine wave"),
        (lambda x: NNGPKernel(sigma_b2=-1.0)(x), "sigma_b2 is -1.0"),
        (lambda x: NNGPKernel()(x, x, eval_gradient=True), "Y is given"),
        (lambda x: NNGPKernel()(np.full((3, 2), np.nan)), "X holds 6 values that are NaN"),
        (lambda x: NTKKernel()(x, x[:, :1]), "2"),
        (lambda x: NTKRegressor(depth=0).fit(x, x[:, 0]), "depth is 0"),
        (lambda x: NTKRegressor(ridge=-1.0).fit(x, x[:, 0]), "ridge"),
        (lambda x: NTKClassifier().fit(x, np.zeros(len(x))), "y has 1 class"),
        (lambda x: NTKClassifier().fit(x, x[:, 0]), "Unknown label type: continuous"),
    ],
)
def test_bad_input_is_refused_by_name(refused, said, rng):
    with pytest.raises(ValueError, match=said):
        refused(rng.standard_normal((8, 2)))


def test_estimators_and_kernels_can_be_cloned():
    for each in (*BASIC, NTKRegressor(ridge=[0.1, 1.0]), NTKClassifier(depth=2)):
        assert clone(each).get_params() == each.get_params()
    assert not isinstance(BASIC[0], KernelOperator)


def test_the_covariance_is_nngp(rng):
    x = rng.standard_normal((5, 3))
    np.testing.assert_allclose(NNGPKernel()(x), nngp(MLP(3, 1, sigma_b2=0.1), x), rtol=1e-12)
