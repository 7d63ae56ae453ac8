r"""The tangent kernel of a finite network: $\Theta(x, x') = \sum_p \partial_p f(x)\,\partial_p f(x')$."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from ntk_helpers._inputs import check_batches, check_choice, check_points
from ntk_helpers.mlp import MLP

__all__ = ["empirical_ntk"]

OUTPUTS = ("full", "trace", "diagonal")
METHODS = ("auto", "structured", "jacobian", "ntk_vp")
JACOBIAN_BYTES = 2**31


def empirical_ntk(
    f: MLP | Callable[[PyTree, Array], Array],
    params: PyTree,
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 d"] | None = None,
    output: str = "full",
    method: str = "auto",
) -> Array:
    r"""Empirical NTK $\Theta_{ij,ab} = \nabla f_a(x_i)^\top \nabla f_b(x_j)$ of a finite network.

    `f` is an `MLP`, or any `apply(params, x)` that maps (n, ...) inputs to (n, o) outputs, each row by
    itself. `x2` defaults to `x1`. `output`: `"full"` (n1, n2, o, o); `"diagonal"` (n1, n2, o), the
    entries a = b; `"trace"` (n1, n2), their mean over a.

    `method`, all equal up to rounding (costs and names: Novak et al. 2022, Table 1):

    - `"structured"` (an `MLP` only): $\partial f/\partial W^l$ is the outer product of the layer's input
      and its backpropagated delta, so each layer adds the Gram matrix of its inputs times that of its
      deltas: one backward pass an input and output, and no Jacobian.
    - `"jacobian"`: both Jacobians, contracted. Memory (n1 + n2) · o · parameters.
    - `"ntk_vp"`: one vector-Jacobian and one Jacobian-vector product for each column (j, b) of the kernel.
    - `"auto"`: structured for an `MLP`; else jacobian where the Jacobians fit into 2 GiB, else ntk_vp.

    Raises `ValueError` for unknown names, inputs that are not finite, or an `f` whose output is not (n, o).
    """
    check_choice("output", output, OUTPUTS)
    check_choice("method", method, METHODS)
    if isinstance(f, MLP):
        (x1, x2), apply = check_points(x1, x2), Partial(MLP.apply, f)
    else:
        (x1, x2), apply = check_batches(x1, x2), Partial(f)
    d_out = _output_size(apply, params, x1)
    if method == "auto":
        points = len(x1) + (0 if x2 is None else len(x2))
        leaves = jax.tree.leaves(jax.eval_shape(lambda p: p, params))
        size = points * d_out * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        method = "structured" if isinstance(f, MLP) else "jacobian" if size <= JACOBIAN_BYTES else "ntk_vp"
    if method != "structured":
        return _GENERIC[method](apply, params, x1, x2, output)
    if not isinstance(f, MLP):
        raise ValueError(f"method is 'structured' for f of type {type(f).__name__}; expected an MLP, or another method.")
    return _structured(f, params, x1, x2, output)


def _output_size(apply, params, x) -> int:
    out = jax.eval_shape(apply, params, x)
    if len(getattr(out, "shape", ())) != 2 or out.shape[0] != len(x):
        raise ValueError(f"f maps inputs of shape {x.shape} to {out}; expected an array of shape ({len(x)}, outputs).")
    return out.shape[1]


# --- structured


@partial(jax.jit, static_argnames="output")
def _structured(net: MLP, params, x1, x2, output):
    inputs1, deltas1 = _forward_backward(net, params, x1)
    inputs2, deltas2 = (inputs1, deltas1) if x2 is None else _forward_backward(net, params, x2)
    w_scale, b_scale = net.scales(x1.shape[1])
    head = w_scale[-1] ** 2 * inputs1[-1] @ inputs2[-1].T + b_scale**2
    kernel = _spread_head(head, net.d_out, output)
    for a1, a2, d1, d2, scale in zip(inputs1[:-1], inputs2[:-1], deltas1, deltas2, w_scale):
        gram = scale**2 * a1 @ a2.T + b_scale**2
        kernel = kernel + _contract(d1, d2, output) * (gram if output == "trace" else jnp.expand_dims(gram, _axes(output)))
    return kernel


def _forward_backward(net: MLP, params, x):
    """Inputs of every layer, (n, m), and for all but the last the deltas ∂f/∂z, (n, o, m)."""
    zs = net.preactivations(params, x)
    w_scale, _ = net.scales(x.shape[1])
    delta = jnp.broadcast_to(jnp.eye(net.d_out, dtype=x.dtype), (len(x), net.d_out, net.d_out))
    deltas = []
    for z, layer, scale in zip(zs[-2::-1], params[:0:-1], w_scale[:0:-1]):
        delta = (scale * delta) @ layer["w"].T * net.phi.derivative(z)[:, None]
        deltas.append(delta)
    return [x, *[net.phi.fn(z) for z in zs[:-1]]], deltas[::-1]


def _axes(output: str) -> tuple[int, ...]:
    return {"full": (2, 3), "diagonal": (2,), "trace": ()}[output]


def _spread_head(head: Array, d_out: int, output: str) -> Array:
    """The last layer's part: the same for every output, zero between two."""
    if output == "trace":
        return head
    return jnp.expand_dims(head, _axes(output)) * (jnp.ones(d_out) if output == "diagonal" else jnp.eye(d_out)).astype(head.dtype)


def _contract(j1: Float[Array, "n1 o p"], j2: Float[Array, "n2 o p"], output: str) -> Array:
    """Sum over p, and over the outputs as `output` says."""
    if output == "trace":
        return j1.reshape(len(j1), -1) @ j2.reshape(len(j2), -1).T / j1.shape[1]
    return jnp.einsum(*{"full": ("iap,jbp->ijab",), "diagonal": ("iap,jap->ija",)}[output], j1, j2)


# --- any function


@partial(jax.jit, static_argnames="output")
def _jacobian(apply, params, x1, x2, output):
    j1 = _flat_jacobian(apply, params, x1)
    return _contract(j1, j1 if x2 is None else _flat_jacobian(apply, params, x2), output)


def _flat_jacobian(apply, params, x) -> Float[Array, "n o p"]:
    flat, unravel = ravel_pytree(params)
    return jax.vmap(jax.jacrev(lambda p, xi: apply(unravel(p), xi[None])[0]), (None, 0))(flat, x)


@partial(jax.jit, static_argnames="output")
def _ntk_vp(apply, params, x1, x2, output):
    def column(xj, one_hot):
        _, vjp = jax.vjp(lambda p: apply(p, xj[None])[0], params)
        return jax.jvp(lambda p: apply(p, x1), (params,), vjp(one_hot))[1]

    out = jax.eval_shape(apply, params, x1)
    basis = jnp.eye(out.shape[1], dtype=out.dtype)
    columns = jax.lax.map(lambda xj: jax.vmap(partial(column, xj))(basis), x1 if x2 is None else x2)
    full = jnp.einsum("jbia->ijab", columns)
    if output == "full":
        return full
    diagonal = jnp.einsum("ijaa->ija", full)
    return diagonal if output == "diagonal" else diagonal.mean(-1)


_GENERIC = {"jacobian": _jacobian, "ntk_vp": _ntk_vp}
