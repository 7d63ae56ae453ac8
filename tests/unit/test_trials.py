"""tools/trials.py and tools/planted.py: errors are planted, claims that notice are counted."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pybtex", reason="the book's tools are not part of the oldest environment")

import nbformat
import planted
import trials
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
CELLS = [
    'from ntk_helpers.book import check\nimport numpy as np\ncheck("one", 1, 1.0, tol=1e-9, source="s")',
    "from ntk_helpers.theory import weak_features_risk\n"
    "risk = weak_features_risk(n=40, p=20, signal=1.0, left_out=0.0, noise=0.25).total\n"
    'check("risk", risk, 5 / 19, tol=1e-9, source="s")',
    'check("this draw", np.random.default_rng(0).normal(), 0.12573, tol=1e-4, source="s")',
    "if risk != 0.25 * 20 / 19: raise RuntimeError('of a wrong risk')\n"
    'check("last", 2, 2.0, tol=1e-9, source="s")',
]

SLIPS = """
[[slip]]
claim = "on"
wrong = "two for one"
old = '"one", 1,'
new = '"one", 2,'

[[slip]]
claim = "last"
wrong = "three for two"
old = '"last", 2, 2.0'
new = '"last", 3, 3.0'
"""


def claim(text):
    return new_output("stream", name="stdout", text=f"✓ {text}: measured 1, expected 1 ± 1 [s]\n")


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "ROOT", tmp_path)
    monkeypatch.setattr(trials, "TARGET", tmp_path / "notebooks" / "stored" / "trials.json")
    shutil.copytree(ROOT / "ntk_helpers", tmp_path / "ntk_helpers")
    (tmp_path / "notebooks" / "stored").mkdir(parents=True)
    texts = ["one", "risk", "this draw", "last"]
    cells = [new_code_cell(source, outputs=[claim(text)]) for source, text in zip(CELLS, texts)]
    path = tmp_path / "notebooks" / "03_title.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 03"), *cells]), path)
    return path


def test_each_error_stands_where_it_says(tmp_path):
    assert len(planted.ERRORS) >= 15
    assert len({error.name for error in planted.ERRORS}) == len(planted.ERRORS)
    for error in planted.ERRORS:
        for change in (error.mark, error.plant):
            package = tmp_path / error.name / change.__name__
            (package / error.file).parent.mkdir(parents=True)
            shutil.copy(ROOT / "ntk_helpers" / error.file, package / error.file)
            change(package)
            compile((package / error.file).read_text(encoding="utf-8"), error.file, "exec")
    with pytest.raises(ValueError, match="expected once"):
        error.plant(package)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tools" / "slips").glob("*.toml")), ids=lambda path: path.stem
)
def test_each_slip_stands_in_its_notebook_and_names_a_claim_of_it(path):
    notebook = nbformat.read(ROOT / "notebooks" / f"{path.stem}.ipynb", as_version=4)
    claims = [text for cell in notebook.cells for _, text, _ in trials.claims_of(cell)]
    for slip in planted.slips_of(path.stem, path.parent):
        slip.plant(notebook)
        assert sum(claim.startswith(slip.claim) for claim in claims) == 1, slip.claim
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source.replace("%pip", "pass  # pip"), path.stem, "exec")


@pytest.mark.slow
def test_claims_that_notice_are_counted(notebook, monkeypatch, capsys):
    errors = [each for each in planted.ERRORS if each.name in ("n-for-n-minus-1", "half-the-ridge")]
    monkeypatch.setattr(trials, "ERRORS", errors)
    original = notebook.read_text()
    [row] = trials.with_errors(notebook)  # the ridge's function is not called
    assert (row["trial"], row["claims"], row["failed"]) == ("n-for-n-minus-1", 4, [[2, "risk"]])
    assert row["lost"] == [[4, "last"]] and row["errors"] == ["RuntimeError: of a wrong risk"]
    monkeypatch.setattr(trials, "KEYS", [1])
    [keys] = trials.with_keys(notebook)
    assert (keys["failed"], keys["lost"], keys["errors"]) == ([[3, "this draw"]], [], [])
    trials.collect()
    stored = json.loads((notebook.parent / "stored" / "trials.json").read_text())
    assert [row["trial"] for row in stored["rows"]] == ["keys-1", "unchanged", "n-for-n-minus-1"]
    assert stored["rows"][1]["reached"] == ["n-for-n-minus-1"] and not stored["rows"][1]["failed"]
    assert stored["claims"] == {"03_title": ["one", "risk", "this draw", "last"]}
    assert stored["errors"]["half-the-ridge"][1] == "theory/risk.py"
    slips = notebook.parents[1] / "tools" / "slips" / "03_title.toml"
    slips.parent.mkdir(parents=True)
    slips.write_text(SLIPS)
    assert [row["failed"] for row in trials.with_slips(notebook)] == [[[1, "one"]]]
    assert "not noticed by 'last': three for two" in capsys.readouterr().out
    trials.collect()
    again = json.loads((notebook.parent / "stored" / "trials.json").read_text())
    assert again["rows"][1]["slips"] == [["on", "two for one"], ["last", "three for two"]]
    slips.unlink()
    monkeypatch.setattr(trials, "trial", None)  # what is finished is not tried again
    assert trials.with_errors(notebook) == [row]
    changed = notebook.read_text().replace('check(\\"one\\"', 'check(\\"first\\"')
    assert changed != notebook.read_text()
    notebook.write_text(changed.replace("✓ one", "✓ first"))
    trials.collect()  # what was tried before stays, but for the trials with other keys
    later = json.loads((notebook.parent / "stored" / "trials.json").read_text())
    assert [row["trial"] for row in later["rows"]] == ["unchanged", "n-for-n-minus-1"]
    assert later["claims"] == stored["claims"]
    begun = notebook.parents[1] / ".stored" / "trials" / "03_title_unchanged.json"
    begun.write_text(json.dumps(later["rows"][0] | {"code": "of another text"}))
    trials.collect()  # a set that has only begun does not hide the last complete one
    assert json.loads(trials.TARGET.read_text())["rows"] == later["rows"]
    notebook.write_text(original.replace("# 03", "# 03 with other prose"))
    shutil.rmtree(notebook.parents[1] / ".stored")  # nor on another machine
    assert trials.with_errors(notebook) == [row]
    capsys.readouterr()
