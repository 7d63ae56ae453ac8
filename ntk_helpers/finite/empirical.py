r"""The tangent kernel of a finite network: $\Theta(x, x') = \sum_p \partial_p f(x)\,\partial_p f(x')$."""

from collections.abc import Callable, Mapping

import jax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from ntk_helpers._lib.blocks import count_blocks
from ntk_helpers._lib.inputs import check_batches, check_choice, check_params, check_points, check_size
from ntk_helpers._lib.memory import default_budget
from ntk_helpers._lib.progress import progress
from ntk_helpers._lib.sharding import automatic
from ntk_helpers.finite._contraction import OUTPUTS
from ntk_helpers.finite._cost import NTKCost
from ntk_helpers.finite._methods import METHODS
from ntk_helpers.finite._plan import Plan, Plans, plans_of
from ntk_helpers.finite._rows import rows_are_independent
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
    check_rows: bool = True,
) -> Array:
    r"""Empirical NTK $\Theta_{ij,ab} = \nabla f_a(x_i)^\top \nabla f_b(x_j)$ of a finite network.

    `f` is an `MLP`, or any `apply(params, x)` that maps (n, ...) inputs, of any type, to (n, o) outputs, each
    row by itself; outputs (n,) count as (n, 1). `x2` defaults to `x1`. The `output` is

    - `"full"`: (n1, n2, o, o);
    - `"diagonal"`: (n1, n2, o), the entries a = b;
    - `"trace"`: (n1, n2), the mean of the diagonal over the outputs (the name is that of neural-tangents).

    Every `method` gives the same up to rounding (costs and names: Novak, Sohl-Dickstein & Schoenholz 2022,
    Table 1):

    - `"structured"`: the gradient of a weight is a sum of outer products of its layer's inputs and deltas.
      They are read from the jaxpr of `f` and contracted without forming a Jacobian: one backward pass an
      input and output. Weights of matrix products, convolutions and lookups, tied or in loops, are handled
      so; any other parameter, alone, by its Jacobian block. `empirical_ntk_cost` says which.
    - `"jacobian"`: both Jacobians are formed and contracted. Memory (n1 + n2) · o · parameters.
    - `"ntk_vp"`: one vector-Jacobian and one Jacobian-vector product for each column (j, b) of the kernel. In
      float32 the second can cancel where the others do not: 2 % are lost in a transformer with
      `jax.nn.standardize`. It needs a forward derivative, which a `custom_vjp` has not.
    - `"auto"`: structured, unless the Jacobian saves half of the operations, as `empirical_ntk_cost` counts
      them.

    `memory_budget` in bytes is half of the device's memory by default. Inputs are taken in blocks of rows and
    columns whose estimated memory fits; without `x2` only blocks on and above the diagonal are computed
    (then, with more than one block, not differentiable in reverse mode). Calls of several blocks show a
    progress bar after two seconds.

    `check_rows=False` leaves out the check, at the first call with concrete arguments, that the output at a
    row does not depend on other rows.

    All products run at full float32 precision, also on hardware with a faster, coarser one. The gradient of
    the kernel with respect to an `MLP`'s `sigma_b2` is infinite at 0, where the scale of its biases is a
    square root. Define `f` once: what is known of it is kept as long as it lives, and a new lambda in every
    call is analysed anew.

    Raises

    - `ValueError` for unknown names;
    - `ValueError` for inputs that are not finite, or that do not match;
    - `ValueError` for parameters that are not floating or not finite, for none at all, and for a Flax
      module's `batch_stats` among them;
    - `ValueError` for an `f` that fails, whose output is not (n, o), or whose rows depend on one another;
    - `ValueError` for a kernel that does not fit into the budget.

    >>> net = MLP(depth=3, width=128, d_out=2)
    >>> x = jax.random.normal(jax.random.key(0), (5, 4))
    >>> empirical_ntk(net, net.init(jax.random.key(1), d_in=4), x).shape
    (5, 5, 2, 2)
    """
    params = jax.tree.map(automatic, params)
    apply, plans, x1, x2 = _analysed(f, params, x1, x2, output, method)
    plan = _plan(plans, x1, x2, method, memory_budget)
    held, leaves = jax.tree.leaves((apply.args, apply.keywords)), jax.tree.leaves(params)
    if check_rows and plans.batch and not plans.rows_are_independent:
        plans.rows_are_independent = rows_are_independent(plans.row, plans.batch, held, leaves, x1)
    blocks = count_blocks(x1, x2, plan.cost.block)
    with progress(blocks, "empirical_ntk", "block", (held, leaves, x1, x2)) as ticks:
        return plan.kernel(held, leaves, x1, x2, ticks=ticks)


def empirical_ntk_cost(
    f: Function,
    params: PyTree,
    x1: Array,
    x2: Array | None = None,
    output: str = "full",
    method: str = "auto",
    memory_budget: int | None = None,
) -> NTKCost:
    """What `empirical_ntk` would do with the same arguments, with its estimated operations and bytes.

    Arrays may be `jax.ShapeDtypeStruct`. Nothing is computed. `print(cost)` shows how each parameter is
    handled. Raises as `empirical_ntk`, except that the rows of `f` are not checked.

    >>> net, x = MLP(depth=3, width=128), jax.ShapeDtypeStruct((50, 4), jnp.float32)
    >>> cost = empirical_ntk_cost(net, net.init(jax.random.key(0), d_in=4), x)
    >>> cost.method, cost.shape
    ('structured', (50, 50, 1, 1))
    """
    params = jax.tree.map(automatic, params)
    _, plans, x1, x2 = _analysed(f, params, x1, x2, output, method)
    return _plan(plans, x1, x2, method, memory_budget).cost


def _analysed(f, params, x1, x2, output, method) -> tuple[Partial, Plans, Array, Array | None]:
    """Checked arguments, and what is known of `f`."""
    check_choice("output", output, OUTPUTS)
    check_choice("method", method, ("auto", *METHODS))
    apply = as_apply(f)
    x1, x2 = (check_points if isinstance(f, MLP) else check_batches)(x1, x2)
    if x2 is not None and x2.dtype != x1.dtype:
        raise ValueError(f"x1 has dtype {x1.dtype} and x2 {x2.dtype}; expected the same.")
    _check_trainable(params)
    return apply, plans_of(f, apply, params, x1, output), x1, x2


def _check_trainable(params: PyTree) -> None:
    """Raise `ValueError` for parameters that no kernel is taken in."""
    if isinstance(params, Mapping) and {"params", "batch_stats"} <= params.keys():
        raise ValueError(
            f"params hold the collections {sorted(params)} of a Flax module; expected the parameters alone: "
            'lambda p, x: module.apply({**variables, "params": p}, x), with variables["params"].'
        )
    if not jax.tree.leaves(params):
        raise ValueError(f"params are {params!r}; expected an array at least, or a tree of them.")
    check_params(params)


def _plan(plans: Plans, x1, x2, method: str, memory_budget: int | None) -> Plan:
    budget = default_budget() if memory_budget is None else check_size("memory_budget", memory_budget)
    return plans.plan(x1.shape[0], (x1 if x2 is None else x2).shape[0], x2 is None, method, budget)
