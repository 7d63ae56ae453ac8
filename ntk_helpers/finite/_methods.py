"""The three ways to an empirical NTK, each as two functions: what is kept of some inputs, and the kernel of
two such."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ntk_helpers.finite._contraction import OUTPUTS, contract, plan
from ntk_helpers.finite._gradients import gradient_terms

__all__ = ["METHODS"]


def _structured(apply, params, x, output):
    """Kept: the factors of every parameter's cotangent."""
    program, gradients = gradient_terms(apply, params, x)
    cotangent = program.jaxpr.invars[-1].aval
    factors = [(factor, g.aval.dtype) for g in gradients for term in g.terms for factor in term.factors]
    points, outputs = (
        [0 if name in program.depends(f.key) else None for f, _ in factors] for name in ("x", "cotangent")
    )

    def values(x, one_hot):
        inputs = dict(zip(program.jaxpr.invars, [*jax.tree.leaves(params), x, one_hot]))
        found = program.run([factor.key for factor, _ in factors], inputs)
        return [
            jnp.asarray(factor.form(value)).astype(dtype) for (factor, dtype), value in zip(factors, found)
        ]

    def prepare(xs):
        basis = jnp.eye(cotangent.shape[0], dtype=cotangent.dtype)
        found = jax.vmap(jax.vmap(values, (None, 0), outputs), (0, None), points)(xs, basis)
        return len(xs), {factor: value for (factor, _), value in zip(factors, found)}

    def combine(left, right):
        sizes = {"i": left[0], "j": right[0], "a": cotangent.shape[0], "b": cotangent.shape[0]}
        plans = [plan(program, gradient, sizes, output) for gradient in gradients]
        kernel = sum(contract(each, (left[1], right[1]), output) for each in plans)
        kernel = jnp.broadcast_to(kernel, [sizes[letter] for letter in OUTPUTS[output]])
        return kernel / sizes["a"] if output == "trace" else kernel

    return prepare, combine


def _jacobian(apply, params, x, output):
    """Kept: the Jacobian, (n, o, parameters)."""
    flat, unravel = ravel_pytree(params)

    def combine(j1: Float[Array, "n1 o p"], j2: Float[Array, "n2 o p"]) -> Array:
        if output == "trace":
            rows = (j.reshape(len(j), -1) for j in (j1, j2))
            return jnp.einsum("ip,jp->ij", *rows, precision="highest") / j1.shape[1]
        return jnp.einsum(
            {"full": "iap,jbp->ijab", "diagonal": "iap,jap->ija"}[output], j1, j2, precision="highest"
        )

    jacobian = jax.jacrev(lambda p, xi: apply(unravel(p), xi[None])[0])
    return partial(jax.vmap(jacobian, (None, 0)), flat), combine


def _ntk_vp(apply, params, x, output):
    """Kept: the inputs."""
    out = jax.eval_shape(apply, params, x[None])
    basis = jnp.eye(out.shape[1], dtype=out.dtype)

    def combine(x1, x2):
        def column(xj, one_hot):
            _, vjp = jax.vjp(lambda p: apply(p, xj[None])[0], params)
            return jax.jvp(lambda p: apply(p, x1), (params,), vjp(one_hot))[1]

        columns = jax.lax.map(lambda xj: jax.vmap(partial(column, xj))(basis), x2)
        full = jnp.einsum("jbia->ijab", columns)
        if output == "full":
            return full
        diagonal = jnp.einsum("ijaa->ija", full)
        return diagonal if output == "diagonal" else diagonal.mean(-1)

    return lambda xs: xs, combine


METHODS = {"structured": _structured, "jacobian": _jacobian, "ntk_vp": _ntk_vp}
