"""What a kernel says of training: linear models, regression, Gaussian processes, dynamics in closed form.

Training itself, which needs optax, is behind a door of its own: `ntk_helpers.learning.training`.
"""

from ntk_helpers.learning.alignment import alignment, kernel_distance
from ntk_helpers.learning.conventions import (
    critical_learning_rate,
    loss_scale,
    max_learning_rate,
    steps_to_time,
)
from ntk_helpers.learning.dynamics import KernelDynamics, kernel_dynamics
from ntk_helpers.learning.expansion import linearize, taylor
from ntk_helpers.learning.flow import kernel_flow
from ntk_helpers.learning.gp import gp_log_likelihood, gp_posterior, loo_error
from ntk_helpers.learning.nystrom import kernel_solve, leverage_landmarks, nystrom_features
from ntk_helpers.learning.posterior import Posterior
from ntk_helpers.learning.regression import (
    LeastSquares,
    kernel_regression,
    least_squares,
    random_features,
    tangent_features,
)

__all__ = [
    "KernelDynamics",
    "LeastSquares",
    "Posterior",
    "alignment",
    "critical_learning_rate",
    "gp_log_likelihood",
    "gp_posterior",
    "kernel_distance",
    "kernel_dynamics",
    "kernel_flow",
    "kernel_regression",
    "kernel_solve",
    "least_squares",
    "leverage_landmarks",
    "linearize",
    "loo_error",
    "loss_scale",
    "max_learning_rate",
    "nystrom_features",
    "random_features",
    "steps_to_time",
    "tangent_features",
    "taylor",
]
