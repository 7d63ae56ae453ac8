"""What the book's own pages say of its chapters: the map, the tables, the objectives, the exercises.

The plan is in chapters.toml; what a chapter teaches and asks is read from its notebook.
"""

import re
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from . import outputs, pictures
from .markdown import exercise_title

__all__ = ["ChapterMap", "Chapters", "CiteAs", "Exercises", "Objectives", "StoredFigure", "plan"]

BOX, ROW, COLUMN = (112, 58), 104, 118
LEVEL = re.compile(r"\*Level (?P<level>[123]), (?P<minutes>\d+) minutes\.\*\s*\Z")


@dataclass(frozen=True)
class Chapter:
    """A chapter of the plan; `file` is None where it is not written."""

    part: str
    number: str
    title: str
    question: str
    needs: tuple[str, ...]
    place: tuple[float, float]
    file: Path | None

    @property
    def link(self) -> str:
        return f"[{self.title}]({self.file.name})" if self.file else self.title

    @property
    def cells(self) -> list:
        return nbformat.read(self.file, as_version=4).cells


def plan(folder: Path) -> list[Chapter]:
    """The chapters of chapters.toml in `folder`, in order."""
    parts = tomllib.loads((folder / "chapters.toml").read_text(encoding="utf-8"))["part"]
    return [
        Chapter(
            part["title"],
            entry["number"],
            entry["title"],
            entry["question"],
            tuple(entry["needs"]),
            tuple(entry["place"]),
            next(folder.glob(f"{entry['number']}_*.ipynb"), None),
        )
        for part in parts
        for entry in part["chapter"]
    ]


class _FromPlan(SphinxDirective):
    """A directive whose Markdown follows from the chapters."""

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir)
        chapters = plan(folder)
        for file in [folder / "chapters.toml", *(chapter.file for chapter in chapters if chapter.file)]:
            self.env.note_dependency(str(file))
        return self.show(chapters)

    def show(self, chapters: list[Chapter]) -> list[nodes.Node]:
        return self.parse_text_to_nodes(self.text(chapters))


class Chapters(_FromPlan):
    """``chapters``: the table of all chapters."""

    def text(self, chapters: list[Chapter]) -> str:
        rows = [f"| {c.number} | {c.link} | {c.question} | {', '.join(c.needs)} |" for c in chapters]
        return "\n".join(["| No. | Chapter | Question | Needs |", "|---|---|---|---|", *rows])


class Objectives(_FromPlan):
    """``objectives``: what each written chapter teaches and needs, in its own words."""

    def text(self, chapters: list[Chapter]) -> str:
        return "\n\n".join(f"**{c.number} {c.link}**\n\n{objectives(c.cells)}" for c in chapters if c.file)


def objectives(cells: list) -> str:
    """The cell of a chapter that says what the reader will learn and needs, to how claims are read."""
    opening = next(cell.source for cell in cells if "**You will learn**" in cell.source)
    return opening.partition("**You will learn**")[2].partition("\n\nA line that begins with ✓")[0].strip()


class Exercises(_FromPlan):
    """``exercises``: every exercise, with its level and its minutes."""

    def text(self, chapters: list[Chapter]) -> str:
        rows = [
            f"| {c.number} | [{title}]({c.file.name}#{label}) | {level} | {minutes} |"
            for c in chapters
            if c.file
            for title, label, level, minutes in exercises(c.cells)
        ]
        return "\n".join(["| Chapter | Exercise | Level | Minutes |", "|---|---|---|---|", *rows])


def exercises(cells: list) -> list[tuple[str, str, int, int]]:
    """Title, label, level and minutes of each exercise of a chapter."""
    found = []
    for cell in cells:
        if title := exercise_title(cell.source):
            level = LEVEL.search(cell.source)
            found.append(
                (
                    title,
                    re.search(r'<a id="([\w-]+)">', cell.source)[1],
                    int(level["level"]),
                    int(level["minutes"]),
                )
            )
    return found


class ChapterMap(_FromPlan):
    """``chapter-map``: which chapter needs which, as a drawing whose boxes are links."""

    def show(self, chapters: list[Chapter]) -> list[nodes.Node]:
        return [nodes.raw("", drawing(chapters), format="html")]


def drawing(chapters: list[Chapter]) -> str:
    """The map as SVG; colours come from the style sheet."""
    corner = {c.number: (10 + COLUMN * c.place[1], 10 + ROW * c.place[0]) for c in chapters}
    width, height = (10 + max(corner[c.number][i] for c in chapters) + BOX[i] for i in (0, 1))
    lines = [_line(corner[need], corner[c.number]) for c in chapters for need in c.needs]
    boxes = [_box(c, *corner[c.number]) for c in chapters]
    return (
        f'<nav class="ntk-map" aria-label="Map of the chapters"><svg viewBox="0 0 {width:g} {height:g}">'
        f"{''.join(lines)}{''.join(boxes)}</svg></nav>"
    )


def _line(start, end) -> str:
    x1, y1, x2, y2 = start[0] + BOX[0] / 2, start[1] + BOX[1], end[0] + BOX[0] / 2, end[1]
    bend = min(ROW - BOX[1], y2 - y1) * 0.6
    return f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'


def _box(chapter: Chapter, x: float, y: float) -> str:
    words = wrap(f"{chapter.number} {chapter.title}", 16, break_long_words=False)
    words = words if len(words) < 4 else [*words[:2], f"{words[2].rstrip(',')} …"]
    first = y + BOX[1] / 2 - 7.5 * (len(words) - 1) + 4
    text = "".join(
        f'<tspan x="{x + BOX[0] / 2:g}" y="{first + 15 * i:g}">{escape(line)}</tspan>'
        for i, line in enumerate(words)
    )
    box = f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
    shape = f'{box}<text text-anchor="middle">{text}</text>'
    if chapter.file is None:
        return f'<g class="ntk-planned">{shape}</g>'
    return f'<a href="{chapter.file.stem}.html">{shape}</a>'


class StoredFigure(SphinxDirective):
    """``stored-figure NOTEBOOK NAME``: a slider as the notebook's cell displayed it, without a number."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        file, name = Path(self.env.srcdir) / self.arguments[0], self.arguments[1]
        self.env.note_dependency(str(file))
        shown = [
            output for cell in nbformat.read(file, as_version=4).cells for output in cell.get("outputs", [])
        ]
        found = [output for output in shown if f'id="{name}"' in output.get("data", {}).get("text/html", "")]
        if not found:
            raise self.error(f"{self.arguments[0]} shows no figure {name}")
        [slider] = outputs.convert(found, Path(self.env.srcdir, pictures.FOLDER))
        body, caption = re.search(
            r'(<div class="ntk-slider">.*</div>)\n\n(.*)\n```', slider["data"]["text/markdown"]
        ).groups()
        shown = f"{body}<figcaption>{escape(caption)}</figcaption>"
        html = f'<figure id="shown-{name}" class="ntk-slider-figure">{shown}</figure>'
        return [nodes.raw("", html, format="html")]


class CiteAs(SphinxDirective):
    """``cite-as``: CITATION.cff as a BibTeX entry."""

    def run(self) -> list[nodes.Node]:
        file = Path(self.env.srcdir).parent / "CITATION.cff"
        self.env.note_dependency(str(file))
        entry = dict(
            re.findall(r"^(title|version|url): \"?(.+?)\"?$", file.read_text(encoding="utf-8"), re.MULTILINE)
        )
        lines = [
            f"  title   = {{{entry['title']}}},",
            "  author  = {{The NTK Book authors}},",
            f"  version = {{{entry['version']}}},",
        ]
        text = "\n".join(["@misc{ntkbook,", *lines, f"  url     = {{{entry['url']}}}", "}"])
        return [nodes.literal_block(text, text, language="bibtex")]
