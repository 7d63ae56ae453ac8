"""A chapter as slides for a lecture: what is to be seen stays on the slide, what is to be said goes to the
speaker's notes.

Every `##` section is a column that starts with its title and first sentences. Below come, in the order of the
chapter, its boxes, displayed equations, lists, tables, figures and claims; prose becomes notes (key S). Code
is shown where it is the point: in sight in the chapter, checked by claims, and of at most seven short lines
without its checks. Solutions are left out. `tools/deck/` holds the template, on nbconvert's own for
reveal.js, with style and script.
"""

import ast
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ntkbook import mathjax, outputs
from ntkbook.markdown import ADMONITIONS, BOX, BOXES
from pygments.formatters import HtmlFormatter
from slide_text import (
    SLIDE_LINES,
    Block,
    blocks,
    claim_height,
    first_sentences,
    height,
    last_sentence,
    list_items,
    numbers,
    pack,
    readable,
    row_height,
    sentences,
)

__all__ = ["deck", "numbers", "write"]

DECK = Path(__file__).resolve().parent / "deck"
FIGCAPTION = re.compile(r"(<figcaption[^>]*>)")
TITLE_LINES = 1.5
LEAD_LETTERS, ITEM_LETTERS = 260, 230
CODE_LINES, CODE_LETTERS = 7, 100
UNDER_CLAIMS = {"claims", "equation", *(name.lower() for name in BOXES.values() if name != "Exercise")}


@dataclass
class Slide:
    """What is shown, and what is said; `level` is slide (a new column) or subslide."""

    kind: str
    cells: list[NotebookNode]
    level: str = "subslide"
    notes: list[str] = field(default_factory=list)
    lines: float = 0.0
    introduced: bool = False

    def show(self, text: str) -> None:
        """Add Markdown."""
        self.cells.append(new_markdown_cell(text))
        self.lines += height(text)

    def shows(self, text: str) -> bool:
        """Whether a text is there already."""
        return any(text in cell.source for cell in self.cells)

    def notebook_cells(self) -> list[NotebookNode]:
        """The cells as nbconvert's SlidesExporter wants them."""
        self.cells[0].metadata["slideshow"] = {"slide_type": self.level, "data": {"kind": self.kind}}
        notes = new_markdown_cell("\n\n".join(self.notes), metadata={"slideshow": {"slide_type": "notes"}})
        return [*self.cells, notes] if self.notes else self.cells


def shown_code(cell: NotebookNode) -> list[str]:
    """Return the lines of a cell whose code is the point, without its checks, which are shown as claims; of
    others none."""
    if "hide-input" in cell.metadata.get("tags", []):
        return []
    kept = cell.source.splitlines()
    for statement in reversed(ast.parse(cell.source).body):
        if re.match(r"check(_\w+)?\(", ast.unparse(statement)):
            del kept[statement.lineno - 1 : statement.end_lineno]
    kept = "\n".join(kept).strip().splitlines()
    return kept if len(kept) <= CODE_LINES and all(len(line) <= CODE_LETTERS for line in kept) else []


def code_height(lines: list[str]) -> float:
    """Estimate how many lines of a slide some code takes, which is smaller than text."""
    return 0.7 * len(lines) + 0.8 if lines else 0.0


class Deck:
    """The slides of one chapter, built cell by cell."""

    def __init__(self, names: dict[str, str]):
        self.names, self.slides, self.section, self.claims = names, [], "", 1
        self.said = ""  # the paragraph just before

    def add(self, cell: NotebookNode) -> None:
        """Take one cell of the chapter."""
        if "solution" in cell.metadata.get("tags", []):
            return
        if cell.cell_type == "code":
            self._code(cell)
            self.said = ""
            return
        box = BOX.match(cell.source)
        if box and box["kind"] in {*BOXES.values(), "Proof", *ADMONITIONS}:
            self._box(cell, box)
            self.said = ""
        else:
            found = blocks(readable(cell.source, self.names))
            for before, block, after in zip([None, *found], found, [*found[1:], None]):
                getattr(self, f"_{block.kind}", self._say)(block, before, after)
                self.said = block.source if block.kind == "paragraph" else ""

    def _at_bare_section(self) -> bool:
        return bool(self.slides) and self.slides[-1].kind == "section" and not self.slides[-1].introduced

    def _open(self, kind: str, *cells: NotebookNode) -> None:
        """Begin a slide, on that of the section's title where nothing else is there."""
        if self._at_bare_section():
            self.slides[-1].kind = kind
            self.slides[-1].cells += cells
            self.slides[-1].lines = TITLE_LINES
        else:
            self.slides.append(Slide(kind, [new_markdown_cell(f"##### {self.section}"), *cells]))

    def _show(self, text: str) -> None:
        self.slides[-1].show(text)

    def _say(self, block: Block, *_) -> None:
        self.slides[-1].notes.append(block.source)

    def _heading(self, block: Block, *_) -> None:
        marks, _, title = block.source.partition(" ")
        kind = {"#": "title", "##": "section"}.get(marks, "subsection")
        if kind == "subsection" and self._at_bare_section():
            self._show(block.source)  # a section that starts with a subsection: one slide for both
        else:
            self.slides.append(
                Slide(
                    kind, [new_markdown_cell(block.source)], "subslide" if kind == "subsection" else "slide"
                )
            )
        self.section = title

    def _paragraph(self, block: Block, before: Block | None, after: Block | None) -> None:
        slide, text = self.slides[-1], block.source
        if text.startswith("[Open in Colab]"):
            return
        if before and before.kind == "equation" and text[0].islower():
            self._show(sentences(text)[0])
        elif slide.kind in {"section", "subsection"} and not slide.introduced:
            announces = after and (after.kind == "equation" or text.endswith(":"))
            start = sentences(text)[:-1] if announces else [text]
            if start:
                self._show(first_sentences(" ".join(start), LEAD_LETTERS))
            slide.introduced = bool(start)
        slide.notes.append(text)

    def _equation(self, block: Block, before: Block | None, _) -> None:
        if not (before and before.kind == "equation" and self.slides[-1].kind == "equation"):
            self._open("equation")
            if before and before.kind == "paragraph":
                self._show(last_sentence(before.source))
        self._show(self._display(block))

    def _display(self, block: Block) -> str:
        tag = f"\n\\tag{{{self.names[block.label]}}}" if block.label else ""
        return f"$$\n{block.source}{tag}\n$$"

    def _bullet_list(self, block: Block, before: Block | None, _) -> None:
        if self.slides[-1].kind == "title":
            if before and "You will learn" in before.source:
                self._show("\n\n".join(["##### You will learn", block.source]))
            else:
                self._say(block)
            return
        items = list_items(block.source)
        short = [item if len(item) <= ITEM_LETTERS else first_sentences(item, ITEM_LETTERS) for item in items]
        self._list("list", short, before, height)
        if short != items:
            self._say(block)

    _ordered_list = _bullet_list

    def _table(self, block: Block, before: Block | None, _) -> None:
        head, rule, *rows = block.source.splitlines()
        self._list("table", rows, before, row_height, (head, rule))

    def _list(
        self, kind: str, parts: list[str], before: Block | None, weigh, head: tuple[str, ...] = ()
    ) -> None:
        """Show list items or table rows, on as many slides as they take, below the words that announce
        them."""
        lead = last_sentence(before.source) if before and before.kind == "paragraph" else ""
        lead = lead if lead.endswith((":", "**")) else ""
        taken = height(lead) + len(head) + TITLE_LINES * self._at_bare_section()
        for group in pack(parts, weigh, taken):
            self._open(kind)
            if lead:
                self._show(lead)
            self._show("\n".join([*head, *group]))

    def _box(self, cell: NotebookNode, match: re.Match) -> None:
        name = self.names.get(match["label"] or cell.id, match["kind"])
        heading = f"#### {name}" + (f" ({match['title']})" if match["title"] else "")
        body = blocks(readable(cell.source[match.end() :], self.names))
        texts = [self._display(block) if block.kind == "equation" else block.source for block in body]
        for i, group in enumerate(pack(texts)):
            self._open(match["kind"].lower())
            for text in [f"{heading}{', continued' if i else ''}", *group]:
                self._show(text)

    def _code(self, cell: NotebookNode) -> None:
        for output in cell.outputs:
            html = output.get("data", {}).get("text/html", "")
            for name in re.findall(r'<figure[^>]* id="([\w-]+)"', html):
                caption = FIGCAPTION.sub(rf"\1<b>{self.names[name]}.</b> ", html)
                self._open("figure", _html(caption.replace("<figure ", "<figure data-prevent-swipe ")))
            claims = [line for line in output.get("text", "").splitlines() if outputs.CLAIM.match(line)]
            if claims and "hide-cell" not in cell.metadata.get("tags", []):
                self._checked(cell, claims)

    def _checked(self, cell: NotebookNode, claims: list[str]) -> None:
        """Claims stand below what they check where there is room, else on slides of their own."""
        code = shown_code(cell)
        slide, needed = self.slides[-1], code_height(code) + sum(map(claim_height, claims))
        if slide.kind in UNDER_CLAIMS and slide.lines + needed <= SLIDE_LINES:
            self._claims(code, claims, needed)
            return
        why = last_sentence(self.said)
        lead = why if len(why) <= LEAD_LETTERS and not slide.shows(why) else ""
        for group in pack(claims, claim_height, taken=code_height(code) + height(lead)):
            self._open("claims")
            if lead:
                self._show(lead)
            self._claims(code, group, code_height(code) + sum(map(claim_height, group)))
            code, lead = [], ""

    def _claims(self, code: list[str], claims: list[str], lines: float) -> None:
        html = outputs.claims_html(claims, self.claims)
        shown = new_code_cell("\n".join(code), outputs=[new_output("display_data", data={"text/html": html})])
        self.slides[-1].cells.append(shown)
        self.slides[-1].lines += lines
        self.claims += len(claims)


def _html(text: str) -> NotebookNode:
    return new_code_cell("", outputs=[new_output("display_data", data={"text/html": text})])


def deck(notebook: NotebookNode, names: dict[str, str]) -> NotebookNode:
    """Return the notebook that SlidesExporter turns into a chapter's slides."""
    built = Deck(names)
    for cell in notebook.cells:
        built.add(cell)
    return new_notebook(cells=[cell for slide in built.slides for cell in slide.notebook_cells()])


def write(target: Path, source: Path) -> list[Path]:
    """Write a deck for each chapter in `source`, their list, and everything that they load, to `target`."""
    chapters = {path: nbformat.read(path, as_version=4) for path in sorted(source.glob("[0-9][0-9]_*.ipynb"))}
    names = {}
    for path, notebook in chapters.items():
        names |= numbers(notebook, int(path.name[:2]))
    exporter = SlidesExporter(
        extra_template_basedirs=[str(DECK.parent)], template_name="deck", exclude_anchor_links=True
    )
    target.mkdir(parents=True, exist_ok=True)
    titles = {}
    for path, notebook in chapters.items():
        titles[f"{path.stem}.html"] = title = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
        resources = {"deck": {"title": title, "mathjax": json.dumps(mathjax.CONFIG)}}
        html, _ = exporter.from_notebook_node(deck(notebook, names), resources)
        (target / f"{path.stem}.html").write_text(html, encoding="utf-8")
    _copy_assets(source / "node_modules", target / "_static")
    shutil.copyfile(source / "_static" / "favicon.svg", target / "_static" / "favicon.svg")
    items = "\n".join(f'<li><a href="{name}">{title}</a></li>' for name, title in titles.items())
    page = (DECK / "list.html").read_text(encoding="utf-8").replace("<!-- decks -->", items)
    (target / "index.html").write_text(page, encoding="utf-8")
    return [target / name for name in titles]


def _copy_assets(modules: Path, target: Path) -> None:
    mathjax.install(modules, target / "mathjax")
    for name in ("LICENSE", "dist/reveal.js", "dist/reveal.css", "dist/plugin/notes.js"):
        (target / "reveal" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(modules / "reveal.js" / name, target / "reveal" / name)
    style = (DECK / "deck.css").read_text(encoding="utf-8") + HtmlFormatter(style="friendly").get_style_defs(
        ".highlight"
    )
    (target / "deck.css").write_text(style, encoding="utf-8")
    shutil.copyfile(DECK / "deck.js", target / "deck.js")
