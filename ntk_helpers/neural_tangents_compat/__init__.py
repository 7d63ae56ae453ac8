"""neural-tangents 0.6.5, unmodified, on current JAX and without TensorFlow.

    from ntk_helpers.neural_tangents_compat import nt, stax

neural-tangents (2023) imports names that JAX has since moved, and two of its four empirical-NTK methods read
JAX internals that are gone. This package lends the moved names, mends what reads the internals, and leaves
out `neural_tangents.experimental`, the only part that needs TensorFlow. Afterwards a plain `import
neural_tangents` works too. `PATCHES` lists all that was changed and why.
"""

from ntk_helpers.neural_tangents_compat._load import PATCHES, load

__all__ = ["PATCHES", "nt", "stax"]

nt = load()
"""The package `neural_tangents`."""
stax = nt.stax
"""Its layers, `neural_tangents.stax`. `ImportError` where neural-tangents is missing, or JAX is older than
those tested."""
