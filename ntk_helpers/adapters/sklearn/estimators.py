"""Kernel regression by infinitely wide networks as scikit-learn's estimators: no descent, and the ridge by
leaving one out."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ntk_helpers.adapters.sklearn.kernels import NTKKernel
from ntk_helpers.learning import LeastSquares, kernel_regression
from ntk_helpers.networks import Activation

__all__ = ["NTKClassifier", "NTKRegressor"]

RIDGES = np.logspace(-8, 2, 41)  # of the mean of the kernel's diagonal, to choose from


class _Machine(BaseEstimator):
    """Kernel regression with a tangent kernel; a subclass makes targets of labels."""

    def __init__(
        self,
        depth: int = 3,
        activation: str | Activation = "relu",
        sigma_w2: float = 2.0,
        sigma_b2: float = 0.1,
        ridge: float | Sequence[float] | None = None,
    ):
        self.depth = depth
        self.activation = activation
        self.sigma_w2 = sigma_w2
        self.sigma_b2 = sigma_b2
        self.ridge = ridge

    def _fit(self, X: np.ndarray, targets: Float[np.ndarray, "n o"]) -> LeastSquares:
        self.X_fit_ = X
        self.intercept_ = targets.mean(0)
        kernel = self._kernel()(X)
        fit = kernel_regression(kernel, targets - self.intercept_)
        ridges = kernel.diagonal().mean() * RIDGES if self.ridge is None else np.atleast_1d(self.ridge)
        self.ridge_ = float(ridges[0]) if len(ridges) == 1 else fit.best_ridge(ridges)
        self.dual_coef_ = fit.coefficients(self.ridge_)
        return fit

    def _outputs(self, X: ArrayLike) -> tuple[np.ndarray, Float[np.ndarray, "n o"], Float[np.ndarray, "n m"]]:
        """The checked inputs, the outputs there, and the kernel with the training points."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        cross = self._kernel()(X, self.X_fit_)
        return X, cross @ self.dual_coef_ + self.intercept_, cross

    def _kernel(self) -> NTKKernel:
        return NTKKernel(self.depth, self.activation, self.sigma_w2, self.sigma_b2)


class NTKRegressor(MultiOutputMixin, RegressorMixin, _Machine):
    r"""Regression by the infinitely wide network, as an estimator.

    $f(x) = \bar y + \Theta(x, X)(\Theta + \rho I)^{-1}(y - \bar y)$ is the mean of infinitely wide networks
    trained to the end, with a ridge (Jacot et al. 2018, sec. 5). `depth` (3), `activation` (`"relu"`),
    `sigma_w2` (2.0) and `sigma_b2` (0.1) are those of `MLP`. `ridge` $\rho$ is a number, several to choose
    from by the error of leaving one point out, or `None` for 41 from $10^{-8}$ to 100 times the mean of the
    kernel's diagonal. Inputs want a common scale: put a `StandardScaler` before. Targets may be (n,) or
    (n, o).

    `predict(X, return_std=True)` returns also the deviation of the Gaussian process whose covariance is
    $a\Theta$ and whose noise is $a\rho$, without that noise. The scale
    $a = \frac1n (y - \bar y)^\top(\Theta + \rho I)^{-1}(y - \bar y)$ makes the labels likeliest, one for each
    output; it is `amplitude_`.

    After `fit`: `ridge_`, `dual_coef_` (n, o), `intercept_` (o,), `amplitude_` (o,), `X_fit_`. Fitting
    decomposes an n × n matrix. Raises `ValueError` for what scikit-learn's estimators and `MLP` refuse, and
    for a negative ridge.

    >>> x = np.linspace(-1, 1, 20)[:, None]
    >>> model = NTKRegressor(depth=2, activation="erf").fit(x, np.sin(3 * x[:, 0]))
    >>> bool(abs(model.predict([[0.5]])[0] - np.sin(1.5)) < 0.01)
    True
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to inputs (n, d) and targets (n,) or (n, o)."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        targets = np.asarray(y, np.float64).reshape(len(X), -1)
        fit = self._fit(X, targets)
        self.amplitude_ = (self.dual_coef_ * (targets - self.intercept_)).mean(0)
        self._modes = fit.vectors, 1 / (fit.eigenvalues + self.ridge_)
        self._single = y.ndim == 1
        return self

    def predict(self, X: ArrayLike, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Outputs at `X`, (m,) or (m, o), and with `return_std` their deviations, of the same shape."""
        X, outputs, cross = self._outputs(X)
        shaped = (lambda found: found[:, 0]) if self._single else (lambda found: found)
        if not return_std:
            return shaped(outputs)
        vectors, inverse = self._modes
        left = self._kernel().diag(X) - (cross @ vectors) ** 2 @ inverse
        variance = np.clip(left, 0, None)[:, None] * self.amplitude_
        return shaped(outputs), shaped(np.sqrt(variance))


class NTKClassifier(ClassifierMixin, _Machine):
    r"""Classification by the infinitely wide network, trained on the squares of one output for each class.

    Targets are 1 for a point's class and -1 for the others, less their mean; with two classes there is one
    output, of the second. `predict` takes the largest output. It is `NTKRegressor` on these targets, with the
    same arguments, ridge and attributes, and has no probabilities: outputs are not calibrated. (For those,
    `GaussianProcessClassifier(NNGPKernel())`.)

    Raises `ValueError` as `NTKRegressor` does, and for a single class.

    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> NTKClassifier().fit(x, x[:, 0] * x[:, 1] > 0).predict([[1.0, 1.0], [1.0, -1.0]])
    array([ True, False])
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to inputs (n, d) and labels (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self._labels = LabelBinarizer(neg_label=-1).fit(y)
        self.classes_ = self._labels.classes_
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_[0]!r}; expected two or more.")
        self._fit(X, self._labels.transform(y).astype(np.float64))
        return self

    def decision_function(self, X: ArrayLike) -> Float[np.ndarray, " m"] | Float[np.ndarray, "m classes"]:
        """The outputs at `X`; with two classes those of the second, (m,)."""
        _, outputs, _ = self._outputs(X)
        return outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The class of the largest output."""
        outputs = self.decision_function(X)
        return self.classes_[(outputs > 0).astype(int) if outputs.ndim == 1 else outputs.argmax(1)]
