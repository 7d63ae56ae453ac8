"""Reads a chapter for the site: myst-nb calls `read` with the text of the .ipynb file."""

import copy
import re
from html import escape
from pathlib import Path

import nbformat

from . import markdown, outputs

__all__ = ["read"]

DOORS = re.compile(r"^(\[Open in Colab\]\(\S+\)) · \[Download\]\((\S+)\) · (\d+ CPU seconds .+)$", re.M)
FORM_TITLE = re.compile(r"\A#@title.*\n")


def read(text: str, images: str) -> nbformat.NotebookNode:
    """Return the notebook with its plain-Markdown conventions turned into book features."""
    notebook = nbformat.reads(text, as_version=4)
    cells = [cell for cell in notebook.cells if not _has(cell, "colab-only")]
    exercise, claims = "Exercise", 1
    converted = []
    for before, cell, after in zip([None, *cells], cells, [*cells[1:], None]):
        exercise = markdown.exercise_title(cell.source) or exercise
        if _has(cell, "solution") and not _has(before, "solution"):
            converted.append(_raw(_solution_opens(exercise)))
        if cell.cell_type == "code":
            claims += _code(cell, Path(images), claims)
        elif cell.cell_type == "markdown":
            cell.source = _doors(markdown.convert(cell.source))
        converted += _shown(cell)
        if _has(cell, "solution") and not _has(after, "solution"):
            converted.append(_raw("</details>"))
    notebook.cells = converted
    return notebook


def _has(cell, tag: str) -> bool:
    return cell is not None and tag in cell.metadata.get("tags", [])


def _code(cell, images: Path, first_claim: int) -> int:
    """Convert a code cell in place and return how many claims it holds."""
    count = sum(map(outputs.count_claims, cell.outputs))
    cell.source = FORM_TITLE.sub("", cell.source)
    fold = not (_has(cell, "solution") or _has(cell, "hide-cell"))
    cell.outputs = outputs.convert(cell.outputs, images, first_claim, fold)
    return count


def _shown(cell) -> list:
    if _has(cell, "hide-cell"):
        opens = _raw('<details class="ntk-hidden"><summary>Show the statistics</summary>')
        return [opens, cell, _raw("</details>")]
    return _hide_input(cell) if _has(cell, "hide-input") else [cell]


def _hide_input(cell) -> list:
    """Put a cell's code into a closed <details>, and leave its outputs in sight."""
    shown = copy.deepcopy(cell)
    shown.id = f"{cell.id}-shown"
    cell.outputs, cell.metadata = [], nbformat.NotebookNode()
    shown.metadata["tags"] = ["remove-input"]
    opens = _raw('<details class="ntk-hidden"><summary>Show the code</summary>')
    return [opens, cell, _raw("</details>")] + ([shown] if shown.outputs else [])


def _doors(source: str) -> str:
    """Mark the line under the title, and let Download fetch the notebook, not its page."""
    return DOORS.sub(r"{.ntk-doors}\n\1 · {download}`Download <\2>` · \3", source)


def _solution_opens(exercise: str) -> str:
    return (
        '<details class="ntk-solution"><summary>Solution'
        f'<span class="visually-hidden"> of: {escape(exercise)}</span></summary>'
    )


def _raw(html: str):
    return nbformat.v4.new_markdown_cell(html)
