r"""The series of an activation: which degrees it sums, and for which variances it is good.

$E[\phi'(u)\phi'(v)] = \sum_k b_k(q_1) b_k(q_2) c^k$ has more terms the larger the variances are, and they
are smooth in $\log k$: the sum takes every one of the first degrees, and Gauss nodes in each octave above,
at which $k$ need not be an integer. `_hermite` gives the coefficients, or where that fails Gauss-Hermite
nodes do.

Integrals in $\log z$, which know of no series, say up to which variance they are good.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from ntk_helpers.networks._hermite import (
    Transform,
    coefficients,
    coefficients_of_one,
    phases,
    transforms,
    values,
)

__all__ = ["LOWEST", "PANEL", "WIDER", "ByNodes", "ByTable", "degrees", "series"]

DENSE = 32  # values of m in k = 2m + p that are summed one by one
NODES = 10  # for the sum over an octave of m
OCTAVES = 90
LOWEST, HIGHEST, PANEL = -36, 36, 6  # of log2 q; a panel of it holds one polynomial
WIDER = 31 / 30  # which is fitted on a little more, so that it has a derivative at the panel's ends
DEGREE = 64
CUT = 1e-13
UNSEEN = 1e-12  # of an octave's coefficients beside all: that much of E φ'φ', by Cauchy-Schwarz
HERMITE_NODES = 320
GOOD = 3e-11  # the relative error that a check may find; 1e-10 is promised
ROUNDING = 4 * np.finfo(float).eps / GOOD  # beside φ'(1), a φ' so small has this error by its own rounding
X = np.arange(-40.0, 9.0, 0.05)  # nodes of log(exp z - 1): in log z where z is small, in z where it is large
Z, DZ = np.logaddexp(0.0, X), 0.05 / (1 + np.exp(-X))


class Octaves(NamedTuple):
    """The nodes m (octaves, nodes) of the degrees k = 2m + p above the first ones, for the p in `parities`,
    and the variance from which each octave makes a difference."""

    m: np.ndarray
    parities: tuple[int, ...]
    matter_from: np.ndarray


class ByTable(NamedTuple):
    """The coefficients as Chebyshev series in log2 q, by panel.

    The columns: E φ; b_k for k < 2 DENSE; those of the octaves, (octaves, nodes, parities) in a row, times
    the root of the node's weight. Beyond the panels they go to their limits as √q and 1/√q do.
    """

    table: np.ndarray  # (panels, degree, columns)
    at_zero: np.ndarray  # (columns,)
    at_infinity: np.ndarray
    octaves: Octaves
    reach: float


class ByNodes(NamedTuple):
    """The coefficients of degrees below the number of nodes, by Gauss-Hermite quadrature."""

    z: np.ndarray
    weights: np.ndarray
    functions: np.ndarray  # (k, nodes): h_k at the nodes times their weight
    octaves: Octaves
    reach: float


def series(fn: Callable) -> ByTable | ByNodes:
    """The table, if it is good at all its variances; else the nodes, up to where they are."""
    found = _by_table(fn)
    return _by_nodes(fn) if found is None or not _is_good(fn, found) else found


def degrees(found: ByTable | ByNodes) -> tuple[np.ndarray, np.ndarray]:
    """The first ones, and those of the octaves' nodes (octaves, nodes, parities)."""
    first = len(found.z) if isinstance(found, ByNodes) else 2 * DENSE
    return np.arange(float(first)), 2 * found.octaves.m[..., None] + np.array(found.octaves.parities, float)


# --- by a table over variances


def _by_table(fn: Callable) -> ByTable | None:
    parts = transforms(fn)
    if not parts:
        return None
    panels = np.arange(LOWEST, HIGHEST, PANEL)
    log2_q = (panels[:, None] + PANEL / 2 * (1 + WIDER * chebyshev.chebpts1(DEGREE))).ravel()
    octaves, columns = _columns(parts, np.log(2) * log2_q)
    q = np.exp2(log2_q)
    table = _fitted(_means(fn, q), columns, q)
    at_zero, at_infinity = (_limit(parts, octaves, end) for end in ("at_zero", "at_infinity"))
    at_zero[0] = values(fn, np.zeros(1))[0][0]
    reach = np.inf if any(part.at_infinity for part in parts) else 2.0**HIGHEST
    return ByTable(table, at_zero, at_infinity, octaves, reach)


def _columns(parts: list[Transform], log_q: np.ndarray) -> tuple[Octaves, np.ndarray]:
    """The coefficients at these variances, with as many octaves as make a difference."""
    dense, at = np.zeros((DENSE, 2, len(log_q))), [phases(part, log_q) for part in parts]
    for part, each in zip(parts, at):
        dense[:, part.parity] = coefficients(part, np.arange(DENSE, dtype=float), each)
    shares, octaves, columns = [(dense**2).sum((0, 1))], [], [dense.reshape(2 * DENSE, -1)]
    for octave in range(OCTAVES):
        m, weights = _nodes_of_octave(octave)
        found = np.stack([coefficients(part, m, each) for part, each in zip(parts, at)], 1)
        found *= np.sqrt(weights)[:, None, None]
        columns.append(found.reshape(-1, len(log_q)))
        octaves.append(m)
        shares.append((found**2).sum((0, 1)))
        if (shares[-1] <= CUT * sum(shares)).all():
            break
    seen = np.stack(shares[1:]) > UNSEEN**2 * sum(shares)
    matter_from = np.where(seen, np.exp(log_q), np.inf).min(1)
    parities = tuple(part.parity for part in parts)
    return Octaves(np.stack(octaves), parities, matter_from), np.concatenate(columns)


def _nodes_of_octave(octave: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights for a sum over as many integers as the first of them, DENSE 2^octave.

    Its orthogonal polynomials are Gram's; their Jacobi matrix has the nodes for eigenvalues and the weights
    in the eigenvectors' first entries (Golub & Welsch 1969).
    """
    start, j = DENSE * 2.0**octave, np.arange(1, NODES)
    off = np.sqrt(j**2 * (start**2 - j**2) / (4 * (4.0 * j**2 - 1)))
    centred, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    return start + (start - 1) / 2 + centred, start * vectors[0] ** 2


def _limit(parts: list[Transform], octaves: Octaves, end: str) -> np.ndarray:
    """The columns where φ' is a step, as it is seen at either end."""
    dense = np.zeros((DENSE, 2))
    above = np.zeros((*octaves.m.shape, len(parts)))
    weights = np.stack([_nodes_of_octave(octave)[1] for octave in range(len(octaves.m))])
    for i, part in enumerate(parts):
        step = lambda m, part=part: getattr(part, end) * coefficients_of_one(m, part.parity)
        dense[:, part.parity] = step(np.arange(DENSE, dtype=float))
        above[..., i] = np.sqrt(weights) * step(octaves.m.ravel()).reshape(weights.shape)
    return np.concatenate([[0.0], dense.ravel(), above.ravel()])


def _fitted(means: np.ndarray, columns: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients (panels, degree, columns), as many as matter beside √E φ² and √E φ'²."""
    slopes = np.linalg.norm(columns, axis=0)
    sizes = np.stack([np.hypot(means, np.sqrt(q) * slopes), slopes], 1).reshape(-1, DEGREE, 2).max(1)
    values = np.concatenate([means[:, None], columns.T], 1).reshape(len(sizes), DEGREE, -1)
    to_series = np.linalg.inv(chebyshev.chebvander(chebyshev.chebpts1(DEGREE), DEGREE - 1))
    found = np.einsum("dp,npc->ndc", to_series, values)
    each = np.stack([np.abs(found[..., 0]), np.linalg.norm(found[..., 1:], axis=2)], 2)
    matters = (each > CUT * sizes[:, None]).any((0, 2))
    return found[:, : 1 + np.flatnonzero(matters).max(initial=0)]


# --- by nodes of z


def _by_nodes(fn: Callable) -> ByNodes:
    from scipy.special import roots_hermitenorm

    z, weights = roots_hermitenorm(HERMITE_NODES)
    rows = [np.ones_like(z), z]
    for k in range(2, HERMITE_NODES):
        rows.append((z * rows[-1] - np.sqrt(k - 1) * rows[-2]) / np.sqrt(k))
    weights = weights / weights.sum()
    none = Octaves(np.zeros((0, NODES)), (), np.zeros(0))
    found = ByNodes(z, weights, np.stack(rows) * weights, none, np.inf)
    return found._replace(reach=_reach(fn, found))


# --- where they are good


def _is_good(fn: Callable, found: ByTable) -> bool:
    q = np.exp2(np.arange(LOWEST + 3.7, HIGHEST, 1.9))
    return bool((_errors(fn, found, q) < GOOD).all())


def _reach(fn: Callable, found: ByNodes) -> float:
    """The largest variance up to which all are good; 0 where none is."""
    q = np.exp2(np.arange(LOWEST, HIGHEST + 0.2, 0.25))
    bad = ~(_errors(fn, found, q) < GOOD)
    return float(q[-1] if not bad.any() else np.append(0.0, q)[bad.argmax()])


def _errors(fn: Callable, found: ByTable | ByNodes, q: np.ndarray) -> np.ndarray:
    """Of E φφ and E φ'φ' at c = 1, beside q and beside q / 8, relative to the root of both variances' own."""
    k = np.concatenate([each.ravel() for each in degrees(found)])[:, None]
    means, columns = zip(*(_at(fn, found, each) for each in (q, q / 8)))
    seen = [_seen(fn, each) for each in (q, q / 8)]
    own = [[_integral(f, f) for f in functions] for functions in seen]
    own_at_1 = [_integral(f, f) for f in _seen(fn, np.ones(1))]
    tail = (columns[0][-NODES:] ** 2).max(0) if isinstance(found, ByNodes) else 0.0
    errors = [_relative(tail, own[0][1])]
    for i, scale in ((0, 1.0), (1, 8.0)):
        product = columns[0] * columns[i]
        ours = means[0] * means[i] + q / scale**0.5 * (product / (k + 1)).sum(0), product.sum(0)
        for f in (0, 1):
            size = np.sqrt(own[0][f] * own[i][f])
            rounding = ROUNDING * np.sqrt(size * own_at_1[f])
            errors.append(_relative(ours[f] - _integral(seen[0][f], seen[i][f]), size + rounding))
    return np.max(errors, 0)


def _relative(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(error == 0, 0.0, np.abs(error) / size)


def _at(fn: Callable, found: ByTable | ByNodes, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E φ and the columns of b: NumPy's double of what `numerical` does, within the panels."""
    if isinstance(found, ByNodes):
        phi, slope, _ = values(fn, np.sqrt(q) * found.z[:, None])
        return found.weights @ phi, found.functions @ slope
    x = (np.log2(q) - LOWEST) / PANEL
    panel = np.clip(x, 0, len(found.table) - 1).astype(int)
    basis = chebyshev.chebvander((2 * (x - panel) - 1) / WIDER, found.table.shape[1] - 1)
    columns = np.einsum("nd,ndc->cn", basis, found.table[panel])
    return columns[0], columns[1:]


def _seen(fn: Callable, q: np.ndarray) -> list[np.ndarray]:
    """φ and φ' of √q z at both signs of the nodes z, (2, nodes, len(q))."""
    return list(values(fn, np.sqrt(q) * np.stack([Z, -Z])[..., None])[:2])


def _integral(f: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.einsum("z,szq->q", DZ * np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi), f * g)


def _means(fn: Callable, q: np.ndarray) -> np.ndarray:
    return _integral(_seen(fn, q)[0], np.ones(1))
