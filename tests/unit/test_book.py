"""The checked claim, a chapter's set-up, its versions."""

import jax
import numpy as np
import pytest

from ntk_helpers import book, check


def test_a_claim_that_holds_prints_one_line(capsys):
    check("kernel at γ = 0", 0.28251, 0.2825, tol=1e-4, source="Jacot 2018, Fig. 1")
    assert capsys.readouterr().out == "✓ kernel at γ = 0: measured 0.2825, expected 0.2825 ± 0.0001 [Jacot 2018, Fig. 1]\n"


def test_arrays_report_how_far_off_they_are(capsys):
    check("two numbers", [1.0, 2.25], [1.0, 2.0], tol=0.3, source="s")
    assert capsys.readouterr().out == "✓ two numbers: measured 0.2 off at most, expected 2 numbers ± 0.3 [s]\n"


@pytest.mark.parametrize("bound, shown", [("< 3", "2"), ("> 0.5", "1")])
def test_a_bound_shows_the_worst_entry(bound, shown, capsys):
    check("bound", [1.0, 2.0], bound, source="s")
    assert capsys.readouterr().out == f"✓ bound: measured {shown}, expected {bound} [s]\n"


@pytest.mark.parametrize("measured, expected, tol", [
    (1.2, 1.0, 0.1),
    ([1.0, 1.2], 1.0, 0.1),
    ([1.0, 1.2], [1.0, 1.0], 0.1),
    (np.nan, 1.0, 0.1),
    ([1.0, np.inf], [1.0, 1.0], 0.1),
    ([1.0, 3.0], "< 3", None),
    (3.0, "> 3", None),
    (np.nan, "< 3", None),
    (-np.inf, "< 3", None),
])  # fmt: skip
def test_a_claim_that_fails_raises_and_prints_nothing(measured, expected, tol, capsys):
    with pytest.raises(AssertionError, match="the claim: measured .*, expected"):
        check("the claim", measured, expected, tol, source="s")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments, message", [
    (("", 1.0, 1.0, 0.1), "claim is ''"),
    (("c", [], 1.0, 0.1), r"measured has shape \(0,\)"),
    (("c", 1.0, 1.0), "tol is None"),
    (("c", 1.0, 1.0, 0.0), "tol is 0.0"),
    (("c", 1.0, 1.0, float("nan")), "tol is nan"),
    (("c", 1.0, 1.0, float("inf")), "tol is inf"),
    (("c", 1.0, "< inf"), "expected a finite bound"),
    (("c", 1.0, np.nan, 0.1), "expected holds"),
    (("c", 1.0, "about 3"), "expected is 'about 3'"),
    (("c", 1.0, "< 3", 0.1), "with tol 0.1"),
    (("c", [1.0, 2.0], [1.0, 2.0, 3.0], 0.1), r"measured has shape \(2,\) and expected \(3,\)"),
])  # fmt: skip
def test_a_claim_that_cannot_be_checked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check(*arguments, source="s")


def test_a_claim_needs_a_source():
    with pytest.raises(ValueError, match="source is ' '"):
        check("c", 1.0, 1.0, 0.1, source=" ")


def test_set_up_turns_64_bit_numbers_on_and_sets_the_style():
    import matplotlib.pyplot as plt

    jax.config.update("jax_enable_x64", False)
    plt.rcdefaults()
    book.setup()
    assert jax.numpy.ones(1).dtype == "float64"
    assert not plt.rcParams["axes.spines.top"]


def test_versions_names_python_and_jax(capsys):
    book.versions()
    shown = capsys.readouterr().out
    assert shown.startswith("Python 3.") and f"\njax {jax.__version__}\n" in shown
