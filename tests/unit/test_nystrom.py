"""Landmarks, and conjugate gradients in blocks, against the whole kernel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_helpers import MLP, kernel_regression, least_squares, ntk, tiled
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.learning import _blocks, kernel_solve, leverage_landmarks, nystrom, nystrom_features

NET = MLP(3, 1, sigma_b2=0.1)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def theta(digits):
    return np.asarray(ntk(NET, digits[0][:500]))


def counted(kernel):
    """A function of indices that counts its calls by shape."""
    shapes = []

    def block(i, j):
        shapes.append((len(i), len(j)))
        return kernel[np.ix_(i, j)]

    return block, shapes


def uniform(count, size=500):
    return np.asarray(jax.random.choice(KEY, size, (count,), replace=False))


def test_the_known_error_of_landmarks_on_digits(theta):
    f = nystrom_features(theta[:100, :100])(theta[:, :100])
    assert np.linalg.norm(f @ f.T - theta) / np.linalg.norm(theta) == pytest.approx(0.0731617913, rel=1e-7)


def test_landmarks_are_exact_on_themselves_and_all_points_everywhere(theta):
    at = uniform(50)
    f = nystrom_features(theta[np.ix_(at, at)])(theta[:, at])
    np.testing.assert_allclose(f @ f[at].T, theta[:, at], atol=1e-9)
    left = np.linalg.eigvalsh(theta - f @ f.T)
    assert left[0] > -1e-9  # never more than the kernel
    whole = nystrom_features(theta)(theta)
    np.testing.assert_allclose(whole @ whole.T, theta, atol=1e-9)


def test_regression_on_landmarks_is_the_subset_of_regressors(theta, digits):
    """min |K_nm b - y|² + ρ bᵀ K_mm b (Rasmussen & Williams 2006, eq. 8.14)."""
    at, y, ridge = uniform(60), digits[1][:500], 0.1
    cross, inside = theta[:, at], theta[np.ix_(at, at)]
    features = nystrom_features(inside)
    found = least_squares(features(cross), y).predict(features(theta[:7, at]), ridge)
    expected = theta[:7, at] @ np.linalg.solve(cross.T @ cross + ridge * inside, cross.T @ y)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_landmarks_that_are_twice_the_same_do_no_harm(theta):
    once, twice = np.arange(20), np.r_[np.arange(20), np.arange(20)]
    f, g = (nystrom_features(theta[np.ix_(at, at)])(theta[:, at]) for at in (once, twice))
    assert f.shape == g.shape
    np.testing.assert_allclose(f @ f.T, g @ g.T, atol=1e-8)


@pytest.mark.parametrize("count", [1, 50, 500])
@pytest.mark.parametrize("block", [64, 100, 499, 2048])
def test_the_solution_is_that_of_the_whole_kernel(theta, digits, block, count, monkeypatch):
    """Whatever the blocks are: many whole ones, and a last one that is not."""
    monkeypatch.setattr(_blocks, "BLOCK", block)
    y = digits[1][:500]
    expected = kernel_regression(theta, y).coefficients(0.1)
    for kernel in (theta, counted(theta)[0]):
        found = kernel_solve(kernel, y, 0.1, uniform(count), tol=1e-10)
        np.testing.assert_allclose(found, expected, atol=1e-7 * abs(expected).max())


def test_the_residual_is_as_small_as_asked(theta, digits):
    y = digits[1][:500]
    for tol in (1e-2, 1e-5, 1e-9):
        found = kernel_solve(theta, y, 0.1, uniform(50), tol=tol)
        assert np.linalg.norm(y - theta @ found - 0.1 * found) <= 1.01 * tol * np.linalg.norm(y)


def test_blocks_are_of_one_shape_and_none_below_the_diagonal(theta, digits, monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK", 150)
    block, shapes = counted(theta)
    kernel_solve(block, digits[1][:500, 0], 0.1, uniform(50))
    assert set(shapes) == {(125, 50), (125, 125)}
    assert shapes.count((125, 50)) == 4 and shapes.count((125, 125)) % 10 == 0


def test_landmarks_save_products(theta, digits, monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK", 500)
    products = []
    for count in (1, 50, 150, 400):
        block, shapes = counted(theta)
        kernel_solve(block, digits[1][:500], 0.1, uniform(count))
        products.append(len(shapes) - 1)
    assert sorted(products, reverse=True) == products and products[0] > 2 * products[2] > 2 * products[3]


@pytest.mark.parametrize("x64", [True, False])
def test_a_kernel_on_disk_and_one_computed_anew(digits, x64, tmp_path, monkeypatch):
    """In float32 too, whose least eigenvalues are its rounding."""
    monkeypatch.setattr(_blocks, "BLOCK", 128)
    x, y = digits[0][:400], digits[1][:400]
    expected = kernel_regression(ntk(NET, x), y).coefficients(0.1)
    with enable_x64(x64):
        on_disk = tiled(partial(ntk, NET), x, path=tmp_path / "kernel.npy", block=130)
        assert on_disk.dtype == (np.float64 if x64 else np.float32)
        for kernel in (on_disk, lambda i, j: ntk(NET, x[i], x[j])):
            found = kernel_solve(kernel, y, 0.1, uniform(80, 400), tol=1e-8)
            assert isinstance(found, np.ndarray) and found.dtype == np.float64
            np.testing.assert_allclose(found, expected, atol=(1e-6 if x64 else 1e-3) * abs(expected).max())


def test_targets_without_an_axis_of_outputs_and_zero_ones(theta):
    y = np.sin(np.arange(500.0))
    flat, column = (kernel_solve(theta, each, 1.0, uniform(20)) for each in (y, y[:, None]))
    assert flat.shape == (500,)
    np.testing.assert_array_equal(flat, column[:, 0])
    assert not kernel_solve(theta, np.zeros(500), 1.0, uniform(20)).any()
    assert kernel_solve(np.eye(1), [2.0], 1.0, [0]) == pytest.approx(1.0)
    np.testing.assert_allclose(kernel_solve(jnp.eye(3), [1, 2, 3], 1, [0]), [0.5, 1, 1.5], rtol=1e-5)


def test_the_bar_counts_blocks(bars, theta, monkeypatch):
    monkeypatch.setattr(_blocks, "BLOCK", 250)
    block, shapes = counted(theta)
    kernel_solve(block, np.ones(500), 0.1, uniform(20))
    leverage_landmarks(KEY, theta, 500, 20, 0.1)
    assert [(bar.desc, bar.unit) for bar in bars] == [
        ("kernel_solve", "block"),
        ("leverage_landmarks", "block"),
    ]
    assert [bar.n for bar in bars] == [len(shapes), 4]


def test_landmarks_by_leverage_find_the_points_that_are_unlike_the_others(rng):
    x = np.r_[0.01 * rng.standard_normal((480, 2)), 3 + 5 * rng.standard_normal((20, 2))]
    kernel = np.exp(-((x[:, None] - x) ** 2).sum(-1))
    errors = {"uniform": [], "leverage": []}
    for k in range(5):
        key = jax.random.key(k)
        chosen = leverage_landmarks(key, kernel, 500, 40, ridge=0.01)
        assert len(set(chosen.tolist())) == 40 and chosen.min() >= 0 and chosen.max() < 500
        for name, at in (
            ("leverage", chosen),
            ("uniform", jax.random.choice(key, 500, (40,), replace=False)),
        ):
            f = nystrom_features(kernel[np.ix_(at, at)])(kernel[:, at])
            errors[name].append(np.linalg.norm(kernel - f @ f.T))
    assert np.median(errors["leverage"]) < 1e-6 and max(errors["leverage"]) < 0.5 * min(errors["uniform"])


def test_landmarks_by_leverage_are_drawn_from_blocks(theta, monkeypatch):
    whole = leverage_landmarks(KEY, theta, 500, 30, 1.0)
    monkeypatch.setattr(_blocks, "BLOCK", 150)
    np.testing.assert_array_equal(leverage_landmarks(KEY, counted(theta)[0], 500, 30, 1.0), whole)
    assert sorted(leverage_landmarks(KEY, theta, 500, 500, 1.0)) == list(range(500))
    assert (leverage_landmarks(jax.random.key(1), theta, 500, 30, 1.0) != whole).any()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"y": np.ones(4)}, r"kernel has shape \(3, 3\); expected \(4, 4\), or a function"),
        ({"y": np.full(3, np.nan)}, "y holds 3 values"),
        ({"y": np.ones((3, 1, 1))}, "y has shape"),
        ({"y": None}, "y is None; expected an array of numbers"),
        ({"ridge": 0.0}, "ridge is 0.0; expected a positive number"),
        ({"ridge": [1.0]}, r"ridge is \[1.0\]; expected a positive number"),
        ({"tol": 0}, "tol is 0; expected a positive number"),
        ({"landmarks": []}, r"landmarks have shape \(0,\)"),
        ({"landmarks": [[0]]}, r"landmarks have shape \(1, 1\)"),
        ({"landmarks": [0.5]}, "dtype float64; expected indices of points"),
        ({"landmarks": [True, False, True]}, "dtype bool; expected indices of points"),
        ({"landmarks": [0, 3]}, "landmarks go from 0 to 3; expected 0 to 2"),
        ({"landmarks": [-1]}, "landmarks go from -1 to -1"),
        ({"kernel": None}, "kernel is None; expected an array of numbers"),
        ({"kernel": "abc"}, "kernel is 'abc'"),
        ({"kernel": np.full((3, 3), np.inf)}, "a block of the kernel holds"),
        ({"kernel": lambda i, j: np.ones(3)}, r"a block of the kernel has shape \(3,\); expected \(3, 2\)"),
        ({"kernel": lambda i, j: None}, "a block of the kernel is"),
        ({"kernel": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"kernel": -np.eye(3)}, "not positive"),
    ],
)
def test_bad_input_is_refused(change, words):
    good = {"kernel": np.eye(3), "y": np.ones(3), "ridge": 1.0, "landmarks": [0, 1]}
    kernel_solve(**good)
    with pytest.raises(ValueError, match=words):
        kernel_solve(**good | change)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: nystrom_features(np.ones((2, 3))), r"\(2, 3\)"),
        (lambda: nystrom_features(np.ones((2, 2, 1, 1))), r"k_landmarks has shape \(2, 2, 1, 1\)"),
        (lambda: nystrom_features(-np.eye(2)), "not positive"),
        (lambda: nystrom_features(np.eye(2))(np.eye(3)), r"k_cross has shape \(3, 3\); expected \(any, 2\)"),
        (lambda: leverage_landmarks(7.0, np.eye(3), 3, 2, 1.0), "key is 7.0"),
        (lambda: leverage_landmarks(KEY, np.eye(3), 0, 2, 1.0), "size is 0"),
        (lambda: leverage_landmarks(KEY, np.eye(3), 3, 4, 1.0), "count is 4; expected at most 3"),
        (lambda: leverage_landmarks(KEY, np.eye(3), 3, 2, 0.0), "ridge is 0.0; expected a positive number"),
        (
            lambda: leverage_landmarks(KEY, np.eye(4), 3, 2, 1.0),
            r"kernel has shape \(4, 4\); expected \(3, 3\)",
        ),
        (lambda: leverage_landmarks(KEY, -np.eye(3), 3, 2, 1.0), "not positive"),
    ],
)
def test_bad_landmarks_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_too_few_products_are_told_of(theta, monkeypatch):
    monkeypatch.setattr(nystrom, "PRODUCTS", 3)
    with pytest.raises(
        ValueError, match="did not reach tol=1e-12 with ridge 0.001 and 1 landmarks in 3 products"
    ):
        kernel_solve(theta, np.sin(np.arange(500.0)), 1e-3, [0], tol=1e-12)


def test_inside_jit_it_says_so():
    with pytest.raises(ValueError, match="y has no values inside jit"):
        jax.jit(lambda y: kernel_solve(np.eye(3), y, 1.0, [0]))(jnp.ones(3))
    with pytest.raises(ValueError, match="k_landmarks has no values inside jit"):
        jax.jit(lambda k: nystrom_features(k)(k))(jnp.eye(3))
