"""Doors to other people's tools, which are imported where they are used.

Models of Flax and Equinox become `(apply, params)`, for everything that takes those. scikit-learn has a room
of its own.
"""

from ntk_helpers.adapters.models import from_equinox, from_linen, from_nnx

__all__ = ["from_equinox", "from_linen", "from_nnx"]
