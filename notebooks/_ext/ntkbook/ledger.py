"""The ledger: every checked claim of the book, from the stored outputs of its notebooks."""

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .outputs import CLAIM

__all__ = ["Claim", "Ledger", "claims_of"]


@dataclass(frozen=True)
class Claim:
    """A line that ``check`` printed, its number on the page, and whether it is part of a solution."""

    number: int
    claim: str
    measured: str
    expected: str
    source: str
    in_solution: bool

    @property
    def tolerance(self) -> str:
        return self.expected.partition(" ± ")[2] or "a bound"


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
        ledger = {file.stem: claims_of(file) for file in files}
        return [
            *self.parse_text_to_nodes(_counts([claims for _, claims in ledger.values()])),
            nodes.raw("", _SEARCH, format="html"),
            *(_section(stem, title, claims) for stem, (title, claims) in ledger.items()),
        ]


_SEARCH = (
    '<p class="ntk-ledger-search">'
    '<label>Show the claims with <input type="search" autocomplete="off"></label> '
    '<output aria-live="polite"></output></p>'
)


def _counts(ledger: list[list[Claim]]) -> str:
    claims = [claim for part in ledger for claim in part]
    bounds = sum(claim.tolerance == "a bound" for claim in claims)
    return (
        f"**{len(claims)} claims** in {len(ledger)} notebooks: "
        f"{len(claims) - bounds} compare with a value, {bounds} with a bound; "
        f"{sum(claim.in_solution for claim in claims)} are in solutions of exercises."
    )


def _section(stem: str, title: str, claims: list[Claim]) -> nodes.section:
    section = nodes.section(
        "", nodes.title("", f"{title}: {len(claims)} claims"), ids=[f"ledger-{stem.replace('_', '-')}"]
    )
    section["names"] = list(section["ids"])
    rows = "".join(_row(stem, claim) for claim in claims)
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("Claim", "Measured", "Expected", "Tolerance", "Source")
    )
    table = (
        '<div class="pst-scrollable-table-container" tabindex="0" role="region" '
        f'aria-label="Claims of {escape(title)}"><table class="table ntk-ledger">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    section += nodes.raw("", table, format="html")
    return section


def _row(stem: str, claim: Claim) -> str:
    expected = claim.expected.partition(" ± ")[0]
    cells = "".join(
        f"<td>{escape(text)}</td>" for text in (claim.measured, expected, claim.tolerance, claim.source)
    )
    return f'<tr><td><a href="{stem}.html#claim-{claim.number}">{escape(claim.claim)}</a></td>{cells}</tr>'
