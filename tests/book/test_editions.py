"""tools/editions.py: the student edition holds no solution and still runs, the instructor's shows every
solution."""

import ast
import copy
import json
from pathlib import Path

import editions
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ntkbook.markdown import exercise_title

import notebooks as stored_notebooks

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {
    path.name: nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
HIDDEN = {
    "tags": ["solution"],
    "cellView": "form",
    "jupyter": {"outputs_hidden": True, "source_hidden": True},
}


def is_solution(cell):
    return "solution" in cell.metadata.get("tags", [])


def is_blank(cell):
    return cell.source.startswith("# Your solution of: ")


def split(notebook):
    """The cells of the solutions, and all others."""
    return [c for c in notebook.cells if is_solution(c)], [c for c in notebook.cells if not is_solution(c)]


def stdout(cell):
    return [line for output in cell.get("outputs", []) for line in output.get("text", "").splitlines()]


def lines_of(cells):
    return {
        line.strip() for cell in cells for line in [*cell.source.splitlines(), *stdout(cell)] if line.strip()
    }


def left_over(notebook, edition):
    """What an edition still tells of the solutions: their lines of code and output that no other cell has."""
    solutions, others = split(notebook)
    text = nbformat.writes(edition)
    return {
        line
        for line in lines_of(solutions) - lines_of(others)
        if json.dumps(line, ensure_ascii=False)[1:-1] in text
    }


def names(cells, context):
    """The names that cells bind (ast.Store) or use (ast.Load)."""
    trees = [
        ast.parse(cell.source) for cell in cells if cell.cell_type == "code" and "%pip" not in cell.source
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    found = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return found | functions if context is ast.Store else found


def small():
    """A chapter with two exercises; the second has a solution of two cells, the last cell is not part of
    it."""
    out = [new_output("stream", name="stdout", text="✓ secret: measured 42, expected 42 [x]\n")]
    cells = [
        new_markdown_cell(
            "# 03 Title\n\n[Open in Colab](https://colab/x) · [Download](03.ipynb) · 7 CPU seconds on a day"
        ),
        new_code_cell("x = 1", execution_count=1),
        new_markdown_cell('**Exercise (First).** <a id="ex-03-1"></a>\nFind it.'),
        new_code_cell("#@title Solution\nanswer = x + 41", metadata=HIDDEN, execution_count=2, outputs=out),
        new_markdown_cell('**Exercise (Second).** <a id="ex-03-2"></a>\nFind it.'),
        new_code_cell("#@title Solution\nmore = 2", metadata=HIDDEN, execution_count=3),
        new_code_cell("#@title Solution\nmost = 3", metadata=HIDDEN, execution_count=4),
        new_code_cell(
            "print('the end', x)", execution_count=5, outputs=[new_output("stream", text="the end 1\n")]
        ),
    ]
    return new_notebook(cells=cells)


def test_a_small_chapter_for_students():
    notebook = small()
    before = copy.deepcopy(notebook)
    edition = editions.student(notebook)
    assert [cell.source.partition("\n")[0] for cell in edition.cells[1:]] == [
        "x = 1",
        '**Exercise (First).** <a id="ex-03-1"></a>',
        "# Your solution of: First",
        '**Exercise (Second).** <a id="ex-03-2"></a>',
        "# Your solution of: Second",
        "print('the end', x)",
    ]
    assert (
        edition.cells[0].source == "# 03 Title\n\nStudent edition, without solutions · 7 CPU seconds on a day"
    )
    assert [cell.execution_count for cell in edition.cells if cell.cell_type == "code"] == [1, None, None, 2]
    assert not left_over(notebook, edition) and notebook == before


def test_what_is_left_of_a_solution_is_found():
    notebook = small()
    assert left_over(notebook, notebook) >= {"answer = x + 41", "✓ secret: measured 42, expected 42 [x]"}


def test_a_small_student_edition_runs_from_top_to_bottom(tmp_path):
    edition = editions.student(small())
    stored_notebooks.run(edition, tmp_path)
    assert stdout(edition.cells[-1]) == ["the end 1"]
    assert [cell.execution_count for cell in edition.cells if cell.cell_type == "code"] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_solution_is_left_and_the_story_is(name):
    notebook = CHAPTERS[name]
    edition = editions.student(notebook)
    nbformat.validate(edition)
    assert not left_over(notebook, edition)
    _, others = split(notebook)
    told = [cell for cell in edition.cells if not is_blank(cell)]
    assert [cell.id for cell in told] == [cell.id for cell in others]
    assert [stdout(cell) for cell in told] == [stdout(cell) for cell in others]
    assert sum(map(len, [cell.get("outputs", []) for cell in told])) == sum(
        map(len, [c.get("outputs", []) for c in others])
    )


@pytest.mark.parametrize("name", CHAPTERS)
def test_each_exercise_is_followed_by_one_blank(name):
    cells = editions.student(CHAPTERS[name]).cells
    exercises = [
        i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and exercise_title(cell.source)
    ]
    assert [i + 1 for i in exercises] == [i for i, cell in enumerate(cells) if is_blank(cell)]
    for i in exercises:
        blank = cells[i + 1]
        assert exercise_title(cells[i].source) in blank.source
        assert [ast.unparse(statement) for statement in ast.parse(blank.source).body] == ["..."]
        assert blank.outputs == [] and blank.execution_count is None
    assert exercises or not name[:2].isdigit()


@pytest.mark.parametrize("name", CHAPTERS)
def test_nothing_needs_a_solution(name):
    cells = CHAPTERS[name].cells
    solutions, others = split(CHAPTERS[name])
    later = [
        cell for i, cell in enumerate(cells) if not is_solution(cell) and any(map(is_solution, cells[:i]))
    ]
    assert not names(later, ast.Load) & names(solutions, ast.Store) - names(others, ast.Store)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_student_edition_neither_opens_the_original_nor_speaks_of_its_solutions(name):
    edition = editions.student(CHAPTERS[name])
    prose = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    assert "colab.research.google.com" not in nbformat.writes(edition)
    assert not [old for old in editions.WITHOUT_SOLUTIONS if old in prose]
    assert any("%pip install" in cell.source for cell in edition.cells) or not name[:2].isdigit()
    counts = [
        cell.execution_count for cell in edition.cells if cell.cell_type == "code" and not is_blank(cell)
    ]
    assert counts == list(range(1, len(counts) + 1))


def test_every_sentence_that_is_rewritten_is_in_a_chapter():
    text = "\n".join(cell.source for notebook in CHAPTERS.values() for cell in notebook.cells)
    assert not [old for old in editions.WITHOUT_SOLUTIONS if old not in text]


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_instructors_edition_shows_every_solution(name):
    notebook, edition = CHAPTERS[name], editions.instructor(CHAPTERS[name])
    nbformat.validate(edition)
    text = nbformat.writes(edition)
    assert not [hidden for hidden in ("#@title", '"solution"', "colab.research") if hidden in text]
    assert [cell.get("outputs") for cell in edition.cells] == [cell.get("outputs") for cell in notebook.cells]
    solutions, _ = split(notebook)
    shown = [cell for cell in edition.cells if cell.source.startswith("# Solution\n")]
    assert not [cell for cell in shown if {"cellView", "jupyter"} & set(cell.metadata)]
    assert [cell.source for cell in shown] == [
        cell.source.replace("#@title Solution", "# Solution", 1) for cell in solutions
    ]


def test_an_edition_is_written_with_the_runs_that_chapters_read(tmp_path):
    written = editions.write(editions.student, tmp_path)
    assert [path.name for path in written] == list(CHAPTERS)
    assert {path.name for path in (tmp_path / "stored").iterdir()} == {
        p.name for p in (ROOT / "notebooks" / "stored").iterdir()
    }
