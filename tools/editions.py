"""The lecturers' editions of the book, made from the stored notebooks. Nothing is executed.

    python tools/editions.py student [FOLDER]      chapters without solutions, with blank cells in their place
    python tools/editions.py instructor [FOLDER]   chapters with every solution in sight
    python tools/editions.py slides [FOLDER]       one deck of slides for each chapter

FOLDER is notebooks/_build/<edition> unless named. The runs that chapters read lie beside the notebooks.

A blank says how to check an answer and nothing else. What the solution claims is not quoted, even without its
numbers: "a learning rate of ηN/2 takes the same step" or "chaotic" is the answer to the question asked.
Blanks count as not yet run, and the other cells as if the blanks had been skipped.
"""

import argparse
import copy
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "notebooks" / "_ext")]

import slides  # noqa: E402
from ntkbook.markdown import exercise_title  # noqa: E402
from ntkbook.reader import DOORS, FORM_TITLE  # noqa: E402

from notebooks import chapters, text_of  # noqa: E402

BLANK = """\
# Your solution of: {title}
...
# End with a line that can fail: check("what you claim", measured, expected, tol=..., source="...")"""
WITHOUT_SOLUTIONS = {
    "Try each before you open its solution. The solutions check themselves.": (
        "Each has a blank cell for your solution. Let it check itself, as the chapter does."
    ),
    "**Exercises** have hidden solutions that check themselves in the same\nway: try first, then open.": (
        "**Exercises** have a blank cell for your solution, which should check itself in the same\nway."
    ),
}


def student(notebook: NotebookNode) -> NotebookNode:
    """Return a chapter without its solutions: each exercise is followed by one blank cell."""
    notebook = copy.deepcopy(notebook)
    cells = []
    for cell in notebook.cells:
        if _is_solution(cell):
            continue
        cells.append(cell)
        if cell.cell_type == "markdown":
            title = exercise_title(cell.source)
            cell.source = _replace(DOORS.sub(r"Student edition, without solutions · \3", cell.source))
            if title:
                cells.append(new_code_cell(BLANK.format(title=title), id=f"{cell.id}-blank"))
    executed = [cell for cell in cells if cell.cell_type == "code" and cell.execution_count]
    for count, cell in enumerate(executed, 1):
        cell.execution_count = count
    notebook.cells = cells
    return notebook


def instructor(notebook: NotebookNode) -> NotebookNode:
    """Return a chapter whose solutions are ordinary cells, with their outputs."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = DOORS.sub(r"Instructor's edition, with solutions · \3", cell.source)
        if _is_solution(cell):
            cell.source = FORM_TITLE.sub("# Solution\n", cell.source)
            cell.metadata = NotebookNode()
    return notebook


def _is_solution(cell: NotebookNode) -> bool:
    return "solution" in cell.metadata.get("tags", [])


def _replace(source: str) -> str:
    for old, new in WITHOUT_SOLUTIONS.items():
        source = source.replace(old, new)
    return source


def write(edition, target: Path, source: Path = ROOT / "notebooks") -> list[Path]:
    """Write the edition of every notebook in `source`, and the stored runs, to `target`."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "stored", target / "stored", dirs_exist_ok=True)
    written = []
    for path in chapters([], source):
        notebook = edition(nbformat.read(path, as_version=4))
        nbformat.validate(notebook)
        written.append(target / path.name)
        written[-1].write_text(text_of(notebook), encoding="utf-8")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("edition", choices=["student", "instructor", "slides"])
    parser.add_argument("folder", nargs="?", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or ROOT / "notebooks" / "_build" / arguments.edition
    if arguments.edition == "slides":
        written = slides.write(folder, ROOT / "notebooks")
    else:
        written = write({"student": student, "instructor": instructor}[arguments.edition], folder)
    print(f"{len(written)} files in {folder}")


if __name__ == "__main__":
    main()
