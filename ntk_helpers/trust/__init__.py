"""Diagnostics: does a network do what a theory of wide networks says of it, and is its kernel fit for use?

Some train networks, which needs optax and equinox, so none of them is at the top of the package.
"""

from ntk_helpers.trust.coordinates import CoordinateCheck, coordinate_check
from ntk_helpers.trust.health import KernelHealth, kernel_health

__all__ = ["CoordinateCheck", "KernelHealth", "coordinate_check", "kernel_health"]
