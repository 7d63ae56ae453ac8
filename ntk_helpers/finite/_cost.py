"""What an empirical NTK costs by each method, counted from the jaxpr before any work, and the blocks that
fit."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import jax
from jax.extend.core import JaxprEqn, Var

from ntk_helpers.finite._contraction import OUTPUTS, plan
from ntk_helpers.finite._gradients import gradient_terms
from ntk_helpers.finite._methods import METHODS
from ntk_helpers.finite._program import Program

__all__ = ["NTKCost", "estimate"]

ADVANTAGE = 2
"""Operations of the other methods count this much more: theirs are many small products and grouped
convolutions."""


@dataclass(frozen=True)
class ParameterCost:
    """One parameter: `how` it is handled, and the FLOPs and bytes of its contraction for one block."""

    name: str
    shape: tuple[int, ...]
    how: str
    flops: int
    bytes: int


@dataclass(frozen=True)
class NTKCost:
    """An estimate: the method, points in a block of rows and of columns, FLOPs in all, bytes at the peak."""

    method: str
    output: str
    shape: tuple[int, ...]
    block: tuple[int, int]
    flops: int
    bytes: int
    result_bytes: int
    parameters: tuple[ParameterCost, ...]
    others: dict[str, int] = field(hash=False, compare=False)

    def __str__(self):
        others = ", ".join(f"{name} {_si(flops)}FLOP" for name, flops in self.others.items())
        head = [
            f"method {self.method}, output {self.output} {self.shape}, in blocks of {self.block[0]} × {self.block[1]} points",
            f"{_si(self.flops)}FLOP ({others}), {_si(self.bytes)}B at the peak, {_si(self.result_bytes)}B of them the kernel",
        ]
        width = max(len(p.name) + len(str(p.shape)) for p in self.parameters) + 2
        rows = [
            f"  {p.name + ' ' + str(p.shape):<{width}} {p.how:<30}{_si(p.flops):>8}FLOP{_si(p.bytes):>8}B"
            for p in self.parameters
        ]
        return "\n".join(head + rows)


def _si(number: float) -> str:
    power = min(max(int(math.log10(max(number, 1)) // 3), 0), 5)
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}"


def estimate(apply, params, x1, x2, output: str, method: str, budget: int) -> NTKCost:
    """The cheapest method, or the given one, in the largest blocks that fit; `ValueError` if none does."""
    counts = Counts(apply, params, jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype), output)
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    names = tuple(METHODS) if method == "auto" else (method,)
    found = {name: _fit(counts, name, n1, n2, x2 is None, budget) for name in names}
    fitting = {name: cost for name, cost in found.items() if cost[1] <= budget}
    if not fitting:
        raise ValueError(_refusal(counts, found, n1, n2, budget))
    name = min(fitting, key=lambda name: fitting[name][0] * (1 if name == "structured" else ADVANTAGE))
    flops, peak, block = fitting[name]
    shape = counts.shape(n1, n2)
    return NTKCost(
        method=name,
        output=output,
        shape=shape,
        block=block,
        flops=flops,
        bytes=peak,
        result_bytes=math.prod(shape) * counts.itemsize,
        parameters=counts.parameters(name, *block),
        others={other: cost[0] for other, cost in found.items()},
    )


def _fit(counts: "Counts", method: str, n1: int, n2: int, symmetric: bool, budget: int):
    """FLOPs, peak bytes and block of a method: blocks are halved until they fit."""
    block = (n1, n2)
    while True:
        flops, peak = counts.total(method, n1, n2, symmetric, block)
        if peak <= budget or block == (1, 1):
            return flops, peak, block
        longer = max(block)
        block = tuple(-(-size // 2) if symmetric or size == longer else size for size in block)


def _refusal(counts, found, n1, n2, budget) -> str:
    shape = counts.shape(n1, n2)
    result = math.prod(shape) * counts.itemsize
    least = min(peak for _, peak, _ in found.values())
    say = f"The kernel of shape {shape} takes {_si(result)}B, with one point at a time {_si(least)}B at the peak; memory_budget is {_si(budget)}B. "
    trace = n1 * n2 * counts.itemsize
    remedy = f'output="trace" takes {_si(trace)}B for the kernel; or ' if counts.output != "trace" else ""
    return (
        say
        + f"Expected a kernel that fits: {remedy}compute it in blocks that go to a file, by tiled(..., path=...)."
    )


class Counts:
    """Operations and bytes of a function's kernel, for one input and output and then multiplied."""

    def __init__(self, apply, params, x, output):
        self.program, self.gradients = gradient_terms(apply, params, x)
        self.output, self.outputs = output, self.program.jaxpr.invars[-1].aval.shape[0]
        self.itemsize = max(g.aval.dtype.itemsize for g in self.gradients)
        self.size = sum(math.prod(g.aval.shape) for g in self.gradients)
        self.keys = list(
            {
                f.key: None
                for g in self.gradients
                for t in g.terms
                for f in t.factors
                if isinstance(f.key, Var | tuple)
            }
        )

    def shape(self, n1: int, n2: int) -> tuple[int, ...]:
        return tuple({"i": n1, "j": n2}.get(letter, self.outputs) for letter in OUTPUTS[self.output])

    def plans(self, n1, n2):
        sizes = {"i": n1, "j": n2, "a": self.outputs, "b": self.outputs}
        return [plan(self.program, gradient, sizes, self.output) for gradient in self.gradients]

    def parameters(self, method, n1, n2) -> tuple[ParameterCost, ...]:
        if method == "structured":
            how = [(each.gradient.how, each.flops, each.bytes) for each in self.plans(n1, n2)]
        else:
            how = [(method, 0, 0) for _ in self.gradients]
        return tuple(
            ParameterCost(g.name, tuple(g.aval.shape), *each) for g, each in zip(self.gradients, how)
        )

    def total(self, method, n1, n2, symmetric, block) -> tuple[int, int]:
        """FLOPs in all and bytes at the peak."""
        rows, columns = (-(-n // size) for n, size in zip((n1, n2), block))
        cells = rows * (rows + 1) // 2 if symmetric else rows * columns
        keep_flops, keep_bytes, make_bytes = getattr(self, "_" + method)
        pair_flops, pair_bytes = getattr(self, f"_{method}_pair")(*block)
        once = symmetric and cells == 1
        prepared = rows * block[0] + (0 if once else cells * block[1])
        result = math.prod(self.shape(n1, n2)) * self.itemsize
        cell = math.prod(self.shape(*block)) * self.itemsize
        kept = (block[0] + (0 if once else block[1])) * keep_bytes
        working = max(max(block) * make_bytes, pair_bytes + cell)
        return prepared * keep_flops + cells * pair_flops, result + kept + working + (
            0 if cells == 1 else cell
        )

    @cached_property
    def _structured(self):
        flops = sum(
            _flops(self.program, k, asked) * self._times(k) for k, asked in self.program.needed(self.keys)[0]
        )
        factors = {
            id(f): (f, g.aval.dtype.itemsize) for g in self.gradients for t in g.terms for f in t.factors
        }.values()
        kept = sum(
            math.prod(jax.eval_shape(f.form, self.program.aval(f.key)).shape)
            * size
            * self._copies(self.program.depends(f.key))
            for f, size in factors
        )
        return flops, kept, self._working(self.keys)

    def _structured_pair(self, n1, n2):
        plans = self.plans(n1, n2)
        return sum(each.flops for each in plans), max(each.bytes for each in plans)

    @cached_property
    def _jacobian(self):
        flops = sum(_flops(self.program, k, asked) * self._times(k) for k, asked in self._all)
        kept = self.outputs * self.size * self.itemsize
        return flops, kept, self._working(self.program.jaxpr.outvars) + kept

    def _jacobian_pair(self, n1, n2):
        return 2 * math.prod(self.shape(n1, n2)) * self.size * (
            self.outputs if self.output == "trace" else 1
        ), 0

    @cached_property
    def _ntk_vp(self):
        return 0, 0, 0

    def _ntk_vp_pair(self, n1, n2):
        """Each column: a backward pass, and a forward pass of values and tangents at all rows."""
        made = [(k, asked) for k, asked in self._all if "cotangent" not in self._depends(k)]
        forward = sum(_flops(self.program, k, asked) for k, asked in made)
        values = sum(_bytes(v) for k, _ in made for v in self.program.jaxpr.eqns[k].outvars)
        full = n1 * n2 * self.outputs**2 * self.itemsize
        tangents = self.outputs * self.size * self.itemsize
        return n2 * self._jacobian[
            0
        ] + 2 * n1 * n2 * self.outputs * forward, full + tangents + 2 * n1 * self.outputs * values

    @cached_property
    def _all(self):
        return self.program.needed(self.program.jaxpr.outvars)[0]

    def _depends(self, k: int) -> frozenset:
        return frozenset().union(*(self.program.depends(v) for v in self.program.jaxpr.eqns[k].outvars))

    def _copies(self, depends: frozenset) -> int:
        return self.outputs if "cotangent" in depends else 1

    def _times(self, k: int) -> int:
        return self._copies(self._depends(k))

    def _working(self, keys) -> int:
        """Bytes of the values alive at once, for one point, in the program's own order."""
        order, last = self.program.needed(keys)[0], {}
        for k, _ in order:
            last.update({v: k for v in self.program.jaxpr.eqns[k].invars if isinstance(v, Var)})
        alive = peak = 0
        for k, _ in order:
            eqn = self.program.jaxpr.eqns[k]
            sizes = {
                v: _bytes(v) * self._copies(self.program.depends(v))
                for v in [*eqn.invars, *eqn.outvars]
                if isinstance(v, Var)
            }
            alive += sum(sizes[v] for v in eqn.outvars)
            peak = max(peak, alive)
            inputs = {v for v in eqn.invars if isinstance(v, Var)}
            alive -= sum(sizes[v] for v in inputs if last[v] == k and v in self.program.made_by)
            alive -= sum(sizes[v] for v in eqn.outvars if v not in last)
        return peak


def _bytes(v: Var) -> int:
    return math.prod(v.aval.shape) * v.aval.dtype.itemsize


def _flops(program: Program, k: int, asked: tuple[list, list]) -> int:
    """Operations of one equation: products exactly, any other one for each entry of its output."""
    eqn = program.jaxpr.eqns[k]
    if k in program.loops:
        loop = program.loops[k]
        return loop.length * sum(
            _flops(loop.body, inner, wanted) for inner, wanted in loop.body.needed(loop.wanted(*asked))[0]
        )
    entries = sum(math.prod(v.aval.shape) for v in eqn.outvars)
    return entries * _depth(eqn)


def _depth(eqn: JaxprEqn) -> int:
    """Operations for one entry of the output."""
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        return 2 * math.prod(kernel) // kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 1
