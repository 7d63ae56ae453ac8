"""The page of planted errors and the ledger's column, from stored trials."""

import json

import pytest
from ntkbook import trials

STORED = {
    "about": {"date": "2026-01-02", "versions": {"jax": "0.10.2"}},
    "errors": {"twice": ["everything is doubled", "a.py"], "half": ["everything is halved", "b.py"]},
    "claims": {"03_title": ["a < b", "b < c"], "errata": ["d = e"]},
    "rows": [
        {"trial": "keys-1", "notebook": "03_title", "failed": []},
        {"trial": "twice", "notebook": "03_title", "failed": [[1, "a < b"], [2, "b < c"]]},
        {"trial": "half", "notebook": "03_title", "failed": [[2, "b < c"]]},
        {"trial": "twice", "notebook": "errata", "failed": []},
        {"trial": "unchanged", "notebook": "errata", "failed": []},
        {
            "trial": "slips",
            "notebook": "errata",
            "failed": [[1, "d = e"]],
            "slips": [["d =", "|d| for d"], ["f", "a sign"]],
        },
    ],
}


@pytest.fixture
def stored(tmp_path):
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "trials.json").write_text(json.dumps(STORED))
    return trials.Trials(tmp_path)


def test_errors_that_a_claim_noticed_are_counted(stored):
    counts = [stored.noticed("03_title", "a < b"), stored.noticed("03_title", "b < c")]
    assert counts == [1, 2] and stored.noticed("errata", "d = e") == 1


@pytest.mark.parametrize("claim", [("03_title", "a > b"), ("04_other", "a < b")])
def test_a_claim_that_was_not_on_trial_has_no_count(stored, claim):
    assert stored.noticed(*claim) is None


def test_the_matrix_has_every_error_and_every_notebook(stored):
    counts, _, head, _, *rows = trials.matrix(stored).splitlines()
    assert counts.startswith(
        "**2 of 3 claims** in the 2 of 0 notebooks that were tried so far noticed at least "
    )
    assert counts.endswith("(2026-01-02; jax 0.10.2). In 1 trials with other keys 0 claims failed.")
    assert head == "| What is wrong | [03](03_title.ipynb) | [errata](errata.ipynb) | all |"
    assert rows == [
        "| everything is doubled (`a.py`) | 2 | 0 | 2 |",
        "| everything is halved (`b.py`) | 1 | · | 1 |",
    ]


def test_slips_are_listed_with_the_claims_that_noticed(stored):
    counts, _, _, _, *rows = trials.slips_table(stored).splitlines()
    assert counts == "**1 of 2 slips** were noticed."
    assert rows == [
        "| [errata](errata.ipynb) | \\|d\\| for d | d = e | yes |",
        "| [errata](errata.ipynb) | a sign | f … | **no** |",
    ]
