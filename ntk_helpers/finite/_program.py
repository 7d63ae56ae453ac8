"""A jaxpr as a program to take apart: calls inlined, who depends on what, and only what is asked for
evaluated."""

from collections.abc import Iterable
from functools import cached_property

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var

from ntk_helpers._lib.old_jax import bind

__all__ = ["Program", "flatten"]

CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}
Key = Var | Literal | tuple
"""A value of a program: a variable, a literal, or `(k, key)`: what `key` is in each step of loop k,
stacked."""


def flatten(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same function with every call inlined. A `custom_jvp` or `custom_vjp` keeps its rule and stays."""

    def inlined(closed, *inputs):
        env = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *inputs]))
        for eqn in closed.jaxpr.eqns:
            values = [read(env, v) for v in eqn.invars]
            if eqn.primitive.name in CALLS:
                inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
                closed_inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
                outputs = inlined(closed_inner, *values)
            else:
                outputs = evaluate(eqn, values)
            env.update(zip(eqn.outvars, outputs))
        return [read(env, v) for v in closed.jaxpr.outvars]

    return jax.make_jaxpr(lambda *inputs: inlined(closed, *inputs))(*(v.aval for v in closed.jaxpr.invars))


def read(env: dict, key: Key):
    """The value of a variable or literal."""
    return key.val if isinstance(key, Literal) else env[key]


def evaluate(eqn: JaxprEqn, values: list) -> list:
    """The outputs of one equation."""
    outputs = bind(eqn, values)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


class Program:
    """A flat jaxpr whose inputs depend on named things; `depends` says the same of each of its values."""

    def __init__(self, closed: ClosedJaxpr, depends: Iterable[frozenset]):
        self.closed, self.jaxpr = closed, closed.jaxpr
        self.made_by = {v: (k, i) for k, eqn in enumerate(self.jaxpr.eqns) for i, v in enumerate(eqn.outvars)}
        self.loops: dict[int, Loop] = {}
        self._depends = dict(zip(self.jaxpr.invars, depends))
        for k, eqn in enumerate(self.jaxpr.eqns):
            inputs = [self.depends(v) for v in eqn.invars]
            if eqn.primitive.name == "scan":
                self.loops[k] = Loop(eqn, inputs)
                outputs = self.loops[k].outputs_depend
            else:
                outputs = [frozenset().union(*inputs)] * len(eqn.outvars)
            self._depends.update(zip(eqn.outvars, outputs))

    def depends(self, key: Key) -> frozenset:
        """What a value depends on."""
        if isinstance(key, tuple):
            return self.loops[key[0]].body.depends(key[1])
        return frozenset() if isinstance(key, Literal) else self._depends.get(key, frozenset())

    def aval(self, key: Key) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a value."""
        if not isinstance(key, tuple):
            return jax.ShapeDtypeStruct(key.aval.shape, key.aval.dtype)
        loop = self.loops[key[0]]
        inner = loop.body.aval(key[1])
        return jax.ShapeDtypeStruct((loop.length, *inner.shape), inner.dtype)

    def equation(self, key: Key) -> tuple[int, int, JaxprEqn | None]:
        """The equation that makes a variable, its number, and which of its outputs the variable is."""
        k, i = self.made_by.get(key, (-1, 0)) if isinstance(key, Var) else (-1, 0)
        return k, i, None if k < 0 else self.jaxpr.eqns[k]

    def needed(self, keys: Iterable[Key]) -> tuple[list[tuple[int, list]], set[Var]]:
        """The equations, in order, that `keys` need, each with what is asked of it; and all variables they
        read."""
        variables, asked, order = set(), {}, []
        for key in keys:
            if isinstance(key, tuple):
                asked.setdefault(key[0], []).append(key[1])
            elif isinstance(key, Var):
                variables.add(key)
        for k in range(len(self.jaxpr.eqns) - 1, -1, -1):
            eqn = self.jaxpr.eqns[k]
            outputs = [i for i, v in enumerate(eqn.outvars) if v in variables]
            stacked = list(dict.fromkeys(asked.get(k, ())))
            if not outputs and not stacked:
                continue
            order.append((k, (outputs, stacked)))
            inputs = self.loops[k].inputs(outputs, stacked) if k in self.loops else range(len(eqn.invars))
            variables |= {eqn.invars[i] for i in inputs if isinstance(eqn.invars[i], Var)}
        return order[::-1], variables

    def run(self, keys: list[Key], inputs: dict) -> list:
        """The values of `keys`, and nothing that they do not need, from the values of input variables."""
        env = dict(zip(self.jaxpr.constvars, self.closed.consts)) | inputs
        for k, (outputs, stacked) in self.needed(keys)[0]:
            eqn = self.jaxpr.eqns[k]
            if k in self.loops:
                operands = [v.val if isinstance(v, Literal) else env.get(v) for v in eqn.invars]
                made, stacks = self.loops[k].run(operands, outputs, stacked)
                env.update({eqn.outvars[i]: value for i, value in made.items()})
                env.update({(k, key): value for key, value in stacks.items()})
            else:
                env.update(zip(eqn.outvars, evaluate(eqn, [read(env, v) for v in eqn.invars])))
        return [read(env, key) for key in keys]


class Loop:
    """A `scan`: `body` is the program of one step.

    A step reads constants, carries and slices, in this order, and returns carries and slices. In the loop's
    own equation slices have one axis more, that of the steps; the others have not.
    """

    def __init__(self, eqn: JaxprEqn, depends: list[frozenset]):
        self.length, self.reverse = eqn.params["length"], eqn.params["reverse"]
        flat, depends = flatten(eqn.params["jaxpr"]), list(depends)
        # JAX names and counts these parts of a scan differently from version to version; the ranks tell them.
        self.carries = _of_equal_rank(eqn.outvars, flat.jaxpr.outvars)
        self.consts = _of_equal_rank(eqn.invars, flat.jaxpr.invars) - self.carries
        # A carry depends on what it starts from and on all that earlier steps put into it: repeat until no
        # carry gains anything, at most once for each pair of a carry and an input.
        while True:
            self.body = Program(flat, depends)
            carried = [self.body.depends(v) for v in flat.jaxpr.outvars[: self.carries]]
            first = depends[self.consts : self.consts + self.carries]
            widened = [before | after for before, after in zip(first, carried)]
            if widened == first:
                break
            depends[self.consts : self.consts + self.carries] = widened
        self.outputs_depend = [self.body.depends(v) for v in flat.jaxpr.outvars]

    @cached_property
    def carry_in(self) -> list[Var]:
        """The carries at the start of a step."""
        return self.body.jaxpr.invars[self.consts : self.consts + self.carries]

    def kept(self, outputs: list[int], stacked: list[Key]) -> list[int]:
        """The carries that the outputs and stacked values need, some only by way of others.

        The others are left out: the loops of a backward pass add up each parameter's whole gradient in a
        carry, which is what a structured kernel never forms.
        """
        out = self.body.jaxpr.outvars
        kept = {i for i in outputs if i < self.carries}
        while True:
            _, read = self.body.needed([*stacked, *(out[i] for i in {*outputs, *kept})])
            more = kept | {i for i, v in enumerate(self.carry_in) if v in read}
            if more == kept:
                return sorted(kept)
            kept = more

    def inputs(self, outputs: list[int], stacked: list[Key]) -> list[int]:
        """Which operands of the scan are needed."""
        kept = self.kept(outputs, stacked)
        dropped = {self.consts + i for i in range(self.carries) if i not in kept}
        return [i for i in range(len(self.body.jaxpr.invars)) if i not in dropped]

    def wanted(self, outputs: list[int], stacked: list[Key]) -> list[Key]:
        """What a step must compute: the carries that are kept, slices of outputs, stacked values."""
        out = self.body.jaxpr.outvars
        return [
            *(out[i] for i in [*self.kept(outputs, stacked), *(i for i in outputs if i >= self.carries)]),
            *stacked,
        ]

    def run(self, operands: list, outputs: list[int], stacked: list[Key]) -> tuple[dict, dict]:
        """The wanted outputs by number, and the stacked values by key."""
        body, kept, wanted = self.body, self.kept(outputs, stacked), self.wanted(outputs, stacked)
        slices = [i for i in outputs if i >= self.carries]
        first = self.consts + self.carries

        def step(carry, xs):
            inputs = dict(zip(body.jaxpr.invars, operands[: self.consts]))
            inputs |= zip((self.carry_in[i] for i in kept), carry)
            inputs |= zip(body.jaxpr.invars[first:], xs)
            values = [jax.numpy.asarray(v) for v in body.run(wanted, inputs)]
            return values[: len(kept)], values[len(kept) :]

        start = [operands[self.consts + i] for i in kept]
        last, stacks = jax.lax.scan(step, start, operands[first:], self.length, self.reverse)
        made = dict(zip(kept, last)) | dict(zip(slices, stacks))
        return made, dict(zip(stacked, stacks[len(slices) :]))


def _of_equal_rank(outside: list, inside: list) -> int:
    """How many of a loop's values its step has whole, not as slices."""
    return sum(len(v.aval.shape) == len(w.aval.shape) for v, w in zip(outside, inside))
