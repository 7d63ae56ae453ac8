"""What an empirical NTK costs by each method, before any work, and the blocks that fit into memory."""

import math
from dataclasses import dataclass, field

from ntk_helpers.finite._methods import Analysis, Method

__all__ = ["NTKCost", "estimate"]

ADVANTAGE = 2
"""Operations of the Jacobian count this much more: they are many small products and grouped convolutions."""


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
    """What `empirical_ntk_cost` returns, to be printed: an estimate made before any work.

    It says the method, the shape of the kernel, the points in a block of rows and of columns, operations in
    all, bytes at the peak and of the kernel alone; how each parameter is handled, and the operations of the
    other methods.

    >>> net, x = MLP(depth=2, width=64), jax.ShapeDtypeStruct((10, 3), jnp.float32)
    >>> print(empirical_ntk_cost(net, net.init(jax.random.key(0), d_in=3), x))
    method structured, output full (10, 10, 1, 1), in blocks of 10 × 10 points
    ...
    """

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
        blocks = f"in blocks of {self.block[0]} × {self.block[1]} points"
        memory = f"{_si(self.bytes)}B at the peak, {_si(self.result_bytes)}B of them the kernel"
        head = [
            f"method {self.method}, output {self.output} {self.shape}, {blocks}",
            f"{_si(self.flops)}FLOP ({others}), {memory}",
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


def estimate(
    methods: dict[str, Method], n1: int, n2: int, symmetric: bool, method: str, budget: int
) -> NTKCost:
    """The given method, or the cheapest, in the largest blocks that fit; `ValueError` if none does.

    NTK-vector products can cancel in float32, so that the cheapest is never they.
    """
    analysis = methods["structured"].analysis
    names = ("structured", "jacobian") if method == "auto" else (method,)
    found = {name: _fit(methods[name], n1, n2, symmetric, budget) for name in names}
    fitting = {name: cost for name, cost in found.items() if cost[1] <= budget}
    if not fitting:
        raise ValueError(_refusal(analysis, found, n1, n2, budget))
    name = min(fitting, key=lambda name: fitting[name][0] * (1 if name == "structured" else ADVANTAGE))
    flops, peak, block = fitting[name]
    handled = zip(analysis.gradients, methods[name].of_parameters(*block))
    shape = analysis.shape(n1, n2)
    return NTKCost(
        method=name,
        output=analysis.output,
        shape=shape,
        block=block,
        flops=flops,
        bytes=peak,
        result_bytes=math.prod(shape) * analysis.itemsize,
        parameters=tuple(ParameterCost(g.name, tuple(g.aval.shape), *how) for g, how in handled),
        others={other: cost[0] for other, cost in found.items()},
    )


def _fit(method: Method, n1: int, n2: int, symmetric: bool, budget: int):
    """Operations, peak bytes and block of a method: blocks are halved until they fit."""
    block = (n1, n2)
    while True:
        flops, peak = _total(method, n1, n2, symmetric, block)
        if peak <= budget or block == (1, 1):
            return flops, peak, block
        longer = max(block)
        block = tuple(-(-size // 2) if symmetric or size == longer else size for size in block)


def _total(method: Method, n1: int, n2: int, symmetric: bool, block: tuple[int, int]) -> tuple[int, int]:
    """Operations in all, and bytes at the peak."""
    rows, columns = (-(-n // size) for n, size in zip((n1, n2), block))
    cells = rows * (rows + 1) // 2 if symmetric else rows * columns
    input_flops, kept_bytes, working_bytes = method.of_an_input
    pair_flops, pair_bytes = method.of_a_pair(*block)
    once = symmetric and cells == 1  # both sides of the only block are the same inputs
    prepared = rows * block[0] + (0 if once else cells * block[1])
    itemsize = method.analysis.itemsize
    result, cell = (math.prod(method.analysis.shape(*size)) * itemsize for size in ((n1, n2), block))
    kept = (block[0] + (0 if once else block[1])) * kept_bytes
    working = max(max(block) * working_bytes, pair_bytes + cell)
    flops = prepared * input_flops + cells * pair_flops
    return flops, result + kept + working + (0 if cells == 1 else cell)


def _refusal(analysis: Analysis, found: dict[str, tuple], n1: int, n2: int, budget: int) -> str:
    shape = analysis.shape(n1, n2)
    least = min(peak for _, peak, _ in found.values())
    result = _si(math.prod(shape) * analysis.itemsize)
    say = (
        f"The kernel of shape {shape} takes {result}B, with one point at a time {_si(least)}B at the peak; "
        f"memory_budget is {_si(budget)}B. "
    )
    trace = f'output="trace" takes {_si(n1 * n2 * analysis.itemsize)}B for the kernel; or '
    remedy = trace if analysis.output != "trace" else ""
    file = "compute it in blocks that go to a file, by tiled(..., path=...)."
    return say + f"Expected a kernel that fits: {remedy}{file}"
