"""Alignment of kernels and their distance: known answers, definitions, what does not matter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_helpers import MLP, kernels
from ntk_helpers.learning import alignment, kernel_distance


def gram(rng, n=9, p=4):
    f = rng.standard_normal((n, p))
    return f @ f.T


def test_known_answers_on_digits(digits):
    x, y = digits
    covariance, tangent = kernels(MLP(3, 1, sigma_b2=0.1), x[:500])
    labels = y[:500] + 0.1  # zeros and ones
    assert alignment(tangent, labels @ labels.T) == pytest.approx(0.4905146184, rel=1e-7)
    assert alignment(tangent, covariance, centred=True) == pytest.approx(0.9948956485, rel=1e-7)


def test_by_definition(rng):
    a, b = gram(rng), gram(rng)
    assert alignment(a, b) == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    h = np.eye(9) - 1 / 9
    independence = lambda k, other: np.trace(k @ h @ other @ h)  # Kornblith et al. 2019, eq. 3
    expected = independence(a, b) / np.sqrt(independence(a, a) * independence(b, b))
    assert alignment(a, b, centred=True) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(a, b, centred=True) == pytest.approx(np.arccos(expected), rel=1e-12)


@given(
    st.integers(2, 20), st.integers(1, 25), st.floats(1e-200, 1e200), st.booleans(), st.integers(0, 2**32 - 1)
)
def test_scales_order_and_rotations_do_not_matter(n, p, scale, centred, seed):
    rng = np.random.default_rng(seed)
    a, b = gram(rng, n, p), gram(rng, n, p + 1)
    found = alignment(a, b, centred=centred)
    assert 0 <= found <= 1
    assert alignment(scale * b, a, centred=centred) == pytest.approx(found, rel=1e-9)
    order = rng.permutation(n)
    assert alignment(a[order][:, order], b[order][:, order], centred=centred) == pytest.approx(
        found, rel=1e-9
    )
    assert kernel_distance(a, b, centred=centred) == pytest.approx(np.arccos(found), rel=1e-6, abs=1e-7)
    assert alignment(a, scale * a, centred=centred) == pytest.approx(1, rel=1e-12)
    if centred:
        shifted = a + abs(a).max() * np.add.outer(rng.standard_normal(n), np.zeros(n))
        shifted = (shifted + shifted.T) / 2
        assert alignment(shifted, b, centred=True) == pytest.approx(found, rel=1e-7, abs=1e-10)


@given(st.booleans(), st.integers(0, 2**32 - 1))
def test_no_detour_is_shorter(centred, seed):
    rng = np.random.default_rng(seed)
    a, b, c = (gram(rng, 5, 2) for _ in range(3))
    distance = partial(kernel_distance, centred=centred)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12
    assert distance(a, b) == distance(b, a) and distance(a, a) == 0


def test_a_small_distance_keeps_its_digits():
    """Where one less the alignment is 0: two directions at a right angle."""
    for angle in (1e-3, 1e-9, 1e-12):
        turned = np.diag([np.cos(angle), np.sin(angle)])
        assert kernel_distance(np.diag([1.0, 0.0]), turned) == pytest.approx(angle, rel=1e-9)


def test_float32_and_jax_arrays_pass(rng):
    a, b = gram(rng), gram(rng)
    expected = alignment(a, b)
    for cast in (lambda k: k.astype(np.float32), jnp.asarray, lambda k: jnp.asarray(k, "float32")):
        assert alignment(cast(a), cast(b)) == pytest.approx(expected, rel=1e-6)
        assert isinstance(alignment(cast(a), cast(b)), float)


@pytest.mark.parametrize("ask", [alignment, kernel_distance])
@pytest.mark.parametrize(
    "a, b, centred, words",
    [
        (np.eye(3), np.eye(2), False, r"a has shape \(3, 3\) and b \(2, 2\); expected the same points"),
        (np.ones((2, 3)), np.ones((2, 3)), False, r"a has shape \(2, 3\); expected \(n, n\)"),
        (np.ones(3), np.ones(3), False, r"a has shape \(3,\)"),
        (np.eye(3), np.full((3, 3), np.nan), False, "b holds 9 values"),
        (np.eye(3), np.triu(np.ones((3, 3))), False, "b is not symmetric"),
        (np.zeros((3, 3)), np.eye(3), False, "a is zero to rounding"),
        (np.eye(3), np.ones((3, 3)), True, "b is constant to rounding"),
        (np.eye(3), np.full((3, 3), 0.1, np.float32), True, "b is constant to rounding"),
        (np.ones((1, 1)), np.ones((1, 1)), True, "a is constant to rounding"),
        ("abc", np.eye(3), False, r"a has shape \(\) and b|a is 'abc'"),
        (np.eye(2), np.array([["x", "y"], ["y", "x"]]), False, "b is array.*; expected an array of numbers"),
    ],
)
def test_bad_input_is_refused(ask, a, b, centred, words):
    with pytest.raises(ValueError, match=words):
        ask(a, b, centred=centred)


@pytest.mark.parametrize("ask", [alignment, kernel_distance])
def test_inside_jit_it_says_so(ask):
    with pytest.raises(ValueError, match="a has no values inside jit"):
        jax.jit(lambda a: ask(a, np.eye(3)))(jnp.eye(3))
