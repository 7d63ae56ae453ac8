"""One input's outputs as a program: the function is traced once, and everything else is made from that."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ntk_helpers._lib.inputs import first_line
from ntk_helpers.networks.mlp import MLP

__all__ = ["Row", "abstract", "batch_program", "trace_row"]


@dataclass(frozen=True)
class Row:
    """The outputs (o,) of a function at one input, `outputs(held, params, x)`, and what these are like.

    `held` are arrays that the function brings along, such as the variances of an `MLP`; no derivative is
    taken in them. They and the parameters are flat lists.
    """

    outputs: Callable[[list[Array], list[Array], Array], Array]
    held: list[jax.ShapeDtypeStruct]
    params: list[jax.ShapeDtypeStruct]
    names: list[str]
    constants: list[Array]
    x: jax.ShapeDtypeStruct
    out: jax.ShapeDtypeStruct


def abstract(leaf) -> jax.ShapeDtypeStruct:
    """Shape and type of an array, of a number, or of what is shape and type already."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if not isinstance(leaf, jax.Array):
        leaf = jnp.asarray(leaf)  # a Python number is weakly typed, so that it does not widen float32
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=leaf.weak_type)


def batch_program(f: Partial, params: PyTree, x) -> tuple[Callable, jax.ShapeDtypeStruct, list[Array]]:
    """The outputs (n, o) for a batch like `x`, as a function of flat lists; their shape; what `f` holds.

    Raises `ValueError` for a function that fails, or whose outputs are not (n, o) or (n,) and floating.
    """
    held, held_tree = jax.tree.flatten((f.args, f.keywords))
    leaves, tree = jax.tree.flatten(params)

    def call(held, leaves, x):
        args, keywords = jax.tree.unflatten(held_tree, held)
        return f.func(*args, jax.tree.unflatten(tree, leaves), x, **keywords)

    expected = f"expected an array of shape ({x.shape[0]}, outputs), floating"
    try:
        with jax.default_matmul_precision("highest"):
            closed, out = jax.make_jaxpr(call, return_shape=True)(held, leaves, x)
    except Exception as error:
        if f.func is MLP.apply:  # which says itself what is wrong
            raise
        raise ValueError(
            f"f fails for inputs of shape {x.shape}: {first_line(error)}; {expected}."
        ) from error
    shape, dtype = getattr(out, "shape", ()), getattr(out, "dtype", None)
    whole = shape[:1] == x.shape[:1] and len(shape) in (1, 2) and 0 not in shape
    if not whole or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"f maps inputs of shape {x.shape} to {out}; {expected}.")
    evaluate = jaxpr_as_fun(closed)
    return (
        lambda held, leaves, x: evaluate(*held, *leaves, x)[0].reshape(x.shape[0], -1),
        jax.ShapeDtypeStruct((shape[0], shape[1] if shape[1:] else 1), dtype),
        closed.consts,
    )


def trace_row(f: Partial, params: PyTree, x) -> Row:
    """Trace `f` for one input like `x` (no batch axis). Raises as `batch_program`."""
    evaluate, out, constants = batch_program(f, params, jax.ShapeDtypeStruct((1, *x.shape), x.dtype))
    paths = jax.tree_util.tree_leaves_with_path(params)
    return Row(
        outputs=lambda held, leaves, x: evaluate(held, leaves, x[None])[0],
        held=jax.tree.leaves((f.args, f.keywords)),
        params=[leaf for _, leaf in paths],
        constants=constants,
        names=[jax.tree_util.keystr(path) for path, _ in paths],
        x=jax.ShapeDtypeStruct(x.shape, x.dtype),
        out=jax.ShapeDtypeStruct(out.shape[1:], out.dtype),
    )
