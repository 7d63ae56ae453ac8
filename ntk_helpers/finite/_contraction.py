r"""Kernels from factors: each pair of terms is a product of small arrays, contracted in the cheapest order.

A layer of inputs $a$ and deltas $\delta$ adds the einsum `iPA,iaPB,jQA,jbQB->ijab`, with P, Q the positions
of two inputs. Its orders are the methods of Novak et al. (2022), Table 1: joining each input's own two
factors first forms Jacobians, joining the like factors of two inputs first forms their Gram matrices. Which
is cheaper depends on the sizes.
"""

import math
from dataclasses import dataclass
from itertools import product
from string import ascii_letters

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ntk_helpers.finite._gradients import Gradient
from ntk_helpers.finite._program import Program
from ntk_helpers.finite._terms import Factor, Term

__all__ = ["OUTPUTS", "Contraction", "contract", "plan"]

OUTPUTS = {"full": "ijab", "trace": "ij", "diagonal": "ija"}
LETTERS = [letter for letter in ascii_letters if letter not in "ijab"]


@dataclass(frozen=True)
class Operand:
    """A factor at the points of one side, with a letter for each axis."""

    side: int
    factor: Factor
    axes: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """An einsum with its cheapest order, that order's operations, and the entries of its largest
    intermediate."""

    operands: tuple[Operand, ...]
    result: str
    order: tuple[tuple[int, ...], ...]
    flops: int
    entries: int


@dataclass(frozen=True)
class Contraction:
    """What one parameter adds to the kernel: `pairs` to sum or, where that is cheaper, its blocks of both
    Jacobians."""

    gradient: Gradient
    pairs: tuple[Product, ...]
    blocks: tuple[tuple[Product, ...], ...]
    flops: int
    bytes: int


def plan(program: Program, gradient: Gradient, sizes: dict[str, int], output: str) -> Contraction:
    """The cheaper of all pairs of a parameter's terms and of its Jacobian blocks; `sizes` of i, j, a and b.

    A parameter that is used once has one pair: there the order of the product makes the same choice.
    """
    ways = [_of_pairs(program, gradient, sizes, output)]
    if len(gradient.terms) > 1:
        ways.append(_of_blocks(program, gradient, sizes, output))
    return min(ways, key=lambda way: way.flops)


def _of_pairs(program, gradient: Gradient, sizes, output: str) -> Contraction:
    """Every term of one side with every term of the other."""
    pairs = []
    for term, other in product(gradient.terms, repeat=2):
        letters: dict = {}  # shared, so that the parameter's axes have one letter on both sides
        left = _operands(program, term, 0, "ia", letters, sizes)
        right = _operands(program, other, 1, _second(output), letters, sizes)
        pairs.append(_product(left + right, OUTPUTS[output]))
    entries = max(pair.entries for pair in pairs)
    flops = sum(pair.flops for pair in pairs)
    return Contraction(gradient, tuple(pairs), (), flops, gradient.aval.dtype.itemsize * entries)


def _of_blocks(program, gradient: Gradient, sizes, output: str) -> Contraction:
    """Each side's terms summed to its block of the Jacobian, and one product of both blocks."""
    axes = sorted({label for factor in gradient.terms[0].factors for label in factor.labels if label > 0})
    letters = dict(zip(axes, LETTERS))
    own = "".join(letters.values())

    def block(term: Term, side: int, point: str) -> Product:
        return _product(_operands(program, term, side, point, dict(letters), sizes), point + own)

    blocks = tuple(
        tuple(block(term, side, point) for term in gradient.terms) for side, point in enumerate(("ia", "ja"))
    )
    made = [each for side in blocks for each in side]
    size = math.prod(gradient.aval.shape)
    entries = (sizes["i"] + sizes["j"]) * sizes["a"] * size + max(each.entries for each in made)
    summed = sizes["a"] if output == "trace" else 1
    last = 2 * size * summed * math.prod(sizes[letter] for letter in OUTPUTS[output])
    flops = last + sum(each.flops for each in made)
    return Contraction(gradient, (), blocks, flops, gradient.aval.dtype.itemsize * entries)


def _second(output: str) -> str:
    """The letters of the second side's points and outputs: those of the first, but for the full kernel."""
    return "jb" if output == "full" else "ja"


def contract(contraction: Contraction, values: tuple[dict, dict], output: str) -> Array:
    """One parameter's part of the kernel, (i, j, ...), from its factors' values at both sides."""
    result = OUTPUTS[output]
    if not contraction.blocks:
        return sum(_evaluate(pair, values) for pair in contraction.pairs)
    left, right = (sum(_evaluate(block, values) for block in side) for side in contraction.blocks)
    rest = contraction.blocks[0][0].result[2:]
    return _arranged(_join((left, "ia" + rest), (right, _second(output) + rest), result), result)


def _operands(
    program: Program, term: Term, side: int, point: str, letters: dict, sizes: dict
) -> list[Operand]:
    """A term's factors at one side; `letters` names the parameter's axes for both sides, summed ones for
    each."""
    found = []
    for factor in term.factors:
        depends = program.depends(factor.key)
        head = (point[0] if "x" in depends else "") + (point[1] if "cotangent" in depends else "")
        keys = [label if label > 0 else (side, label) for label in factor.labels]
        own = "".join(letters.setdefault(key, LETTERS[len(letters)]) for key in keys)
        shape = jax.eval_shape(factor.form, program.aval(factor.key)).shape
        found.append(Operand(side, factor, head + own, (*(sizes[letter] for letter in head), *shape)))
    return found


def _product(operands: list[Operand], result: str) -> Product:
    arrays = [jax.ShapeDtypeStruct(operand.shape, np.float32) for operand in operands]
    present = "".join(letter for letter in result if any(letter in operand.axes for operand in operands))
    spec = ",".join(operand.axes for operand in operands) + "->" + present
    order, info = jnp.einsum_path(spec, *arrays, optimize="optimal" if len(operands) < 7 else "auto")
    return Product(tuple(operands), result, tuple(order), int(info.opt_cost), int(info.largest_intermediate))


def _evaluate(product: Product, values: tuple[dict, dict]) -> Array:
    """Join the operands in the product's order; an axis of the result that nothing has gets size 1."""
    waiting = [(values[operand.side][operand.factor], operand.axes) for operand in product.operands]
    for step in product.order:
        chosen = [waiting.pop(k) for k in sorted(step, reverse=True)]
        kept = {letter for _, axes in waiting for letter in axes} | set(product.result)
        joined = chosen[0]
        for other in chosen[1:]:
            joined = _join(joined, other, kept)
        waiting.append(joined)
    return _arranged(_summed(*waiting[0], product.result), product.result)


def _join(first: tuple[Array, str], second: tuple[Array, str], kept) -> tuple[Array, str]:
    """The product of two arrays with named axes, summed over the axes not in `kept`: one matrix product.

    Axes to contract are merged in the first array's order, so that a product met twice is compiled once.
    """
    first, second = _summed(*first, {*kept, *second[1]}), _summed(*second, {*kept, *first[1]})
    both = [letter for letter in first[1] if letter in second[1]]
    batch, inner = ([letter for letter in both if (letter in kept) is keep] for keep in (True, False))
    free1, free2 = ([letter for letter in axes if letter not in both] for _, axes in (first, second))
    result = "".join(batch + free1 + free2)
    if not inner:
        return _arranged(first, result) * _arranged(second, result), result
    arrays = [
        _merged(_arranged(side, batch + free + inner), len(batch), len(inner))
        for side, free in ((first, free1), (second, free2))
    ]
    batched = tuple(range(len(batch)))
    numbers = (((len(batch) + 1,),) * 2, (batched, batched))
    out = lax.dot_general(*arrays, numbers, precision=lax.Precision.HIGHEST)
    size = dict(zip(first[1] + second[1], first[0].shape + second[0].shape))
    return out.reshape([size[letter] for letter in result]), result


def _summed(array: Array, axes: str, kept) -> tuple[Array, str]:
    gone = tuple(k for k, letter in enumerate(axes) if letter not in kept)
    return (array.sum(gone) if gone else array), "".join(letter for letter in axes if letter in kept)


def _arranged(named: tuple[Array, str], axes) -> Array:
    """The array with its axes in this order, and size 1 for those that it has not."""
    array, own = named
    order = [own.index(letter) for letter in axes if letter in own]
    missing = [k for k, letter in enumerate(axes) if letter not in own]
    return jnp.expand_dims(array.transpose(order), missing)


def _merged(array: Array, batch: int, inner: int) -> Array:
    shape = array.shape
    return array.reshape(
        *shape[:batch], math.prod(shape[batch : len(shape) - inner]), math.prod(shape[len(shape) - inner :])
    )
