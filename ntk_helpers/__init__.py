"""Neural tangent kernels, infinite and finite, fast and checked: the package behind The NTK Book."""

from ntk_helpers.activations import Activation, activation_names, get_activation, quadrature, register_activation
from ntk_helpers.book import check
from ntk_helpers.conventions import critical_learning_rate, loss_scale, max_learning_rate, steps_to_time
from ntk_helpers.dynamics import KernelDynamics, kernel_dynamics, kernel_flow
from ntk_helpers.empirical import NTKCost, empirical_ntk, empirical_ntk_cost
from ntk_helpers.gp import Posterior, gp_log_likelihood, gp_posterior
from ntk_helpers.infinite import nngp, ntk
from ntk_helpers.linearize import linearize, taylor
from ntk_helpers.meanfield import FixedPoint, Layers, Phase, critical_sigma_w2, fixed_point, phase, propagate, trainable_depth
from ntk_helpers.mlp import MLP
from ntk_helpers.moments import NTKMoments, ntk_moments
from ntk_helpers.regression import LeastSquares, kernel_regression, least_squares, random_features, tangent_features
from ntk_helpers.risk import (
    Risk, descent_risk, hermite_parts, linear_risk, optimal_ridge, random_features_risk, ridgeless_risk, weak_features_risk,
)  # fmt: skip
from ntk_helpers.sampling import NTKSamples, sample_ntk
from ntk_helpers.tiling import tiled

__all__ = [
    "MLP",
    "Activation",
    "FixedPoint",
    "KernelDynamics",
    "Layers",
    "LeastSquares",
    "NTKCost",
    "NTKMoments",
    "NTKSamples",
    "Phase",
    "Posterior",
    "Risk",
    "activation_names",
    "check",
    "critical_learning_rate",
    "critical_sigma_w2",
    "descent_risk",
    "empirical_ntk",
    "empirical_ntk_cost",
    "fixed_point",
    "get_activation",
    "gp_log_likelihood",
    "gp_posterior",
    "hermite_parts",
    "kernel_dynamics",
    "kernel_flow",
    "kernel_regression",
    "least_squares",
    "linear_risk",
    "linearize",
    "loss_scale",
    "max_learning_rate",
    "nngp",
    "ntk",
    "ntk_moments",
    "optimal_ridge",
    "phase",
    "propagate",
    "quadrature",
    "random_features",
    "random_features_risk",
    "register_activation",
    "ridgeless_risk",
    "sample_ntk",
    "steps_to_time",
    "tangent_features",
    "taylor",
    "tiled",
    "trainable_depth",
    "weak_features_risk",
]
__version__ = "0.1.0"
