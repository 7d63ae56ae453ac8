r"""Claims: a line each, that is asserted, printed, and read by the ledger.

A claim of mathematics or of arithmetic is a `check`, whose tolerance comes from the argument or from
rounding. A claim about random numbers takes the samples and computes its tolerance from them: where it is
true it fails for one key in 10,000, and it says how large an error it would notice in nine cases of ten.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from ntk_helpers._lib.inputs import check_real

__all__ = ["check", "check_estimate", "check_law", "check_mean", "check_rate", "check_ratio", "check_slope"]

FALSE_ALARM = 1e-4
"""How often a true claim fails for another key: for all entries of a claim together."""
NOTICED = 0.9
"""How often the error is noticed that a claim says it would notice."""
GROUPS = 100
"""At most so many parts of a sample are left out in turn by the jackknife."""


def check(claim: str, measured, expected, tol: float | None = None, *, source: str) -> None:
    r"""Assert a claim and print it in one line.

    `expected` is a number or an array, to which `measured` must come within the absolute tolerance
    `tol` everywhere, or a bound, `"< 0.1"` or `"> 2"`, on every entry of `measured`. The number
    printed is the entry furthest from what is expected; of an array of expectations, how far it is off.

    Raises:

    - `AssertionError` where the claim does not hold or `measured` is not finite;
    - `ValueError` for a tolerance or bound that is missing, not positive or not finite;
    - `ValueError` for empty or mismatched arrays, and an empty claim or source.

    >>> check("the sum of the first hundred numbers", sum(range(101)), 5050, tol=1e-9, source="Gauss")
    ✓ the sum of the first hundred numbers: measured 5050, expected 5050 ± 1e-09 [Gauss]
    """
    _check_texts(claim, source)
    values = _real("measured", measured)
    if values.size == 0:
        raise ValueError(f"measured has shape {values.shape}; expected at least one number.")
    if isinstance(expected, str):
        if tol is not None:
            raise ValueError(f"expected is {expected!r} with tol {tol}; expected one of them.")
        sign, limit = _bound(expected)
        worst = values.max() if sign == "<" else values.min()
        holds = worst < limit if sign == "<" else worst > limit
        _report(claim, _short(worst), expected, holds and np.isfinite(values).all(), source)
    else:
        shown, holds, target = _close(values, _real("expected", expected), tol)
        _report(claim, shown, target, holds, source)


def check_mean(claim: str, samples, expected, *, source: str, within: float = 0.0) -> None:
    r"""Assert a claim on the mean of independent `samples` (draws, ...), one for each further entry.

    `expected` is a number, an array, or a bound as in `check`. The tolerance is `within`, which the theory
    leaves open (a term of order 1/width, say), plus $t\, s/\sqrt{n}$: n draws with standard deviation s, and
    Student's t such that a true claim fails for one key in 10,000. A bound must hold with that much to spare.

    Raises:

    - `AssertionError` where the claim does not hold;
    - `ValueError` for fewer than three draws, draws that do not differ, and arguments as in `check`.

    >>> x = np.random.default_rng(0).normal(size=(1000, 2))
    >>> check_mean("normal numbers", x, 0.0, source="definition")
    ✓ normal numbers: measured -0.02994, expected 0 ± 0.13 (1000 draws; 0.17 would show) [definition]
    """
    _check_texts(claim, source)
    x = _samples("samples", samples)
    _judge(claim, x.mean(0), stats.sem(x), len(x), str(len(x)), expected, within, source)


def check_ratio(claim: str, over, under, expected, *, source: str, within: float = 0.0) -> None:
    r"""Assert a claim on the mean of `over` by that of `under`, two independent samples (draws, ...).

    The tolerance is that of `check_estimate`. Samples in pairs are one sample to that function.

    Raises:

    - as `check_estimate`.

    >>> x = np.random.default_rng(0).exponential(size=(2, 10_000))
    >>> check_ratio("exponential", 3 * x[0], x[1], 3.0, source="definition")
    ✓ exponential: measured 3.001, expected 3 ± 0.17 (10000 and 10000 draws; 0.22 would show) [definition]
    """
    quotient = lambda a, b: a.mean(0) / b.mean(0)
    check_estimate(claim, quotient, (over, under), expected, source=source, within=within)


def check_estimate(
    claim: str, estimate: Callable, samples, expected, *, source: str, within: float = 0.0
) -> None:
    r"""Assert a claim on `estimate(*samples)`, a smooth function of one or several independent samples.

    `samples` is an array (draws, ...), or a tuple of arrays that are independent of each other; the estimate
    is a number or an array. Its standard error is that of the jackknife (Efron 1982), $s^2 = \frac{g-1}{g}
    \sum_k (e_k - \bar e)^2$ with $e_k$ the estimate without part k of g, summed over the arrays.
    `expected`, `within` and the tolerance are those of `check_mean`, with s for $s/\sqrt n$.

    Raises:

    - `AssertionError` where the claim does not hold;
    - `ValueError` for fewer than three draws, an estimate that does not vary, and arguments as in `check`.

    >>> x = np.random.default_rng(0).normal(size=2000)
    >>> check_estimate("standard deviation", np.std, x, 1.0, source="definition")
    ✓ standard deviation: measured 1, expected 1 ± 0.059 (2000 draws; 0.078 would show) [definition]
    """
    _check_texts(claim, source)
    arrays = tuple(samples) if isinstance(samples, tuple) else (samples,)
    arrays = tuple(_samples("samples", each) for each in arrays)
    value = np.asarray(estimate(*arrays), float)
    if not np.isfinite(value).all():
        return _report(claim, str(value), "finite numbers", False, source)
    variance, groups = np.zeros(value.shape), GROUPS
    for k, x in enumerate(arrays):
        parts = np.array_split(np.arange(len(x)), min(len(x), GROUPS))
        without = [estimate(*arrays[:k], np.delete(x, part, axis=0), *arrays[k + 1 :]) for part in parts]
        variance += (len(parts) - 1) * np.var(without, axis=0)
        groups = min(groups, len(parts))
    draws = " and ".join(str(len(x)) for x in arrays)
    _judge(claim, value, np.sqrt(variance), groups, draws, expected, within, source)


def check_slope(
    claim: str, samples: Mapping[float, Sequence], expected, *, source: str, within: float = 0.0
) -> None:
    r"""Assert a claim on the slope of log E[samples] against log size, and that a line fits.

    `samples` has independent positive draws for each of at least three sizes. The line is fitted by least
    squares with the weights of the means' standard errors. It fits where the sum of squared residuals, in
    these, is no larger than chance explains; `within` leaves the slope that much room, and the line as much
    curvature. Tolerance and `expected` are those of `check_mean`.

    Raises:

    - `AssertionError` where the claim does not hold, or no line fits;
    - `ValueError` for fewer than three sizes, or of draws, and means that are not positive.

    >>> draws = {n: np.random.default_rng(n).exponential(1 / n, 5000) for n in (1, 4, 16)}
    >>> check_slope("means like 1/n", draws, -1.0, source="definition")
    ✓ means like 1/n: measured -0.9902, expected -1 ± 0.028 (15000 draws; 0.037 would show) [definition]
    """
    _check_texts(claim, source)
    rows = [_samples(f"samples[{size}]", each) for size, each in samples.items()]
    means = np.array([x.mean() for x in rows])
    if len(rows) < 3 or not (means > 0).all():
        raise ValueError(f"samples has {len(rows)} sizes with means {means}; expected at least 3, positive.")
    x, y, s = np.log(list(samples)), np.log(means), np.array([stats.sem(row) for row in rows]) / means
    if not (s > 0).all():
        raise ValueError("samples has a size at which all draws are equal; expected random ones.")
    s_fit = np.hypot(s, within * np.ptp(x) / 8)  # how far a slope that changes by ± within bends from a line
    weights = (x - np.average(x, weights=s_fit**-2)) / s_fit**2
    weights /= weights @ x
    slope, draws = weights @ y, sum(map(len, rows))
    residuals = y - slope * x - np.average(y - slope * x, weights=s_fit**-2)
    if stats.chi2.sf(((residuals / s_fit) ** 2).sum(), len(rows) - 2) < FALSE_ALARM:
        off = f"no line fits: off by {_list(residuals)}"
        return _report(claim, off, f"standard errors {_list(s)}", False, source)
    error = np.sqrt((weights**2 * s**2).sum())
    _judge(claim, slope, error, min(map(len, rows)), str(draws), expected, within, source)


def check_law(claim: str, samples, law, *, source: str) -> None:
    r"""Assert that independent `samples` (draws,) have a law, by Kolmogorov and Smirnov.

    `law` is another sample, or a distribution of `scipy.stats`. The largest distance of the two distribution
    functions must be below $\sqrt{\log(2/\alpha)/2}\,\sqrt{1/n + 1/m}$ with $\alpha = 10^{-4}$, and
    $m = \infty$ for a distribution. It sees a shift far better than heavy tails: check a moment as well.

    Raises:

    - `AssertionError` where the claim does not hold;
    - `ValueError` for fewer than three draws, and samples that are not (draws,).

    >>> x = np.random.default_rng(0).normal(size=1000)
    >>> check_law("a sum of two, scaled", (x[:500] + x[500:]) / 2**0.5, stats.norm(), source="definition")
    ✓ a sum of two, scaled: measured 0.04853, expected < 0.09952 (500 draws) [definition]
    """
    _check_texts(claim, source)
    x = _samples("samples", samples)
    known = hasattr(law, "cdf")
    other = None if known else _samples("law", law)
    for name, values in (("samples", x), ("law", other)):
        if values is not None and values.ndim != 1:
            raise ValueError(f"{name} has shape {values.shape}; expected (draws,).")
    distance = (stats.kstest(x, law.cdf) if known else stats.ks_2samp(x, other)).statistic
    limit = np.sqrt(np.log(2 / FALSE_ALARM) / 2 * (1 / len(x) + (0 if known else 1 / len(other))))
    draws = f"{len(x)}" if known else f"{len(x)} and {len(other)}"
    _report(claim, _short(distance), f"< {_short(limit)} ({draws} draws)", distance < limit, source)


def check_rate(claim: str, hits, expected, *, source: str, within: float = 0.0) -> None:
    r"""Assert a claim on the rate of independent `hits` (draws,), true or false.

    `expected` is a number or a bound. The tolerance is exact (Clopper and Pearson 1934) plus `within`.

    Raises:

    - `AssertionError` where the claim does not hold;
    - `ValueError` for hits that are not (draws,) of true and false.

    >>> x = np.random.default_rng(0).normal(size=1000)
    >>> check_rate("two deviations", abs(x) < 2, 0.954, source="definition")
    ✓ two deviations: measured 0.963, expected 0.954 ± 0.029 (1000 draws; 0.037 would show) [definition]
    """
    _check_texts(claim, source)
    hit = np.asarray(hits)
    if hit.dtype != bool or hit.ndim != 1 or hit.size < 3:
        raise ValueError(f"hits has shape {hit.shape} and type {hit.dtype}; expected (draws,) of bool.")
    n, k = len(hit), int(hit.sum())
    tail = FALSE_ALARM if isinstance(expected, str) else FALSE_ALARM / 2
    lower = stats.beta.ppf(tail, k, n - k + 1) if k else 0.0
    upper = stats.beta.isf(tail, k + 1, n - k) if k < n else 1.0
    if isinstance(expected, str):
        sign, limit = _bound(expected)
        holds = upper + within < limit if sign == "<" else lower - within > limit
        return _report(claim, _short(k / n), f"{expected} ({n} draws)", holds, source)
    rate = float(_real("expected", expected))
    tol = max(upper - k / n, k / n - lower) + within
    shows = tol + stats.norm.isf(1 - NOTICED) * np.sqrt(max(rate * (1 - rate), 1 / n) / n)
    target = f"{_short(rate)} ± {tol:.2g} ({n} draws; {shows:.2g} would show)"
    return _report(claim, _short(k / n), target, lower - within <= rate <= upper + within, source)


def _judge(claim, value, error, groups: int, draws: str, expected, within: float, source: str) -> None:
    """Compare an estimate, its standard error known from so many groups, with what is expected."""
    value, error = np.atleast_1d(value), np.atleast_1d(error)
    if not (np.isfinite(within) and within >= 0):
        raise ValueError(f"within is {within}; expected a tolerance that is not negative.")
    if not np.isfinite(value).all() or not np.isfinite(error).all():
        return _report(claim, f"{value} with standard error {error}", "finite numbers", False, source)
    if not (error > 0).all():
        raise ValueError(
            f"{claim}: an estimate does not vary over the draws; expected random ones, or `check`."
        )
    if isinstance(expected, str):
        sign, limit = _bound(expected)
        room = within + stats.t.isf(FALSE_ALARM / value.size, groups - 1) * error
        beyond = value + room - limit if sign == "<" else limit - value + room
        worst = beyond.argmax()
        target = f"{expected} with ± {room.flat[worst]:.2g} ({draws} draws)"
        return _report(claim, _short(value.flat[worst]), target, beyond.max() < 0, source)
    wanted = _real("expected", expected)
    if wanted.ndim and wanted.shape != value.shape:
        raise ValueError(
            f"the estimate has shape {value.shape} and expected {wanted.shape}; they must agree."
        )
    wanted = np.broadcast_to(wanted, value.shape)
    sigmas = stats.t.isf(FALSE_ALARM / 2 / value.size, groups - 1)
    tol = within + sigmas * error
    worst = (abs(value - wanted) / tol).argmax()
    shows = (tol + stats.norm.isf(1 - NOTICED) * error).flat[worst]
    target = f"{_short(wanted.flat[worst])} ± {tol.flat[worst]:.2g} ({draws} draws; {shows:.2g} would show)"
    return _report(claim, _short(value.flat[worst]), target, (abs(value - wanted) <= tol).all(), source)


def _report(claim: str, measured: str, expected: str, holds, source: str) -> None:
    line = f"{claim}: measured {measured}, expected {expected} [{source}]"
    if not holds:
        raise AssertionError(line)
    print("✓", line)


def _check_texts(claim, source) -> None:
    if not all(isinstance(text, str) and text.strip() for text in (claim, source)):
        raise ValueError(
            f"claim is {claim!r} and source is {source!r}; expected a sentence and where it comes from."
        )


def _bound(expected: str) -> tuple[str, float]:
    sign, _, number = expected.partition(" ")
    try:
        limit = float(number)
    except ValueError:
        limit = np.nan
    if sign not in ("<", ">") or not np.isfinite(limit):
        raise ValueError(f"expected is {expected!r}; expected a finite bound, as '< 0.1' or '> 2'.")
    return sign, limit


def _close(values, expected, tol):
    size = np.nan if tol is None or isinstance(tol, bool) else _real("tol", tol)
    if np.ndim(size) or not 0 < size < np.inf:
        raise ValueError(f"tol is {tol}; expected a positive, finite absolute tolerance.")
    if expected.shape not in ((), values.shape):
        shapes = f"measured has shape {values.shape} and expected {expected.shape}"
        raise ValueError(f"{shapes}; expected equal shapes or one number.")
    if not np.isfinite(expected).all():
        raise ValueError(f"expected holds {expected}; all must be finite.")
    if not np.isfinite(values).all():
        return "nan", False, f"finite values within {tol:.1g}"
    errors = np.abs(values - expected)
    holds = bool(errors.max() <= tol)
    if expected.ndim:
        return f"{errors.max():.1g} off at most", holds, f"{expected.size} numbers ± {tol:.2g}"
    return _short(values.flat[errors.argmax()]), holds, f"{_short(float(expected))} ± {tol:.2g}"


def _samples(name: str, values) -> np.ndarray:
    x = _real(name, values)
    if x.ndim == 0 or len(x) < 3 or x.size == 0:
        raise ValueError(f"{name} has shape {x.shape}; expected (draws, ...) with at least 3 draws.")
    return x


def _real(name: str, value) -> np.ndarray:
    return check_real(name, value, np.asarray).astype(float)


def _short(x: float) -> str:
    return f"{x:.4g}"


def _list(values) -> str:
    return ", ".join(f"{value:.2g}" for value in values)
