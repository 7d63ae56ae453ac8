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

from dataclasses import dataclass
from math import prod

import jax

from ntk_helpers.finite import _rules  # noqa: F401  (registers them)
from ntk_helpers.finite._program import Program, flatten
from ntk_helpers.finite._row import Row
from ntk_helpers.finite._terms import Term, expand_or_block, fresh

__all__ = ["Gradient", "gradient_terms"]


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


def gradient_terms(row: Row) -> tuple[Program, list[Gradient]]:
    """The program of one input's vector-Jacobian product, and every parameter's cotangent in factors.

    The program's inputs are what the function holds, its parameters, one input x and one cotangent (o,). A
    parameter of size 0 has no gradient and is left out.
    """

    def pullback(held, leaves, x, cotangent):
        return jax.vjp(lambda leaves: row.outputs(held, leaves, x), leaves)[1](cotangent)[0]

    closed = flatten(jax.make_jaxpr(pullback)(row.held, row.params, row.x, row.out))
    fixed = [frozenset()] * (len(row.held) + len(row.params))
    program = Program(closed, [*fixed, frozenset({"x"}), frozenset({"cotangent"})])
    gradients = []
    for name, var in zip(row.names, program.jaxpr.outvars):
        aval = program.aval(var)
        if prod(aval.shape):
            labels = tuple(fresh() if size > 1 else None for size in aval.shape)
            terms = expand_or_block(program, var, labels, alone=True)
            gradients.append(Gradient(name, aval, tuple(terms)))
    return program, gradients
