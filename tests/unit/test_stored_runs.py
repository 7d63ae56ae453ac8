"""tools/stored_runs.py: the lists of cases, runs that are stopped and go on, and the files that `stored`
reads."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import stored_runs

from ntk_helpers import book

CASES = [{"name": name, "size": size, "list": [size]} for name in "ab" for size in (1, 2.5)]


class Trivial:
    """A run that counts its cases, and may be stopped at one of them."""

    def __init__(self):
        self.labels, self.stop = [], None

    def cases(self):
        yield from CASES

    def run(self, case, checkpoint):
        self.labels.append(stored_runs.label_of(case))
        checkpoint.write_text("half")
        if self.labels[-1] == self.stop:
            raise KeyboardInterrupt
        return {"double": stored_runs.short(2 * case["size"]), "nothing": stored_runs.short(math.nan)}


@pytest.fixture
def trivial(tmp_path, monkeypatch):
    trivial = Trivial()
    monkeypatch.setattr(stored_runs, "ROOT", tmp_path)
    monkeypatch.setitem(stored_runs.RUNS, "trivial", (trivial.cases, trivial.run))
    (tmp_path / "notebooks" / "stored").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks")
    return trivial


EXPECTED = [case | {"double": 2.0 * case["size"], "nothing": None} for case in CASES]


@pytest.mark.parametrize("name", stored_runs.RUNS)
def test_cases_have_labels_of_their_own(name):
    labels = [stored_runs.label_of(case) for case in stored_runs.RUNS[name][0]()]
    assert len(set(labels)) == len(labels) >= 12
    assert not any("/" in label for label in labels)


def test_kernels_are_those_of_the_papers_grids():
    cases = list(stored_runs.kernel_cases())
    assert Counter(case["figure"] for case in cases) == {"1": 4 * 2 * 20, "2": 5 * 10, "2022": 49}
    assert {(case["figure"], case["draws"]) for case in cases} == {("1", 200), ("2", 200), ("2022", 500)}
    last = [case for case in cases if case["figure"] == "2022"]
    assert [case["depth"] - 1 for case in last] == list(range(1, 50))  # hidden layers
    assert {len(case["points"]) for case in last} == {16}
    first = {(case["width"], len(case["points"])) for case in cases if case["figure"] == "1"}
    assert first == {(100, 75), (50, 25), (200, 25), (500, 25)}


def test_trainings_are_those_of_the_papers_figures():
    cases = list(stored_runs.training_cases())
    assert all(
        list(case) == ["activation", "sigma_w2", "sigma_b2", "depth", "width", "steps"] for case in cases
    )
    whole = Counter(
        (case["sigma_b2"], case["depth"]) for case in cases if (case["width"], case["steps"]) == (256, 10_000)
    )
    assert whole == {(sigma_b2, depth): 16 for sigma_b2 in (0.0, 0.25, 0.5, 1.0) for depth in (3, 10, 20)}
    others = [case for case in cases if (case["width"], case["steps"]) != (256, 10_000)]
    assert {(case["width"], case["steps"]) for case in others} == {
        (128, 10_000),
        (512, 10_000),
        (256, 100_000),
    }
    assert {case["sigma_b2"] for case in others} == {0.0, 0.25, 1.0}


def test_numbers_are_short():
    found = stored_runs.short(np.array([[np.pi, 123456.0], [-1e-7 / 3, np.nan]]))
    assert found == [[3.142, 123500.0], [-3.333e-8, None]]
    assert [stored_runs.short(value) for value in (math.inf, -math.inf, np.float32(2))] == [None, None, 2.0]
    assert all(type(value) is float for value in found[0])


def test_what_is_computed_is_what_the_book_reads(trivial, capsys):
    stored_runs.compute("trivial", 0, 1)
    rows, about = book.stored("trivial")
    assert rows == EXPECTED
    assert about["command"] == "python tools/stored_runs.py trivial" and about["sha256"] == book.digest(
        EXPECTED
    )
    assert set(about["versions"]) == {"jax", "numpy", "ntk-helpers"} and about["date"].startswith("20")
    assert capsys.readouterr().out.endswith("4 of 4 cases in notebooks/stored/trivial.json\n")


def test_a_stopped_run_goes_on_with_what_is_not_finished(trivial, tmp_path):
    trivial.stop = "b_1"
    with pytest.raises(KeyboardInterrupt):
        stored_runs.compute("trivial", 0, 1)
    assert trivial.labels == ["a_1", "a_2.5", "b_1"]
    assert (tmp_path / ".stored" / "trivial" / "b_1.checkpoint").read_text() == "half"
    trivial.stop = None
    stored_runs.compute("trivial", 0, 1)
    assert trivial.labels == ["a_1", "a_2.5", "b_1", "b_1", "b_2.5"]
    assert not list((tmp_path / ".stored" / "trivial").glob("*.checkpoint"))
    assert book.stored("trivial")[0] == EXPECTED


def test_workers_share_a_run_and_a_part_can_be_collected(trivial):
    stored_runs.compute("trivial", 1, 2)
    assert trivial.labels == ["a_2.5", "b_2.5"]
    assert book.stored("trivial")[0] == EXPECTED[1::2]
    stored_runs.compute("trivial", 0, 2)
    assert sorted(trivial.labels) == ["a_1", "a_2.5", "b_1", "b_2.5"]
    assert book.stored("trivial")[0] == EXPECTED  # in the order of the list


def test_what_is_stored_is_not_computed_again(trivial, tmp_path):
    """In a clone there is no .stored/. A file that stays as it is keeps its date."""
    path = tmp_path / "notebooks" / "stored" / "trivial.json"
    path.write_text(json.dumps({"about": {"sha256": book.digest(EXPECTED[:2])}, "rows": EXPECTED[:2]}))
    stored_runs.compute("trivial", 0, 1)
    assert trivial.labels == ["b_1", "b_2.5"]
    assert book.stored("trivial")[0] == EXPECTED
    path.write_text(path.read_text().replace(book.stored("trivial")[1]["date"], "2020-02-02"))
    stored_runs.compute("trivial", 0, 1)
    assert book.stored("trivial")[1]["date"] == "2020-02-02"
