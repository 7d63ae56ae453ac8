"""Infinitely wide networks in scikit-learn: covariances for its Gaussian processes, and estimators.

The kernels are those of `ntk` and `nngp`, in float64 whatever JAX's settings are.
"""

from ntk_helpers.adapters.sklearn.estimators import NTKClassifier, NTKRegressor
from ntk_helpers.adapters.sklearn.kernels import NNGPKernel, NTKKernel

__all__ = ["NNGPKernel", "NTKClassifier", "NTKKernel", "NTKRegressor"]
