r"""Activations and their dual maps: what a Gaussian expectation makes of them.

For $(u, v) \sim \mathcal N(0, [[q_1, k], [k, q_2]])$ the infinite-width kernels need
$E[\phi(u)\phi(v)]$ and $E[\phi'(u)\phi'(v)]$. Near $u = v$ the first is wanted as a difference from
its aligned value, so every map takes the correlation $c = k/\sqrt{q_1 q_2}$ through
`gap` $= 1 - c$ and `anti` $= 1 + c$: a number close to 1 has lost the digits that its distance from 1
still has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_helpers._lib.inputs import (
    check_choice,
    check_finite,
    check_real,
    check_size,
    check_variance,
    is_traced,
)

__all__ = ["Activation", "activation_names", "get_activation", "quadrature", "register_activation"]

Map = Callable[[Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Activation:
    r"""An activation $\phi$ with its dual maps.

    `aligned(q1, q2)` is $E[\phi(u)\phi(v)]$ at $c = 1$; `drop(q1, q2, gap, anti)` is what it loses at
    $c$, that is aligned $- E[\phi(u)\phi(v)]$, accurate relative to itself as `gap` $\to 0$;
    `mismatch(q1, q2)` is $1 - $ aligned $/\sqrt{E[\phi(u)^2]\,E[\phi(v)^2]}$, the correlation that unequal
    variances cost at $c = 1$, accurate relative to $q_1 - q_2$ as they meet (GELU's is not);
    `slope(q1, q2, gap, anti)` is $E[\phi'(u)\phi'(v)]$. All broadcast. `homogeneous` says that
    $\phi(az) = a\,\phi(z)$ for $a > 0$, so that correlations do not depend on the variances.
    """

    name: str
    fn: Callable[[Array], Array]
    aligned: Callable[[Array, Array], Array]
    drop: Map
    mismatch: Callable[[Array, Array], Array]
    slope: Map
    homogeneous: bool = False

    def dual(self, q1, q2, k) -> Array:
        r"""$E[\phi(u)\phi(v)]$ for variances `q1`, `q2` and covariance `k` (arrays that broadcast)."""
        q1, q2, k = _checked(q1, q2, k)
        return self.aligned(q1, q2) - self.drop(q1, q2, *_gap_and_sum(q1, q2, k))

    def dual_derivative(self, q1, q2, k) -> Array:
        r"""$E[\phi'(u)\phi'(v)]$ for variances `q1`, `q2` and covariance `k` (arrays that broadcast)."""
        q1, q2, k = _checked(q1, q2, k)
        return self.slope(q1, q2, *_gap_and_sum(q1, q2, k))

    def derivative(self, z: Array) -> Array:
        r"""$\phi'(z)$, elementwise."""
        return jnp.vectorize(jax.grad(self.fn))(z)


def safe_sqrt(x: Array) -> Array:
    r"""$\sqrt{\max(x, 0)}$ with derivative 0, not infinity, where $x \le 0$."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def _checked(q1, q2, k) -> list[Array]:
    """Real arrays, or `ValueError` for what no variances and covariance can be."""
    arrays = [check_real(name, value) for name, value in (("q1", q1), ("q2", q2), ("k", k))]
    check_variance("q1", arrays[0])
    check_variance("q2", arrays[1])
    check_finite("k", arrays[2])
    if not is_traced(arrays):
        q1, q2, k = (np.asarray(value, float) for value in arrays)
        slack = 1 + float(jnp.finfo(jnp.result_type(*arrays, jnp.float32)).eps) ** 0.5
        if (np.abs(k) > slack * np.sqrt(q1) * np.sqrt(q2)).any():
            raise ValueError(
                "k is larger than the root of q1 q2; expected a covariance between the two variances' bounds."
            )
    return [jnp.asarray(value, jnp.result_type(float)) for value in arrays]


def _gap_and_sum(q1, q2, k):
    norm = safe_sqrt(q1 * q2)
    c = k / jnp.where(norm > 0, norm, 1.0)
    return 1 - c, 1 + c


def _mismatch(aligned, spread, q1, q2) -> Array:
    r"""From $E[(\phi(u) - \phi(v))^2]/2$ at $c = 1$ where the variances are within a factor of two, by its
    definition elsewhere."""
    e1, e2 = aligned(q1, q1), aligned(q2, q2)
    size = safe_sqrt(e1) * safe_sqrt(e2)
    near = spread(q1, q2) - (safe_sqrt(e1) - safe_sqrt(e2)) ** 2 / 2
    lost = jnp.where(jnp.abs(q1 - q2) < (q1 + q2) / 3, near, size - aligned(q1, q2))
    return lost / jnp.where(size > 0, size, 1.0)


def _arc_coefficients(degree: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Polynomials in $2w - 1$, $w = 1 - \cos\theta \in [0, 1]$, for $\theta/\sqrt w$ and
    $(\sin\theta - \theta\cos\theta)/w^{3/2}$.

    Interpolated at Chebyshev points from the Taylor series in $w$, whose terms are positive; that of
    the second is the integral of the first, since $d(\sin\theta - \theta\cos\theta) = \theta\,dw$.
    """
    k = np.arange(60)
    taylor = np.sqrt(2) * np.cumprod([1.0, *((2 * k[1:] - 1) / (4 * k[1:]))]) / (2 * k + 1)
    series = (np.polynomial.Polynomial(t, domain=[0, 1], window=[0, 1]) for t in (taylor, taylor / (k + 1.5)))
    fits = (np.polynomial.Chebyshev.interpolate(f, degree, domain=[0, 1]) for f in series)
    return tuple(np.polynomial.chebyshev.cheb2poly(fit.coef)[::-1] for fit in fits)


_ARC = {np.dtype(dtype): _arc_coefficients(degree) for dtype, degree in (("float32", 9), ("float64", 19))}


def _arc_series(w: Array, which: int) -> Array:
    coefficients = _ARC[np.promote_types(w.dtype, np.float32)][which]
    return jnp.polyval(jnp.asarray(coefficients, w.dtype), 2 * w - 1, unroll=len(coefficients))


@jax.custom_jvp
def arc(sine: Array, cosine: Array) -> Array:
    r"""The angle with that sine and cosine, in $[-\pi/2, \pi]$; for a negative sine the cosine must not be
    negative.

    The library's `arctan2` calls a scalar routine for every element on CPUs, which takes ten times as long.
    """
    root = sine / jnp.sqrt(1 + jnp.abs(cosine))
    acute = root * _arc_series(root**2, 0)
    return jnp.where(cosine < 0, jnp.pi - acute, acute)


@arc.defjvp
def _arc_jvp(primals, tangents):
    (sine, cosine), (dsine, dcosine) = primals, tangents
    return arc(sine, cosine), cosine * dsine - sine * dcosine


@jax.custom_jvp
def angle(gap: Array, anti: Array) -> Array:
    r"""$\theta = \arccos c$ from $1 - c$ and $1 + c$, with all its digits near 0 and near $\pi$.

    Derivatives are taken along gap + anti = 2. At both ends they are infinite, and taken as 0.
    """
    w = jnp.minimum(gap, anti)
    acute = safe_sqrt(w) * _arc_series(w, 0)
    return jnp.where(gap > anti, jnp.pi - acute, acute)


@angle.defjvp
def _angle_jvp(primals, tangents):
    (gap, anti), (dgap, danti) = primals, tangents
    sine2 = gap * anti
    dgap = jnp.where(
        gap > anti, -danti, dgap
    )  # of the smaller one, whose rounding is not divided by a sine near 0
    return angle(gap, anti), jnp.where(sine2 > 0, dgap / jnp.sqrt(jnp.where(sine2 > 0, sine2, 1.0)), 0.0)


# --- ReLU, leaky ReLU and the identity: Cho & Saul 2009, J_0 and J_1


@jax.custom_jvp
def _relu_bend(gap, anti):
    r"""$\sin\theta - \theta\cos\theta$, with all its digits near 0."""
    w = jnp.minimum(gap, anti)
    acute = w * safe_sqrt(w) * _arc_series(w, 1)
    return jnp.where(gap > anti, acute + jnp.pi * (1 - w), acute)


@_relu_bend.defjvp
def _relu_bend_jvp(primals, tangents):
    gap, anti = primals
    return _relu_bend(gap, anti), angle(gap, anti) * tangents[0]


def _relu_family(name: str, slope: float, fn) -> Activation:
    r"""$\phi(z) = z$ for $z > 0$, $a z$ below: a mixture $a\,z + (1-a)\,\mathrm{relu}(z)$."""
    curved, share = (1 - slope) ** 2, (1 + slope**2) / 2

    def aligned(q1, q2):
        return share * safe_sqrt(q1 * q2)

    def drop(q1, q2, gap, anti):
        norm = safe_sqrt(q1 * q2)
        linear = (slope + curved / 2) * gap
        return norm * (linear if slope == 1 else linear - curved * _relu_bend(gap, anti) / (2 * jnp.pi))

    def mismatch(q1, q2):
        return jnp.zeros(jnp.broadcast_shapes(jnp.shape(q1), jnp.shape(q2)), jnp.result_type(q1, q2, float))

    def derivative(q1, q2, gap, anti):
        bend = jnp.zeros_like(gap) if slope == 1 else curved * (jnp.pi - angle(gap, anti)) / (2 * jnp.pi)
        return jnp.broadcast_to(slope + bend, jnp.broadcast_shapes(gap.shape, jnp.shape(q1), jnp.shape(q2)))

    return Activation(name, fn, aligned, drop, mismatch, derivative, homogeneous=True)


# --- erf: Williams 1997, eq. 11; GELU: from the orthant probability by Gaussian integration by parts


def _arcsin_drop(s, cos1, gap, anti):
    r"""$\arcsin s - \arcsin(s c)$ for $0 \le s \le 1$, accurate as $c \to 1$, given $\sqrt{1 - s^2}$ too."""
    c = 1 - gap
    cosc = jnp.sqrt(cos1**2 + s**2 * gap * anti)
    cancelled = s * gap * anti / jnp.where(c > 0, cosc + c * cos1, 1.0)
    sine = jnp.where(c > 0, cancelled, s * cosc - s * c * cos1)
    return arc(sine, cos1 * cosc + s**2 * c)


def _sine_cosine(q1, q2):
    r"""$s = 2\sqrt{q_1 q_2 / ((1 + 2 q_1)(1 + 2 q_2))}$ and $\sqrt{1 - s^2}$, which has its digits where $s$
    is close to 1."""
    norm = jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2))
    return 2 * safe_sqrt(q1 * q2) / norm, jnp.sqrt(1 + 2 * (q1 + q2)) / norm


def _erf_aligned(q1, q2):
    return 2 / jnp.pi * arc(*_sine_cosine(q1, q2))


def _erf_drop(q1, q2, gap, anti):
    return 2 / jnp.pi * _arcsin_drop(*_sine_cosine(q1, q2), gap, anti)


def _erf_spread(q1, q2):
    def change(q1, q2):
        """arcsin s(q1, q1) - arcsin s(q1, q2), whose sine holds the factor q1 - q2."""
        (sine, cosine), (other_sine, other_cosine) = _sine_cosine(q1, q1), _sine_cosine(q1, q2)
        root1, root2, norm = safe_sqrt(q1), safe_sqrt(q2), jnp.sqrt((1 + 2 * q1) * (1 + 2 * q2))
        total = root1 * jnp.sqrt(1 + 2 * (q1 + q2)) + root2 * jnp.sqrt(1 + 4 * q1)
        ratio = 2 * root1 * (q1 - q2) / (norm * jnp.where(total > 0, total, 1.0))
        return arc(ratio, cosine * other_cosine + sine * other_sine)

    return (change(q1, q2) + change(q2, q1)) / jnp.pi


def _erf_slope(q1, q2, gap, anti):
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * (q1 + q2) + 4 * q1 * q2 * gap * anti)


def _gelu_aligned(q1, q2):
    theta = arc(*_sine_cosine(q1 / 2, q2 / 2))
    flat = q1 * q2 * (1 / (1 + q1) + 1 / (1 + q2))
    return safe_sqrt(q1 * q2) * (0.25 + theta / (2 * jnp.pi)) + flat / (2 * jnp.pi * jnp.sqrt(1 + q1 + q2))


def _gelu_drop(q1, q2, gap, anti):
    norm, c = safe_sqrt(q1 * q2), 1 - gap
    sine, cosine = _sine_cosine(q1 / 2, q2 / 2)
    shrink = 1 / (1 + q1) + 1 / (1 + q2)
    root1 = jnp.sqrt(1 + q1 + q2)
    rootc = jnp.sqrt(1 + q1 + q2 + q1 * q2 * gap * anti)
    arcs = gap * arc(sine, cosine) + c * _arcsin_drop(sine, cosine, gap, anti)
    ratio = q1 * q2 * gap * anti / rootc * (shrink - 1 + q1 * q2 * shrink / (root1 * (root1 + rootc)))
    return norm * (gap / 4 + arcs / (2 * jnp.pi)) + ratio / (2 * jnp.pi)


def _gelu_spread(q1, q2):
    # Of second order in q1 - q2: where that is below rounding, the difference would only be noise.
    equal = jnp.abs(q1 - q2) < jnp.finfo(jnp.result_type(q1, q2, float)).eps ** 0.5 / 8 * (q1 + q2)
    return jnp.where(equal, 0.0, (_gelu_aligned(q1, q1) + _gelu_aligned(q2, q2)) / 2 - _gelu_aligned(q1, q2))


def _gelu_slope(q1, q2, gap, anti):
    k = safe_sqrt(q1 * q2) * (1 - gap)
    root = jnp.sqrt(1 + q1 + q2 + q1 * q2 * gap * anti)
    inner = 1 / (1 + q1) + 1 / (1 + q2) + 1 / root**2
    norm = jnp.sqrt(1 + q1) * jnp.sqrt(1 + q2)
    return 0.25 + (arc(k / norm, root / norm) + k * inner / root) / (2 * jnp.pi)


# --- sin: the characteristic function of a Gaussian


def _sin_aligned(q1, q2):
    norm, mean = safe_sqrt(q1 * q2), (q1 + q2) / 2
    return -jnp.exp(norm - mean) * jnp.expm1(-2 * norm) / 2


def _sin_drop(q1, q2, gap, anti):
    norm, mean = safe_sqrt(q1 * q2), (q1 + q2) / 2
    return -jnp.expm1(-norm * gap) * (jnp.exp(norm - mean) + jnp.exp(-norm * (1 - gap) - mean)) / 2


def _sin_spread(q1, q2):
    shift = (safe_sqrt(q1) - safe_sqrt(q2)) ** 2 / 2
    return (jnp.exp(-q1 - q2) * (jnp.expm1(shift) - 2 * jnp.sinh((q1 - q2) / 2) ** 2) - jnp.expm1(-shift)) / 2


def _sin_slope(q1, q2, gap, anti):
    k, mean = safe_sqrt(q1 * q2) * (1 - gap), (q1 + q2) / 2
    return (jnp.exp(k - mean) + jnp.exp(-k - mean)) / 2


# --- everything else: Gauss-Hermite quadrature


@lru_cache
def _hermite_table(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z and the matrix [k, i] = weight_i He_k(z_i)/sqrt(k!), which maps φ(z) to Hermite
    coefficients."""
    from scipy.special import roots_hermitenorm  # half of this package's import time, and for quadrature only

    z, weights = roots_hermitenorm(nodes)
    rows = [np.ones_like(z), z]
    for k in range(2, nodes):
        rows.append((z * rows[-1] - np.sqrt(k - 1) * rows[-2]) / np.sqrt(k))
    return z, np.stack(rows) * (weights / weights.sum())


def _hermite_coefficients(fn, q: Array, nodes: int) -> Array:
    z, table = (jnp.asarray(a, q.dtype) for a in _hermite_table(nodes))
    return jnp.tensordot(table, fn(safe_sqrt(q) * z.reshape(-1, *[1] * q.ndim)), 1)


def quadrature(name: str, fn: Callable[[Array], Array], nodes: int = 160) -> Activation:
    r"""The activation `fn` (elementwise, JAX) with dual maps by Gauss-Hermite quadrature.

    Mehler's formula: $E[\phi(u)\phi(v)] = \sum_k a_k(q_1) a_k(q_2) c^k$ with the Hermite coefficients
    $a_k(q) = E[\phi(\sqrt q z) He_k(z)]/\sqrt{k!}$, each a quadrature with `nodes` points. The cost
    for n1 x n2 pairs is `nodes` multiply-adds a pair. Converges fast for analytic $\phi$ (the package's tanh
    takes 320 nodes to be good to 1e-12 at $q = 2$), slowly where $\phi$ or $\phi'$ has a kink or $q$ is
    large. Raises `ValueError` for less than one node, or no function.
    """
    nodes = check_size("nodes", nodes)
    if not callable(fn):
        raise ValueError(f"fn is {fn!r}; expected an elementwise function.")
    grad = jnp.vectorize(jax.grad(fn))

    def pairs(f, q1, q2):
        axes = max(jnp.ndim(q1), jnp.ndim(q2))
        qs = (jnp.asarray(q, jnp.result_type(q1, q2, float)) for q in (q1, q2))
        return tuple(_hermite_coefficients(f, q.reshape((1,) * (axes - q.ndim) + q.shape), nodes) for q in qs)

    def aligned(q1, q2):
        a, b = pairs(fn, q1, q2)
        return (a * b).sum(0)

    def drop(q1, q2, gap, anti):
        def step(carry, ab):
            total, powers = carry  # powers = 1 + c + ... + c^(k-1), so that 1 - c^k = gap * powers
            return (total + ab[0] * ab[1] * powers, 1 + (1 - gap) * powers), None

        a, b = pairs(fn, q1, q2)
        zero = jnp.zeros(jnp.broadcast_shapes(gap.shape, a.shape[1:], b.shape[1:]), a.dtype)
        return gap * jax.lax.scan(step, (zero, zero), (a, b))[0][0]

    def unit(a):
        size = safe_sqrt((a**2).sum(0))
        return a / jnp.where(size > 0, size, 1.0)

    def mismatch(q1, q2):
        a, b = pairs(fn, q1, q2)
        return ((unit(a) - unit(b)) ** 2).sum(0) / 2

    def slope(q1, q2, gap, anti):
        def horner(total, ab):
            return total * (1 - gap) + ab[0] * ab[1], None

        a, b = pairs(grad, q1, q2)
        zero = jnp.zeros(jnp.broadcast_shapes(gap.shape, a.shape[1:], b.shape[1:]), a.dtype)
        return jax.lax.scan(horner, zero, (a, b), reverse=True)[0]

    return Activation(name, fn, aligned, drop, mismatch, slope)


_REGISTRY = {
    activation.name: activation
    for activation in (
        _relu_family("relu", 0.0, jax.nn.relu),
        _relu_family("leaky_relu", 0.01, jax.nn.leaky_relu),
        _relu_family("linear", 1.0, lambda z: z),
        Activation(
            "erf",
            jax.scipy.special.erf,
            _erf_aligned,
            _erf_drop,
            partial(_mismatch, _erf_aligned, _erf_spread),
            _erf_slope,
        ),
        Activation(
            "gelu",
            partial(jax.nn.gelu, approximate=False),
            _gelu_aligned,
            _gelu_drop,
            partial(_mismatch, _gelu_aligned, _gelu_spread),
            _gelu_slope,
        ),
        Activation(
            "sin", jnp.sin, _sin_aligned, _sin_drop, partial(_mismatch, _sin_aligned, _sin_spread), _sin_slope
        ),
        quadrature("tanh", jnp.tanh, nodes=320),
    )
}


def activation_names() -> tuple[str, ...]:
    """The names that `MLP(activation=...)` knows."""
    return tuple(_REGISTRY)


def get_activation(name: str) -> Activation:
    """The `Activation` of that name; `ValueError` for an unknown one."""
    check_choice("activation", name, activation_names())
    return _REGISTRY[name]


def register_activation(activation: Activation) -> None:
    """Make an activation known by its name, for example `register_activation(quadrature("softplus",
    jax.nn.softplus))`.

    Raises `ValueError` for a name that is taken or a function that is not elementwise.
    """
    if not isinstance(activation, Activation) or not isinstance(activation.name, str) or not activation.name:
        raise ValueError(
            f"activation is {activation!r}; expected an Activation with a name, as quadrature(name, fn) gives."
        )
    if activation.name in _REGISTRY:
        raise ValueError(f"activation {activation.name!r} is registered already; expected a new name.")
    _check_elementwise(activation.name, activation.fn)
    _REGISTRY[activation.name] = activation


def _check_elementwise(name: str, fn) -> None:
    """Raise `ValueError` unless `fn` maps arrays of any shape to floating ones of the same shape."""
    for shape in ((2, 3), ()):
        try:
            probe = jax.eval_shape(fn, jax.ShapeDtypeStruct(shape, jnp.float32))
        except Exception as error:
            probe = f"{type(error).__name__}: " + str(error).partition("\n")[0]
        if getattr(probe, "shape", None) != shape or not jnp.issubdtype(probe.dtype, jnp.floating):
            raise ValueError(
                f"activation {name!r} maps shape {shape} to {probe}; expected an elementwise function."
            )
