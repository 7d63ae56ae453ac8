"""What a chapter has to be, as rules: each yields one sentence for each thing that is wrong."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from statistics import median

from nbformat import NotebookNode

__all__ = ["RULES", "Chapter", "lint"]

CELLS, CELL_LINES, MEDIAN_LINES = (10, 25), 25, 8
WORDS = (1000, 2500)  # of a lecture, without its exercises
TWO_LECTURES = ("02", "04", "05", "06")
WORDS_OF = {"00": (500, 2500), "01": (1000, 3400)} | dict.fromkeys(TWO_LECTURES, (1000, 2800))
FIGURES, EXERCISES, CLAIMS, ALT_LETTERS = (4, 8), (3, 5), 10, 60
CPU_SECONDS = 180  # on two cores half as long
SECOND = {"00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "12", "13"}
"""Chapters in their second edition, which the rules of calm pages and telling claims hold for."""
CALM_LINES, CALM_MEDIAN, CALM_CLAIMS, CALM_SECONDS = 15, 7, 15, 90
LOOSE, HALF = 20, 0.5
EXACT = 1e-6  # below it a tolerance or a bound is of rounding, not of size
SECTIONS = ["When this fails", "Summary", "Exercises", "References"]
CLAIM = re.compile(r"✓ \S.*: measured \S[^,]*, expected \S.* \[\s*\S.*\]")
EXERCISE = re.compile(r"\*\*Exercise \(.+?\)\.\*\* <a id=\"ex-[\w-]+\"></a>")
LEVEL = re.compile(r"\n\n\*Level [123], [1-9]\d? minutes\.\*\Z")
INNER_BOX = re.compile(r"(?<=\n)\*\*[A-Z][a-z]+(?: \(.+?\))?\.\*\*[ \t]*<a id=\"([\w-]+)\"></a>")
CITATION = re.compile(r"\(#cite-([\w-]+)\)")
BROKEN_MARKDOWN = {
    r"\\bm\b": r"\bm is unknown to MathJax, write \boldsymbol",
    r"\\tag\b": r"\tag fails in displays of several lines, write $$ (eq-x)",
    r"\\begin\{(align|eqnarray|gather)\*?\}": r"write $$ \begin{aligned} … \end{aligned} $$",
    r"^(```+|:::+)\{": "a MyST directive is raw text in Colab",
    r"\{(cite|numref|eq|prf:ref|ref)[\w:]*\}`": "a MyST role is raw text in Colab",
    r"^(?!> *\$\$$)(?!\$\$(?: \(eq-[\w-]+\))?$).*\$\$.*$": "write $$ and $$ (eq-x) on lines of their own",
    r"^> *\$\$\s*$": "a display of several lines inside a quote shows stray > in JupyterLab",
}


@dataclass
class Chapter:
    """A chapter, and the names that it may refer to."""

    name: str
    notebook: NotebookNode
    citations: set[str]
    chapters: set[str]

    @cached_property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    @cached_property
    def story(self) -> list[NotebookNode]:
        """The code cells that tell the story: no installation, set-up, versions or solutions."""
        return [
            cell
            for cell in self.code
            if not tags(cell) & {"colab-only", "solution"}
            and not re.search(r"book\.(setup|versions)\(", cell.source)
        ]

    @cached_property
    def prose(self) -> str:
        written = [
            cell
            for cell in self.notebook.cells
            if cell.cell_type == "markdown" and "colab-only" not in tags(cell)
        ]
        return "\n\n".join(cell.source for cell in written)

    @cached_property
    def pictures(self) -> list["Figure"]:
        outputs = [output for cell in self.code for output in cell.outputs]
        html = [output.get("data", {}).get("text/html", "") for output in outputs]
        return [Figure(text) for text in html if "<figure" in text]


class Figure(HTMLParser):
    """The id, the caption and the alternative texts of a displayed figure."""

    def __init__(self, html: str):
        super().__init__()
        self.id, self.caption, self.alts, self._in_caption = "", "", [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "figure":
            self.id = attributes.get("id") or ""
        elif tag == "img":
            self.alts.append((attributes.get("alt") or "").strip())
        self._in_caption = self._in_caption or tag == "figcaption"

    def handle_endtag(self, tag):
        self._in_caption = self._in_caption and tag != "figcaption"

    def handle_data(self, data):
        if self._in_caption:
            self.caption += data


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def in_sight(chapter: Chapter) -> list[NotebookNode]:
    """The cells of the story whose code a page shows."""
    return [cell for cell in chapter.story if not tags(cell) & {"hide-input", "hide-cell"}]


def lines_of(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def stdout(cell: NotebookNode) -> list[str]:
    return [
        line for output in cell.outputs if output.get("name") == "stdout" for line in output.text.splitlines()
    ]


def outside(number: float, bounds: tuple[int, int], what: str) -> Iterator[str]:
    if not bounds[0] <= number <= bounds[1]:
        yield f"{number} {what}, expected {bounds[0]} to {bounds[1]}"


def executed(chapter: Chapter) -> Iterator[str]:
    counts = [cell.execution_count for cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, expected 1 to {len(counts)} in order"


def clean_outputs(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.code:
        for output in cell.outputs:
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"cell {cell.execution_count} has an error or writes to stderr"
            elif re.search(r"Traceback|\b\w*Warning\b", text):
                yield f"cell {cell.execution_count} shows a warning or a traceback"
            if {"image/png", "image/jpeg", "image/svg+xml"} & set(output.get("data", {})):
                number = cell.execution_count
                yield f"cell {number} shows a picture without caption and alt text, use figures.show"


def cell_lengths(chapter: Chapter) -> Iterator[str]:
    yield from outside(len(chapter.story), CELLS, "code cells")
    for cell in chapter.code:
        if (lines := cell.source.count("\n") + 1) > CELL_LINES:
            yield f"cell {cell.execution_count} has {lines} lines, more than {CELL_LINES}"
    lengths = [lines_of(cell) for cell in in_sight(chapter)]
    if lengths and median(lengths) > MEDIAN_LINES:
        yield f"the median visible cell has {median(lengths)} lines, more than {MEDIAN_LINES}"


def words(chapter: Chapter) -> Iterator[str]:
    lecture = chapter.prose.partition("\n## Exercises\n")[0]
    text = re.sub(r"\$\$.*?\$\$( \(eq-[\w-]+\))?|</?[a-z][^>]*>|\]\([^)]*\)", " ", lecture, flags=re.S)
    bounds = WORDS_OF.get(chapter.name[:2], WORDS)
    yield from outside(len(re.findall(r"[^\W\d_]\S*", re.sub(r"\$[^$]*\$", "x", text))), bounds, "words")


def figures(chapter: Chapter) -> Iterator[str]:
    yield from outside(len(chapter.pictures), FIGURES, "figures")
    for figure in chapter.pictures:
        if not figure.id.startswith(f"fig-{chapter.name[:2]}-"):
            yield f"figure {figure.id!r}: expected a name that starts with fig-{chapter.name[:2]}-"
        if not figure.caption.strip():
            yield f"figure {figure.id} has no caption"
        for alt in figure.alts:
            if len(alt) < ALT_LETTERS or not alt.endswith(".") or alt == figure.caption.strip():
                yield f"figure {figure.id}: alt text {alt!r} does not say in a sentence what is to be seen"


def skeleton(chapter: Chapter) -> Iterator[str]:
    cells = chapter.notebook.cells
    if not re.match(rf"# {chapter.name[:2]} \S", cells[0].source):
        yield f"the first cell does not start with '# {chapter.name[:2]} Title'"
    learn = re.search(r"\*\*You will learn\*\*\s+((?:[-*] .+(?:\n {2}.+)*\n?)+)", chapter.prose)
    if learn is None or len(re.findall(r"^[-*] ", learn[1], re.M)) != 3:
        yield "no '**You will learn**' with three points"
    if "**You need**" not in chapter.prose:
        yield "no '**You need**'"
    found = [
        title.strip()
        for title in re.findall(r"^## ([^<\n]*)", chapter.prose, re.M)
        if title.strip() in SECTIONS
    ]
    if found != SECTIONS:
        yield f"sections {found}, expected {SECTIONS} in this order"


def hidden_cells(chapter: Chapter) -> Iterator[str]:
    setup = [cell for cell in chapter.code if "book.setup()" in cell.source]
    if len(setup) != 1 or "hide-input" not in tags(setup[0]):
        yield "no single cell tagged hide-input that calls book.setup()"
    last = chapter.code[-1]
    if "book.versions()" not in last.source or "nbval-ignore-output" not in tags(last):
        yield "the last code cell is not book.versions(), tagged nbval-ignore-output"
    for cell in chapter.code[:-1]:
        if tags(cell) & {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}:
            yield f"cell {cell.execution_count} escapes the comparison of outputs"
        if re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)", cell.source):
            yield f"cell {cell.execution_count} escapes the comparison of outputs by a comment"


def claims(chapter: Chapter) -> Iterator[str]:
    lines = [line for cell in chapter.story for line in stdout(cell) if line.startswith("✓")]
    if len(lines) < CLAIMS:
        yield f"{len(lines)} checked claims outside the solutions, expected at least {CLAIMS}"
    for line in (line for cell in chapter.code for line in stdout(cell)):
        if line.startswith("✓") and not CLAIM.fullmatch(line):
            yield f"claim without measured value, expected value or source: {line!r}"


def exercises(chapter: Chapter) -> Iterator[str]:
    cells = chapter.notebook.cells
    starts = [i for i, cell in enumerate(cells) if cell.source.startswith("**Exercise")]
    yield from outside(len(starts), EXERCISES, "exercises")
    for number, start in enumerate(starts, 1):
        if not EXERCISE.match(cells[start].source):
            yield f"exercise {number} does not start with '**Exercise (Title).** <a id=\"ex-…\"></a>'"
        if not LEVEL.search(cells[start].source):
            yield f"exercise {number} does not end with '*Level 2, 20 minutes.*'"
        solution = []
        for cell in cells[start + 1 :]:
            if "solution" not in tags(cell):
                break
            solution += [cell] if cell.cell_type == "code" else []
        calls = [cell for cell in solution if re.search(r"\bcheck(_\w+)?\(", cell.source)]
        if not any(CLAIM.fullmatch(line) for cell in calls for line in stdout(cell)):
            yield f"exercise {number} is not followed by a solution that checks itself"
        for cell in solution:
            folded = cell.metadata.get("jupyter", {})
            hidden = (
                cell.metadata.get("cellView") == "form"
                and folded.get("source_hidden")
                and folded.get("outputs_hidden")
            )
            if not hidden or not cell.source.startswith("#@title Solution"):
                yield f"the solution of exercise {number} is not hidden in Colab and JupyterLab"


def markdown(chapter: Chapter) -> Iterator[str]:
    for pattern, reason in BROKEN_MARKDOWN.items():
        for match in re.finditer(pattern, chapter.prose, re.M):
            yield f"{match[0]!r}: {reason}"
    for cell in chapter.notebook.cells:
        if cell.cell_type == "markdown" and (label := INNER_BOX.search(cell.source)):
            yield f"{label[1]} is not at the start of its cell, so it would be no box"
    for header in re.findall(r"^\|(.*)\|[ \t]*\n\|[-:| \t]+\|[ \t]*$", chapter.prose, re.M):
        if not all(cell.strip() for cell in header.split("|")):
            yield f"table column without a heading: {header.strip()!r}"
    for target in re.findall(r"\]\(([\w-]+\.ipynb)(?:#[\w-]*)?\)", chapter.prose):
        if target not in chapter.chapters:
            yield f"link to {target}, which does not exist; name the chapter without a link"


def references(chapter: Chapter) -> Iterator[str]:
    text, _, listed = chapter.prose.partition("## References")
    for key in sorted(set(CITATION.findall(chapter.prose)) - chapter.citations):
        yield f"citation of {key}, which is not in references.bib"
    for key in sorted(set(CITATION.findall(text)) - set(CITATION.findall(listed))):
        yield f"{key} is cited but not listed under References"
    if not CITATION.search(listed):
        yield "nothing is listed under References"


def time(chapter: Chapter) -> Iterator[str]:
    seconds = chapter.notebook.metadata.get("ntk_book", {}).get("cpu_seconds", 0)
    if not 0 < seconds <= CPU_SECONDS:
        yield f"{seconds} CPU seconds, expected 1 to {CPU_SECONDS}"


def calm(chapter: Chapter) -> Iterator[str]:
    if chapter.name[:2] not in SECOND:
        return
    shown = in_sight(chapter)
    lengths = [lines_of(cell) for cell in shown]
    for cell, length in zip(shown, lengths):
        if length > CALM_LINES:
            yield f"visible cell {cell.execution_count} has {length} lines, more than {CALM_LINES}"
    if lengths and median(lengths) > CALM_MEDIAN:
        yield f"the median visible cell has {median(lengths)} lines, more than {CALM_MEDIAN}"
    claims = [
        line
        for cell in chapter.story
        if "hide-cell" not in tags(cell)
        for line in stdout(cell)
        if line.startswith("✓")
    ]
    if len(claims) > CALM_CLAIMS:
        yield f"{len(claims)} claims in sight, more than {CALM_CLAIMS}: fold statistics by hide-cell"
    seconds = chapter.notebook.metadata.get("ntk_book", {}).get("cpu_seconds", 0)
    if seconds > CALM_SECONDS:
        yield f"{seconds} CPU seconds, more than {CALM_SECONDS}"


def telling(chapter: Chapter) -> Iterator[str]:
    """A bound that is nearly met, a tolerance well below the value; or the cell says `# loose: why`."""
    if chapter.name[:2] not in SECOND:
        return
    for cell in chapter.code:
        if re.search(r"^\s*# loose: \S", cell.source, re.M):
            continue
        for line in filter(CLAIM.fullmatch, stdout(cell)):
            if problem := _not_telling(line):
                yield f"cell {cell.execution_count}: {problem}: {line!r}"


def _not_telling(line: str) -> str | None:
    number = r"(-?[\d.]+(?:e[-+]?\d+)?)"
    if found := re.search(rf": measured {number}, expected [<>] {number}", line):
        measured, bound = map(float, found.groups())
        exact = abs(bound) <= EXACT
        if not exact and bound and (measured * bound <= 0 or not 1 / LOOSE <= measured / bound <= LOOSE):
            return f"the bound is missed by a factor of more than {LOOSE}"
    if found := re.search(rf": measured {number}, expected {number} ± {number}", line):
        _, expected, tolerance = map(float, found.groups())
        if expected and tolerance > HALF * abs(expected):
            return "the tolerance is above half of what is expected"
    return None


RULES = [
    executed,
    clean_outputs,
    cell_lengths,
    words,
    figures,
    skeleton,
    hidden_cells,
    claims,
    exercises,
    markdown,
    references,
    time,
    calm,
    telling,
]


APPENDIX_RULES = [executed, clean_outputs, hidden_cells, claims, markdown, time]


def lint(chapter: Chapter) -> list[str]:
    """Return everything that is wrong with a chapter, or with an appendix, which has no number."""
    rules = RULES if chapter.name[:2].isdigit() else APPENDIX_RULES
    return [f"{rule.__name__}: {problem}" for rule in rules for problem in rule(chapter)]


def citation_keys(bibliography: Path) -> set[str]:
    """Return the keys of a BibTeX file."""
    return set(re.findall(r"^@\w+\{\s*([\w-]+)\s*,", bibliography.read_text(encoding="utf-8"), re.M))
