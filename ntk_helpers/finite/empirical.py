r"""The tangent kernel of a finite network: $\Theta(x, x') = \sum_p \partial_p f(x)\,\partial_p f(x')$."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ntk_helpers._lib.blocks import count_blocks, in_blocks
from ntk_helpers._lib.inputs import check_batches, check_choice, check_points, check_size, is_traced
from ntk_helpers._lib.memory import default_budget
from ntk_helpers._lib.progress import progress
from ntk_helpers.finite._contraction import OUTPUTS
from ntk_helpers.finite._cost import NTKCost, estimate
from ntk_helpers.finite._methods import METHODS
from ntk_helpers.networks.mlp import MLP, as_apply

__all__ = ["empirical_ntk", "empirical_ntk_cost"]

Function = MLP | Callable[[PyTree, Array], Array]


def empirical_ntk(
    f: Function,
    params: PyTree,
    x1: Float[Array, "n1 ..."],
    x2: Float[Array, "n2 ..."] | None = None,
    output: str = "full",
    method: str = "auto",
    memory_budget: int | None = None,
) -> Array:
    r"""Empirical NTK $\Theta_{ij,ab} = \nabla f_a(x_i)^\top \nabla f_b(x_j)$ of a finite network.

    `f` is an `MLP`, or any `apply(params, x)` that maps (n, ...) inputs, of any type, to (n, o) outputs, each
    row by itself. `x2` defaults to `x1`. `output`: `"full"` (n1, n2, o, o); `"diagonal"` (n1, n2, o), the
    entries a = b; `"trace"` (n1, n2), their mean over a.

    `method`, all equal up to rounding (costs and names: Novak, Sohl-Dickstein & Schoenholz 2022, Table 1):

    - `"structured"`: the gradient of a weight is a sum of outer products of its layer's inputs and deltas.
      They are read from the jaxpr of `f` and contracted without forming a Jacobian: one backward pass an
      input and output. Weights of matrix products, convolutions and lookups, tied or in loops; any other
      parameter, alone, by its Jacobian block. `empirical_ntk_cost` says which.
    - `"jacobian"`: both Jacobians, contracted. Memory (n1 + n2) · o · parameters.
    - `"ntk_vp"`: one vector-Jacobian and one Jacobian-vector product for each column (j, b) of the kernel. In
      float32 the second can cancel where the others do not: 2 % are lost in a transformer with
      `jax.nn.standardize`.
    - `"auto"`: the fewest operations, as `empirical_ntk_cost` counts them; another than structured must save
      half.

    `memory_budget` in bytes, by default half of the device's memory: inputs are taken in blocks of rows and
    columns whose estimated memory fits; without `x2` only blocks on and above the diagonal are computed
    (then, with more than one block, not differentiable in reverse mode). Calls of several blocks show a
    progress bar after two seconds.

    All products run at full float32 precision, also on hardware with a faster, coarser one. The gradient of
    the kernel with respect to an `MLP`'s `sigma_b2` is infinite at 0, where the scale of its biases is a
    square root.

    Raises `ValueError` for unknown names, inputs that are not finite, parameters that are not floating, an
    `f` whose output is not (n, o) or whose first row changes beside another (not inside `jit`), and a kernel
    that does not fit into the budget. Define `f` once: a new lambda in every call is analysed anew.
    """
    apply, params, x1, x2 = _checked(f, params, x1, x2, output, method)
    cost = _cost(apply, params, x1, x2, output, method, memory_budget)
    if not isinstance(f, MLP):
        _check_rows(apply, params, x1)
    with progress(
        count_blocks(x1, x2, cost.block), "empirical_ntk", "block", (apply, params, x1, x2)
    ) as ticks:
        return _kernel(apply, params, x1, x2, output, cost.method, cost.block, ticks)


def empirical_ntk_cost(
    f: Function,
    params: PyTree,
    x1: Array,
    x2: Array | None = None,
    output: str = "full",
    method: str = "auto",
    memory_budget: int | None = None,
) -> NTKCost:
    """What `empirical_ntk` would do with the same arguments, and its estimated FLOPs and bytes, before any
    work.

    Arrays may be `jax.ShapeDtypeStruct`. `print(cost)` shows how each parameter is handled. Raises as
    `empirical_ntk`, except that `f` is not run.
    """
    return _cost(*_checked(f, params, x1, x2, output, method), output, method, memory_budget)


def _checked(f, params, x1, x2, output, method):
    check_choice("output", output, OUTPUTS)
    check_choice("method", method, ("auto", *METHODS))
    apply = as_apply(f)
    x1, x2 = (check_points if isinstance(f, MLP) else check_batches)(x1, x2)
    for path, leaf in jax.tree.leaves_with_path(params):
        dtype = getattr(leaf, "dtype", type(leaf))
        if not jnp.issubdtype(dtype, jnp.floating):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"params{name} has dtype {dtype}; expected a floating type: close f over the rest."
            )
    for n in (x1.shape[0],) if isinstance(f, MLP) else (x1.shape[0], 1):
        _check_output(f, apply, params, jax.ShapeDtypeStruct((n, *x1.shape[1:]), x1.dtype))
    return apply, params, x1, x2


def _check_output(f, apply, params, x) -> None:
    """Raise `ValueError` unless `apply` maps such inputs to a floating (n, o) array."""
    expected = f"expected an array of shape ({x.shape[0]}, outputs), floating"
    try:
        out = jax.eval_shape(apply, params, x)
    except Exception as error:
        if isinstance(f, MLP):
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"f fails for inputs of shape {x.shape}: {type(error).__name__}: {reason}; {expected}."
        ) from error
    shape, dtype = getattr(out, "shape", ()), getattr(out, "dtype", None)
    if len(shape) != 2 or shape[0] != x.shape[0] or shape[1] == 0 or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"f maps inputs of shape {x.shape} to {out}; {expected}.")


def _cost(apply, params, x1, x2, output, method, memory_budget) -> NTKCost:
    budget = default_budget() if memory_budget is None else check_size("memory_budget", memory_budget)
    leaves, structure = jax.tree.flatten((apply, params, x1, x2))
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    return _cached_cost(structure, shapes, output, method, budget)


@lru_cache(maxsize=32)
def _cached_cost(structure, shapes, output, method, budget):
    found = []

    def trace(apply, params, x1, x2):
        found.append(estimate(apply, params, x1, x2, output, method, budget))

    jax.eval_shape(trace, *jax.tree.unflatten(structure, shapes))
    return found[0]


@partial(jax.jit, static_argnames=("output", "method", "block", "ticks"))
def _kernel(apply, params, x1, x2, output, method, block, ticks):
    with jax.default_matmul_precision("highest"):
        prepare, combine = METHODS[method](apply, params, x1[0], output)
        return in_blocks(prepare, combine, x1, x2, block, ticks)


def _check_rows(apply, params, x) -> None:
    """Raise `ValueError` if the first row's output changes beside another row; inside `jit` nothing is
    checked."""
    if is_traced(apply, params, x):
        return
    rows = np.asarray(x).reshape(len(x), -1)
    other = int((rows != rows[0]).any(1).argmax())  # the first that differs
    change, size = _change_beside_another_row(apply, params, x[:1], x[other : other + 1])
    if jnp.isinf(change) or change > jnp.finfo(change.dtype).eps ** 0.5 * size:
        raise ValueError(
            f"f changes a row's output by {change:.2g} when another row is beside it; expected rows that do not depend on "
            "one another. Normalization over the batch needs its running averages, dropout must be off."
        )


@jax.jit
def _change_beside_another_row(apply, params, row, other):
    alone, beside = apply(params, row)[0], apply(params, jnp.concatenate([row, other]))[0]
    only_alone = jnp.isnan(alone) & ~jnp.isnan(beside)  # as of a batch of one, divided by its deviation
    return jnp.where(only_alone, jnp.inf, jnp.abs(alone - beside)).max(), jnp.abs(alone).max()
