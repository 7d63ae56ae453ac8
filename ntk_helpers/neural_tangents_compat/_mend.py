"""Mend what neural-tangents computes with internals of JAX and SciPy that are gone.

Only attributes of neural-tangents' own modules are replaced, each by a function of public JAX.
"""

import functools
import math
import textwrap
import types
import warnings
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.extend.core import Literal
from jax.interpreters import ad
from neural_tangents._src import empirical, predict

from ntk_helpers._lib.old_jax import set_current_trace
from ntk_helpers.neural_tangents_compat._linear import apply_equation, linear_program

__all__ = ["apply", "probe"]

Method = empirical.NtkImplementation


def apply() -> dict[str, str]:
    """Replace what is broken inside neural-tangents; returns what and why."""
    return {
        f"{module.__name__}.{name}": _replace(module, name, value, why) for module, name, value, why in _MENDS
    }


def _replace(module: types.ModuleType, name: str, value: object, why: str) -> str:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name}")
    setattr(module, name, value)
    return why


def _view(module: types.ModuleType, **names) -> types.ModuleType:
    """A copy of a module's namespace with some names of its own."""
    view = types.ModuleType(module.__name__, module.__doc__)
    vars(view).update(vars(module), **names)
    return view


# STRUCTURED_DERIVATIVES


def _primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals_in):
    primals_out, closed = linear_program(fn, *primals_in)
    jaxpr, structure = closed.jaxpr, jax.tree.structure(primals_in)

    def pullback(*cotangents):
        outputs = empirical._backward_pass(
            jaxpr,
            mode=mode,
            consts=closed.consts,
            primals_in=[ad.UndefinedPrimal(v.aval) for v in jaxpr.invars],
            cotangents_in=tuple(jax.tree.leaves(cotangents)),
            _j_rules=_j_rules,
            _s_rules=_s_rules,
            _fwd=_fwd,
        )
        return jax.tree.unflatten(structure, outputs)

    return primals_out, pullback


def _shape_only(value) -> bool:
    return isinstance(value, (ad.UndefinedPrimal, jax.core.ShapedArray))


def _aval(value) -> jax.core.ShapedArray:
    return value.aval if isinstance(value, ad.UndefinedPrimal) else value


def _eqn_vjp_fn(eqn, cotangent, *invals):
    """Cotangents of a linear equation's inputs; zeros for the inputs that are constants."""
    if eqn is None:
        return (cotangent,)
    avals = [_aval(v) if _shape_only(v) else jax.typeof(v) for v in invals]
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(aval) for aval in avals]
    linear = [i for i, v in enumerate(invals) if _shape_only(v)]

    def equation(*tangents):
        values = dict(zip(linear, tangents))
        return apply_equation(eqn, *(values.get(i, v) for i, v in enumerate(invals)))[0]

    transposed = jax.linear_transpose(equation, *(avals[i] for i in linear))(cotangent)
    cotangents = dict(zip(linear, transposed))
    return [cotangents.get(i, ad.Zero(aval)) for i, aval in enumerate(avals)]


def _eqn_jvp_fn(eqn, idx, tangent, *invals):
    """The tangent of a linear equation's output for a tangent of input `idx` alone."""
    if eqn is None:
        return tangent
    values = [jnp.zeros(_aval(v).shape, _aval(v).dtype) if _shape_only(v) else v for v in invals]
    values[idx] = tangent
    return apply_equation(eqn, *values)[0]


def _write_cotangent(_, env, variable, cotangent):
    if not isinstance(variable, Literal) and not isinstance(cotangent, ad.Zero):
        env[variable] = ad.add_tangents(env[variable], cotangent) if variable in env else cotangent


def _read_primal(env, atom):
    if isinstance(atom, Literal):
        return jnp.asarray(atom.val, atom.aval.dtype)
    return env.get(atom, ad.UndefinedPrimal(atom.aval))


_structured = empirical._structured_derivatives_ntk_fn


@functools.wraps(_structured)
def _structured_or_contraction(f, trace_axes, diagonal_axes, vmap_axes, **kwargs):
    structured = _structured(f, trace_axes, diagonal_axes, vmap_axes, **kwargs)
    contraction = empirical._jacobian_contraction_ntk_fn(f, trace_axes, diagonal_axes, vmap_axes)

    def ntk_fn(x1, x2, params, **apply_fn_kwargs):
        try:
            return structured(x1, x2, params, **apply_fn_kwargs)
        except NotImplementedError as error:
            reason = textwrap.shorten(str(error), 200)
            warnings.warn(
                f"STRUCTURED_DERIVATIVES cannot; JACOBIAN_CONTRACTION answers instead: {reason}", stacklevel=2
            )
            return contraction(x1, x2, params, **apply_fn_kwargs)

    return ntk_fn


# AUTO


def _auto_ntk_fn(**kwargs):
    """The implementation with the fewest FLOPs as compiled for these shapes."""
    fastest = {}

    def ntk_fn(x1, x2, params, **apply_fn_kwargs):
        shapes = jax.tree.map(_shape_and_dtype, (x1, x2, params, apply_fn_kwargs))
        leaves, structure = jax.tree.flatten(shapes)
        key = (structure, tuple(leaves))
        if key not in fastest:
            methods = [
                empirical.empirical_ntk_fn(**kwargs, implementation=m) for m in Method if m != Method.AUTO
            ]
            fastest[key] = min(methods, key=lambda method: _flops(method, True, *shapes[:3], **shapes[3]))
        return fastest[key](x1, x2, params, **apply_fn_kwargs)

    return ntk_fn


def _shape_and_dtype(a) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a))


def _flops(f, optimize, *args, **kwargs) -> float:
    lowered = jax.jit(f).lower(*args, **kwargs)
    analysis = (lowered.compile() if optimize else lowered).cost_analysis()
    return analysis.get("flops", np.inf)


# predict


def _eigvalsh(a, eigvals=None, **kwargs):
    return scipy.linalg.eigvalsh(a, subset_by_index=eigvals, **kwargs)


def _where_its_arguments_live(solver):
    """Solve in the innermost trace of the arguments: the result is cached, so it must not belong to a passing
    one."""

    @functools.wraps(solver)
    def wrapped(*args, **kwargs):
        traces = [
            leaf._trace for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, jax.core.Tracer)
        ]
        with set_current_trace(max(traces, key=_depth)) if traces else jax.core.eval_context():
            return solver(*args, **kwargs)

    return wrapped


def _depth(trace) -> int:
    return 1 + _depth(trace.parent_trace) if hasattr(trace, "parent_trace") else 0


_solve_why = "solved in jax.core.eval_context, which takes no tracers any more; now where the arguments live"
_sp = types.SimpleNamespace(linalg=types.SimpleNamespace(eigvalsh=_eigvalsh))
_methods = empirical._implementation_to_ntk_fn | {
    Method.AUTO: _auto_ntk_fn,
    Method.STRUCTURED_DERIVATIVES: _structured_or_contraction,
}
_jnp = _view(jnp, shape=np.shape, size=lambda a: math.prod(np.shape(a)), dtype=jnp.result_type)
_ad = _view(ad, source_info_util=types.SimpleNamespace(transform_name_stack=lambda _: nullcontext()))

_MENDS = [
    (
        empirical,
        "_get_primals_out_and_pullback",
        _primals_out_and_pullback,
        "called a form of ad.linearize that is gone",
    ),
    (
        empirical,
        "_eqn_vjp_fn",
        _eqn_vjp_fn,
        "called JAX's transpose rules, which changed; now jax.linear_transpose",
    ),
    (
        empirical,
        "_eqn_jvp_fn",
        _eqn_jvp_fn,
        "called JAX's JVP rules, which changed; now applies the linear equation",
    ),
    (empirical, "_write_cotangent", _write_cotangent, "checked types with core.lattice_join, which is gone"),
    (
        empirical,
        "_read_primal",
        _read_primal,
        "knew core.DShapedArray, which is gone; literals are now Python numbers",
    ),
    (empirical, "ad", _ad, "a view with source_info_util, which only names a profiler scope"),
    (
        empirical,
        "jnp",
        _jnp,
        "a view whose shape, size and dtype take what nt gives them; JAX warns and will refuse",
    ),
    (empirical, "_structured_derivatives_ntk_fn", _structured_or_contraction, "falls back, with a warning"),
    (empirical, "_empirical_auto_ntk_fn", _auto_ntk_fn, "printed what it tried"),
    (empirical, "_get_flops", _flops, "read a removed form of the compiler's cost analysis"),
    (empirical, "_implementation_to_ntk_fn", _methods, "names the two above"),
    (predict, "_get_cho_solve", _where_its_arguments_live(predict._get_cho_solve), _solve_why),
    (
        predict,
        "_get_fns_in_eigenbasis",
        _where_its_arguments_live(predict._get_fns_in_eigenbasis),
        _solve_why,
    ),
    (predict, "sp", _sp, "its one use of SciPy is eigvalsh with the keyword eigvals, which SciPy removed"),
]


def probe(nt: types.ModuleType) -> None:
    """A small structured NTK against its Jacobian contraction; for a JAX that was not tested."""
    init, f, _ = nt.stax.serial(nt.stax.Dense(3), nt.stax.Relu(), nt.stax.Dense(2))
    x = jnp.arange(8.0).reshape(4, 2) / 8
    _, params = jax.jit(init, static_argnums=1)(jax.random.key(0), x.shape)
    methods = [nt.empirical_ntk_fn(f, trace_axes=(), implementation=m) for m in Method if m != Method.AUTO]
    kernels = [jax.jit(ntk_fn)(x, None, params) for ntk_fn in methods]
    for kernel in kernels[1:]:
        np.testing.assert_allclose(kernel, kernels[0], rtol=1e-4, atol=1e-5)
