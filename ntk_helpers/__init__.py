"""Neural tangent kernels, infinite and finite, fast and checked: the package behind The NTK Book.

These are the names of everyday use, by room; each room has more (`from ntk_helpers.theory import
linear_risk`).
"""

from ntk_helpers.finite import empirical_ntk, empirical_ntk_cost, ntk_moments, sample_ntk
from ntk_helpers.infinite import kernels, nngp, ntk
from ntk_helpers.learning import (
    gp_log_likelihood,
    gp_posterior,
    kernel_dynamics,
    kernel_flow,
    kernel_regression,
    least_squares,
    linearize,
    loss_scale,
    max_learning_rate,
    taylor,
)
from ntk_helpers.networks import MLP, Activation
from ntk_helpers.scale import tiled
from ntk_helpers.theory import critical_sigma_w2, fixed_point, phase, propagate

__all__ = [
    # networks
    "MLP",
    "Activation",
    # infinite
    "kernels",
    "nngp",
    "ntk",
    # finite
    "empirical_ntk",
    "empirical_ntk_cost",
    "ntk_moments",
    "sample_ntk",
    # scale
    "tiled",
    # learning
    "gp_log_likelihood",
    "gp_posterior",
    "kernel_dynamics",
    "kernel_flow",
    "kernel_regression",
    "least_squares",
    "linearize",
    "loss_scale",
    "max_learning_rate",
    "taylor",
    # theory
    "critical_sigma_w2",
    "fixed_point",
    "phase",
    "propagate",
]
__version__ = "0.1.0"
