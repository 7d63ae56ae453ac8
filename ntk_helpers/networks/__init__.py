"""Networks as one frozen description, of which all kernels are functions, and their activations."""

from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.mlp import MLP
from ntk_helpers.networks.numerical import quadrature
from ntk_helpers.networks.registry import activation_names, get_activation, register_activation

__all__ = ["MLP", "Activation", "activation_names", "get_activation", "quadrature", "register_activation"]
