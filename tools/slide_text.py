"""What slides need to know of Markdown: its blocks and sentences, text without links, and how high it will
stand."""

import math
import re
from collections import Counter
from dataclasses import dataclass

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from ntkbook.markdown import BOX, BOXES, CITATION, CODE, EQUATION, EQUATION_ANCHOR, HEADING, REFERENCE

__all__ = [
    "SLIDE_LINES",
    "Block",
    "blocks",
    "claim_height",
    "first_sentences",
    "height",
    "last_sentence",
    "list_items",
    "numbers",
    "pack",
    "readable",
    "row_height",
    "sentences",
]

PARSER = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_labels=True)
INTERNAL_LINK = re.compile(r"\[([^\[\]]+)\]\((?=[\w#])(?:[\w./-]+\.(?:ipynb|md))?(?:#[\w-]+)?\)")
SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z$*`“\"]|\([A-Z])|(?<=[.?!]\))\s+(?=[A-Z$])")
SLIDE_LINES, LINE_LETTERS, SHORT_LETTERS = 13.8, 80, 60


@dataclass
class Block:
    """A top-level block of Markdown: its kind as markdown-it calls it, its source, an equation's label."""

    kind: str
    source: str
    label: str = ""


def blocks(source: str) -> list[Block]:
    """Return the top-level blocks of a Markdown text."""
    lines = source.splitlines()
    tokens = [
        token for token in PARSER.parse(source) if token.level == 0 and token.map and token.nesting >= 0
    ]
    return [
        Block(token.type.removesuffix("_open"), "\n".join(lines[slice(*token.map)]).strip(), token.info)
        if not token.type.startswith("math_block")
        else Block("equation", token.content.strip(), token.info)
        for token in tokens
    ]


def list_items(source: str) -> list[str]:
    """Return the items of a list, with their marks."""
    tokens = [token for token in PARSER.parse(source) if token.type == "list_item_open" and token.level == 1]
    lines = source.splitlines()
    return ["\n".join(lines[slice(*token.map)]).strip() for token in tokens]


def numbers(notebook: NotebookNode, chapter: int) -> dict[str, str]:
    """Return what the site calls each equation, box and figure, by its label (a box without label: by its
    cell's id)."""
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
            for name in re.findall(
                r'<figure[^>]* id="([\w-]+)"', output.get("data", {}).get("text/html", "")
            ):
                count("figure", name, "Figure")
    return found


def readable(source: str, names: dict[str, str]) -> str:
    """Return Markdown without internal links: references by number, citations and chapters by the author's
    words."""
    parts = CODE.split(source)
    parts[::2] = [_without_links(part, names) for part in parts[::2]]
    return "".join(parts)


def _without_links(text: str, names: dict[str, str]) -> str:
    text = HEADING.sub(r"\1", text)
    text = EQUATION_ANCHOR.sub("", text)
    text = EQUATION.sub(lambda match: f"({names[match[1]]})", text)
    text = CITATION.sub(r"\1", text)
    # An appendix has no slides, and so no numbers: a reference to it keeps its words.
    text = REFERENCE.sub(lambda match: names.get(match[1], match[0]), text)
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
    wider = 0.8 * sum(map(len, re.findall(r"`[^`]+`", text)))  # letters of code
    return math.ceil((letters + wider) / LINE_LETTERS) + 0.5


def claim_height(line: str) -> float:
    """Estimate how many lines of a slide a claim takes, with its numbers below it."""
    claim, measured = line.split(": measured ")
    return 0.8 * (math.ceil(len(claim) / 95) + math.ceil(len(measured) / 105)) + 0.4


def row_height(row: str) -> float:
    """Estimate how many lines of a slide a row of a table takes."""
    return 0.8 * height(row) + 0.05


def pack(parts: list, weigh=height, taken: float = 0.0) -> list[list]:
    """Split what does not fit on one slide into groups of about equal height; `taken` is used up on the
    first."""
    weights = [weigh(part) for part in parts]
    total = sum(weights) + taken
    count = math.ceil(total / SLIDE_LINES)
    groups, used = [[] for _ in range(count)], taken
    for part, weight in zip(parts, weights):
        groups[int((used + weight / 2) * count / total)].append(part)
        used += weight
    return [group for group in groups if group]
