r"""Dual maps of any elementwise function, by the series of its Hermite coefficients.

With $b_k(q) = E[\phi'(\sqrt q z)\,h_k(z)]$, $h_k = He_k/\sqrt{k!}$, and $a_0(q) = E[\phi(\sqrt q z)]$,

$$\begin{aligned}
E[\phi'(u)\phi'(v)] &= \sum_k b_k(q_1)\,b_k(q_2)\,c^k, \\
E[\phi(u)\phi(v)] &= a_0(q_1)\,a_0(q_2) + \sqrt{q_1 q_2} \sum_k b_k(q_1)\,b_k(q_2)\,\frac{c^{k+1}}{k+1}:
\end{aligned}$$

Mehler's formula for $\phi'$, and its integral in $c$ (Price 1958). What the second loses from $c = 1$ is a
sum over $1 - c^{k+1}$, each with all its digits. `_series` finds the coefficients, once for a function.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_helpers._lib.angles import safe_sqrt
from ntk_helpers.networks._series import LOWEST, PANEL, WIDER, ByNodes, ByTable, degrees, series
from ntk_helpers.networks.activation import Activation

__all__ = ["quadrature"]

UNROLL = 10  # steps of a loop over degrees that are compiled as one
jitted = partial(jax.jit, static_argnums=0)  # of a method: op by op its loops would be compiled one by one


def quadrature(name: str, fn: Callable[[Array], Array]) -> Activation:
    r"""The activation $\phi$ = `fn` (elementwise, JAX) with dual maps by numerical integration.

    The maps are good to a relative error of 1e-10 in float64, or to the rounding of `fn` itself, at every
    correlation and for variances up to `Activation.reach()`. That is infinite where $\phi$ is analytic, or
    has one kink, at 0, and becomes linear at infinity (softplus, SiLU, ELU, |z|), and 7e10 where it becomes
    constant (tanh, sigmoid, a Gaussian). Others are good as far as 320 Gauss-Hermite nodes are: polynomials
    up to 7e10, cos up to 180, a $\phi$ with a kink elsewhere hardly at all. Beyond, dual maps and kernels
    raise `ValueError`; inside `jit` they are NaN.

    The series is Mehler's formula for $\phi'$ and its integral (Price 1958); the coefficients are found at
    the first use, in about half a second. The same arguments give the same activation. Raises `ValueError`
    for an `fn` that is not a hashable function.

    >>> softplus = quadrature("softplus", jax.nn.softplus)
    >>> round(float(softplus.dual(1.0, 1.0, 0.5)), 5)
    0.78008
    """
    if not callable(fn) or not isinstance(fn, Hashable):
        raise ValueError(f"fn is {fn!r}; expected an elementwise function.")
    maps = _maps(fn)
    return Activation(name, fn, maps.aligned, maps.drop, maps.mismatch, maps.slope, reach=maps.reach)


class _Columns(NamedTuple):
    """Variances (...), and at them E φ (...), b_k of the first degrees (k, ...), and of the octaves' nodes
    (octaves, nodes, parities, ...)."""

    q: Array
    mean: Array
    dense: Array
    above: Array


@dataclass(frozen=True)
class _Maps:
    """The dual maps of `fn`, which find its series when first asked."""

    fn: Callable[[Array], Array]

    def __reduce__(self):
        return _maps, (self.fn,)  # one object for one function, in another process too

    @cached_property
    def series(self) -> ByTable | ByNodes:
        return series(self.fn)

    def reach(self) -> float:
        return self.series.reach

    @jitted
    def aligned(self, q1, q2) -> Array:
        return self._product(*self._pair(q1, q2))

    @jitted
    def drop(self, q1, q2, gap, plus) -> Array:
        def step(carry, terms):
            total, powers = carry  # powers = 1 + c + ... + c^k, so that 1 - c^(k+1) = gap * powers
            return (total + terms[0] * terms[1] * powers, 1 + (1 - gap) * powers), None

        a, b = self._pair(q1, q2)
        dense, above = self._per_degree(b)
        zero = _zeros(gap, a, b)
        (total, _), _ = jax.lax.scan(step, (zero, zero + 1), (a.dense, dense), unroll=UNROLL)
        total = self._add_octaves(gap * total, a, b, above, lambda *terms: _lost(*terms, gap, plus))
        return safe_sqrt(a.q * b.q) * total

    @jitted
    def slope(self, q1, q2, gap, plus) -> Array:
        def horner(total, terms):
            return total * (1 - gap) + terms[0] * terms[1], None

        a, b = self._pair(q1, q2)
        total, _ = jax.lax.scan(horner, _zeros(gap, a, b), (a.dense, b.dense), reverse=True, unroll=UNROLL)
        return self._add_octaves(total, a, b, b.above, lambda *terms: _left(*terms, gap, plus))

    @jitted
    def mismatch(self, q1, q2) -> Array:
        """Half the squared distance of the two series of φ as unit vectors."""

        def step(total, terms):
            return total + (terms[0] - terms[1]) ** 2, None

        a, b = map(self._unit, self._pair(q1, q2))
        total = (a.mean - b.mean) ** 2
        total, _ = jax.lax.scan(step, total, (a.dense, b.dense), unroll=UNROLL)
        return self._add_octaves(total, a, b, b.above, _apart) / 2

    def _product(self, a: _Columns, b: _Columns) -> Array:
        """E φφ at c = 1."""
        dense, above = self._per_degree(b)
        common = (a.dense * dense).sum(0) + (a.above * above).sum((0, 1, 2))
        return a.mean * b.mean + safe_sqrt(a.q * b.q) * common

    def _unit(self, a: _Columns) -> _Columns:
        """The series of φ, divided by the root of E φ²."""
        size = safe_sqrt(self._product(a, a))
        scale = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1.0), 0.0)
        first, above = (_over(np.sqrt(k + 1), a.q) for k in degrees(self.series))
        root = safe_sqrt(a.q) * scale
        return _Columns(a.q, scale * a.mean, root * a.dense / first, root * a.above / above)

    def _per_degree(self, a: _Columns) -> tuple[Array, Array]:
        """b_k / (k + 1)."""
        first, above = (_over(k + 1, a.q) for k in degrees(self.series))
        return a.dense / first, a.above / above

    def _pair(self, q1, q2) -> tuple[_Columns, _Columns]:
        axes = max(jnp.ndim(q1), jnp.ndim(q2))
        qs = (jnp.asarray(q, jnp.result_type(q1, q2, float)) for q in (q1, q2))
        return tuple(self._columns(q.reshape((1,) * (axes - q.ndim) + q.shape)) for q in qs)

    def _columns(self, q: Array) -> _Columns:
        """Of the variances in a row, so that the compiler sees where a layer's maps ask for the same."""
        found, row = self.series, q.ravel()
        known = _by_nodes(self.fn, found, row) if isinstance(found, ByNodes) else _by_table(found, row)
        known = (jnp.where(row <= found.reach, column, jnp.nan) for column in known)
        return _Columns(q, *(column.reshape(*column.shape[:-1], *q.shape) for column in known))

    def _add_octaves(self, total: Array, a: _Columns, b: _Columns, weighted: Array, term: Callable) -> Array:
        """`total` and the terms of all octaves, without those that make no difference."""
        m, parities, matter_from = self.series.octaves
        m, matter_from = (jnp.asarray(each, total.dtype) for each in (m, matter_from))
        matter = (a.q.max() >= matter_from) & (b.q.max() >= matter_from)

        def add(total, octave):
            node = lambda total, node: (total + term(parities, *node), None)
            return jax.lax.scan(node, total, octave, unroll=UNROLL)[0]

        def step(total, octave):
            matters, *octave = octave
            return jax.lax.cond(matters, add, lambda total, _: total, total, octave), None

        return jax.lax.scan(step, total, (matter, m, a.above, weighted))[0]


@lru_cache(maxsize=64)
def _maps(fn: Callable) -> _Maps:
    return _Maps(fn)


def _zeros(gap, a: _Columns, b: _Columns) -> Array:
    return jnp.zeros(jnp.broadcast_shapes(jnp.shape(gap), a.mean.shape, b.mean.shape), a.mean.dtype)


def _over(column: np.ndarray | Array, q: Array) -> Array:
    """With axes for the variances, and of their type."""
    return jnp.asarray(column, q.dtype).reshape(column.shape + (1,) * q.ndim)


# --- coefficients at given variances


def _by_nodes(fn: Callable, found: ByNodes, q: Array) -> tuple[Array, Array, Array]:
    z, weights, functions = (jnp.asarray(a, q.dtype) for a in (found.z, found.weights, found.functions))
    at = safe_sqrt(q) * _over(z, q)
    slope = jnp.vectorize(jax.grad(fn))(at)
    product = partial(jnp.tensordot, axes=1, precision="highest")
    none = jnp.zeros((*degrees(found)[1].shape, len(q)), q.dtype)
    return product(weights, fn(at)), product(functions, slope), none


def _by_table(found: ByTable, q: Array) -> tuple[Array, Array, Array]:
    """Within the panels by the polynomials, beyond them on the way to the limits."""
    low, high = 2.0**LOWEST, 2.0 ** (LOWEST + PANEL * len(found.table))
    columns = _interpolated(jnp.asarray(found.table, q.dtype), jnp.log2(jnp.clip(q, low, high)))
    mean, b = columns[0], columns[1:]
    at_zero, at_infinity = (_over(limit[1:], q) for limit in (found.at_zero, found.at_infinity))
    b = jnp.where(q < low, at_zero + (b - at_zero) * safe_sqrt(jnp.minimum(q / low, 1.0)), b)
    b = jnp.where(q > high, at_infinity + (b - at_infinity) * jnp.sqrt(high / jnp.maximum(q, high)), b)
    # b_1 is the derivative of E φ in √q.
    near_zero = float(found.at_zero[0]) + safe_sqrt(q) * (at_zero[1] + b[1]) / 2
    beyond = at_infinity[1] * (jnp.sqrt(jnp.maximum(q, high)) - high**0.5)
    first, above = degrees(found)
    dense, above = b[: len(first)], b[len(first) :].reshape(*above.shape, len(q))
    return jnp.where(q < low, near_zero, mean + beyond), dense, above


def _interpolated(table: Array, log2_q: Array) -> Array:
    """The columns (columns, n) of every variance, by the polynomial of its panel."""
    x = (log2_q - LOWEST) / PANEL
    panels, degree, columns = table.shape
    panel = jnp.clip(jnp.floor(jax.lax.stop_gradient(x)), 0, panels - 1)
    angle = jnp.arccos((2 * (x - panel) - 1) / WIDER)
    # NumPy's constants, unlike JAX's, do not keep the compiler from seeing that two look-ups are one.
    basis = jnp.cos(angle[:, None] * np.arange(degree, dtype=x.dtype))
    basis = jnp.where(panel[:, None, None] == np.arange(panels, dtype=x.dtype)[:, None], basis[:, None], 0.0)
    return jnp.matmul(basis.reshape(-1, panels * degree), table.reshape(-1, columns), precision="highest").T


# --- terms of an octave, over its nodes of degree k = 2m + p


def _log(gap: Array, plus: Array) -> tuple[Array, Array]:
    """1 - |c|, and log |c| or something so small that no power above the first degrees is seen."""
    w = jnp.where(gap < plus, gap, plus)
    w = jnp.where(w > 0, w, 0.0 * w)
    return w, jnp.log1p(-jnp.minimum(w, 0.9))


def _left(parities, m, a, b, gap, plus) -> Array:
    """Σ a b c^k."""
    power = jnp.exp(2 * m * _log(gap, plus)[1])
    return power * sum(a[p] * b[p] * (1 - gap if parity else 1.0) for p, parity in enumerate(parities))


def _lost(parities, m, a, b, gap, plus) -> Array:
    """Σ a b (1 - c^(k+1))."""
    w, log = _log(gap, plus)
    odd = -jnp.expm1((2 * m + 1) * log)  # 1 - |c|^(2m+1)
    lost = [odd + (1 - odd) * w if parity else jnp.where(gap > plus, 2 - odd, odd) for parity in parities]
    return sum(a[p] * b[p] * lost[p] for p in range(len(parities)))


def _apart(parities, m, a, b) -> Array:
    """Σ (a - b)²."""
    return ((a - b) ** 2).sum(0)
