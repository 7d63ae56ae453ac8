"""A function as a program and its numbers, so that what differs in numbers alone is compiled once.

JAX compiles anew for every new Python function: each `optax.sgd(rate)`, each `lambda`. Here the function is
traced, the arrays it holds and the real numbers written in it (a learning rate, a level) become arguments of
`jit`, and compiled code is found by the text that is left. The text is also what a checkpoint compares.
"""

import hashlib
import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun
from jax.tree_util import Partial

__all__ = ["Program", "as_program"]


class Program:
    """What a traced function does, without its numbers, which are its first argument; equal for equal text.

    It can be evaluated and batched, not differentiated: the text of a custom derivative is not compared.
    """

    def __init__(self, jaxpr: Jaxpr, outputs):
        self.jaxpr, self.outputs = jaxpr, outputs
        arrays, callbacks = _hidden(jaxpr)
        text = re.sub(r" at 0x[0-9a-f]+", "", str(jaxpr)) + str(outputs)
        self.digest = hashlib.sha256(text.encode() + b"".join(arrays)).hexdigest()
        """The same in every process; of Python functions that are called back it knows the names."""
        self._key = self.digest, outputs, *callbacks

    def __call__(self, numbers, *arguments):
        outputs = jaxpr_as_fun(ClosedJaxpr(self.jaxpr, numbers))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.outputs, outputs)

    def __eq__(self, other):
        return isinstance(other, Program) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


def as_program(f: Callable, *like) -> Partial:
    """`f`, for arguments like these arrays, with its numbers as leaves of a pytree that `jit` takes."""
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*like)
    jaxpr, numbers = _without_numbers(closed.jaxpr)
    return Partial(Program(jaxpr, jax.tree.structure(shapes)), [*closed.consts, *numbers])


def _without_numbers(jaxpr: Jaxpr) -> tuple[Jaxpr, list[np.ndarray]]:
    """The real numbers written in a jaxpr become constants at its end."""
    numbers, names = [], []

    def named(value):
        if not isinstance(value, Literal) or not jnp.issubdtype(value.aval.dtype, jnp.floating):
            return value
        numbers.append(np.asarray(value.val, value.aval.dtype))
        names.append(Var(value.aval))
        return names[-1]

    def renamed(eqn):
        # A power is compiled to products only where its exponent is known.
        kept = 1 if eqn.primitive.name == "pow" else len(eqn.invars)
        return eqn.replace(invars=[*map(named, eqn.invars[:kept]), *eqn.invars[kept:]])

    eqns = [renamed(eqn) for eqn in jaxpr.eqns]
    return jaxpr.replace(constvars=[*jaxpr.constvars, *names], eqns=eqns), numbers


def _hidden(jaxpr: Jaxpr) -> tuple[list[bytes], list]:
    """What the text does not show: arrays inside of inner programs, and Python functions called back."""
    arrays, callbacks = [], []
    for eqn in jaxpr.eqns:
        if "callback" in eqn.params:
            callbacks.append(eqn.params["callback"])
        for inner, consts in _inner(eqn.params):
            arrays += [np.asarray(array).tobytes() for array in consts]
            for found, more in zip((arrays, callbacks), _hidden(inner)):
                found += more
    return arrays, callbacks


def _inner(params: dict) -> Iterator[tuple[Jaxpr, list]]:
    is_program = lambda value: isinstance(value, ClosedJaxpr | Jaxpr)
    for value in filter(is_program, jax.tree.leaves(params, is_leaf=is_program)):
        yield (value.jaxpr, value.consts) if isinstance(value, ClosedJaxpr) else (value, [])
