"""Gradient flow on any loss at the edges: many outputs, stiff and unbounded losses, losses whose gradient
jumps."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from scipy.integrate import solve_ivp
from scipy.optimize import lsq_linear

from ntk_helpers import kernel_dynamics, kernel_flow

N = 6
SIGNS = np.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])


def kernel(n, seed=0, rank=None):
    features = np.random.default_rng(seed).normal(size=(n, rank or 2 * n))
    return features @ features.T / n


def cross_entropy(y):
    return lambda f: -(y * jax.nn.log_softmax(f)).sum() / len(y)


def hinge(f):
    return jax.nn.relu(1 - SIGNS * f).mean()


def close(a, b, atol):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("labels", ["learnable", "conflicting"])
def test_a_thousand_outputs_need_no_matrix_of_their_size(labels):
    """100 points of ten classes, whose Hessian has 8 MB; conflicting labels of equal points make it stiff."""
    n, rng = 100, np.random.default_rng(1)
    theta = kernel(n) if labels == "learnable" else np.tile(kernel(n // 2, rank=5), (2, 2))
    y = np.eye(10)[np.arange(n) % 10 if labels == "learnable" else rng.integers(0, 10, n)]
    f0, t = np.zeros((n, 10)), [1.0, 100.0]
    kernel_flow(theta, cross_entropy(y), t, f0)
    tracemalloc.start()
    found = kernel_flow(theta, cross_entropy(y), t, f0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    softmax = lambda f: np.exp(f) / np.exp(f).sum(1, keepdims=True)
    right = lambda _, f: -(theta @ (softmax(f.reshape(n, 10)) - y) / n).ravel()
    expected = solve_ivp(right, (0, 100), f0.ravel(), "DOP853", t, rtol=1e-10, atol=1e-12).y.T
    close(found.reshape(2, -1), expected, 1e-6)
    assert peak < 4e6


def test_targets_that_a_kernel_cannot_learn_do_not_hold_up_the_rest():
    """To t = 1e8 the weights of conflicting points would grow without end; the outputs have a limit."""
    theta, y = np.ones((2, 2)), np.eye(2)
    found = kernel_flow(theta, cross_entropy(y), [1.0, 1e8], np.array([[1.0, 0.0], [1.0, 0.0]]))
    close(found[1], np.full((2, 2), 0.5), 1e-7)


def test_a_stiff_flow_is_that_of_the_closed_form():
    """Eigenvalues over ten orders of magnitude."""
    theta, y = np.diag(np.logspace(-6, 4, N)), np.arange(1.0, N + 1)
    t = [1e-4, 1.0, 1e5]
    found = kernel_flow(theta, lambda f: ((f - y) ** 2).sum() / 2, t, 0 * y)
    close(found, kernel_dynamics(theta, y, loss="sum_half").train(t, 0 * y), 1e-6)


def proximal(theta, signs, f, end, steps):
    """Implicit Euler steps of the hinge's subgradient flow: the slopes solve a least-squares problem in a
    box."""
    n, h = len(f), end / steps
    root = np.linalg.cholesky(np.outer(signs, signs) * theta).T
    for _ in range(steps):
        right = np.linalg.solve(root.T, 1 - signs * f) / h**0.5
        slopes = lsq_linear(h**0.5 * root, right, (0, 1 / n), tol=1e-12).x
        f = f + h * theta @ (signs * slopes)
    return f


@pytest.mark.parametrize("end", [0.1, 3.0, 20.0])
def test_a_hinge_is_the_limit_of_proximal_steps(end):
    """Support vectors slide along the margin, where the gradient is set-valued."""
    theta, f0 = kernel(N) + 0.5, np.zeros(N)
    expected = proximal(theta, SIGNS, f0, end, 400)
    found = kernel_flow(theta, hinge, [end], f0, rtol=1e-6)[0]
    close(found, expected, 0.02 if end > 1 else 1e-3)
    assert end < 20 or (SIGNS * found > 1 - 0.02).all()


def test_a_kink_is_passed_with_the_smooth_method_s_digits():
    """|f| falls to its kink with slope 1 and stays there; 1.5 is far from it, 0.5 has arrived."""
    found = kernel_flow(np.eye(2), lambda f: jnp.abs(f).sum(), [0.25, 2.0], np.array([1.5, 0.5]))
    close(found[0], [1.25, 0.25], 1e-8)
    close(found[1], [0.0, 0.0], 1e-3)


def test_test_points_follow_a_hinge_too():
    theta = kernel(N + 2) + 0.5
    train, test = kernel_flow(
        theta[:N, :N], hinge, [0.1, 5.0], np.zeros(N), theta[N:, :N], np.zeros(2), rtol=1e-6
    )
    weights = np.linalg.solve(theta[:N, :N], train.T)
    close(test, (theta[N:, :N] @ weights).T, 1e-8)


def test_a_loss_without_a_bound_is_told_of():
    with pytest.raises(RuntimeError, match=r"the solver stopped after t = 0.01: "):
        kernel_flow(np.eye(2), lambda f: -(f**4).sum(), [0.01, 100.0], np.ones(2))


def test_functions_that_are_defined_anew_compile_once():
    run = lambda y: kernel_flow(kernel(4), cross_entropy(y), [1.0], np.zeros((4, 2)))
    run(np.eye(2)[[0, 1, 0, 1]])
    with compilations() as made:
        found = run(np.eye(2)[[1, 1, 0, 0]])
    assert made == []
    close(found, run(np.eye(2)[[0, 0, 1, 1]])[..., ::-1], 1e-8)
