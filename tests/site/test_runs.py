"""The directive `stored-runs`: its tables say what the files say."""

import json
from pathlib import Path

import pytest
from ntkbook import runs

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PYPROJECT = '[project]\nrequires-python = ">=3.11"\ndependencies = ["jax>=0.7", "numpy>=2.0,<3"]\n'


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


def test_of_a_gpu_nothing_is_said_where_no_run_is_stored(folder):
    assert runs.gpu(folder) == ""


def test_a_run_on_a_gpu_is_shown_with_device_date_and_what_failed(folder):
    kernel, what = {"section": "check", "what": "tiled", "float32": 2e-7, "float64": 3e-16}, "infinite NTK"
    timing = {"section": "time", "what": what, "who": "ntk_helpers", "seconds": 0.002, "of_peak": 0.31}
    rows = [
        kernel,
        timing,
        {"section": "time", "what": what, "who": "stax", "seconds": 0.005},
        {"section": "time", "what": "product", "who": "JAX", "seconds": 1.0, "flops_per_second": 4.9e13},
        {"section": "time", "what": "tiled", "who": "ntk_helpers", "failed": "TimeoutError: left out"},
    ]
    about = {"command": "make gpu", "date": "2026-12-01", "device": "Some GPU", "versions": {"jax": "0.11.2"}}
    (folder / "stored" / "gpu.json").write_text(json.dumps({"about": about, "rows": rows}))
    text = runs.gpu(folder).replace("\N{NON-BREAKING HYPHEN}", "-")
    assert text.startswith("On one Some GPU, on 2026-12-01, by `make gpu`: jax 0.11.2.")
    assert "| tiled | 2.0e-07 |  | 3.0e-16 |  |" in text
    assert (
        f"| {what} | ntk_helpers | 2 ms |  | 31% |" in text and f"| {what} | stax | 5 ms | 2.5 |  |" in text
    )
    assert "| product | JAX | 1e+03 ms |  | 49.0 TFLOP/s |" in text
    assert text.endswith("- tiled (ntk_helpers): TimeoutError: left out")
    assert "Some GPU" not in runs.long_runs(folder)


def test_the_page_says_that_nothing_ran_on_a_gpu_as_long_as_that_is_so():
    page = (NOTEBOOKS / "what_runs_where.md").read_text()
    assert ("Nothing was run or timed on a GPU" in page) != (NOTEBOOKS / "stored" / "gpu.json").exists()


def test_versions_are_those_of_pyproject(folder):
    assert cells(runs.versions(folder))[2:] == [["Python", ">=3.11"], ["jax", ">=0.7"], ["numpy", ">=2.0,<3"]]


def test_the_page_shows_every_notebook_and_every_long_run(pages):
    page = pages["what_runs_where.html"]
    links = {
        anchor["href"] for row in page.select("table tr") for anchor in row.select("td:first-child a[href]")
    }
    notebooks = {f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")}
    assert notebooks and notebooks <= links
    shown = {code.get_text() for code in page.select("td code")}
    hashes = {
        json.loads(path.read_text())["about"]["sha256"][:12] for path in NOTEBOOKS.glob("stored/[0-9]*.json")
    }
    assert hashes and hashes <= shown
