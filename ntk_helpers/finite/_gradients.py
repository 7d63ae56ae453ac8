r"""Gradients that are never formed: each parameter's cotangent as a sum of products of small factors.

Reverse-mode differentiation of $f_a(x)$ ends, for a weight that entered through a matrix product, in an outer
product $\sum_p a_p \delta_p^\top$ of the layer's inputs and backpropagated deltas, summed over positions p
(none for a vector, the time steps of a sequence, the pixels of an image). `gradient_terms` reads that from
the jaxpr of `jax.vjp`: it walks back from each parameter's cotangent through sums, transpositions, scalings
and loops to the product that made it, and keeps the factors instead of the product. All rules of
differentiation, custom ones included, are therefore JAX's own. What it does not recognize stays whole: a term
with one factor, the parameter's block of the Jacobian. Novak, Sohl-Dickstein & Schoenholz (2022), "Fast
Finite Width Neural Tangent Kernel", section 3.3, gives the structures and their costs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jaxtyping import Array, PyTree

from ntk_helpers.finite import _rules  # noqa: F401  (registers them)
from ntk_helpers.finite._program import Program, flatten
from ntk_helpers.finite._terms import Factor, Term, expand_or_block, fresh

__all__ = ["Factor", "Gradient", "Term", "gradient_terms"]


@dataclass(frozen=True)
class Gradient:
    """One parameter's cotangent as the sum of `terms`."""

    name: str
    aval: jax.ShapeDtypeStruct
    terms: tuple[Term, ...]

    @property
    def how(self) -> str:
        """The ways in which the parameter enters, for a reader."""
        return " + ".join(dict.fromkeys(term.how for term in self.terms))


def gradient_terms(apply: Callable, params: PyTree, x: Array) -> tuple[Program, list[Gradient]]:
    """The program of one input's vector-Jacobian product, and the factors of every parameter's cotangent in
    it.

    The program's inputs are the leaves of `params`, one input x (no batch axis) and one cotangent, of shape
    (o,).
    """

    def f(params, x):
        return apply(params, x[None])[0]

    def pullback(params, x, cotangent):
        return jax.tree.leaves(jax.vjp(lambda p: f(p, x), params)[1](cotangent)[0])

    out = jax.eval_shape(f, params, x)
    closed = flatten(jax.make_jaxpr(pullback)(params, x, out))
    leaves = jax.tree.leaves_with_path(params)
    program = Program(closed, [*[frozenset()] * len(leaves), frozenset({"x"}), frozenset({"cotangent"})])
    gradients = []
    for (path, _), var in zip(leaves, program.jaxpr.outvars):
        labels = tuple(fresh() if size > 1 else None for size in var.aval.shape)
        terms = expand_or_block(program, var, labels, alone=True)
        gradients.append(Gradient(jax.tree_util.keystr(path), program.aval(var), tuple(terms)))
    return program, gradients
