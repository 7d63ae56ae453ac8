r"""The Taylor expansion of a network in its parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ntk_helpers._lib.inputs import check_finite, check_numbers, check_size
from ntk_helpers.networks.mlp import MLP, as_apply

__all__ = ["linearize", "taylor"]

Apply = Callable[[PyTree, Array], PyTree]


def linearize(f: MLP | Apply, params0: PyTree) -> Partial:
    r"""The first-order model
    $f^{lin}(x; \theta) = f(x; \theta_0) + \nabla f(x; \theta_0)^\top (\theta - \theta_0)$.

    Its tangent kernel is that of `f` at `params0`, whatever its own parameters are (Lee et al. 2019, eq. 5).
    It takes and returns what `taylor` says, and raises the same errors.

    >>> net, x = MLP(2, 16), jnp.eye(3)
    >>> params = net.init(jax.random.key(0), 3)
    >>> model = linearize(net, params)
    >>> bool(jnp.allclose(model(params, x), net.apply(params, x)))
    True
    """
    return taylor(f, params0, 1)


def taylor(f: MLP | Apply, params0: PyTree, order: int) -> Partial:
    r"""The model
    $\sum_{k \le r} \frac{1}{k!} \frac{d^k}{ds^k} f(x; \theta_0 + s\,(\theta - \theta_0))|_{s=0}$ of order r.

    `f` is an `MLP` or any `apply(params, x)`. The model is an `apply(params, x)` too, computed by nested
    forward derivatives at the cost of about $2^r$ evaluations of `f`, without forming a Jacobian. It is a
    pytree with `params0` as leaves: an argument of a function under `jit`, which then compiles once for all
    models of one kind, while a model that the function closes over is written into its program.

    Outputs may be a tree, as `(output, state)`: each floating array in it is expanded. What is not floating,
    flags and counters, stays as it is at `params0`, in the outputs as in the parameters. Piecewise linear
    activations have second derivatives of zero where JAX takes them.

    Raises:

    - `ValueError` for an `f` that cannot be called, and an order below 1;
    - `ValueError` for parameters that are not finite;
    - `ValueError`, when called, for parameters of other shapes than `params0`.

    >>> cube = lambda p, x: p**3 * x
    >>> taylor(cube, jnp.array(1.0), 2)(jnp.array(3.0), jnp.ones(1))  # 1 + 3·2 + 3·2², and not 3³ = 27
    Array([19.], dtype=float32)
    """
    apply, order = as_apply(f), check_size("order", order)
    for path, leaf in jax.tree.leaves_with_path(params0):
        name = f"params0{jax.tree_util.keystr(path)}"
        check_finite(name, check_numbers(name, leaf))
    return Partial(_Model(order), apply, params0)


@dataclass(frozen=True)
class _Model:
    """Equal for equal orders, so that `jit` compiles once for all networks of one kind."""

    order: int

    def __call__(self, apply: Partial, params0: PyTree, params: PyTree, x: Array) -> PyTree:
        _check_alike(params, params0)

        def at(s, p0, p):
            return p0 + s.astype(jnp.result_type(p0)) * jnp.subtract(p, p0) if _floats(p0) else p0

        def along(s):
            leaves, tree = jax.tree.flatten(apply(jax.tree.map(lambda *p: at(s, *p), params0, params), x))
            return [leaf for leaf in leaves if _floats(leaf)], (tree, leaves)

        terms, (tree, leaves) = _derivatives(along, jnp.zeros(()), self.order)
        sums = iter([sum(term / factorial(k) for k, term in enumerate(each)) for each in zip(*terms)])
        return jax.tree.unflatten(tree, [next(sums) if _floats(leaf) else leaf for leaf in leaves])


def _derivatives(g: Callable, s: Array, order: int) -> tuple[list, tuple]:
    """The first outputs of g and their first derivatives in one number, and its second output."""
    if order == 0:
        outputs, rest = g(s)
        return [outputs], rest
    lower, slopes, rest = jax.jvp(
        lambda s: _derivatives(g, s, order - 1), (s,), (jnp.ones_like(s),), has_aux=True
    )
    return [*lower, slopes[-1]], rest


def _floats(leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _check_alike(params: PyTree, params0: PyTree) -> None:
    given, expected = (jax.tree.map(jnp.shape, p) for p in (params, params0))
    if jax.tree.flatten(given) != jax.tree.flatten(expected):  # trees of a library compare in their own way
        raise ValueError(f"params hold {given}; expected {expected}, as the parameters of the expansion.")
