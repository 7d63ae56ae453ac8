"""Operations and bytes of a program, counted from its equations."""

import math
from collections.abc import Iterable

from jax.extend.core import JaxprEqn, Var

from ntk_helpers.finite._program import Key, Program

__all__ = ["Counts"]


class Counts:
    """What a program of one input and one cotangent takes, if each of `outputs` cotangents goes through it.

    What does not depend on the cotangent is computed once for all of them.
    """

    def __init__(self, program: Program, outputs: int):
        self.program, self.outputs = program, outputs

    def copies(self, key: Key) -> int:
        """How many values of `key` there are."""
        return self.outputs if "cotangent" in self.program.depends(key) else 1

    def flops(self, keys: Iterable[Key]) -> int:
        """Operations of all that `keys` need."""
        order, _ = self.program.needed(keys)
        return sum(_flops(self.program, k, asked) * self._times(k) for k, asked in order)

    def forward(self) -> tuple[int, int]:
        """Operations and bytes of the part that does not depend on the cotangent."""
        order, _ = self.program.needed(self.program.jaxpr.outvars)
        order = [(k, asked) for k, asked in order if self._times(k) == 1]
        made = [v for k, _ in order for v in self.program.jaxpr.eqns[k].outvars]
        return sum(_flops(self.program, k, asked) for k, asked in order), sum(map(_bytes, made))

    def working(self, keys: Iterable[Key]) -> int:
        """Bytes of the values alive at once, in the program's own order."""
        order, last = self.program.needed(keys)[0], {}
        for k, _ in order:
            last.update({v: k for v in self.program.jaxpr.eqns[k].invars if isinstance(v, Var)})
        alive = peak = 0
        for k, _ in order:
            eqn = self.program.jaxpr.eqns[k]
            inputs = {v for v in eqn.invars if isinstance(v, Var)}
            size = {v: _bytes(v) * self.copies(v) for v in {*inputs, *eqn.outvars} if isinstance(v, Var)}
            alive += sum(size[v] for v in eqn.outvars)
            peak = max(peak, alive)
            alive -= sum(size[v] for v in inputs if last[v] == k and v in self.program.made_by)
            alive -= sum(size[v] for v in eqn.outvars if v not in last)
        return peak

    def _times(self, k: int) -> int:
        return max(map(self.copies, self.program.jaxpr.eqns[k].outvars), default=1)


def _bytes(v: Var) -> int:
    return math.prod(v.aval.shape) * v.aval.dtype.itemsize


def _flops(program: Program, k: int, asked: tuple[list, list]) -> int:
    """Operations of one equation: products exactly, any other one for each entry of its output."""
    eqn = program.jaxpr.eqns[k]
    if k in program.loops:
        loop = program.loops[k]
        order, _ = loop.body.needed(loop.wanted(*asked))
        return loop.length * sum(_flops(loop.body, inner, wanted) for inner, wanted in order)
    return sum(math.prod(v.aval.shape) for v in eqn.outvars) * _flops_of_an_entry(eqn)


def _flops_of_an_entry(eqn: JaxprEqn) -> int:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return 2 * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 1
