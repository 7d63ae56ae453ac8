"""Diagnostics: does a network do what a theory of wide networks says of it?

They train networks, which needs optax and equinox, so none of them is at the top of the package.
"""

from ntk_helpers.trust.coordinates import CoordinateCheck, coordinate_check

__all__ = ["CoordinateCheck", "coordinate_check"]
