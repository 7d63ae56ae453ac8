"""A file from which a training run goes on."""

import hashlib
import json
import os
import time
from pathlib import Path

import equinox
import jax
import numpy as np

__all__ = ["Checkpoint"]

SECONDS = 10.0


class Checkpoint:
    """A tree of arrays in a file, behind a line that says of which run; without a path nothing is kept."""

    def __init__(self, path, about: list, arrays):
        if not isinstance(path, str | os.PathLike | None):
            raise ValueError(f"checkpoint is {path!r}; expected the path of a file.")
        self.path = None if path is None else Path(path)
        if self.path is not None and (self.path.is_dir() or not self.path.parent.is_dir()):
            raise ValueError(f"checkpoint is {str(path)!r}; expected a file in a folder that exists.")
        digest = hashlib.sha256(json.dumps(about).encode())
        for leaf in jax.tree.leaves(arrays) if self.path else ():
            leaf = np.asarray(
                jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
            )
            digest.update(f"{leaf.shape} {leaf.dtype}".encode() + leaf.tobytes())
        self.header = json.dumps({"run": digest.hexdigest()}) + "\n"
        self.saved = time.monotonic()

    def load(self, like):
        """What was saved last, or `like` where nothing was; `ValueError` for the file of another run."""
        if self.path is None or not self.path.exists():
            return like
        with open(self.path, "rb") as file:
            if file.readline().decode(errors="replace") != self.header:
                raise ValueError(
                    f"{self.path} is not a checkpoint of this run; "
                    "expected the same arguments, or another path."
                )
            return equinox.tree_deserialise_leaves(file, like)

    def save(self, tree, last: bool) -> None:
        """Replace the file, in one step; at most every ten seconds unless it is the `last` time."""
        if self.path is None or (not last and time.monotonic() - self.saved < SECONDS):
            return
        new = self.path.with_name(self.path.name + ".new")
        with open(new, "wb") as file:
            file.write(self.header.encode())
            equinox.tree_serialise_leaves(file, tree)
        os.replace(new, self.path)
        self.saved = time.monotonic()
