"""The three ways to an empirical NTK, each with what it computes and what that costs.

A method prepares what it keeps of some inputs, and combines what was kept of two batches to their kernel.
Costs are counted in the same two parts.
"""

from functools import cache, cached_property, partial
from math import prod

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Float

from ntk_helpers._lib.inputs import first_line
from ntk_helpers.finite._contraction import OUTPUTS, Contraction, contract, plan
from ntk_helpers.finite._count import Counts
from ntk_helpers.finite._gradients import gradient_terms
from ntk_helpers.finite._row import Row

__all__ = ["METHODS", "Analysis", "Method"]


class Analysis:
    """What all methods know of a function: its gradients as terms, and the operations of its program."""

    def __init__(self, row: Row, output: str):
        self.row, self.output = row, output
        self.outputs = row.out.shape[0]
        self.program, self.gradients = gradient_terms(row)
        self.counts = Counts(self.program, self.outputs)
        self.itemsize = max((g.aval.dtype.itemsize for g in self.gradients), default=row.out.dtype.itemsize)
        self.size = sum(prod(g.aval.shape) for g in self.gradients)

    def shape(self, n1: int, n2: int) -> tuple[int, ...]:
        """The kernel's shape."""
        return tuple({"i": n1, "j": n2}.get(letter, self.outputs) for letter in OUTPUTS[self.output])


class Method:
    """One way to the kernel. A subclass says what it does with a batch, and with a pair of batches."""

    def __init__(self, analysis: Analysis):
        self.analysis = analysis

    def prepare(self, held: list[Array], params: list[Array], xs: Array):
        """What is kept of the inputs `xs`."""
        raise NotImplementedError

    def combine(self, held: list[Array], params: list[Array], left, right) -> Array:
        """The kernel of two batches from what was kept of them."""
        raise NotImplementedError

    @cached_property
    def of_an_input(self) -> tuple[int, int, int]:
        """To prepare one input: operations, bytes that are kept, bytes alive at once on the way."""
        raise NotImplementedError

    def of_a_pair(self, n1: int, n2: int) -> tuple[int, int]:
        """To combine n1 with n2 inputs: operations, and bytes of intermediate values."""
        raise NotImplementedError

    def of_parameters(self, n1: int, n2: int) -> list[tuple[str, int, int]]:
        """How each parameter is handled, and its operations and bytes for a pair of batches."""
        return [(type(self).__name__, 0, 0) for _ in self.analysis.gradients]


class Structured(Method):
    """Kept: the factors of every parameter's cotangent."""

    def __init__(self, analysis: Analysis):
        super().__init__(analysis)
        self._plans = cache(self._plans)

    @cached_property
    def _factors(self) -> list[tuple]:
        """Every factor, with the type that it is summed in: half-precision numbers in float32."""
        gradients = self.analysis.gradients
        types = [jnp.promote_types(g.aval.dtype, jnp.float32) for g in gradients]
        return [(f, dtype) for g, dtype in zip(gradients, types) for term in g.terms for f in term.factors]

    def _plans(self, n1: int, n2: int) -> list[Contraction]:
        a = self.analysis
        sizes = {"i": n1, "j": n2, "a": a.outputs, "b": a.outputs}
        return [plan(a.program, gradient, sizes, a.output) for gradient in a.gradients]

    def prepare(self, held, params, xs):
        program, out = self.analysis.program, self.analysis.row.out

        def values(x, cotangent):
            inputs = dict(zip(program.jaxpr.invars, [*held, *params, x, cotangent]))
            found = program.run([factor.key for factor, _ in self._factors], inputs)
            return [
                jnp.asarray(f.form(value)).astype(dtype) for (f, dtype), value in zip(self._factors, found)
            ]

        # A factor that does not depend on the point, or on the output, gets no axis for it.
        points, outputs = (
            [0 if name in program.depends(f.key) else None for f, _ in self._factors]
            for name in ("x", "cotangent")
        )
        over_outputs = jax.vmap(values, (None, 0), outputs)
        found = jax.vmap(over_outputs, (0, None), points)(xs, jnp.eye(out.shape[0], dtype=out.dtype))
        return len(xs), {factor: value for (factor, _), value in zip(self._factors, found)}

    def combine(self, held, params, left, right):
        a = self.analysis
        plans = self._plans(left[0], right[0])
        kernel = sum((contract(each, (left[1], right[1]), a.output) for each in plans), jnp.zeros(()))
        kernel = jnp.broadcast_to(kernel, a.shape(left[0], right[0]))
        return (kernel / a.outputs if a.output == "trace" else kernel).astype(self._type)

    @property
    def _type(self):
        """The kernel's type, that of the widest parameter."""
        return jnp.result_type(*(g.aval.dtype for g in self.analysis.gradients), self.analysis.row.out.dtype)

    @cached_property
    def of_an_input(self):
        a = self.analysis
        keys = list(dict.fromkeys(f.key for f, _ in self._factors if isinstance(f.key, Var | tuple)))
        kept = sum(
            prod(jax.eval_shape(f.form, a.program.aval(f.key)).shape)
            * dtype.itemsize
            * a.counts.copies(f.key)
            for f, dtype in dict.fromkeys(self._factors)
        )
        return a.counts.flops(keys), kept, a.counts.working(keys)

    def of_a_pair(self, n1, n2):
        plans = self._plans(n1, n2)
        return sum(each.flops for each in plans), max((each.bytes for each in plans), default=0)

    def of_parameters(self, n1, n2):
        return [(each.gradient.how, each.flops, each.bytes) for each in self._plans(n1, n2)]


class Jacobian(Method):
    """Kept: the Jacobian, (n, o, parameters)."""

    def prepare(self, held, params, xs):
        row = self.analysis.row
        whole = [k for k, leaf in enumerate(params) if leaf.size]

        def jacobian(x):
            blocks = jax.jacrev(lambda leaves: row.outputs(held, leaves, x))(params)
            return jnp.concatenate([blocks[k].reshape(self.analysis.outputs, -1) for k in whole], 1)

        return jax.vmap(jacobian)(xs)

    def combine(self, held, params, left: Float[Array, "n1 o p"], right: Float[Array, "n2 o p"]):
        if self.analysis.output == "trace":
            rows = (j.reshape(len(j), -1) for j in (left, right))
            return jnp.einsum("ip,jp->ij", *rows) / self.analysis.outputs
        spec = {"full": "iap,jbp->ijab", "diagonal": "iap,jap->ija"}[self.analysis.output]
        return jnp.einsum(spec, left, right)

    @cached_property
    def of_an_input(self):
        a = self.analysis
        kept, made = a.outputs * a.size * a.itemsize, a.program.jaxpr.outvars
        return a.counts.flops(made), kept, a.counts.working(made) + kept

    def of_a_pair(self, n1, n2):
        a = self.analysis
        summed = a.outputs if a.output == "trace" else 1
        return 2 * prod(a.shape(n1, n2)) * a.size * summed, 0


class Products(Method):
    """NTK-vector products. Kept: the inputs."""

    def prepare(self, held, params, xs):
        return xs

    def combine(self, held, params, left, right):
        row = self.analysis.row

        def all_rows(leaves):
            return jax.vmap(lambda x: row.outputs(held, leaves, x))(left)

        def column(x, cotangent):
            _, vjp = jax.vjp(lambda leaves: row.outputs(held, leaves, x), params)
            return jax.jvp(all_rows, (params,), vjp(cotangent))[1]

        basis = jnp.eye(self.analysis.outputs, dtype=row.out.dtype)
        try:
            columns = jax.lax.map(lambda x: jax.vmap(partial(column, x))(basis), right)
        except TypeError as error:  # of a custom_vjp
            raise ValueError(
                f"f has no forward derivative, which method 'ntk_vp' takes: {first_line(error)}; "
                "expected method 'structured' or 'jacobian'."
            ) from error
        full = jnp.einsum("jbia->ijab", columns)
        if self.analysis.output == "full":
            return full
        diagonal = jnp.einsum("ijaa->ija", full)
        return diagonal if self.analysis.output == "diagonal" else diagonal.mean(-1)

    @cached_property
    def of_an_input(self):
        return 0, 0, 0

    def of_a_pair(self, n1, n2):
        """Each column takes a backward pass, and a forward pass of values and tangents at all rows."""
        a = self.analysis
        forward, values = a.counts.forward()
        flops = n2 * (a.counts.flops(a.program.jaxpr.outvars) + 2 * n1 * a.outputs * forward)
        full, tangents = n1 * n2 * a.outputs**2, a.outputs * a.size
        return flops, (full + tangents) * a.itemsize + 2 * n1 * a.outputs * values


METHODS = {"structured": Structured, "jacobian": Jacobian, "ntk_vp": Products}
