r"""Least squares on features or on a kernel, with ridge or none, and features to do it with.

Everything here is float64 on the host, from one singular value decomposition, so that the interpolation
threshold, where the smallest singular value nearly vanishes, is met with all digits there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import (
    check_batch,
    check_choice,
    check_finite,
    check_key,
    check_numbers,
    check_params,
    check_size,
    traced,
)
from ntk_helpers._lib.outputs import columns, like
from ntk_helpers._lib.spectrum import check_values, modes, precision
from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.mlp import MLP, as_apply
from ntk_helpers.networks.registry import get_activation

__all__ = ["LeastSquares", "kernel_regression", "least_squares", "random_features", "tangent_features"]


@dataclass(frozen=True, eq=False)
class LeastSquares:
    r"""What `least_squares` and `kernel_regression` return: solutions for any ridge from one decomposition.

    With eigenvalues $\lambda_k$ of the Gram matrix $F F^\top$, or of the kernel, the solution for a `ridge`
    $\rho$ has $1/(\lambda_k + \rho)$ in mode k. Modes whose $\lambda_k$ is zero to rounding are left out at
    every ridge (without one this is the solution of least norm). Ridges are a number, or an array whose
    shape, `...` below, comes first in the results. For targets (n,) results have no axis o of outputs.

    >>> fit = least_squares(np.array([[1.0], [2.0]]), np.array([1.0, 2.0]))
    >>> fit.rank, fit.coefficients([0.0, 5.0])
    (1, array([[1. ],
           [0.5]]))
    """

    eigenvalues: Float[np.ndarray, " k"]
    """Ascending; those of modes that are left out are not here."""
    basis: Float[np.ndarray, "p k"]
    targets: Float[np.ndarray, "k o"] | Float[np.ndarray, " k"]
    """In the coordinates of the modes."""
    vectors: Float[np.ndarray, "n k"]
    """The modes at the training points, orthonormal."""
    rest: Float[np.ndarray, "n o"] | Float[np.ndarray, " n"]
    """What of the targets is in no mode."""

    @property
    def rank(self) -> int:
        """How many modes there are."""
        return len(self.eigenvalues)

    @property
    def smallest_singular_value(self) -> float:
        r"""The least $\sqrt{\lambda_k}$ that is not zero to rounding: its inverse is what noise is multiplied
        by."""
        return float(np.sqrt(self.eigenvalues[0])) if self.rank else 0.0

    def coefficients(self, ridge=0.0) -> Float[np.ndarray, "... p o"]:
        r"""$w = F^\top (F F^\top + \rho I)^{-1} y$ of features, $\alpha = (K + \rho I)^{-1} y$ of a
        kernel."""
        return like(self.targets, self.basis @ self._modes(ridge))

    def predict(self, test: Float[ArrayLike, "m p"], ridge=0.0) -> Float[np.ndarray, "... m o"]:
        """The outputs at m points, given their features, or their kernel with the training points."""
        test = numbers("test", test, (None, len(self.basis)))
        return like(self.targets, (test @ self.basis) @ self._modes(ridge))

    def leverages(self, ridge=0.0) -> Float[np.ndarray, "... n"]:
        r"""How much each training point's own target enters its prediction, between 0 and 1: the diagonal of
        $K (K + \rho I)^{-1}$.

        Their sum is the effective dimension $\sum_k \lambda_k/(\lambda_k + \rho)$ (Hastie, Tibshirani &
        Friedman 2009, sec. 3.4.1). Raises `ValueError` for a negative ridge.

        >>> kernel_regression(np.diag([1.0, 4.0]), np.ones(2)).leverages(ridge=1.0)
        array([0.5, 0.8])
        """
        return (self.eigenvalues / self._shifted(ridge)) @ self.vectors.T**2

    def leave_one_out(self, ridge=0.0) -> Float[np.ndarray, "... n o"]:
        r"""Each target less its prediction by a fit without that point, in closed form.

        $e_i = [C^{-1} y]_i / [C^{-1}]_{ii}$ with $C = K + \rho I$ (Rasmussen & Williams 2006, eq. 5.12),
        which is the residual over one less the leverage (Allen 1974). Without a ridge it is the limit
        $\rho \to 0$. Raises `ValueError` for a negative ridge.

        >>> kernel_regression(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, 3.0])).leave_one_out()
        array([-0.5,  2.5])
        """
        ridge, rest = _ridges(ridge)[..., None], _matrix(self.rest)
        outside = 1 - (self.vectors**2).sum(1)
        fitted = outside < 10 * len(outside) * np.finfo(float).eps  # points whose target the modes can fit
        outside, rest = np.where(fitted, 0.0, outside), np.where(fitted[:, None], 0.0, rest)
        scale = np.where(fitted, 1.0, ridge)  # which cancels there, even where it is 0
        errors = rest + scale[..., None] * (self.vectors @ self._modes(ridge[..., 0]))
        weights = outside + scale * ((1 / self._shifted(ridge[..., 0])) @ self.vectors.T**2)
        return like(self.rest, errors / weights[..., None])

    def log_likelihood(self, ridge) -> Float[np.ndarray, "..."]:
        r"""Log density of the targets, summed over outputs, under the Gaussian process of the kernel with the
        ridge as variance of the noise: `gp_log_likelihood` for all ridges at once.

        Raises `ValueError` for a negative ridge, and for one of 0 where modes were left out.

        >>> kernel_regression(np.eye(2), np.zeros(2)).log_likelihood([0.0, 1.0])  # -log 2π, -log 4π
        array([-1.83787707, -2.53102425])
        """
        ridge, (n, outputs) = _ridges(ridge), _matrix(self.rest).shape
        if self.rank < n and not ridge.all():
            raise ValueError(
                f"ridge is 0, and the kernel of {n} points has rank {self.rank}; expected a positive one."
            )
        squares = (_matrix(self.targets) ** 2).sum(1)
        shifted = self._shifted(ridge)
        fitted, determinant = (squares / shifted).sum(-1), np.log(shifted).sum(-1)
        if self.rank < n:
            fitted = fitted + (self.rest**2).sum() / ridge
            determinant = determinant + (n - self.rank) * np.log(ridge)
        return -(fitted + outputs * (determinant + n * np.log(2 * np.pi))) / 2

    def best_ridge(
        self, ridges: Sequence[float] | Float[ArrayLike, " r"], by: str = "leave_one_out"
    ) -> float:
        """The ridge with the least mean squared error of `leave_one_out`, or `by="log_likelihood"` with the
        largest.

        Raises `ValueError` for another `by`, and for ridges that the chosen method refuses.

        >>> fit = kernel_regression(np.full((3, 3), 0.9) + 0.1 * np.eye(3), np.array([1.0, 1.2, 0.8]))
        >>> fit.best_ridge([0.01, 0.1, 1.0])
        0.01
        """
        check_choice("by", by, ("leave_one_out", "log_likelihood"))
        ridges = _ridges(ridges).ravel()
        if by == "log_likelihood":
            return float(ridges[self.log_likelihood(ridges).argmax()])
        errors = self.leave_one_out(ridges).reshape(len(ridges), -1)
        return float(ridges[(errors**2).mean(1).argmin()])

    def _modes(self, ridge) -> Float[np.ndarray, "... k o"]:
        return _matrix(self.targets) / self._shifted(ridge)[..., None]

    def _shifted(self, ridge) -> Float[np.ndarray, "... k"]:
        ridge = _ridges(ridge)
        return self.eigenvalues + ridge[..., None]


def least_squares(
    features: Float[ArrayLike, "n p"], y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"]
) -> LeastSquares:
    r"""Least squares on `features` F: $\min_w \|F w - y\|^2 + \rho \|w\|^2$, for any ridge $\rho$.

    Without a ridge it is the limit $\rho \to 0$: the ordinary solution for $p < n$, and the interpolating one
    of least norm for $p > n$ (Hastie et al. 2022). At $p = n$ it is both, and its noise is multiplied by the
    inverse of the smallest singular value, about $1/\sqrt n$ for random features: finite in each sample,
    without a mean over samples. One decomposition, O(n p min(n, p)), serves all ridges.

    Raises:

    - `ValueError` for arrays that do not match or are not finite.

    >>> fit = least_squares(np.eye(3), np.arange(3.0))
    >>> fit.predict(np.ones((1, 3)), ridge=[0.0, 1.0])
    array([[3. ],
           [1.5]])
    """
    check_values("features", features)
    y, f = _targets(features, y), numbers("features", features, (None, None))
    u, s, vt = np.linalg.svd(f, full_matrices=False)
    keep = s > max(f.shape) * precision(features) * s.max(initial=0)
    u, s, vt = u[:, keep][:, ::-1], s[keep][::-1], vt[keep][::-1]
    return LeastSquares(s**2, vt.T * s, u.T @ y, u, y - u @ (u.T @ y))


def kernel_regression(
    k_train: Float[ArrayLike, "n n"], y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"]
) -> LeastSquares:
    r"""Kernel ridge regression: $f(x) = K(x, X) (K + \rho I)^{-1} y$, for any ridge $\rho$.

    Without a ridge it is the limit $\rho \to 0$. It is the same as `least_squares` on features whose Gram
    matrix is K, and the mean of `gp_posterior` with $\rho$ as noise. The result has no gradients, and cannot
    be computed inside `jit`; those of `gp_posterior` have and can.

    Raises:

    - `ValueError` for arrays that do not match or are not finite;
    - `ValueError` for a K that is not symmetric, or has an eigenvalue below 0 by more than rounding.

    >>> fit = kernel_regression(np.diag([1.0, 4.0]), np.array([2.0, 2.0]))
    >>> fit.coefficients(), fit.coefficients(ridge=1.0)
    (array([2. , 0.5]), array([1. , 0.4]))
    """
    y = _targets(k_train, y)
    values, vectors = modes("k_train", k_train)
    targets = vectors.T @ y
    return LeastSquares(values, vectors, targets, vectors, y - vectors @ targets)


def random_features(
    key: Array, dim: int, count: int, activation: str | Activation = "relu"
) -> Callable[[Array], Array]:
    r"""A map of points (n, d) to `count` random features $\phi(w_i^\top x / \sqrt{d})$ (Rahimi & Recht 2008).

    d is `dim`. The $w_i$ are uniform on the sphere of radius $\sqrt d$, as in Mei & Montanari (2022): for
    $\|x\| = \sqrt d$ the argument has variance 1. The first p columns are p random features.

    Raises:

    - `ValueError` for sizes below 1, an unknown activation, and what is no key;
    - `ValueError` from the map for points that are none, not finite, or of another dimension.

    >>> features = random_features(jax.random.key(0), dim=2, count=50, activation="tanh")
    >>> features(jnp.ones((3, 2))).shape
    (3, 50)
    """
    dim, count = check_size("dim", dim), check_size("count", count)
    check_key(key)
    phi = get_activation(activation).fn
    w = jax.random.normal(key, (count, dim), float)
    w = w / jnp.linalg.norm(w, axis=1, keepdims=True)

    def features(x):
        x = check_numbers("x", x)
        if x.ndim != 2 or x.shape[1] != dim or len(x) == 0:
            raise ValueError(f"x has shape {x.shape}; expected (n, {dim}), n at least 1.")
        check_finite("x", x)
        return phi(x @ w.T)

    return features


def tangent_features(
    f: MLP | Callable[[PyTree, Array], Array], params: PyTree, x: Float[ArrayLike, "n ..."]
) -> Float[Array, "n p"]:
    r"""The features of the tangent kernel: $\nabla_\theta f(x_i; \theta)$ as rows, so that
    $F F^\top = \Theta$ (Jacot et al. 2018, sec. 4).

    `f` is an `MLP` or any `apply(params, x)` with one output, (n, 1) or (n,). The order of the p parameters
    is that of `jax.flatten_util.ravel_pytree`. A `jax.tree_util.Partial` is compiled once for all its arrays.

    Raises:

    - `ValueError` for another number of outputs, and an `f` that fails;
    - `ValueError` for parameters that are not floating;
    - `ValueError` for points or parameters that are none or not finite.

    >>> tangent_features(lambda w, x: x @ w, jnp.ones(2), jnp.array([[3.0, 4.0]]))
    Array([[3., 4.]], dtype=float32)
    """
    f, x = as_apply(f), check_batch("x", x)
    check_params(params)
    outputs = traced("f", f, params, x)
    if getattr(outputs, "shape", None) not in ((len(x),), (len(x), 1)) or not jnp.issubdtype(
        outputs.dtype, jnp.floating
    ):
        raise ValueError(
            f"the outputs have shape {getattr(outputs, 'shape', outputs)}; "
            f"expected floating ones, ({len(x)}, 1)."
        )
    return _gradients(f, params, x)


@jax.jit
def _gradients(f, params, x):
    def row(point):
        return ravel_pytree(jax.grad(lambda p: f(p, point[None]).sum())(params))[0]

    return jax.vmap(row)(x)


def _targets(rows, y) -> np.ndarray:
    """The targets in the shape that they came in."""
    points = np.shape(rows)[:1]
    if len(columns("y", y)) not in points:
        raise ValueError(
            f"there are rows for {points} points, and y has shape {np.shape(y)}; expected as many."
        )
    return numbers("y", y)


def _matrix(y: np.ndarray) -> np.ndarray:
    """Targets in columns."""
    return y[:, None] if y.ndim == 1 else y


def _ridges(ridge) -> np.ndarray:
    ridge = np.asarray(numbers("ridge", ridge))
    if (ridge < 0).any():
        raise ValueError(f"ridge is {ridge.min()}; expected at least 0.")
    return ridge
