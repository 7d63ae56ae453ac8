"""The directive `stored-runs`: its tables say what the files say."""

import json
from pathlib import Path

import pytest
from ntkbook import runs

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PYPROJECT = '[project]\nrequires-python = ">=3.11"\ndependencies = ["jax>=0.10", "numpy>=2.0,<3"]\n'


@pytest.fixture
def folder(tmp_path):
    """A book of two notebooks and one long run."""
    book = tmp_path / "notebooks"
    (book / "stored").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name, title, took in (
        ("02_b", "02 Second", {"cpu_seconds": 7}),
        ("01_a", "01 First", {"cpu_seconds": 41, "peak_mb": 1234}),
    ):
        cell = {"cell_type": "markdown", "source": [f"# {title}\n", "\n", "text"]}
        metadata = {"ntk_book": {**took, "date": "2026-11-24", "jax": "0.10.2"}}
        (book / f"{name}.ipynb").write_text(json.dumps({"cells": [cell], "metadata": metadata}))
    about = {
        "command": "python run.py",
        "date": "2026-11-23",
        "versions": {"jax": "0.10.2", "numpy": "2.4"},
        "sha256": "0123456789abcdef",
    }
    rows = [{"seconds": 1800.0}] * 1000 + [{"seconds": 3600.0}]
    (book / "stored" / "06_x.json").write_text(json.dumps({"about": about, "rows": rows}))
    return book


def cells(table):
    return [
        line.strip("| ").split(" | ") for line in table.replace("\N{NON-BREAKING HYPHEN}", "-").splitlines()
    ]


def test_chapters_are_listed_in_order_with_what_they_took(folder):
    assert cells(runs.chapters(folder))[2:] == [
        ["[01 First](01_a.ipynb)", "41", "1,234 MB", "2026-11-24", "0.10.2"],
        ["[02 Second](02_b.ipynb)", "7", "not stored", "2026-11-24", "0.10.2"],
    ]


def test_long_runs_are_summed_up(folder):
    expected = ["`python run.py`", "1,001", "501.0", "2026-11-23", "jax 0.10.2, numpy 2.4", "`0123456789ab`"]
    assert cells(runs.long_runs(folder))[2:] == [expected]


def test_versions_are_those_of_pyproject(folder):
    assert cells(runs.versions(folder))[2:] == [
        ["Python", ">=3.11"],
        ["jax", ">=0.10"],
        ["numpy", ">=2.0,<3"],
    ]


def test_the_page_shows_every_notebook_and_every_long_run(pages):
    page = pages["what_runs_where.html"]
    links = {
        anchor["href"] for row in page.select("table tr") for anchor in row.select("td:first-child a[href]")
    }
    notebooks = {f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")}
    assert notebooks and notebooks <= links
    shown = {code.get_text() for code in page.select("td code")}
    hashes = {
        json.loads(path.read_text())["about"]["sha256"][:12] for path in NOTEBOOKS.glob("stored/*.json")
    }
    assert hashes and hashes <= shown
