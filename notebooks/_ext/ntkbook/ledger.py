"""The ledger: every checked claim of the book, from the stored outputs of its notebooks."""

import re
from collections import Counter
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .outputs import CLAIM
from .trials import Trials

__all__ = ["Claim", "Ledger", "claims_of"]


EXACT = 1e-6
"""A tolerance or a bound below it is of rounding."""
SAMPLED = re.compile(r" \((?P<draws>[\d and]+) draws(?:; (?P<shows>\S+) would show)?\)$")


@dataclass(frozen=True)
class Claim:
    """A line that ``check`` or one of its kin printed, its number on the page, and whether it is part of a
    solution."""

    number: int
    claim: str
    measured: str
    compared: str
    source: str
    in_solution: bool

    @property
    def expected(self) -> str:
        return re.split(" ± | with ± ", SAMPLED.sub("", self.compared))[0]

    @property
    def tolerance(self) -> str:
        value, _, tolerance = SAMPLED.sub("", self.compared).partition(" ± ")
        return "a bound" if value.startswith(("<", ">")) or not tolerance else tolerance

    @property
    def kind(self) -> str:
        """Statistics takes samples, arithmetic holds to rounding, and the rest is mathematics."""
        if SAMPLED.search(self.compared):
            return "statistics"
        size = self.expected[2:] if self.tolerance == "a bound" else self.tolerance
        return "arithmetic" if abs(float(size)) <= EXACT else "mathematics"

    @property
    def notices(self) -> str:
        """The smallest error that the claim would notice: in nine cases of ten, where numbers are random."""
        sampled = SAMPLED.search(self.compared)
        if sampled is None:
            return self.tolerance if self.tolerance != "a bound" else "beyond the bound"
        room = SAMPLED.sub("", self.compared).partition("± ")[2]
        return f"{sampled['shows'] or room or 'beyond the bound'}, {sampled['draws']} draws"


def claims_of(notebook: Path) -> tuple[str, list[Claim]]:
    """The title of a notebook and its claims, numbered as on its page."""
    cells = nbformat.read(notebook, as_version=4).cells
    lines = [
        (CLAIM.match(line), "solution" in cell.metadata.get("tags", []))
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") == "stdout"
        for line in output.text.splitlines()
        if CLAIM.match(line)
    ]
    title = re.match(r"# (.+)", cells[0].source)[1]
    return title, [
        Claim(number, *match.groups(), in_solution) for number, (match, in_solution) in enumerate(lines, 1)
    ]


class Ledger(SphinxDirective):
    """``ledger``: counts, and a table of claims for each notebook."""

    def run(self) -> list[nodes.Node]:
        files = sorted(Path(self.env.srcdir).glob("*.ipynb"))
        for file in files:
            self.env.note_dependency(str(file))
        self.env.note_dependency(str(Path(self.env.srcdir) / "stored" / "trials.json"))
        trials = Trials(Path(self.env.srcdir))
        ledger = {file.stem: claims_of(file) for file in files}
        return [
            *self.parse_text_to_nodes(_counts([claims for _, claims in ledger.values()])),
            nodes.raw("", _SEARCH, format="html"),
            *(_section(stem, title, claims, trials) for stem, (title, claims) in ledger.items()),
        ]


HEADS = ("Claim", "Kind", "Measured", "Expected", "Tolerance", "Would notice", "Planted errors", "Source")
_SEARCH = (
    '<p class="ntk-ledger-search">'
    '<label>Show the claims with <input type="search" autocomplete="off"></label> '
    '<output aria-live="polite"></output></p>'
)


def _counts(ledger: list[list[Claim]]) -> str:
    claims = [claim for part in ledger for claim in part]
    kinds = Counter(claim.kind for claim in claims)
    bounds = sum(claim.tolerance == "a bound" for claim in claims)
    return (
        f"**{len(claims)} claims** in {len(ledger)} notebooks: "
        f"{kinds['mathematics']} of mathematics, {kinds['arithmetic']} of arithmetic, "
        f"{kinds['statistics']} of statistics; "
        f"{len(claims) - bounds} compare with a value, {bounds} with a bound; "
        f"{sum(claim.in_solution for claim in claims)} are in solutions of exercises."
    )


def _section(stem: str, title: str, claims: list[Claim], trials: Trials) -> nodes.section:
    section = nodes.section(
        "", nodes.title("", f"{title}: {len(claims)} claims"), ids=[f"ledger-{stem.replace('_', '-')}"]
    )
    section["names"] = list(section["ids"])
    rows = "".join(_row(stem, claim, trials.noticed(stem, claim.claim)) for claim in claims)
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    table = (
        '<div class="pst-scrollable-table-container" tabindex="0" role="region" '
        f'aria-label="Claims of {escape(title)}"><table class="table ntk-ledger">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    section += nodes.raw("", table, format="html")
    return section


def _row(stem: str, claim: Claim, planted: int | None) -> str:
    texts = (
        *(claim.kind, claim.measured, claim.expected, claim.tolerance, claim.notices),
        "not tried" if planted is None else str(planted),
        claim.source,
    )
    cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
    return f'<tr><td><a href="{stem}.html#claim-{claim.number}">{escape(claim.claim)}</a></td>{cells}</tr>'
