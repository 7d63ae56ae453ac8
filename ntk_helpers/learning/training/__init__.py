"""Training of real networks, to be compared with what kernels say of it. Needs optax and equinox."""

from ntk_helpers.learning.training.run import Run, train

__all__ = ["Run", "train"]
