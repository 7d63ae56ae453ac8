r"""Gradients that are never formed: each parameter's cotangent as a sum of products of small factors.

Reverse-mode differentiation of $f_a(x)$ ends, for a weight that entered through a matrix product, in an outer
product $\sum_p a_p \delta_p^\top$ of the layer's inputs and backpropagated deltas, summed over positions p (none for a
vector, the time steps of a sequence, the pixels of an image). `gradient_terms` reads that from the jaxpr of
`jax.vjp`: it walks back from each parameter's cotangent through sums, transpositions, scalings and loops to the
product that made it, and keeps the factors instead of the product. All rules of differentiation, custom ones
included, are therefore JAX's own. What it does not recognize stays whole: a term with one factor, the
parameter's block of the Jacobian. Novak, Sohl-Dickstein & Schoenholz (2022), "Fast Finite Width Neural Tangent
Kernel", section 3.3, gives the structures and their costs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn, Literal
from jaxtyping import Array, PyTree

from ntk_helpers._program import Key, Program, flatten

__all__ = ["Factor", "Gradient", "Term", "gradient_terms"]

_fresh = count(1).__next__


@dataclass(frozen=True, eq=False)
class Factor:
    """`form(value of key)`: an array with one axis for each label. Axes of size 1 have none."""

    key: Key
    labels: tuple[int, ...]
    form: Callable[[Array], Array] = field(default=lambda value: jnp.reshape(value, _thick(jnp.shape(value))))


@dataclass(frozen=True)
class Term:
    """A product of factors: positive labels are the parameter's axes, negative ones are summed over."""

    factors: tuple[Factor, ...]
    how: str = "block"

    def times(self, *factors: Factor) -> "Term":
        return replace(self, factors=self.factors + factors)


@dataclass(frozen=True)
class Gradient:
    """One parameter's cotangent as the sum of `terms`."""

    name: str
    aval: jax.ShapeDtypeStruct
    terms: tuple[Term, ...]
    whole: Term

    @property
    def how(self) -> str:
        """The ways in which the parameter enters, for a reader."""
        return " + ".join(dict.fromkeys(term.how for term in self.terms))


def gradient_terms(apply: Callable, params: PyTree, x: Array) -> tuple[Program, list[Gradient]]:
    """The program of one input's vector-Jacobian product, and the factors of every parameter's cotangent in it.

    The program's inputs are the leaves of `params`, one input x (no batch axis) and one cotangent, of shape (o,).
    """

    def f(params, x):
        return apply(params, x[None])[0]

    def pullback(params, x, cotangent):
        return jax.tree.leaves(jax.vjp(lambda p: f(p, x), params)[1](cotangent)[0])

    out = jax.eval_shape(f, params, x)
    closed = flatten(jax.make_jaxpr(pullback)(params, x, out))
    leaves = jax.tree.leaves_with_path(params)
    program = Program(closed, [*[frozenset()] * len(leaves), frozenset({"x"}), frozenset({"cotangent"})])
    gradients = []
    for (path, _), var in zip(leaves, program.jaxpr.outvars):
        labels = tuple(_fresh() if size > 1 else None for size in var.aval.shape)
        whole = _block(program, var, labels)
        terms = expand(program, var, labels, alone=True) or [whole]
        gradients.append(Gradient(jax.tree_util.keystr(path), program.aval(var), tuple(terms), whole))
    return program, gradients


# --- from a cotangent back to the product that made it


def expand(program: Program, key: Key, labels: tuple, alone: bool = False) -> list[Term] | None:
    """The cotangent `key`, with these labels for its axes (None where the size is 1), as terms; None if no rule applies.

    `alone`: nothing is added to it later, so that its axes may be renamed.
    """
    k, output, eqn = program.equation(key)
    if eqn is None or "cotangent" not in program.depends(key):
        return None
    if eqn.primitive.name == "scan":
        return _loop(program, k, output, labels)
    rule = RULES.get(eqn.primitive.name)
    return rule and rule(program, eqn, labels, alone)


def _block(program: Program, key: Key, labels: tuple) -> Term:
    return Term(tuple(_factors(program, key, labels)))


def _expand_or_block(program, key, labels) -> list[Term]:
    return expand(program, key, labels) or [_block(program, key, labels)]


def _factors(program: Program, key: Key, labels: tuple) -> list[Factor]:
    """A value as a factor, free of scalings and unit axes: layers that share a delta then share its Gram matrix."""
    scalars = []
    while True:
        _, _, eqn = program.equation(key)
        name = eqn.primitive.name if eqn else ""
        if name in ("mul", "div") and (split := _scalar(program, eqn)):
            key, scale = split
            scalars.append(scale)
        elif name == "transpose":
            labels = _transposed(eqn, labels)
            key = eqn.invars[0]
        elif name in ("reshape", "squeeze", "reduce_sum", "broadcast_in_dim") and _only_unit_axes(eqn):
            key, labels = eqn.invars[0], _respread(eqn.invars[0].aval.shape, labels)
        else:
            return [Factor(key, tuple(label for label in labels if label is not None)), *scalars]


def _scalar(program: Program, eqn: JaxprEqn) -> tuple[Key, Factor] | None:
    """The operand of a scaling, and the scalar as a factor."""
    for operand, scale in (eqn.invars, eqn.invars[::-1]) if eqn.primitive.name == "mul" else (eqn.invars,):
        _, _, source = program.equation(scale)
        if source is not None and source.primitive.name == "broadcast_in_dim" and not source.invars[0].aval.shape:
            scale = source.invars[0]
        if not scale.aval.shape and "cotangent" not in program.depends(scale) and not isinstance(operand, Literal):
            return operand, Factor(scale, (), jnp.asarray if eqn.primitive.name == "mul" else jnp.reciprocal)
    return None


# --- rules: linear operations


def _sum(program, eqn, labels, alone):
    expanded = [expand(program, v, labels) for v in eqn.invars]
    if not any(expanded):
        return None
    return sum((e or [_block(program, v, labels)] for e, v in zip(expanded, eqn.invars)), [])


def _transpose(program, eqn, labels, alone):
    return expand(program, eqn.invars[0], _transposed(eqn, labels), alone)


def _convert(program, eqn, labels, alone):
    return expand(program, eqn.invars[0], labels, alone)


def _negate(program, eqn, labels, alone):
    terms = expand(program, eqn.invars[0], labels, alone)
    return terms and [term.times(Factor(eqn.invars[0], (), lambda value: jnp.asarray(-1, value.dtype))) for term in terms]


def _reshape(program, eqn, labels, alone):
    shape = eqn.invars[0].aval.shape
    if _only_unit_axes(eqn):
        return expand(program, eqn.invars[0], _respread(shape, labels), alone)
    if not alone or any(label is not None and label < 0 for label in labels):
        return None
    return expand(program, eqn.invars[0], tuple(_fresh() if size > 1 else None for size in shape), alone)


def _broadcast(program, eqn, labels, alone):
    return _reshape(program, eqn, labels, alone) if _only_unit_axes(eqn) else None


def _reduce_sum(program, eqn, labels, alone):
    shape, axes = eqn.invars[0].aval.shape, eqn.params["axes"]
    rest, summed = iter(labels), _summed(shape)
    return expand(program, eqn.invars[0], tuple(summed[i] if i in axes else next(rest) for i in range(len(shape))), alone)


def _multiply(program, eqn, labels, alone):
    """By a number, or by an array that is the same for all inputs, such as a mask of the weights."""
    if split := _scalar(program, eqn):
        terms = expand(program, split[0], labels, alone)
        return terms and [term.times(split[1]) for term in terms]
    for v, other in (eqn.invars, eqn.invars[::-1]):
        if eqn.primitive.name == "mul" and not program.depends(other):
            terms = expand(program, v, labels)
            return terms and [term.times(*_factors(program, other, labels)) for term in terms]
    return None


def _pad(program, eqn, labels, alone):
    """A part of a parameter: the factor that holds the axis is padded instead of the product."""
    value, zero = eqn.invars
    if not _is_zero(program, zero):
        return None
    thick = [size > 1 for size in value.aval.shape]
    terms = expand(program, value, tuple(label if keep else None for label, keep in zip(labels, thick)))
    for label, width, keep in zip(labels, eqn.params["padding_config"], thick):
        if terms and label is not None and width != (0, 0, 0):
            terms = [_padded(term, label, width) if keep else term.times(_place(zero, label, width)) for term in terms]
    return terms


def _padded(term: Term, label: int, width: tuple[int, int, int]) -> Term:
    k = next(k for k, factor in enumerate(term.factors) if label in factor.labels)
    factor = term.factors[k]

    def padded(value):
        array, axis = factor.form(value), factor.labels.index(label)
        return lax.pad(array, jnp.zeros((), array.dtype), [width if i == axis else (0, 0, 0) for i in range(array.ndim)])

    return replace(term, factors=(*term.factors[:k], replace(factor, form=padded), *term.factors[k + 1 :]))


def _place(zero: Key, label: int, width: tuple[int, int, int]) -> Factor:
    """An axis of size 1, padded: the one-hot vector of its place."""
    return Factor(zero, (label,), lambda value: lax.pad(jnp.ones(1), 0.0, [width]))


# --- rules: the products


def _dot_general(program, eqn, labels, alone):
    (contract1, contract2), (batch1, batch2) = eqn.params["dimension_numbers"]
    shapes = [v.aval.shape for v in eqn.invars]
    named = [dict(zip(batch, labels)) for batch in (batch1, batch2)]
    rest = iter(labels[len(batch1) :])
    summed = _summed([shapes[0][i] for i in contract1])
    for name, shape, contract in zip(named, shapes, (contract1, contract2)):
        name.update(zip(contract, summed))
        name.update({i: next(rest) for i in range(len(shape)) if i not in name})
    own = [tuple(name[i] for i in range(len(shape))) for name, shape in zip(named, shapes)]
    if not _is_outer(*own):
        return None
    factors = [factor for v, axes in zip(eqn.invars, own) for factor in _factors(program, v, axes)]
    return [Term(tuple(factors), "matrix product")]


def _convolution(program, eqn, labels, alone):
    """The gradient of a convolution's kernel correlates inputs with deltas: a matrix product with the inputs' patches."""
    p = eqn.params
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        return None
    lhs, rhs, out = p["dimension_numbers"]
    inputs, deltas = eqn.invars
    window = [eqn.outvars[0].aval.shape[i] for i in out[2:]]
    positions = [deltas.aval.shape[i] for i in rhs[2:]]

    def patches(value):
        """(batch of the correlation, window..., its features, positions...)"""
        value = jnp.transpose(value, lhs)
        batch, features = value.shape[:2]
        found = lax.conv_general_dilated_patches(
            value.reshape(batch * features, 1, *value.shape[2:]),
            window,
            window_strides=p["rhs_dilation"],
            padding=p["padding"],
            lhs_dilation=p["lhs_dilation"],
            rhs_dilation=p["window_strides"],
        )
        found = found[(slice(None), slice(None), *(slice(size) for size in positions))]
        found = found.reshape(batch, features, *window, *positions)
        found = jnp.moveaxis(found, 1, 1 + len(window))
        return found.reshape(_thick(found.shape))

    features = inputs.aval.shape[lhs[1]]
    summed = _summed([features, *positions])
    kernel = [labels[i] for i in out[2:]]
    left = Factor(inputs, tuple(i for i in (labels[out[0]], *kernel, *summed) if i is not None), patches)
    named = dict(zip(rhs, (labels[out[1]], *summed)))
    axes = tuple(named[i] for i in range(len(named)))
    if not _is_outer(left.labels, axes) or "cotangent" in program.depends(inputs):
        return None
    return [Term((left, *_factors(program, deltas, axes)), "convolution")]


def _lookup(program, eqn, labels, alone):
    """The gradient of rows of a table that indices chose: the indices as one-hot vectors times the rows' deltas."""
    zeros, indices, rows = eqn.invars
    d = eqn.params["dimension_numbers"]
    table, places = zeros.aval.shape, indices.aval.shape[:-1]
    whole_rows = d.inserted_window_dims == d.scatter_dims_to_operand_dims == (0,) and not d.operand_batching_dims
    row_axes = tuple(range(len(places), len(places) + len(table) - 1))
    if not (whole_rows and d.update_window_dims == row_axes and rows.aval.shape[len(places) :] == table[1:] and _is_zero(program, zeros)):
        return None
    clip = "CLIP" in str(eqn.params["mode"])
    summed = _summed(places)

    def one_hot(value):
        value = jnp.clip(value[..., 0], 0, table[0] - 1) if clip else value[..., 0]
        array = jax.nn.one_hot(value, table[0], dtype=rows.aval.dtype)
        return array.reshape(_thick(array.shape))

    chosen = Factor(indices, tuple(i for i in (*summed, labels[0]) if i is not None), one_hot)
    return [Term((chosen, *_factors(program, rows, (*summed, *labels[1:]))), "lookup")]


def _loop(program, k, output, labels) -> list[Term] | None:
    """A loop's stacked output has its steps as an axis; what it accumulates is a sum over its steps."""
    loop, eqn = program.loops[k], program.jaxpr.eqns[k]
    made = loop.body.jaxpr.outvars[output]
    if output >= loop.carries:
        terms = expand(loop.body, made, labels[1:])
        return terms and [_stacked(program, k, term, labels[0]) for term in terms]
    summands = _accumulated(loop, made, loop.carry_in[output])
    if not summands or not any(expand(loop.body, v, labels) for v in summands):
        return None
    (steps,) = _summed([loop.length])
    inner = sum((_expand_or_block(loop.body, v, labels) for v in summands), [])
    start = eqn.invars[loop.consts + output]
    first = [] if _is_zero(program, start) else _expand_or_block(program, start, labels)
    return first + [_stacked(program, k, term, steps) for term in inner]


def _accumulated(loop, made: Key, carry: Key) -> list[Key] | None:
    """What a step adds to its carry; None if it does anything else with it."""
    summands, waiting, sums = [], [made], set()
    while waiting:
        k, _, eqn = loop.body.equation(waiting[-1])
        v = waiting.pop()
        if eqn is not None and eqn.primitive.name == "add_any":
            sums.add(k)
            waiting += eqn.invars
        else:
            summands.append(v)
    reads = [v for k, eqn in enumerate(loop.body.jaxpr.eqns) if k not in sums for v in eqn.invars]
    if summands.count(carry) != 1 or carry in [v for v in reads if not isinstance(v, Literal)]:
        return None
    return [v for v in summands if v is not carry]


def _stacked(program, k, term: Term, steps: int | None) -> Term:
    """A step's term as the loop's: each factor over all steps."""
    loop, operands = program.loops[k], program.jaxpr.eqns[k].invars
    inputs = {v: i for i, v in enumerate(loop.body.jaxpr.invars)}
    over_steps = () if steps is None else (steps,)

    def stack(factor: Factor) -> Factor:
        place = None if isinstance(factor.key, (Literal, tuple)) else inputs.get(factor.key)
        if isinstance(factor.key, Literal) or (place is not None and place < loop.consts):
            return factor if place is None else replace(factor, key=operands[place])
        sliced = place is not None and place >= loop.consts + loop.carries
        each = jax.vmap(factor.form) if over_steps else lambda value: factor.form(value[0])
        return Factor(operands[place] if sliced else (k, factor.key), over_steps + factor.labels, each)

    return replace(term, factors=tuple(map(stack, term.factors)))


RULES = {
    "add_any": _sum,
    "add": _sum,
    "transpose": _transpose,
    "convert_element_type": _convert,
    "copy": _convert,
    "neg": _negate,
    "reshape": _reshape,
    "squeeze": _reshape,
    "broadcast_in_dim": _broadcast,
    "reduce_sum": _reduce_sum,
    "mul": _multiply,
    "div": _multiply,
    "pad": _pad,
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "scatter-add": _lookup,
}


# --- axes


def _is_outer(labels1, labels2) -> bool:
    """Whether both operands hold axes of the parameter: else the product is the way of a delta through a layer."""
    held = [any(label is not None and label > 0 for label in labels) for labels in (labels1, labels2)]
    return all(held) or all(label is None or label > 0 for label in (*labels1, *labels2))


def _thick(shape) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _summed(shape) -> tuple:
    """New labels that are summed over."""
    return tuple(None if size == 1 else -_fresh() for size in shape)


def _only_unit_axes(eqn: JaxprEqn) -> bool:
    """Whether an operation only adds or drops axes of size 1."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if eqn.primitive.name == "broadcast_in_dim" and not before:
        return math.prod(after) == 1
    return _thick(before) == _thick(after)


def _respread(shape, labels) -> tuple:
    """The labels of the axes longer than 1, for a shape with other axes of size 1."""
    rest = (label for label in labels if label is not None)
    return tuple(None if size == 1 else next(rest) for size in shape)


def _transposed(eqn: JaxprEqn, labels) -> tuple:
    named = dict(zip(eqn.params["permutation"], labels))
    return tuple(named[i] for i in range(len(named)))


def _is_zero(program: Program, key: Key) -> bool:
    if isinstance(key, Literal):
        return not key.val
    _, _, eqn = program.equation(key)
    return eqn is not None and eqn.primitive.name == "broadcast_in_dim" and _is_zero(program, eqn.invars[0])
