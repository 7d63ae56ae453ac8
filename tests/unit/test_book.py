"""The checked claim, a chapter's set-up, its versions, its stored numbers."""

import hashlib
import json

import jax
import numpy as np
import pytest

from ntk_helpers import book
from ntk_helpers.book import check


def test_a_claim_that_holds_prints_one_line(capsys):
    check("kernel at γ = 0", 0.28251, 0.2825, tol=1e-4, source="Jacot 2018, Fig. 1")
    assert (
        capsys.readouterr().out
        == "✓ kernel at γ = 0: measured 0.2825, expected 0.2825 ± 0.0001 [Jacot 2018, Fig. 1]\n"
    )


def test_arrays_report_how_far_off_they_are(capsys):
    check("two numbers", [1.0, 2.25], [1.0, 2.0], tol=0.3, source="s")
    assert (
        capsys.readouterr().out == "✓ two numbers: measured 0.2 off at most, expected 2 numbers ± 0.3 [s]\n"
    )


@pytest.mark.parametrize("bound, shown", [("< 3", "2"), ("> 0.5", "1")])
def test_a_bound_shows_the_worst_entry(bound, shown, capsys):
    check("bound", [1.0, 2.0], bound, source="s")
    assert capsys.readouterr().out == f"✓ bound: measured {shown}, expected {bound} [s]\n"


@pytest.mark.parametrize(
    "measured, expected, tol",
    [
        (1.2, 1.0, 0.1),
        ([1.0, 1.2], 1.0, 0.1),
        ([1.0, 1.2], [1.0, 1.0], 0.1),
        (np.nan, 1.0, 0.1),
        ([1.0, np.inf], [1.0, 1.0], 0.1),
        ([1.0, 3.0], "< 3", None),
        (3.0, "> 3", None),
        (np.nan, "< 3", None),
        (-np.inf, "< 3", None),
    ],
)
def test_a_claim_that_fails_raises_and_prints_nothing(measured, expected, tol, capsys):
    with pytest.raises(AssertionError, match="the claim: measured .*, expected"):
        check("the claim", measured, expected, tol, source="s")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
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
    ],
)
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


ROWS = [{"depth": 3, "ratio": [1.25, None]}, {"depth": 10, "ratio": [2.5, 1e-7]}]


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder `stored` beside the notebook, and a function that writes to it."""
    (tmp_path / "stored").mkdir()
    monkeypatch.chdir(tmp_path)

    def write(rows, sha256):
        (tmp_path / "stored" / "06_run.json").write_text(
            json.dumps({"about": {"sha256": sha256, "date": "2025"}, "rows": rows})
        )

    return write


def test_stored_numbers_are_read_with_what_is_known_about_them(beside):
    beside(ROWS, book.digest(ROWS))
    assert book.stored("06_run") == (ROWS, {"sha256": book.digest(ROWS), "date": "2025"})


def test_a_digest_is_one_of_numbers_not_of_their_order_in_a_row():
    text = b'[{"depth": 3, "ratio": [1.25, null]}, {"depth": 10, "ratio": [2.5, 1e-07]}]'
    assert book.digest(ROWS) == hashlib.sha256(text).hexdigest()
    assert book.digest([dict(reversed(row.items())) for row in ROWS]) == book.digest(ROWS)
    assert book.digest(ROWS[::-1]) != book.digest(ROWS)


@pytest.mark.parametrize(
    "edited",
    [ROWS[:1], ROWS[::-1], [ROWS[0] | {"depth": 4}, ROWS[1]], [ROWS[0] | {"new": 1}, ROWS[1]]],
    ids=range(4),
)
def test_stored_numbers_that_were_edited_are_refused(edited, beside):
    beside(edited, book.digest(ROWS))
    with pytest.raises(ValueError, match=r"stored/06_run.json has numbers of another hash than it says"):
        book.stored("06_run")


def test_the_notebook_comes_before_the_package(beside, tmp_path, monkeypatch):
    """As on Colab, where only the package is there."""
    package = tmp_path / "package"
    (package / "stored").mkdir(parents=True)
    content = {"about": {"sha256": book.digest(ROWS[:1])}, "rows": ROWS[:1]}
    (package / "stored" / "06_run.json").write_text(json.dumps(content))
    monkeypatch.setattr(book, "__file__", str(package / "book.py"))
    assert book.stored("06_run")[0] == ROWS[:1]
    beside(ROWS, book.digest(ROWS))
    assert book.stored("06_run")[0] == ROWS


def test_a_run_that_is_not_stored_is_refused(beside):
    with pytest.raises(
        ValueError, match="name is 'nothing'; expected a stored run, nothing.json in one of stored, "
    ):
        book.stored("nothing")
