r"""A cotangent as a sum of products of factors, and the way back from the one to the others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal
from jaxtyping import Array

from ntk_helpers.finite._program import Key, Program

__all__ = [
    "Factor",
    "Term",
    "expand",
    "expand_or_block",
    "expand_sum",
    "factors_of",
    "fresh",
    "is_zero",
    "only_unit_axes",
    "respread",
    "rule",
    "scaling",
    "summed_labels",
    "thick",
    "transposed",
]

fresh = count(1).__next__
_RULES: dict[str, Callable] = {}


def rule(*primitives: str):
    """Register `f(program, equation, labels, alone) -> terms or None` for operations of these names."""

    def register(f):
        _RULES.update(dict.fromkeys(primitives, f))
        return f

    return register


@dataclass(frozen=True, eq=False)
class Factor:
    """`form(value of key)`: an array with one axis for each label. Axes of size 1 have none."""

    key: Key
    labels: tuple[int, ...]
    form: Callable[[Array], Array] = field(default=lambda value: jnp.reshape(value, thick(jnp.shape(value))))


@dataclass(frozen=True)
class Term:
    """A product of factors: positive labels are the parameter's axes, negative ones are summed over."""

    factors: tuple[Factor, ...]
    how: str = "block"

    def times(self, *factors: Factor) -> "Term":
        """The product with more factors."""
        return replace(self, factors=self.factors + factors)


def expand(program: Program, key: Key, labels: tuple, alone: bool = False) -> list[Term] | None:
    """The cotangent `key`, with these labels for its axes (None where the size is 1), as terms; None if no
    rule applies.

    `alone`: nothing is added to it later, so that its axes may be renamed.
    """
    k, output, eqn = program.equation(key)
    if eqn is None or "cotangent" not in program.depends(key):
        return None
    found = _RULES.get(eqn.primitive.name)
    if eqn.primitive.name == "scan":
        return found(program, k, output, labels)
    return found and found(program, eqn, labels, alone)


def block(program: Program, key: Key, labels: tuple) -> Term:
    return Term(tuple(factors_of(program, key, labels)))


def expand_or_block(program: Program, key: Key, labels: tuple, alone: bool = False) -> list[Term]:
    return expand(program, key, labels, alone) or [block(program, key, labels)]


def expand_sum(program: Program, keys: list[Key], labels: tuple) -> list[Term] | None:
    """The sum of cotangents as terms; None if no rule applies to any of them."""
    expanded = [expand(program, key, labels) for key in keys]
    if not any(expanded):
        return None
    return [term for key, terms in zip(keys, expanded) for term in terms or [block(program, key, labels)]]


def factors_of(program: Program, key: Key, labels: tuple) -> list[Factor]:
    """A value as a factor, free of scalings and unit axes: layers that share a delta then share its Gram
    matrix."""
    scalars = []
    while True:
        _, _, eqn = program.equation(key)
        name = eqn.primitive.name if eqn else ""
        if name in ("mul", "div") and (split := scaling(program, eqn)):
            key, scale = split
            scalars.append(scale)
        elif name == "transpose":
            labels = transposed(eqn, labels)
            key = eqn.invars[0]
        elif name in ("reshape", "squeeze", "reduce_sum", "broadcast_in_dim") and only_unit_axes(eqn):
            key, labels = eqn.invars[0], respread(eqn.invars[0].aval.shape, labels)
        else:
            return [Factor(key, tuple(label for label in labels if label is not None)), *scalars]


def scaling(program: Program, eqn: JaxprEqn) -> tuple[Key, Factor] | None:
    """The operand of a scaling, and the scalar as a factor."""
    for operand, scale in (eqn.invars, eqn.invars[::-1]) if eqn.primitive.name == "mul" else (eqn.invars,):
        _, _, source = program.equation(scale)
        if (
            source is not None
            and source.primitive.name == "broadcast_in_dim"
            and not source.invars[0].aval.shape
        ):
            scale = source.invars[0]
        if (
            not scale.aval.shape
            and "cotangent" not in program.depends(scale)
            and not isinstance(operand, Literal)
        ):
            return operand, Factor(scale, (), jnp.asarray if eqn.primitive.name == "mul" else jnp.reciprocal)
    return None


def thick(shape) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def summed_labels(shape) -> tuple:
    """New labels that are summed over."""
    return tuple(None if size == 1 else -fresh() for size in shape)


def only_unit_axes(eqn: JaxprEqn) -> bool:
    """Whether an operation only adds or drops axes of size 1."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if eqn.primitive.name == "broadcast_in_dim" and not before:
        return math.prod(after) == 1
    return thick(before) == thick(after)


def respread(shape, labels) -> tuple:
    """The labels of the axes longer than 1, for a shape with other axes of size 1."""
    rest = (label for label in labels if label is not None)
    return tuple(None if size == 1 else next(rest) for size in shape)


def transposed(eqn: JaxprEqn, labels) -> tuple:
    named = dict(zip(eqn.params["permutation"], labels))
    return tuple(named[i] for i in range(len(named)))


def is_zero(program: Program, key: Key) -> bool:
    if isinstance(key, Literal):
        return not key.val
    _, _, eqn = program.equation(key)
    return eqn is not None and eqn.primitive.name == "broadcast_in_dim" and is_zero(program, eqn.invars[0])
