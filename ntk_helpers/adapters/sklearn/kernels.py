"""Kernels with hyperparameters, bounds and gradients, for scikit-learn's Gaussian processes to learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from ntk_helpers._lib.host import in_float64, numbers
from ntk_helpers.infinite import kernels
from ntk_helpers.networks import MLP, Activation

__all__ = ["NNGPKernel", "NTKKernel"]

Bounds = tuple[float, float] | str
BOUNDS = (1e-5, 1e5)  # scikit-learn's own


class _InfiniteKernel(Kernel):
    """What both kernels share; `_which` is the field of `Kernels`."""

    _which: str

    def __init__(
        self,
        depth: int = 3,
        activation: str | Activation = "relu",
        sigma_w2: float = 2.0,
        sigma_b2: float = 0.1,
        sigma_w2_bounds: Bounds = BOUNDS,
        sigma_b2_bounds: Bounds = BOUNDS,
    ):
        self.depth = depth
        self.activation = activation
        self.sigma_w2 = sigma_w2
        self.sigma_b2 = sigma_b2
        self.sigma_w2_bounds = sigma_w2_bounds
        self.sigma_b2_bounds = sigma_b2_bounds

    @property
    def hyperparameter_sigma_b2(self) -> Hyperparameter:
        return Hyperparameter("sigma_b2", "numeric", self.sigma_b2_bounds)

    @property
    def hyperparameter_sigma_w2(self) -> Hyperparameter:
        return Hyperparameter("sigma_w2", "numeric", self.sigma_w2_bounds)

    def __call__(
        self, X: ArrayLike, Y: ArrayLike | None = None, eval_gradient: bool = False
    ) -> Float[np.ndarray, "n m"] | tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n n theta"]]:
        """The kernel of the rows of `X` and `Y`, by default `X`, and its gradient in `theta`, the logarithms
        of the variances that are not fixed. Raises `ValueError` for a gradient with a `Y`, as scikit-learn's
        kernels do, and for what `ntk` refuses."""
        if eval_gradient and Y is not None:
            raise ValueError("Y is given with eval_gradient=True; expected a gradient of K(X, X) alone.")
        X, Y = _rows("X", X), None if Y is None else _rows("Y", Y)
        with in_float64():
            if not eval_gradient:
                return np.array(getattr(kernels(self._net(), X, Y), self._which))
            kernel, slopes = map(np.array, _with_slopes(self._net(), X, self._which))
        free = [not self.hyperparameter_sigma_b2.fixed, not self.hyperparameter_sigma_w2.fixed]
        return kernel, slopes[..., free]

    def diag(self, X: ArrayLike) -> Float[np.ndarray, " n"]:
        """The kernel of each row of `X` with itself."""
        with in_float64():
            return np.array(_diagonal(self._net(), _rows("X", X), self._which))

    def is_stationary(self) -> bool:
        """False: the kernel depends on lengths and angles, not on differences."""
        return False

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(depth={self.depth}, activation={self.activation!r}, "
            f"sigma_w2={self.sigma_w2:.3g}, sigma_b2={self.sigma_b2:.3g})"
        )

    def _net(self) -> MLP:
        return MLP(self.depth, 1, 1, self.activation, self.sigma_w2, self.sigma_b2)


class NTKKernel(_InfiniteKernel):
    r"""The tangent kernel of an infinitely wide `MLP`, as a covariance for scikit-learn's Gaussian processes.

    `depth` (3), `activation` (`"relu"`), `sigma_w2` (2.0) and `sigma_b2` (0.1) are those of `MLP` in the NTK
    parameterization. The variances are hyperparameters with `sigma_w2_bounds` and `sigma_b2_bounds`, which
    are (1e-5, 1e5) or `"fixed"`. Sums, products and powers with other kernels work, and as a
    function of two arrays it is a `kernel=` of `SVC` or `KernelRidge`. A ReLU network without bias has
    $\sigma_w^2$ as its scale alone: fix it beside a `ConstantKernel`. A `sigma_b2` of 0 stays 0, as its
    logarithm has no gradient there: fix it.

    A posterior with this kernel is not that of an ensemble of trained networks (Lee et al. 2019, sec. 2.4).

    >>> from sklearn.gaussian_process import GaussianProcessRegressor
    >>> x = np.linspace(-1, 1, 8)[:, None]
    >>> gp = GaussianProcessRegressor(NTKKernel(depth=2), alpha=1e-6).fit(x, x[:, 0] ** 2)
    >>> gp.kernel_.theta.shape  # log σ_b², log σ_w²: scikit-learn has the alphabet's order
    (2,)
    """

    _which = "ntk"


class NNGPKernel(_InfiniteKernel):
    r"""The covariance of an infinitely wide `MLP` at initialization, for scikit-learn's Gaussian processes.

    With it the posterior is that of the network under its prior (Lee et al. 2018). Arguments and uses are
    those of `NTKKernel`.

    >>> NNGPKernel(depth=1, sigma_w2=1.0, sigma_b2=0.5)(np.eye(2))  # σ_w² x·x'/d + σ_b²
    array([[1. , 0.5],
           [0.5, 1. ]])
    """

    _which = "nngp"


@partial(jax.jit, static_argnames="which")
def _with_slopes(net: MLP, x: Array, which: str) -> tuple[Array, Array]:
    """The kernel and its derivatives in the logarithms of σ_b² and σ_w², which are 0 at a variance of 0."""

    def of(factors):
        scaled = MLP(net.depth, 1, 1, net.activation, net.sigma_w2 * factors[1], net.sigma_b2 * factors[0])
        kernel = getattr(kernels(scaled, x), which)
        return kernel, kernel

    slopes, kernel = jax.jacfwd(of, has_aux=True)(jnp.ones(2))
    return kernel, slopes


@partial(jax.jit, static_argnames="which")
def _diagonal(net: MLP, x: Array, which: str) -> Array:
    return jax.vmap(lambda point: getattr(kernels(net, point[None]), which)[0, 0])(x)


def _rows(name: str, x: ArrayLike) -> np.ndarray:
    return numbers(name, np.atleast_2d(x), (None, None))
