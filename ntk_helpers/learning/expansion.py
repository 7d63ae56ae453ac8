r"""The Taylor expansion of a network in its parameters."""

from collections.abc import Callable
from math import factorial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ntk_helpers._lib.inputs import check_finite, check_numbers, check_size
from ntk_helpers.networks.mlp import MLP, as_apply

__all__ = ["linearize", "taylor"]

Apply = Callable[[PyTree, Array], Array]


def linearize(f: MLP | Apply, params0: PyTree) -> Apply:
    r"""The first-order model
    $f^{lin}(x; \theta) = f(x; \theta_0) + \nabla f(x; \theta_0)^\top (\theta - \theta_0)$.

    `f` is an `MLP` or any `apply(params, x)`; the model is such an `apply` too. Its tangent kernel is that of
    `f` at `params0`, whatever its parameters (Lee et al. 2019, eq. 5). Raises as `taylor`.
    """
    return taylor(f, params0, 1)


def taylor(f: MLP | Apply, params0: PyTree, order: int) -> Apply:
    r"""The model
    $\sum_{k \le r} \frac{1}{k!} \frac{d^k}{ds^k} f(x; \theta_0 + s\,(\theta - \theta_0))|_{s=0}$ of order r.

    By nested forward derivatives, at the cost of about $2^r$ evaluations of `f`, without forming a Jacobian.
    Piecewise linear activations have second derivatives of zero where JAX takes them. Raises `ValueError` for
    an `f` that cannot be called, an order below 1, parameters that are not finite, and, when called,
    parameters of other shapes than `params0`.
    """
    apply, order = as_apply(f), check_size("order", order)
    for path, leaf in jax.tree.leaves_with_path(params0):
        name = f"params0{jax.tree_util.keystr(path)}"
        check_finite(name, check_numbers(name, leaf))

    def model(params: PyTree, x: Array) -> Array:
        _check_alike(params, params0)
        change = jax.tree.map(jnp.subtract, params, params0)

        def along(s):
            return apply(jax.tree.map(lambda p, c: p + s.astype(c.dtype) * c, params0, change), x)

        terms = _derivatives(along, jnp.zeros(()), order)
        return sum(term / factorial(k) for k, term in enumerate(terms))

    return model


def _derivatives(g: Callable, s: Array, order: int) -> list[Array]:
    """g and its first derivatives in one number."""
    if order == 0:
        return [g(s)]
    lower, slopes = jax.jvp(lambda s: _derivatives(g, s, order - 1), (s,), (jnp.ones_like(s),))
    return [*lower, slopes[-1]]


def _check_alike(params: PyTree, params0: PyTree) -> None:
    given, expected = (jax.tree.map(jnp.shape, p) for p in (params, params0))
    if jax.tree.flatten(given) != jax.tree.flatten(expected):  # trees of a library compare in their own way
        raise ValueError(f"params hold {given}; expected {expected}, as the parameters of the expansion.")
