"""The linear program of a function: its JVP at a point, as a flat jaxpr of one-output equations."""

from collections.abc import Callable

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

__all__ = ["apply_equation", "linear_program", "read"]

_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "eval_jaxpr"}


def linear_program(f: Callable, *primals) -> tuple[object, ClosedJaxpr]:
    """`f(*primals)` and the JVP of f there; each equation of its jaxpr depends on the tangents."""
    with jax.disable_jit():
        primals_out, jvp = jax.linearize(f, *primals)
        nested = jax.make_jaxpr(jvp)(*primals)
    flat = _trace(nested, _constants(nested))
    known = _constants(flat)
    _run(flat.jaxpr, known)
    return primals_out, _trace(flat, known)


def apply_equation(eqn: JaxprEqn, *values) -> list:
    """The outputs of one equation at these inputs."""
    outputs = eqn.primitive.bind(*values, **eqn.params)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def read(env: dict, atom):
    """The value of a variable or literal."""
    return atom.val if isinstance(atom, Literal) else env[atom]


def _constants(closed: ClosedJaxpr) -> dict:
    return dict(zip(closed.jaxpr.constvars, closed.consts))


def _trace(closed: ClosedJaxpr, known: dict) -> ClosedJaxpr:
    """The same program, flattened, with what is already known as constants."""

    def program(*inputs):
        env = {**known, **dict(zip(closed.jaxpr.invars, inputs))}
        _run(closed.jaxpr, env)
        return [read(env, v) for v in closed.jaxpr.outvars]

    return jax.make_jaxpr(program)(*(v.aval for v in closed.jaxpr.invars))


def _run(jaxpr: Jaxpr, env: dict) -> None:
    """Evaluate into `env` all equations whose inputs are there and whose outputs are not."""
    for eqn in jaxpr.eqns:
        ready = all(isinstance(v, Literal) or v in env for v in eqn.invars)
        if ready and not all(v in env for v in eqn.outvars):
            env.update(zip(eqn.outvars, _flat_outputs(eqn, [read(env, v) for v in eqn.invars])))


def _flat_outputs(eqn: JaxprEqn, values: list) -> list:
    """One equation's outputs: a call inlined, a newer primitive in terms of older ones."""
    name, params = eqn.primitive.name, eqn.params
    if name in _CALLS:
        inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
        env = {**_constants(closed), **dict(zip(closed.jaxpr.invars, values))}
        _run(closed.jaxpr, env)
        return [read(env, v) for v in closed.jaxpr.outvars]
    if name in _OLDER_FORMS:
        return _OLDER_FORMS[name](*values, **params)
    return apply_equation(eqn, *values)


def _split(x, *, sizes, axis):
    stops = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [lax.slice_in_dim(x, stop - size, stop, axis=axis) for stop, size in zip(stops, sizes)]


def _unstack(x, *, axis):
    return [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]


def _stack(*xs, axis):
    return [lax.concatenate([lax.expand_dims(x, (axis,)) for x in xs], axis)]


def _tile(x, *, reps):
    shape = [size for pair in zip(reps, x.shape) for size in pair]
    tiled = lax.broadcast_in_dim(x, shape, range(1, 2 * x.ndim, 2))
    return [lax.reshape(tiled, [rep * size for rep, size in zip(reps, x.shape)])]


# neural-tangents has rules for what these are made of, and takes no primitive with several outputs.
_OLDER_FORMS = {"split": _split, "unstack": _unstack, "stack": _stack, "tile": _tile}
