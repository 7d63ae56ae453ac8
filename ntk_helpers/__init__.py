"""Neural tangent kernels, infinite and finite, fast and checked: the package behind The NTK Book."""

from ntk_helpers.activations import Activation, activation_names, get_activation, quadrature, register_activation
from ntk_helpers.book import check
from ntk_helpers.conventions import critical_learning_rate, loss_scale, max_learning_rate, steps_to_time
from ntk_helpers.dynamics import KernelDynamics, kernel_dynamics, kernel_flow
from ntk_helpers.empirical import NTKCost, empirical_ntk, empirical_ntk_cost
from ntk_helpers.gp import Posterior, gp_log_likelihood, gp_posterior
from ntk_helpers.infinite import nngp, ntk
from ntk_helpers.linearize import linearize, taylor
from ntk_helpers.mlp import MLP
from ntk_helpers.sampling import NTKSamples, sample_ntk
from ntk_helpers.tiling import tiled

__all__ = [
    "MLP",
    "KernelDynamics",
    "NTKCost",
    "NTKSamples",
    "Posterior",
    "Activation",
    "activation_names",
    "check",
    "critical_learning_rate",
    "empirical_ntk",
    "empirical_ntk_cost",
    "get_activation",
    "gp_log_likelihood",
    "gp_posterior",
    "kernel_dynamics",
    "kernel_flow",
    "linearize",
    "loss_scale",
    "max_learning_rate",
    "nngp",
    "ntk",
    "quadrature",
    "register_activation",
    "sample_ntk",
    "steps_to_time",
    "taylor",
    "tiled",
]
__version__ = "0.1.0"
