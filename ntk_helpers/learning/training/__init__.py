"""Training of real networks, to be compared with what kernels say of it. Needs optax and equinox."""

from ntk_helpers.learning.training.rates import scale_by_parameterization
from ntk_helpers.learning.training.run import Run, train

__all__ = ["Run", "scale_by_parameterization", "train"]
