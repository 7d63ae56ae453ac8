r"""Gaussian expectations of products of four factors $\phi$, $\phi'$ and $\phi''$ at up to four points.

Two coordinates are polar, and each other one is a line. A kink of $\phi$ at 0 is then a ray in the plane and
a point on a line: both are cut there, and every piece has Gauss nodes of its own. The rule asks for a root of
the covariance and not for its inverse, so points may coincide.

At a kink $\phi''$ holds $J\,\delta(z)$, $J$ the jump of $\phi'$. Its share is $J$ times the density of
$z_a = 0$ times an expectation over the other points, given $z_a = 0$. Where some of these vanish too, the
mean over what $\phi'$ passes through in the jump is taken: the limit of smooth activations.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.host import in_float64

__all__ = ["FourPoints", "coincide", "four_points", "gauss", "radial"]

NODES = {1: (64, 64, 0), 2: (48, 64, 0), 3: (28, 48, 36), 4: (20, 32, 32)}
"""By the number of points: of a piece of the circle, of the radius, and of a piece of a line."""
REACH = 9.0  # in standard deviations; a Gaussian has 2e-19 of its mass beyond
JUMP = np.array([0.5 - 12**-0.5, 0.5 + 12**-0.5])  # Gauss nodes for polynomials of degree 3 on (0, 1)


class FourPoints(NamedTuple):
    r"""Expectations over $z \sim N(0, K)$ at all quadruples of the points."""

    values: Float[Array, "n n n n"]  # φ_a φ_b φ_c φ_d
    mixed: Float[Array, "n n n n"]  # φ'_a φ'_b φ_c φ_d
    slopes: Float[Array, "n n n n"]  # φ'_a φ'_b φ'_c φ'_d
    bends: Float[Array, "n n n n"]  # φ''_a φ'_b φ'_c φ_d


def coincide(k: Array) -> float:
    """1 - c up to which two points count as one, and a variance given others, beside its own, as 0."""
    return 4096 * float(jnp.finfo(k.dtype).eps)


def four_points(fn: Callable[[Array], Array], k: Float[Array, "n n"]) -> FourPoints:
    """All expectations at the covariance `k`, by subsets of at most four points: each gives the quadruples
    that it holds, and smaller ones overwrite."""
    found = FourPoints(*_over_subsets(partial(_of_subset, fn), k, 4, [4, 4, 4, 4]))
    sides = _sides(fn)
    if sides[0] == sides[1]:
        return found
    kinks = jax.lax.map(jax.checkpoint(partial(_of_kink, fn, sides, k)), jnp.arange(len(k)))
    return found._replace(bends=found.bends + kinks)


def _over_subsets(of_subset: Callable, k: Array, largest: int, ranks: list[int]) -> list[Array]:
    """Arrays with an axis of all points, `ranks` axes each, from `of_subset(k, members)`."""
    n = len(k)
    found = [jnp.zeros((n,) * rank, k.dtype) for rank in ranks]
    for size in range(min(n, largest), min(n, 2) - 1, -1):
        members = np.array(list(combinations(range(n), size)))
        parts = jax.lax.map(jax.checkpoint(lambda at: of_subset(k[at][:, at], at)), jnp.asarray(members))
        for i, (rank, part) in enumerate(zip(ranks, parts)):
            at = [members.reshape(-1, *np.roll((size, *(1,) * (rank - 1)), axis)) for axis in range(rank)]
            found[i] = found[i].at[tuple(at)].set(part)
    return found


def _of_subset(fn: Callable, k: Array, _) -> tuple[Array, ...]:
    """The expectations at the quadruples of these points; of four points, at those that hold all of them."""
    z, weight, rest = _nodes(k)
    phi, slope, bend = _factors(fn, z, rest)
    pairs = lambda f, g: (f[:, None] * g[None]).reshape(-1, f.shape[-1])
    mean = lambda f, g: jnp.matmul(f * weight, g.T, precision="highest").reshape((len(k),) * 4)
    values, slopes = pairs(phi, phi), pairs(slope, slope)
    bends = mean(pairs(bend, phi), slopes).transpose(0, 2, 3, 1)
    return mean(values, values), mean(slopes, values), mean(slopes, slopes), bends


def _of_kink(fn: Callable, sides: tuple[float, float], k: Array, a: Array) -> Array:
    """The share of the kink at z_a = 0 in the expectations of φ''_a φ'_b φ'_c φ_d."""
    variance, with_a = k[a, a], k[a]
    positive = variance > 0
    safe = jnp.where(positive, variance, 1.0)
    given = k - with_a[:, None] * with_a / safe
    gone = jnp.diagonal(given) <= coincide(k) * jnp.diagonal(k)
    given = jnp.where(gone[:, None] | gone, 0.0, given)
    below, above = sides

    def of_subset(k, at):
        z, weight, _ = _nodes(k)
        phi, slope, _ = _factors(fn, z)
        total = 0.0
        for t in JUMP:
            t = jnp.where(with_a[at] >= 0, t, 1 - t)[:, None]
            passed = jnp.where(gone[at][:, None], below + t * (above - below), slope)
            pairs = (passed[:, None] * passed[None]).reshape(-1, phi.shape[-1])
            total += jnp.matmul(pairs * weight, phi.T, precision="highest") / len(JUMP)
        return (total.reshape((len(k),) * 3),)

    (found,) = _over_subsets(of_subset, given, 3, [3])
    density = jnp.where(positive, 1 / jnp.sqrt(2 * jnp.pi * safe), 0.0)
    return (above - below) * density * found


@lru_cache(maxsize=64)
def _sides(fn: Callable) -> tuple[float, float]:
    """φ' on both sides of 0, with the smaller rounding of both where they are equal."""
    with jax.ensure_compile_time_eval(), in_float64():
        below, above = (float(jax.grad(fn)(jnp.float64(z))) for z in (-1e-30, 1e-30))
    return (below, below) if abs(above - below) <= 1e-12 * abs(above) else (below, above)


def _derivatives(fn: Callable, z: Array) -> tuple[Array, Array, Array]:
    along = lambda f: lambda z: jax.jvp(f, (z,), (jnp.ones_like(z),))[1]
    return fn(z), along(fn)(z), along(along(fn))(z)


def _factors(fn: Callable, z: Array, rest: tuple[Array, Array] | None = None) -> tuple[Array, ...]:
    """φ, φ' and φ'' at the nodes (points, nodes); a last point enters by its means, given the nodes."""
    found = _derivatives(fn, z)
    if rest is None:
        return found
    mean, deviation = rest
    _, radii, nodes = NODES[4]

    @jax.checkpoint
    def of_chunk(mean):
        v, weight = _line([_root(mean, deviation)], nodes)
        return tuple((f * weight).sum(0) for f in _derivatives(fn, mean + deviation * v))

    last = jax.lax.map(of_chunk, mean.reshape(radii, -1))
    return tuple(jnp.concatenate([f, g.reshape(1, -1)]) for f, g in zip(found, last))


# --- the rule


@cache
def gauss(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on (0, 1)."""
    x, weights = np.polynomial.legendre.leggauss(nodes)
    return (1 + x) / 2, weights / 2


@cache
def radial(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the mean over the radius of a standard normal plane.

    They are closer to 0, where a steep activation needs them.
    """
    x, weight = gauss(nodes)
    radius = REACH / 2 * (x**2 + x**3)
    return radius, REACH / 2 * (2 * x + 3 * x**2) * weight * radius * np.exp(-(radius**2) / 2)


def _nodes(k: Float[Array, "m m"]) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """Nodes (points, nodes) and weights for up to three points; of a fourth its mean and deviation, given the
    others."""
    root = _cholesky(k)
    angles, radii, nodes = NODES[len(k)]
    plane, weight = _plane(root[:, :2], angles, radii)
    z = jnp.tensordot(root[:, :2], plane, 1)
    if len(k) > 2:
        weight = weight[None]
        third = root[2:, 2]
        u, line = _line([_root(z[2 + i], third[i]) for i in range(len(third))], nodes)
        z, weight = z[:, None] + root[:, 2, None, None] * u, weight * line
    z, weight = z.reshape(len(k), -1), weight.reshape(-1)
    return (z, weight, None) if len(k) < 4 else (z[:3], weight, (z[3], root[3, 3]))


def _plane(directions: Float[Array, "m 2"], angles: int, radii: int) -> tuple[Array, Array]:
    """Nodes (2, nodes) of the standard normal plane, cut along the lines where a point's projection is 0."""
    size = (directions**2).sum(1) > 0
    x, y = (jnp.where(size, directions[:, i], 1.0 - i) for i in range(2))
    cuts = jnp.sort((jnp.arctan2(y, x) + jnp.pi / 2) % jnp.pi)
    length = jnp.diff(cuts, append=cuts[:1] + jnp.pi)
    t, weight = (jnp.asarray(a, directions.dtype) for a in gauss(angles))
    angle = (cuts[:, None] + length[:, None] * t).ravel()
    share = (length[:, None] * weight).ravel() / (2 * jnp.pi)
    radius, mass = (jnp.asarray(a, directions.dtype) for a in radial(radii))
    radius = jnp.stack([radius, -radius], 1)
    nodes = jnp.stack([jnp.cos(angle), jnp.sin(angle)])[:, None, None] * radius[..., None]
    weights = jnp.broadcast_to(mass[:, None, None] * share, nodes.shape[1:])
    return nodes.reshape(2, -1), weights.ravel()


def _line(cuts: list[Array], nodes: int) -> tuple[Array, Array]:
    """Nodes and weights (nodes, ...) of the standard normal line, cut at each of `cuts` (...)."""
    ends = jnp.stack([jnp.full_like(cuts[0], -REACH), *cuts, jnp.full_like(cuts[0], REACH)])
    ends = jnp.sort(ends, 0)
    t, weight = (jnp.asarray(a, ends.dtype).reshape(-1, *(1,) * ends.ndim) for a in gauss(nodes))
    length = jnp.diff(ends, axis=0)
    u = ends[:-1] + length * t
    weight = length * weight * jnp.exp(-(u**2) / 2) / (2 * jnp.pi) ** 0.5
    return u.reshape(-1, *ends.shape[1:]), weight.reshape(-1, *ends.shape[1:])


def _root(mean: Array, deviation: Array) -> Array:
    """Where mean + deviation u is 0, within reach."""
    moves = deviation > 0
    return jnp.where(moves, jnp.clip(-mean / jnp.where(moves, deviation, 1.0), -REACH, REACH), 0.0)


def _cholesky(k: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """A lower triangular root of at least two columns; a pivot that is 0 to rounding gets a column of 0."""
    m = len(k)
    columns: list[Array] = []
    for j in range(max(m, 2)):
        if j >= m:
            columns.append(jnp.zeros(m, k.dtype))
            continue
        left = k[:, j] - sum((column * column[j] for column in columns), jnp.zeros(m, k.dtype))
        positive = left[j] > coincide(k) * k[j, j]
        pivot = jnp.where(positive, left[j], 1.0)
        column = jnp.where(positive & (jnp.arange(m) >= j), left / jnp.sqrt(pivot), 0.0)
        columns.append(column)
    return jnp.stack(columns, 1)
