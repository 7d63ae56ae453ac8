r"""The rules: through which operation a cotangent is still a sum of products, and which products make one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from ntk_helpers.finite._program import Key
from ntk_helpers.finite._terms import (
    Factor,
    Term,
    expand,
    expand_or_block,
    expand_sum,
    factors_of,
    fresh,
    is_zero,
    only_unit_axes,
    respread,
    rule,
    scaling,
    summed_labels,
    thick,
    transposed,
)

# --- rules: linear operations


@rule("add_any", "add")
def _sum(program, eqn, labels, alone):
    alike = len({v.aval.shape for v in eqn.invars}) == 1
    return expand_sum(program, eqn.invars, labels) if alike else None


@rule("transpose")
def _transpose(program, eqn, labels, alone):
    return expand(program, eqn.invars[0], transposed(eqn, labels), alone)


@rule("convert_element_type", "copy")
def _convert(program, eqn, labels, alone):
    """Not from complex to real numbers: the real part of a product is not the product of real parts."""
    before, after = (jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in (*eqn.invars, *eqn.outvars))
    if before != after:
        return None
    return expand(program, eqn.invars[0], labels, alone)


@rule("neg")
def _negate(program, eqn, labels, alone):
    terms = expand(program, eqn.invars[0], labels, alone)
    return terms and [
        term.times(Factor(eqn.invars[0], (), lambda value: jnp.asarray(-1, value.dtype))) for term in terms
    ]


@rule("reshape", "squeeze")
def _reshape(program, eqn, labels, alone):
    shape = eqn.invars[0].aval.shape
    if only_unit_axes(eqn):
        return expand(program, eqn.invars[0], respread(shape, labels), alone)
    if not alone or any(label is not None and label < 0 for label in labels):
        return None
    return expand(program, eqn.invars[0], tuple(fresh() if size > 1 else None for size in shape), alone)


@rule("broadcast_in_dim")
def _broadcast(program, eqn, labels, alone):
    return _reshape(program, eqn, labels, alone) if only_unit_axes(eqn) else None


@rule("reduce_sum")
def _reduce_sum(program, eqn, labels, alone):
    shape, axes = eqn.invars[0].aval.shape, eqn.params["axes"]
    rest, summed = iter(labels), summed_labels(shape)
    return expand(
        program,
        eqn.invars[0],
        tuple(summed[i] if i in axes else next(rest) for i in range(len(shape))),
        alone,
    )


@rule("mul", "div")
def _multiply(program, eqn, labels, alone):
    """By a number, or by an array that is the same for all inputs, such as a mask of the weights."""
    if split := scaling(program, eqn):
        terms = expand(program, split[0], labels, alone)
        return terms and [term.times(split[1]) for term in terms]
    for operands in (eqn.invars, eqn.invars[::-1]):
        if eqn.primitive.name == "mul" and not program.depends(operands[1]):
            # An axis of size 1 is broadcast: the other operand holds its label.
            own = [
                tuple(label if size > 1 else None for label, size in zip(labels, v.aval.shape))
                for v in operands
            ]
            terms = expand(program, operands[0], own[0])
            return terms and [term.times(*factors_of(program, operands[1], own[1])) for term in terms]
    return None


@rule("pad")
def _pad(program, eqn, labels, alone):
    """A part of a parameter: the factors that hold the axis are padded instead of the product."""
    value, zero = eqn.invars
    if not is_zero(program, zero):
        return None
    thick = [size > 1 for size in value.aval.shape]
    terms = expand(program, value, tuple(label if keep else None for label, keep in zip(labels, thick)))
    for label, width, keep in zip(labels, eqn.params["padding_config"], thick):
        if terms and label is not None and width != (0, 0, 0):
            terms = [
                _padded(term, label, width) if keep else term.times(_place(zero, label, width))
                for term in terms
            ]
    return terms


def _padded(term: Term, label: int, width: tuple[int, int, int]) -> Term:
    def padded(factor: Factor) -> Factor:
        if label not in factor.labels:
            return factor
        axis = factor.labels.index(label)

        def form(value):
            array = factor.form(value)
            return lax.pad(
                array,
                jnp.zeros((), array.dtype),
                [width if i == axis else (0, 0, 0) for i in range(array.ndim)],
            )

        return replace(factor, form=form)

    return replace(term, factors=tuple(map(padded, term.factors)))


def _place(zero: Key, label: int, width: tuple[int, int, int]) -> Factor:
    """An axis of size 1, padded: the one-hot vector of its place."""
    return Factor(zero, (label,), lambda value: lax.pad(jnp.ones(1), 0.0, [width]))


# --- rules: the products


@rule("dot_general")
def _dot_general(program, eqn, labels, alone):
    (contract1, contract2), (batch1, batch2) = eqn.params["dimension_numbers"]
    shapes = [v.aval.shape for v in eqn.invars]
    named = [dict(zip(batch, labels)) for batch in (batch1, batch2)]
    rest = iter(labels[len(batch1) :])
    summed = summed_labels([shapes[0][i] for i in contract1])
    for name, shape, contract in zip(named, shapes, (contract1, contract2)):
        name.update(zip(contract, summed))
        name.update({i: next(rest) for i in range(len(shape)) if i not in name})
    own = [tuple(name[i] for i in range(len(shape))) for name, shape in zip(named, shapes)]
    if not _is_outer(*own):
        return None
    factors = [factor for v, axes in zip(eqn.invars, own) for factor in factors_of(program, v, axes)]
    return [Term(tuple(factors), "matrix product")]


@rule("conv_general_dilated")
def _convolution(program, eqn, labels, alone):
    """The gradient of a convolution's kernel correlates inputs with deltas: a matrix product with the inputs'
    patches."""
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
        return found.reshape(thick(found.shape))

    features = inputs.aval.shape[lhs[1]]
    summed = summed_labels([features, *positions])
    kernel = [labels[i] for i in out[2:]]
    left = Factor(inputs, tuple(i for i in (labels[out[0]], *kernel, *summed) if i is not None), patches)
    named = dict(zip(rhs, (labels[out[1]], *summed)))
    axes = tuple(named[i] for i in range(len(named)))
    if not _is_outer(left.labels, axes) or "cotangent" in program.depends(inputs):
        return None
    return [Term((left, *factors_of(program, deltas, axes)), "convolution")]


@rule("scatter-add")
def _lookup(program, eqn, labels, alone):
    """The gradient of rows of a table that indices chose: the indices as one-hot vectors times the rows'
    deltas."""
    zeros, indices, rows = eqn.invars
    d = eqn.params["dimension_numbers"]
    table, places = zeros.aval.shape, indices.aval.shape[:-1]
    whole_rows = (
        d.inserted_window_dims == d.scatter_dims_to_operand_dims == (0,) and not d.operand_batching_dims
    )
    row_axes = tuple(range(len(places), len(places) + len(table) - 1))
    if not (
        whole_rows
        and d.update_window_dims == row_axes
        and rows.aval.shape[len(places) :] == table[1:]
        and is_zero(program, zeros)
    ):
        return None
    clip = "CLIP" in str(eqn.params["mode"])
    summed = summed_labels(places)

    def one_hot(value):
        value = jnp.clip(value[..., 0], 0, table[0] - 1) if clip else value[..., 0]
        array = jax.nn.one_hot(value, table[0], dtype=rows.aval.dtype)
        return array.reshape(thick(array.shape))

    chosen = Factor(indices, tuple(i for i in (*summed, labels[0]) if i is not None), one_hot)
    return [Term((chosen, *factors_of(program, rows, (*summed, *labels[1:]))), "lookup")]


@rule("scan")
def _loop(program, k, output, labels) -> list[Term] | None:
    """A loop's stacked output has its steps as an axis; what it accumulates is a sum over its steps."""
    loop, eqn = program.loops[k], program.jaxpr.eqns[k]
    made = loop.body.jaxpr.outvars[output]
    if output >= loop.carries:
        terms = expand(loop.body, made, labels[1:])
        return terms and [_stacked(program, k, term, labels[0]) for term in terms]
    summands = _accumulated(loop, made, loop.carry_in[output])
    inner = summands and expand_sum(loop.body, summands, labels)
    if not inner:
        return None
    (steps,) = summed_labels([loop.length])
    start = eqn.invars[loop.consts + output]
    first = [] if is_zero(program, start) else expand_or_block(program, start, labels)
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


def _is_outer(labels1, labels2) -> bool:
    """Whether both operands hold axes of the parameter: else the product is the way of a delta through a
    layer."""
    held = [any(label is not None and label > 0 for label in labels) for labels in (labels1, labels2)]
    return all(held) or all(label is None or label > 0 for label in (*labels1, *labels2))
