"""The arguments of `train`: checked before anything is compiled."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ntk_helpers._lib.inputs import check_choice, check_key, check_params, check_size, traced
from ntk_helpers.learning.conventions import LOSSES
from ntk_helpers.learning.training._descent import value_of

__all__ = ["check_loss", "check_observers", "check_start", "check_stop", "check_targets", "recorded", "sizes"]


def recorded(at, steps: int) -> np.ndarray:
    """The steps after which to record, in order."""
    try:
        found = np.asarray([0, steps] if at is None else list(at))
    except (TypeError, ValueError):
        found = np.zeros(0)
    whole = found.ndim == 1 and found.size and found.dtype.kind in "iu"
    if not whole or found.min() < 0 or found.max() > steps:
        raise ValueError(
            f"at is {at!r}; expected whole numbers from 0 to {steps}, the steps after which to record."
        )
    return np.unique(found)


def sizes(batch_size, key, n: int) -> tuple[int, Array]:
    """The number of points in a batch, and the key that draws them."""
    size = n if batch_size is None else check_size("batch_size", batch_size)
    if size > n:
        raise ValueError(f"batch_size is {size}, and there are {n} points; expected no more than that.")
    if batch_size is not None:
        check_key(key)
    elif key is not None:
        raise ValueError(
            "key is given without batch_size; expected both, or neither for all points in every step."
        )
    return size, jax.random.key(0) if key is None else key


def check_start(params: PyTree, ensemble: bool) -> PyTree:
    """Parameters with members on their first axis."""
    check_params(params)
    start = jax.tree.map(jnp.asarray if ensemble else lambda leaf: jnp.asarray(leaf)[None], params)
    axes = {leaf.shape[:1] for leaf in jax.tree.leaves(start)}
    if len(axes) != 1 or axes <= {(), (0,)}:
        raise ValueError(
            f"params have first axes {sorted(axes)}; "
            "expected arrays, with ensemble=True of one number of members."
        )
    return start


def check_targets(f, member: PyTree, x, y, loss) -> tuple[jax.ShapeDtypeStruct, Array]:
    """The outputs, as shapes, and the targets: of a squared loss in the outputs' shape, where one is (n,) and
    the other (n, 1)."""
    outputs = traced("f", f, member, x)
    shape = getattr(outputs, "shape", ())
    if not callable(loss) and {y.shape, shape} == {(len(x),), (len(x), 1)}:
        y = y.reshape(shape)
    if not shape or len(y) != len(x) or (not callable(loss) and y.shape != shape):
        raise ValueError(f"y has shape {y.shape}, and the outputs {shape}; expected the same.")
    return outputs, y


def check_loss(loss, outputs: jax.ShapeDtypeStruct, y) -> np.dtype:
    """The type of the loss, which is one number."""
    if not callable(loss):
        check_choice("loss", loss, LOSSES)
    value = traced("loss", partial(value_of, loss), outputs, y)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"loss gives {value} for outputs {outputs.shape}; expected one real number.")
    return value.dtype


def check_stop(stop, losses: jax.ShapeDtypeStruct) -> None:
    if stop is not None and np.shape(traced("stop", _function("stop", stop), 0, losses)) != ():
        raise ValueError("stop does not return one truth value, given a step and the losses (steps,).")


def check_observers(observe, member: PyTree) -> dict:
    if observe is not None and not isinstance(observe, Mapping):
        raise ValueError(f"observe is {observe!r}; expected functions of the parameters by name.")
    observe = dict(observe or {})
    for key, see in observe.items():
        name = f"observe[{key!r}]"
        traced(name, _function(name, see), member)
    return observe


def _function(name: str, f):
    if not callable(f):
        raise ValueError(f"{name} is {f!r}; expected a function.")
    return f
