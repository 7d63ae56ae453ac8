"""Regression with a Gaussian process whose kernel matrices are given."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_helpers._lib.host import in_float64
from ntk_helpers._lib.inputs import check_finite, check_one_variance, check_real, is_traced
from ntk_helpers._lib.outputs import like
from ntk_helpers._lib.spectrum import check_symmetric, rounding
from ntk_helpers.learning.posterior import Posterior

__all__ = ["gp_log_likelihood", "gp_posterior", "loo_error"]


def gp_posterior(
    k_train: Float[ArrayLike, "n n"],
    k_cross: Float[ArrayLike, "m n"],
    k_test: Float[ArrayLike, "m m"],
    y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"],
    noise: float,
) -> Posterior:
    r"""Posterior of functions $f \sim GP(0, K)$ at m test points, given $y = f(X) + \epsilon$,
    $\epsilon \sim N(0, \sigma^2)$.

    $\mu = K_{*X} (K_{XX} + \sigma^2 I)^{-1} y$ and
    $\Sigma = K_{**} - K_{*X} (K_{XX} + \sigma^2 I)^{-1} K_{X*}$ (Rasmussen & Williams 2006, eqs. 2.23 and
    2.24), by Cholesky's factorization. `noise` is the variance $\sigma^2$; the covariance is of f, without
    it. The columns of `y` are independent outputs; for `y` (n,) the mean is (m,).

    It passes through `jit`, `grad` and `vmap`. NumPy arrays give NumPy arrays, in their own precision
    whatever JAX's setting is. Half precision is computed, and returned, in float32.

    Raises:

    - `ValueError` for arrays that do not match or are not finite;
    - `ValueError` for a `k_train` that is not symmetric, and a negative `noise`;
    - `ValueError` for a matrix $K_{XX} + \sigma^2 I$ that is not positive definite.

    >>> mean, covariance = gp_posterior(np.eye(2), np.array([[1.0, 0.0]]), np.eye(1), np.ones(2), noise=1.0)
    >>> mean, covariance
    (array([0.5]), array([[0.5]]))
    """
    return _on_its_side(_checked_posterior, k_train, k_cross, k_test, y, noise)


def gp_log_likelihood(
    k_train: Float[ArrayLike, "n n"], y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"], noise: float
) -> Float[Array, ""]:
    r"""Log density of the observations, summed over outputs, to choose `noise` or a network by.

    $-\frac12 y^\top (K + \sigma^2 I)^{-1} y - \frac12 \log\det(K + \sigma^2 I) - \frac n2 \log 2\pi$ for each
    output (Rasmussen & Williams 2006, eq. 2.30). It takes and returns arrays as `gp_posterior` does, and
    raises the same errors.

    >>> float(gp_log_likelihood(np.eye(2), np.zeros(2), noise=0.0))  # -log 2π
    -1.8378770664093453
    """
    return _on_its_side(_checked_likelihood, k_train, y, noise)


def loo_error(
    k_train: Float[ArrayLike, "n n"], y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"], ridge: float
) -> Float[Array, ""]:
    r"""Mean squared error of leaving one point out, over points and outputs, to learn a kernel by.

    $\frac1n\sum_i e_i^2$ with $e_i = [C^{-1} y]_i / [C^{-1}]_{ii}$ and $C = K + \rho I$ (Rasmussen &
    Williams 2006, eq. 5.12): n fits from one factorization. Its gradient passes through a kernel to the
    variances of an `MLP`. For many ridges of one kernel `LeastSquares.leave_one_out` is faster. It takes and
    returns arrays as `gp_posterior` does, and raises the same errors, of `ridge` in place of `noise`.

    >>> x, y = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), jnp.array([1.0, 0.0, 1.0])
    >>> error = lambda sigma_w2: loo_error(ntk(MLP(3, 1, sigma_w2=sigma_w2), x), y, ridge=0.1)
    >>> bool(jax.grad(error)(2.0) > 0)  # smaller weights would help
    True
    """
    return _on_its_side(_checked_loo, k_train, y, ridge)


def _on_its_side(compute: Callable, *arguments):
    """NumPy in, NumPy out, in the arrays' own precision; otherwise in JAX."""
    host = not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arguments))
    if not host:
        return compute(*arguments)
    with in_float64(), jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, compute(*arguments))


def _checked_posterior(k_train, k_cross, k_test, y, noise) -> Posterior:
    k_train, y = _checked(k_train, y, noise)
    k_cross, k_test = check_real("k_cross", k_cross), check_real("k_test", k_test)
    fits = k_cross.ndim == 2 and k_cross.shape[1] == len(y) and k_test.shape == 2 * k_cross.shape[:1]
    if not fits or k_cross.size == 0:
        raise ValueError(
            f"k_cross is {k_cross.shape} and k_test {k_test.shape}; expected (m, {len(y)}) and (m, m)."
        )
    check_finite("k_cross", k_cross)
    check_finite("k_test", k_test)
    mean, covariance, root = _posterior(*map(_single_at_least, (k_train, k_cross, k_test, y)), noise)
    _check_factored(root, noise, k_train.dtype)
    return Posterior(like(y, mean), covariance)


def _checked_likelihood(k_train, y, noise) -> Array:
    k_train, y = _checked(k_train, y, noise)
    value, root = _log_likelihood(*map(_single_at_least, (k_train, y)), noise)
    _check_factored(root, noise, k_train.dtype)
    return value


def _checked_loo(k_train, y, ridge) -> Array:
    k_train, y = _checked(k_train, y, ridge, "ridge")
    value, root = _loo(*map(_single_at_least, (k_train, y)), ridge)
    _check_factored(root, ridge, k_train.dtype)
    return value


@jax.jit
def _posterior(k_train, k_cross, k_test, y, noise):
    root = _root(k_train, noise)
    half = solve_triangular(root, k_cross.T, lower=True)
    return k_cross @ cho_solve((root, True), y.reshape(len(y), -1)), k_test - half.T @ half, root


@jax.jit
def _log_likelihood(k_train, y, noise):
    root = _root(k_train, noise)
    half = solve_triangular(root, y.reshape(len(y), -1), lower=True)
    constant = jnp.log(jnp.diagonal(root)).sum() + len(y) / 2 * jnp.log(2 * jnp.pi)
    return -(half**2).sum() / 2 - half.shape[1] * constant, root


@jax.jit
def _loo(k_train, y, ridge):
    root = _root(k_train, ridge)
    inverse = solve_triangular(root, jnp.eye(len(root), dtype=root.dtype), lower=True)
    errors = cho_solve((root, True), y.reshape(len(y), -1)) / (inverse**2).sum(0)[:, None]
    return (errors**2).mean(), root


def _root(k_train: Array, noise) -> Array:
    return jnp.linalg.cholesky(k_train + noise * jnp.eye(len(k_train), dtype=k_train.dtype))


def _single_at_least(x: Array) -> Array:
    """Half precision as float32: no Cholesky factorization has it."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _checked(k_train, y, noise, name="noise") -> tuple[Array, Array]:
    k_train, y = check_real("k_train", k_train), check_real("y", y)
    square = k_train.ndim == 2 and k_train.shape[0] == k_train.shape[1]
    if not square or y.ndim not in (1, 2) or len(y) != len(k_train) or 0 in y.shape:
        raise ValueError(
            f"k_train is {k_train.shape} and y {y.shape}; expected (n, n) and (n, outputs) or (n,)."
        )
    check_finite("k_train", k_train)
    if not is_traced(k_train):
        check_symmetric("k_train", np.asarray(k_train).astype(np.float64), rounding(k_train))
    check_finite("y", y)
    check_one_variance(name, noise)
    return k_train, y


def _check_factored(root: Array, noise, dtype) -> None:
    if not is_traced(root) and not bool(jnp.isfinite(root).all()):
        raise ValueError(
            f"k_train + {noise} · I is not positive definite, with a k_train in {dtype}; expected distinct "
            "points, a larger noise, or more digits."
        )
