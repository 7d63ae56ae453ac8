"""One analysis of a function, made once and kept as long as the function: its cost and its kernel."""

from collections.abc import Callable, Hashable
from functools import partial
from types import MethodType

import jax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ntk_helpers._lib.blocks import in_blocks
from ntk_helpers._lib.inputs import is_traced
from ntk_helpers._lib.kept import remembered
from ntk_helpers.finite._cost import NTKCost, estimate
from ntk_helpers.finite._methods import METHODS, Analysis, Method
from ntk_helpers.finite._row import abstract, batch_program, trace_row
from ntk_helpers.finite._rows import BATCH
from ntk_helpers.networks.mlp import MLP

__all__ = ["Plan", "Plans", "plans_of"]


class Plan:
    """How one kernel is computed: its cost, and the compiled function that computes it."""

    def __init__(self, method: Method, cost: NTKCost):
        self.cost = cost

        # Plans are kept, so nothing in them may hold the function or its arguments.
        @partial(jax.jit, static_argnames="ticks")
        def kernel(held: list[Array], params: list[Array], x1: Array, x2: Array | None, ticks: bool) -> Array:
            with jax.default_matmul_precision("highest"):
                prepare, combine = (partial(step, held, params) for step in (method.prepare, method.combine))
                return in_blocks(prepare, combine, x1, x2, cost.block, ticks)

        self.kernel = kernel


class Plans:
    """The analysis of a function for one type of parameters and inputs, and plans by sizes and budget."""

    def __init__(self, apply: Partial, params: PyTree, x: jax.ShapeDtypeStruct, output: str):
        self.row = trace_row(apply, params, x)
        batch = jax.ShapeDtypeStruct((BATCH, *x.shape), x.dtype)
        self.batch = batch_program(apply, params, batch)[0] if apply.func is not MLP.apply else None
        analysis = Analysis(self.row, output)
        self.methods = {name: method(analysis) for name, method in METHODS.items()}
        self.rows_are_independent = False  # not known yet

    def plan(self, n1: int, n2: int, symmetric: bool, method: str, budget: int) -> Plan:
        """The plan for so many points; `ValueError` if none fits."""

        def make():
            cost = estimate(self.methods, n1, n2, symmetric, method, budget)
            return Plan(self.methods[cost.method], cost)

        return remembered(self, (n1, n2, symmetric, method, budget), make)


def _type_of(leaf) -> Hashable:
    """What tells types of arrays apart, in a microsecond: it is asked of every parameter on every call."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", type(leaf))
    return shape, dtype, getattr(leaf, "weak_type", None)


def plans_of(f: MLP | Callable, apply: Partial, params: PyTree, x: Array, output: str) -> Plans:
    """The plans for `f`, which is `apply` as a pytree, at parameters and inputs like these."""
    owner = f if not isinstance(f, MLP | Partial) else apply.func
    owner, name = (owner.__self__, owner.__func__) if isinstance(owner, MethodType) else (owner, None)
    leaves, structure = jax.tree.flatten((apply.args, apply.keywords, params))
    point = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    types = (*map(_type_of, leaves), _type_of(point))
    settings = jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion

    def make():
        args, keywords, like = jax.tree.unflatten(structure, [abstract(leaf) for leaf in leaves])
        return Plans(Partial(apply.func, *args, **keywords), like, point, output)

    # What a function closes over may be traced, and then has no meaning after the trace.
    lasts = lambda plans: not is_traced(plans.row.constants)
    return remembered(owner, (name, structure, types, output, settings), make, lasts)
