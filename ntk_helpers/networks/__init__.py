"""Networks as one frozen description, of which all kernels are functions, and their activations."""

from ntk_helpers.networks.activations import (
    Activation,
    activation_names,
    get_activation,
    quadrature,
    register_activation,
)
from ntk_helpers.networks.mlp import MLP

__all__ = ["MLP", "Activation", "activation_names", "get_activation", "quadrature", "register_activation"]
