"""Claims on random numbers hold for other keys, and see errors of the size that they name."""

import re

import numpy as np
import pytest
from scipy import stats

from ntk_helpers.book import check_estimate, check_law, check_mean, check_rate, check_ratio, check_slope

RNG = np.random.default_rng
LINE = re.compile(r"✓ (.+): measured (\S+), expected (.+) \[s\]\n")


def share(claim, trials=150) -> float:
    """How often a claim of a generator holds."""

    def holds(seed):
        try:
            claim(RNG(seed))
        except AssertionError:
            return False
        return True

    return np.mean([holds(seed) for seed in range(trials)])


def power_law(rng, slope, bend=0.0):
    return {n: rng.exponential(n**slope * np.exp(bend * np.log(n / 4) ** 2), 400) for n in (1, 2, 4, 8, 16)}


CLAIMS = {
    "mean": lambda rng, off: check_mean("m", rng.normal(1 + off, 2, (300, 4)), 1.0, source="s"),
    "few": lambda rng, off: check_mean("m", rng.normal(1 + off, 2, 5), 1.0, source="s"),
    "ratio": lambda rng, off: check_ratio(
        "m", rng.normal(2 + 2 * off, 2, 900), rng.normal(2, 1, 400), 1.0, source="s"
    ),
    "difference": lambda rng, off: check_estimate(
        "m",
        lambda a, b: a.mean() - b.mean(),
        (rng.normal(3 + off, 2, 900), rng.normal(2, 1, 100)),
        1.0,
        source="s",
    ),
    "slope": lambda rng, off: check_slope("m", power_law(rng, off - 1), -1.0, source="s"),
    "rate": lambda rng, off: check_rate("m", rng.random(400) < 0.9 + off, 0.9, source="s"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_true_claim_holds_for_other_keys(name):
    assert share(lambda rng: CLAIMS[name](rng, 0.0)) == 1


@pytest.mark.parametrize("name", [name for name in CLAIMS if name not in ("few", "rate")])
def test_an_error_that_would_show_shows(name, capsys):
    CLAIMS[name](RNG(0), 0.0)
    size = float(re.search(r"; (\S+) would show", capsys.readouterr().out)[1])
    noticed = 1 - share(lambda rng: CLAIMS[name](rng, size), 100)
    assert noticed > 0.8
    assert share(lambda rng: CLAIMS[name](rng, size / 4), 100) > 0.8


def test_a_rate_that_is_off_shows():
    assert share(lambda rng: CLAIMS["rate"](rng, -0.1)) < 0.2


def test_the_entry_furthest_off_is_shown(capsys):
    samples = RNG(0).normal(size=(50, 3)) + [0.0, 0.5, 0.0]
    check_mean("m", samples, [0.0, 0.0, 0.0], source="s", within=1.0)
    claim, measured, expected = LINE.fullmatch(capsys.readouterr().out).groups()
    assert float(measured) == pytest.approx(samples[:, 1].mean(), rel=1e-3)
    assert expected.startswith("0 ± 1.") and "(50 draws; " in expected


def test_tolerances_are_those_of_student():
    x = RNG(0).normal(size=20)
    room = stats.t.isf(5e-5, 19) * stats.sem(x)
    check_mean("m", x, x.mean() + 0.999 * room, source="s")
    check_mean("m", x, x.mean() + 0.999 * (room + 0.1), source="s", within=0.1)
    with pytest.raises(AssertionError):
        check_mean("m", x, x.mean() + 1.001 * room, source="s")


def test_the_jackknife_of_a_mean_is_its_standard_error(capsys):
    x = RNG(0).normal(size=60)
    check_mean("m", x, 0.0, source="s")
    check_estimate("m", np.mean, x, 0.0, source="s")
    one, other = capsys.readouterr().out.splitlines()
    assert one == other


@pytest.mark.parametrize(
    "bound, holds", [("< 1.6", True), ("< 1.2", False), ("> 0.4", True), ("> 0.8", False)]
)
def test_a_bound_holds_with_room_to_spare(bound, holds):
    x = RNG(0).normal(1, 1, 100)
    x += 1 - x.mean()
    if holds:
        return check_mean("m", x, bound, source="s")
    with pytest.raises(AssertionError, match=r"measured 1, expected . \d\.\d with ± 0\.\d+ \(100 draws\)"):
        check_mean("m", x, bound, source="s")


def test_a_bound_of_a_rate_is_exact():
    check_rate("m", np.ones(100, bool), "> 0.9", source="s")  # all of 100: above .912 at 1e-4
    with pytest.raises(AssertionError):
        check_rate("m", np.ones(80, bool), "> 0.9", source="s")


def test_a_line_must_fit():
    with pytest.raises(AssertionError, match="no line fits"):
        check_slope("m", power_law(RNG(0), -1, bend=0.5), -1.0, source="s")
    check_slope("m", power_law(RNG(0), -1, bend=0.05), -1.0, source="s", within=0.5)


def test_a_law_and_what_is_not_one(capsys):
    normal = RNG(0).normal(size=(2, 5000))
    check_law("m", normal[0], stats.norm(), source="s")
    check_law("m", normal[0], normal[1], source="s")
    assert capsys.readouterr().out.count("draws) [s]") == 2
    for other in (normal[1] + 0.15, normal[1] * 1.2, RNG(1).exponential(size=5000) - 1):
        with pytest.raises(AssertionError):
            check_law("m", normal[0], other, source="s")
        with pytest.raises(AssertionError):
            check_law("m", other, stats.norm(), source="s")


X = RNG(0).normal(size=10)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: check_mean("", X, 0.0, source="s"), "expected a sentence"),
        (lambda: check_mean("m", X[:2], 0.0, source="s"), "at least 3 draws"),
        (lambda: check_mean("m", np.ones(5), 1.0, source="s"), "does not vary"),
        (lambda: check_mean("m", X, [0.0, 0.0], source="s"), "must agree"),
        (lambda: check_mean("m", X, "about 1", source="s"), "expected a finite bound"),
        (lambda: check_mean("m", X, 0.0, source="s", within=-1.0), "not negative"),
        (lambda: check_slope("m", {1: X, 2: X}, 0.0, source="s"), "at least 3, positive"),
        (lambda: check_slope("m", dict.fromkeys((1, 2, 3), -abs(X)), 0.0, source="s"), "positive"),
        (lambda: check_law("m", X[:, None], X, source="s"), r"expected \(draws,\)"),
        (lambda: check_law("m", X, X[:, None], source="s"), r"law has shape"),
        (lambda: check_rate("m", X, 0.5, source="s"), "of bool"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_what_is_not_finite_fails():
    with pytest.raises(AssertionError, match="inf"):
        check_estimate("m", lambda x: np.inf * x.mean(), X, 0.0, source="s")
