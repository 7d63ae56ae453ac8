"""A chapter as slides for a lecture: what is to be seen stays on the slide, what is to be said goes to the speaker's notes.

Every `##` section is a column that starts with its title and first sentences. Below come, in the order of the chapter,
its boxes, displayed equations, lists, tables, figures and claims; prose becomes notes (key S). Code is shown where it is the
point: a cell of at most six short lines, in sight in the chapter, that ends in claims. Solutions are left out.
`tools/deck/` holds the template, on nbconvert's own for reveal.js, with style and script.
"""

import json
import math
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from ntkbook import mathjax, outputs
from ntkbook.markdown import ADMONITIONS, BOX, BOXES, CITATION, CODE, EQUATION, HEADING, REFERENCE
from pygments.formatters import HtmlFormatter

__all__ = ["deck", "numbers", "write"]

DECK = Path(__file__).resolve().parent / "deck"
PARSER = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_labels=True)
INTERNAL_LINK = re.compile(r"\[([^\[\]]+)\]\((?=[\w#])(?:[\w./-]+\.(?:ipynb|md))?(?:#[\w-]+)?\)")
SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z$*`“\"]|\([A-Z])|(?<=[.?!]\))\s+(?=[A-Z$])")
FIGCAPTION = re.compile(r"(<figcaption[^>]*>)")
SLIDE_LINES, LINE_LETTERS = 13.5, 80
LEAD_LETTERS, SHORT_LETTERS, ITEM_LETTERS = 260, 60, 230
CODE_LINES, CODE_LETTERS = 6, 100
UNDER_CLAIMS = {"claims", "equation", *(name.lower() for name in BOXES.values() if name != "Exercise")}


@dataclass
class Slide:
    """What is shown, and what is said; `level` is slide (a new column) or subslide."""

    kind: str
    cells: list[NotebookNode]
    level: str = "subslide"
    notes: list[str] = field(default_factory=list)
    lines: float = 0.0

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


@dataclass
class Block:
    """A top-level block of Markdown: its kind as markdown-it calls it, its source, an equation's label."""

    kind: str
    source: str
    label: str = ""


def blocks(source: str) -> list[Block]:
    """Return the top-level blocks of a Markdown text."""
    lines = source.splitlines()
    tokens = [token for token in PARSER.parse(source) if token.level == 0 and token.map and token.nesting >= 0]
    return [
        Block(token.type.removesuffix("_open"), "\n".join(lines[slice(*token.map)]).strip(), token.info)
        if not token.type.startswith("math_block") else Block("equation", token.content.strip(), token.info)
        for token in tokens
    ]  # fmt: skip


def numbers(notebook: NotebookNode, chapter: int) -> dict[str, str]:
    """Return what the site calls each equation, box and figure, by its label (a box without label: by its cell's id)."""
    counts, found = Counter(), {}

    def count(family: str, label: str, name: str = "") -> None:
        counts[family] += 1
        found[label] = f"{name} {chapter}.{counts[family]}".strip()

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            box = BOX.match(cell.source)
            if box and box["kind"] in BOXES.values():
                family = "exercise" if box["kind"] == "Exercise" else "box"
                count(family, box["label"] or cell.id, box["kind"])
            for token in PARSER.parse(cell.source):
                if token.type == "math_block_label":
                    count("equation", token.info)
        for output in cell.get("outputs", []):
            for name in re.findall(r'<figure[^>]* id="([\w-]+)"', output.get("data", {}).get("text/html", "")):
                count("figure", name, "Figure")
    return found


def readable(source: str, names: dict[str, str]) -> str:
    """Return Markdown without internal links: references by number, citations and chapters by the author's words."""
    parts = CODE.split(source)
    parts[::2] = [_without_links(part, names) for part in parts[::2]]
    return "".join(parts)


def _without_links(text: str, names: dict[str, str]) -> str:
    text = HEADING.sub(r"\1", text)
    text = EQUATION.sub(lambda match: f"({names[match[1]]})", text)
    text = CITATION.sub(r"\1", text)
    text = REFERENCE.sub(lambda match: names[match[1]], text)
    return INTERNAL_LINK.sub(r"\1", text)


def sentences(text: str) -> list[str]:
    """Split a paragraph into sentences."""
    return SENTENCE_END.split(" ".join(text.split()))


def first_sentences(text: str, letters: int) -> str:
    """Return the first sentence, and those after it that fit into `letters`."""
    first, *rest = sentences(text)
    for sentence in rest:
        if len(first) + len(sentence) > letters:
            break
        first += f" {sentence}"
    return first


def last_sentence(text: str) -> str:
    """Return the last sentence, and those before it while that is a short one."""
    *rest, last = sentences(text)
    while rest and len(last) < SHORT_LETTERS:
        last = f"{rest.pop()} {last}"
    return last


def height(text: str) -> float:
    """Estimate how many lines of a slide a Markdown text takes."""
    if text.startswith("$$"):
        return 1.5 + 1.8 * (1 + text.count(r"\\"))
    letters = len(re.sub(r"\\[a-zA-Z]+|[{}$^_\\*`]", "", text))
    return math.ceil(letters / LINE_LETTERS) + 0.5


def pack(parts: list, weigh=height, taken: float = 0.0) -> list[list]:
    """Split what does not fit on one slide into groups of about equal height; `taken` is used up on the first."""
    weights = [weigh(part) for part in parts]
    total = sum(weights) + taken
    room = total / math.ceil(total / SLIDE_LINES)
    groups, used = [[]], taken
    for part, weight in zip(parts, weights):
        if groups[-1] and used + weight / 2 > room:
            groups.append([])
            used = 0.0
        groups[-1].append(part)
        used += weight
    return groups


def claim_height(line: str) -> float:
    """Estimate how many lines of a slide a claim takes, with its numbers below it."""
    claim, measured = line.split(": measured ")
    return 0.8 * (math.ceil(len(claim) / 95) + math.ceil(len(measured) / 105)) + 0.4


def shown_code(cell: NotebookNode) -> list[str]:
    """Return the lines of a cell whose code is the point, none of any other."""
    lines = cell.source.splitlines()
    is_short = len(lines) <= CODE_LINES and max(map(len, lines)) <= CODE_LETTERS
    return lines if is_short and "hide-input" not in cell.metadata.get("tags", []) else []


class Deck:
    """The slides of one chapter, built cell by cell."""

    def __init__(self, names: dict[str, str]):
        self.names, self.slides, self.section, self.claims = names, [], "", 1

    def add(self, cell: NotebookNode) -> None:
        """Take one cell of the chapter."""
        if "solution" in cell.metadata.get("tags", []):
            return
        if cell.cell_type == "code":
            self._code(cell)
            return
        box = BOX.match(cell.source)
        if box and box["kind"] in {*BOXES.values(), "Proof", *ADMONITIONS}:
            self._box(cell, box)
        else:
            found = blocks(readable(cell.source, self.names))
            for before, block, after in zip([None, *found], found, [*found[1:], None]):
                getattr(self, f"_{block.kind}", self._say)(block, before, after)

    def _open(self, kind: str, *cells: NotebookNode) -> None:
        self.slides.append(Slide(kind, [new_markdown_cell(f"##### {self.section}"), *cells]))

    def _show(self, text: str) -> None:
        self.slides[-1].show(text)

    def _say(self, block: Block, *_) -> None:
        self.slides[-1].notes.append(block.source)

    def _heading(self, block: Block, *_) -> None:
        marks, _, title = block.source.partition(" ")
        kind = {"#": "title", "##": "section"}.get(marks, "subsection")
        level = "subslide" if kind == "subsection" else "slide"
        self.slides.append(Slide(kind, [new_markdown_cell(block.source)], level))
        self.section = title

    def _paragraph(self, block: Block, before: Block | None, after: Block | None) -> None:
        slide, text = self.slides[-1], block.source
        if text.startswith("[Open in Colab]"):
            return
        into_equation = after and after.kind == "equation" and len(sentences(text)) == 1
        if before and before.kind == "equation" and text[0].islower():
            self._show(sentences(text)[0])
        elif slide.kind in {"section", "subsection"} and len(slide.cells) == 1 and not into_equation:
            self._show(first_sentences(text, LEAD_LETTERS))
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
        tokens = [token for token in PARSER.parse(block.source) if token.type == "list_item_open" and token.level == 1]
        lines = block.source.splitlines()
        items = ["\n".join(lines[slice(*token.map)]).strip() for token in tokens]
        if self.slides[-1].kind == "title":
            if before and "You will learn" in before.source:
                self._show("\n\n".join(["##### You will learn", block.source]))
            else:
                self._say(block)
            return
        short = [item if len(item) <= ITEM_LETTERS else first_sentences(item, ITEM_LETTERS) for item in items]
        self._list("list", short, before)
        if short != items:
            self._say(block)

    _ordered_list = _bullet_list

    def _table(self, block: Block, before: Block | None, _) -> None:
        head, rule, *rows = block.source.splitlines()
        self._list("table", rows, before, head=[head, rule])

    def _list(self, kind: str, parts: list[str], before: Block | None, head: list[str] = ()) -> None:
        """Show list items or table rows, on as many slides as they take, below the words that announce them."""
        lead = sentences(before.source)[-1] if before and before.kind == "paragraph" else ""
        lead = lead if lead.endswith((":", "**")) else ""
        for group in pack(parts, taken=height(lead)):
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
            if claims:
                self._checked(cell, claims)

    def _checked(self, cell: NotebookNode, claims: list[str]) -> None:
        """Claims stand below what they check where there is room, else on slides of their own."""
        code = shown_code(cell)
        slide, needed = self.slides[-1], len(code) + sum(map(claim_height, claims))
        if slide.kind in UNDER_CLAIMS and slide.lines + needed <= SLIDE_LINES:
            self._claims(code, claims, needed)
            return
        why = last_sentence(slide.notes[-1]) if slide.notes else ""
        lead = why if len(why) <= LEAD_LETTERS and not slide.shows(why) else ""
        for group in pack(claims, claim_height, taken=len(code) + height(lead)):
            self._open("claims")
            if lead:
                self._show(lead)
            self._claims(code, group, len(code) + sum(map(claim_height, group)))
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
    exporter = SlidesExporter(extra_template_basedirs=[str(DECK.parent)], template_name="deck", exclude_anchor_links=True)
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
    style = (DECK / "deck.css").read_text(encoding="utf-8") + HtmlFormatter(style="friendly").get_style_defs(".highlight")
    (target / "deck.css").write_text(style, encoding="utf-8")
    shutil.copyfile(DECK / "deck.js", target / "deck.js")
