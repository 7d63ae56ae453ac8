r"""The Hermite coefficients of $\phi'(\sqrt q z)$ at all variances $q$, from the Mellin transform of $\phi'$.

A Gaussian of variance $q$ sees $\phi'$ at the scale $\sqrt q$: nodes in $z$ that serve $q = 1$ miss what
happens at $|u| = 1$ when $q$ is $10^6$. In $\log u$ a change of scale is a shift, which the Mellin transform
makes a phase, so that one set of nodes serves every variance. With $f$ the even or odd part of $\phi'$ on
$u > 0$ and $k = 2m + p$ a degree of that parity $p$,

$$b_k(q) = E[\phi'(\sqrt q z)\,h_k(z)]
         = \frac{1}{2\pi} \int F(s)\,\kappa_k(s)\,q^{-s/2}\,d\tau, \qquad s = \sigma + i\tau,$$

where $F(s) = \int_0^\infty f(u)\,u^{s-1} du$ and $\kappa_k(s) = E[|z|^{-s}\,\mathrm{sgn}(z)^p\,h_k(z)]$. The
transform of $u f'(u)$ is $-s F(s)$ and needs no decay of $f$; the pole that is left at $s = 0$ stands for the
constant to which $f$ tends, at 0 where $\sigma < 0$ and at infinity where $\sigma > 0$. Trapezoidal sums for
both integrals converge geometrically where $\phi$ is analytic in sectors around both half-lines: a kink at 0
does no harm, one elsewhere does.

NumPy in float64, once for an activation.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np

from ntk_helpers._lib.host import in_float64

__all__ = ["Transform", "coefficients", "coefficients_of_one", "phases", "transforms", "values"]

LINES = (-0.55, 0.55)  # the σ for q < 1 and for q >= 1, away from the poles at -1, 0 and 1
STEPS = (0.08, 0.04, 0.02)  # in log u, tried in turn
PERIOD = (
    80.0  # in log u, after which a sum in steps of 2π/PERIOD over τ repeats; u f'(u) is 0 outside ±PERIOD
)
CHUNK = 8192
FEW = 32  # values of m up to which logarithms of Γ can be subtracted
ROUNDING = 1e-14
CONVERGED = 5e-13


class Transform(NamedTuple):
    """Of the part of φ' of one parity: F on both lines, at τ >= 0, and what the part tends to."""

    parity: int
    tau: np.ndarray
    lines: tuple[np.ndarray, np.ndarray]
    at_zero: float
    at_infinity: float


def values(fn: Callable, u: np.ndarray) -> tuple[np.ndarray, ...]:
    """φ, φ' and φ'' at u in float64, also while a caller is traced."""
    flat = np.zeros((-(-u.size // CHUNK), CHUNK))  # pieces of one size: one compilation
    flat.ravel()[: u.size] = u.ravel()
    with jax.ensure_compile_time_eval(), in_float64():
        pieces = [_derivatives(fn)(piece) for piece in flat]
    return tuple(np.concatenate(f).astype(float)[: u.size].reshape(u.shape) for f in zip(*pieces))


@lru_cache(maxsize=1)
def _derivatives(fn: Callable) -> Callable:
    slope = jax.grad(fn)
    return jax.jit(jax.vmap(lambda u: (fn(u), slope(u), jax.grad(slope)(u))))


def transforms(fn: Callable) -> list[Transform]:
    """Of the even and the odd part of φ', where they are not 0; none where the sums do not converge."""
    u = np.exp(-PERIOD + STEPS[-1] * np.arange(round(2 * PERIOD / STEPS[-1])))
    (_, right, right_bend), (_, left, left_bend) = values(fn, u), values(fn, -u)
    limits = (right + left)[0] / 2, (right - left)[0] / 2
    size = np.maximum(np.abs(right), np.abs(left))
    moves = [_cut(u, u * f / 2, size) for f in (right_bend - left_bend, right_bend + left_bend)]  # u f'(u)
    for step in STEPS:
        every = round(step / STEPS[-1])
        scaled = [[_scaled(move[::every], u[::every], step, sigma) for sigma in LINES] for move in moves]
        size = np.abs([*limits, *(line[0] for lines in scaled for line in lines)]).max()
        if max(np.abs(line[-5:]).max() for lines in scaled for line in lines) < CONVERGED * size:
            ends = [limit + step * move[::every].sum() for limit, move in zip(limits, moves)]
            parts = (_part(*each, ROUNDING * size) for each in zip((0, 1), scaled, limits, ends))
            return [part for part in parts if part is not None]
    return []


def _cut(u: np.ndarray, move: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Without what rounding leaves of u f'(u) at large u, where φ' is constant."""
    noise = (u > 1) & (np.abs(move) < 8 * np.finfo(float).eps * slope)
    return np.where(noise, 0.0, move)


def _scaled(move: np.ndarray, u: np.ndarray, step: float, sigma: float) -> np.ndarray:
    """The transform of u f'(u): at so many τ that an FFT of both periods, one laid on the other, is exact."""
    count = round(PERIOD / step)
    sums = step * count * np.fft.ifft((move * u**sigma).reshape(2, count).sum(0))
    return sums[: round(0.45 * count)]  # times exp(-i τ PERIOD) = 1


def _part(
    parity: int, scaled: list[np.ndarray], at_zero: float, at_infinity: float, zero: float
) -> Transform | None:
    """F = -scaled / s, as far as it is above `zero`."""
    above = np.flatnonzero(np.abs(scaled).max(0) > zero)
    if len(above) == 0 and max(abs(at_zero), abs(at_infinity)) <= zero:
        return None
    tau = 2 * np.pi / PERIOD * np.arange(above.max(initial=0) + 1)
    lines = tuple(-line[: len(tau)] / (sigma + 1j * tau) for line, sigma in zip(scaled, LINES))
    ends = (0.0 if abs(end) < 1e3 * zero else float(end) for end in (at_zero, at_infinity))
    return Transform(parity, tau, lines, *ends)


class Phases(NamedTuple):
    """q^(-s/2) at the variances on either side of 1, for the line that serves them."""

    below: np.ndarray
    small: np.ndarray
    large: np.ndarray


def phases(part: Transform, log_q: np.ndarray) -> Phases:
    s = [sigma + 1j * part.tau for sigma in LINES]
    below = log_q < 0
    return Phases(below, *(np.exp(-np.outer(s, log_q[at]) / 2) for s, at in zip(s, (below, ~below))))


def coefficients(part: Transform, m: np.ndarray, at: Phases) -> np.ndarray:
    """b_k of the degrees k = 2m + p, real ones too, at the variances, (len(m), variances)."""
    found = np.empty((len(m), len(at.below)))
    weights = np.where(part.tau > 0, 2.0, 1.0) / PERIOD  # the line's other half is conjugate
    one = coefficients_of_one(m, part.parity)[:, None]
    limits, phases, sides = (part.at_zero, part.at_infinity), (at.small, at.large), (at.below, ~at.below)
    for sigma, line, limit, phase, side in zip(LINES, part.lines, limits, phases, sides):
        terms = _moments(m, part.parity, sigma + 1j * part.tau) * line * weights
        found[:, side] = terms.real @ phase.real - terms.imag @ phase.imag + limit * one
    return found


def coefficients_of_one(m: np.ndarray, parity: int) -> np.ndarray:
    """Of 1 and of the sign: κ at s = 0."""
    return (m == 0) * 1.0 if parity == 0 else _moments(m, 1, np.zeros(1, complex)).real[:, 0]


def _moments(m: np.ndarray, parity: int, s: np.ndarray) -> np.ndarray:
    r"""$(-1)^m \kappa_k(s) = 2^{-s/2} \pi^{-1/4}\,\Gamma(\frac{1+p-s}2)/\Gamma(\frac{s+p}2)$ times
    $\Gamma(m + \frac{s+p}2)/\sqrt{\Gamma(m + \frac{1+p}2)\,\Gamma(m + 1 + \frac p2)}$, (len(m), len(s)).

    From $E|z|^{-s}$ by k integrations by parts; the sign leaves every product of two coefficients.
    """
    from scipy.special import loggamma

    a, b, c = (s + parity) / 2, (1 + parity) / 2, 1 + parity / 2
    front = -s / 2 * np.log(2) - np.log(np.pi) / 4 + loggamma((1 + parity - s) / 2) - loggamma(a)
    few, many = np.minimum(m, FEW)[:, None], np.maximum(m, FEW)[:, None]
    small = loggamma(few + a) - (loggamma(few + b) + loggamma(few + c)) / 2
    large = _stirling(many, a) - (_stirling(many, b) + _stirling(many, c)) / 2
    large = large + (a - (b + c) / 2) * np.log(many)
    return np.exp(front + np.where(m[:, None] < FEW, small, large))


def _stirling(m: np.ndarray, a) -> np.ndarray:
    """log Γ(m + a) less a log m and what does not depend on a: large m would cancel most digits of log Γ."""
    z = m + a
    x, y = np.real(a / m), np.imag(a / m)
    log1p = np.log1p(2 * x + x**2 + y**2) / 2 + 1j * np.arctan2(y, 1 + x)
    return (z - 0.5) * log1p - a + 1 / (12 * z) - 1 / (360 * z**3) + 1 / (1260 * z**5) - 1 / (1680 * z**7)
