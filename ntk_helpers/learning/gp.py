"""Regression with a Gaussian process whose kernel matrices are given."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ntk_helpers._lib.inputs import check_finite, check_one_variance, check_real
from ntk_helpers.learning._spectrum import check_symmetric, rounding
from ntk_helpers.learning.posterior import Posterior

__all__ = ["gp_log_likelihood", "gp_posterior"]


def gp_posterior(
    k_train: Float[Array, "n n"],
    k_cross: Float[Array, "m n"],
    k_test: Float[Array, "m m"],
    y: Float[Array, "n o"],
    noise: float,
) -> Posterior:
    r"""Posterior of functions $f \sim GP(0, K)$ at m test points, given $y = f(X) + \epsilon$,
    $\epsilon \sim N(0, \sigma^2)$.

    $\mu = K_{*X} (K_{XX} + \sigma^2 I)^{-1} y$ and
    $\Sigma = K_{**} - K_{*X} (K_{XX} + \sigma^2 I)^{-1} K_{X*}$ (Rasmussen & Williams 2006, eqs. 2.23 and
    2.24), by Cholesky's factorization. `noise` is the variance $\sigma^2$; the covariance is of f, without
    it. The columns of `y` are independent outputs. Raises `ValueError` for arrays that do not match or are
    not finite, a `k_train` that is not symmetric, a negative `noise`, and a matrix $K_{XX} + \sigma^2 I$ that
    is not positive definite.
    """
    k_train, y = _checked(k_train, y, noise)
    k_cross, k_test = check_real("k_cross", k_cross), check_real("k_test", k_test)
    if (
        k_cross.ndim != 2
        or k_cross.shape[1] != len(y)
        or k_test.shape != 2 * k_cross.shape[:1]
        or k_cross.size == 0
    ):
        raise ValueError(
            f"k_cross is {k_cross.shape} and k_test {k_test.shape}; expected (m, {len(y)}) and (m, m)."
        )
    check_finite("k_cross", k_cross)
    check_finite("k_test", k_test)
    mean, covariance, root = _posterior(k_train, k_cross, k_test, y, noise)
    _check_factored(root, noise)
    return Posterior(mean, covariance)


def gp_log_likelihood(k_train: Float[Array, "n n"], y: Float[Array, "n o"], noise: float) -> Float[Array, ""]:
    r"""Log density of the observations, summed over outputs, to choose `noise` or a network by.

    $-\frac12 y^\top (K + \sigma^2 I)^{-1} y - \frac12 \log\det(K + \sigma^2 I) - \frac n2 \log 2\pi$ for each
    output (Rasmussen & Williams 2006, eq. 2.30). Raises as `gp_posterior`.
    """
    k_train, y = _checked(k_train, y, noise)
    value, root = _log_likelihood(k_train, y, noise)
    _check_factored(root, noise)
    return value


@jax.jit
def _posterior(k_train, k_cross, k_test, y, noise):
    root = _root(k_train, noise)
    half = solve_triangular(root, k_cross.T, lower=True)
    return k_cross @ cho_solve((root, True), y), k_test - half.T @ half, root


@jax.jit
def _log_likelihood(k_train, y, noise):
    root = _root(k_train, noise)
    half = solve_triangular(root, y, lower=True)
    constant = jnp.log(jnp.diagonal(root)).sum() + len(y) / 2 * jnp.log(2 * jnp.pi)
    return -(half**2).sum() / 2 - y.shape[1] * constant, root


def _root(k_train: Array, noise) -> Array:
    return jnp.linalg.cholesky(k_train + noise * jnp.eye(len(k_train), dtype=k_train.dtype))


def _checked(k_train, y, noise) -> tuple[Array, Array]:
    k_train, y = check_real("k_train", k_train), check_real("y", y)
    if (
        k_train.ndim != 2
        or k_train.shape[0] != k_train.shape[1]
        or y.ndim != 2
        or len(y) != len(k_train)
        or 0 in y.shape
    ):
        raise ValueError(f"k_train is {k_train.shape} and y {y.shape}; expected (n, n) and (n, outputs).")
    check_finite("k_train", k_train)
    if not isinstance(k_train, jax.core.Tracer):
        check_symmetric("k_train", k_train, rounding(k_train))
    check_finite("y", y)
    check_one_variance("noise", noise)
    return k_train, y


def _check_factored(root: Array, noise) -> None:
    if not isinstance(root, jax.core.Tracer) and not bool(jnp.isfinite(root).all()):
        raise ValueError(
            f"k_train + {noise} · I is not positive definite; expected distinct points, or a larger noise."
        )
