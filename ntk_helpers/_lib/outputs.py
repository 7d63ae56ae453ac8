"""One rule for the axis of outputs: targets (n,) are one output, and the results have no such axis either."""

import numpy as np

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_numbers

__all__ = ["columns", "like"]


def columns(name: str, values, shape: tuple = (None, None)) -> np.ndarray:
    """Values (n,) or (n, o) as finite float64 (n, o); `shape` as for `numbers`."""
    found = check_numbers(name, values, np.asarray)
    return numbers(name, found[:, None] if found.ndim == 1 and shape[1] in (None, 1) else values, shape)


def like(y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Outputs (..., o), without their last axis where the targets came without it."""
    return outputs[..., 0] if y.ndim == 1 else outputs
