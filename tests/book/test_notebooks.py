"""tools/notebooks.py: generated lines, normalized files, and runs that are measured."""

import base64
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks

ROOT = Path(__file__).resolve().parents[2]
HOST = "https://github.com/someone/some-book"


def chapter(*cells, seconds=7):
    metadata = {
        "ntk_book": {"cpu_seconds": seconds, "date": "2026-11-24", "jax": "0.10.2"},
        "language_info": {"name": "python", "version": "3.11.2"},
    }
    return new_notebook(cells=[new_markdown_cell("# 03 Title"), *cells], metadata=metadata)


def test_chapters_are_as_generated():
    result = subprocess.run(
        [sys.executable, "tools/notebooks.py", "check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_links_follow_the_host():
    notebook = notebooks.refresh(chapter(), "03_title.ipynb", HOST)
    assert notebook.cells[0].source == (
        "# 03 Title\n\n"
        "[Open in Colab](https://colab.research.google.com/github/someone/some-book/blob/main/notebooks/03_title.ipynb)"
        " · [Download](03_title.ipynb) · 7 CPU seconds on 2026-11-24, JAX 0.10.2"
    )
    assert f"git+{HOST}" in notebook.cells[1].source
    moved = notebooks.refresh(notebook, "03_title.ipynb", "https://github.com/other/book")
    assert "someone" not in nbformat.writes(moved)


def test_install_cell_comes_before_all_other_code_and_once():
    notebook = chapter(new_code_cell("x = 1"))
    for _ in range(2):
        notebooks.refresh(notebook, "03_title.ipynb", HOST)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sources == [notebooks.install_source(HOST, compat=False), "x = 1"]
    assert notebook.cells[1].metadata.tags == ["colab-only", "hide-input"]


def test_only_a_chapter_that_uses_neural_tangents_installs_it_and_without_its_dependencies():
    plain, using = (
        new_code_cell(f"from ntk_helpers{name} import x") for name in ("", ".neural_tangents_compat")
    )
    plain, using = (
        notebooks.refresh(chapter(cell), "03_title.ipynb", HOST).cells[1].source for cell in (plain, using)
    )
    assert "neural-tangents" not in plain and '"ntk-helpers[book] @' in plain
    assert (
        "%pip install -q --no-deps neural-tangents==0.6.5" in using and '"ntk-helpers[book,compat] @' in using
    )


CITING = new_markdown_cell(
    "## References\n\nThe kernel: [Jacot et al. (2018)](#cite-jacot2018), [again](#cite-jacot2018)."
)


def test_what_is_cited_is_listed_after_the_references():
    notebook = notebooks.refresh(chapter(CITING, new_markdown_cell("## Versions")), "03_title.ipynb", HOST)
    titles = [cell.source.split("\n")[0][:13] for cell in notebook.cells if cell.cell_type == "markdown"]
    assert titles == ["# 03 Title", "## References", '- <a id="cite', "## Versions"]
    listed = notebook.cells[2]
    assert listed.metadata.tags == ["colab-only"]
    assert listed.source == (
        '- <a id="cite-jacot2018"></a>Arthur Jacot, Franck Gabriel, and Clément Hongler. '
        "Neural tangent kernel: convergence and generalization in neural networks. "
        "In *Advances in Neural Information Processing Systems 31*. 2018. "
        "[arXiv:1806.07572](https://arxiv.org/abs/1806.07572)."
    )


def test_a_work_that_is_no_longer_cited_is_no_longer_listed():
    notebook = notebooks.refresh(chapter(CITING.copy()), "03_title.ipynb", HOST)
    cited = next(cell for cell in notebook.cells if cell.source.startswith("## References"))
    cited.source = "## References"
    assert "cite-" not in nbformat.writes(notebooks.refresh(notebook, "03_title.ipynb", HOST))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_citation_leads_to_an_entry_in_the_same_notebook(path):
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"#(cite-[\w-]+)", text)) == set(re.findall(r'<a id=\\"(cite-[\w-]+)', text))


def test_an_equation_with_a_label_gets_its_anchor_in_the_paragraph_before():
    plain, labelled = "First\n\n$$\na\n$$\n\nHence", "$$\nb\n\\\\ c\n$$ (eq-x)\n\n$$\nd\n$$"
    notebook = notebooks.refresh(chapter(new_markdown_cell(f"{plain}\n\n{labelled}")), "03_title.ipynb", HOST)
    assert notebook.cells[1].source == f'{plain} <a id="eq-x"></a>\n\n{labelled}'


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_link_to_an_equation_leads_to_its_anchor(path):
    for file, label in re.findall(r"\]\(([\w.]*)#(eq-[\w-]+)\)", path.read_text(encoding="utf-8")):
        target = path.with_name(file or path.name)
        assert f'<a id=\\"{label}\\"></a>' in target.read_text(encoding="utf-8"), (
            f"no anchor of {label} in {target.name}"
        )


EQUATION = new_markdown_cell("Text\n\n$$\na\n$$ (eq-a)\n\nText\n\n$$\nb\n$$ (eq-b)")


def test_refreshing_twice_changes_nothing():
    notebook = notebooks.refresh(
        chapter(new_code_cell("a"), new_code_cell("a"), EQUATION.copy(), CITING.copy()),
        "03_title.ipynb",
        HOST,
    )
    text = notebooks.text_of(notebook)
    assert notebooks.text_of(notebooks.refresh(nbformat.reads(text, 4), "03_title.ipynb", HOST)) == text
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_what_depends_on_the_run_is_dropped():
    streams = [
        new_output("stream", name=name, text=text) for name, text in [("stdout", "1\n"), ("stdout", "2\n")]
    ]
    cell = new_code_cell(
        "x", outputs=streams, metadata={"execution": {"iopub.status.busy": "now"}, "tags": ["t"]}
    )
    notebook = notebooks.refresh(chapter(cell), "03_title.ipynb", HOST)
    assert notebook.cells[2].metadata == {"tags": ["t"]}
    assert [output.text for output in notebook.cells[2].outputs] == ["1\n2\n"]
    assert "version" not in notebook.metadata.language_info


def test_a_chapter_without_a_run_is_refused():
    with pytest.raises(ValueError, match="no measured run"):
        notebooks.refresh(new_notebook(cells=[new_markdown_cell("# 03 Title")]), "03_title.ipynb", HOST)


def test_unknown_names_are_refused(tmp_path):
    (tmp_path / "03_title.ipynb").touch()
    assert [path.name for path in notebooks.chapters(["03"], tmp_path)] == ["03_title.ipynb"]
    with pytest.raises(ValueError, match="no notebook is called '04'"):
        notebooks.chapters(["04"], tmp_path)


@pytest.mark.slow
def test_a_run_is_stored_and_measured(tmp_path):
    path = tmp_path / "03_title.ipynb"
    loop = "from time import process_time as t\nend = t() + 1.5\nwhile t() < end: pass\nprint('done')"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 03 Title"), new_code_cell(loop)]), path)
    notebooks.execute(path, HOST)
    notebook = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert notebook.cells[2].outputs[0].text == "done\n"
    assert 1 <= notebook.metadata.ntk_book.cpu_seconds < 30
    stored = notebook.metadata.ntk_book
    assert f"{stored.cpu_seconds} CPU seconds on {stored.date}, JAX {stored.jax}" in notebook.cells[0].source
    assert stored.jax == importlib.metadata.version("jax")
    if sys.platform == "linux":
        assert 20 < stored.peak_mb < 2000


def test_a_failing_run_stores_nothing(tmp_path):
    path = tmp_path / "03_title.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 03 Title"), new_code_cell("1 / 0")]), path)
    before = path.read_text()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(path, HOST)
    assert path.read_text() == before


def test_the_readmes_picture_is_the_stored_figure():
    stored = (ROOT / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8")
    picture = base64.b64encode((ROOT / "notebooks" / "_static" / "picture.png").read_bytes()).decode()
    assert picture in stored, "copy the figure fig-00-picture of chapter 00 to notebooks/_static/picture.png"
