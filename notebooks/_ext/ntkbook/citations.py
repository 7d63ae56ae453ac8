"""Citations as "Jacot et al. (2018)", with round brackets; sphinxcontrib-bibtex has square ones."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pybtex.database import parse_file
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

__all__ = ["RoundAuthorYear", "link_citations"]

BIBLIOGRAPHY = Path(__file__).resolve().parents[2] / "references.bib"


def _round() -> BracketStyle:
    return BracketStyle(left="(", right=")")


@dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """Author and year, in round brackets."""

    bracket_parenthetical: BracketStyle = field(default_factory=_round)
    bracket_textual: BracketStyle = field(default_factory=_round)
    bracket_author: BracketStyle = field(default_factory=_round)
    bracket_label: BracketStyle = field(default_factory=_round)
    bracket_year: BracketStyle = field(default_factory=_round)


def link_citations(text: str) -> str:
    """Link the year in "Lee et al. 2019", "Mei & Montanari (2022)" where the bibliography has such a
    paper."""
    return _pattern().sub(_linked, text)


def _linked(match: re.Match) -> str:
    names, between, year = match.groups()
    key = _keys().get((" ".join(names.split()), year))
    return f"{names}{between}{{cite:year}}`{key}`" if key else match[0]


@lru_cache
def _keys() -> dict[tuple[str, str], str]:
    """(authors as a docstring names them, year): key. Of hanin2020 and hanin2020products the one without a
    suffix is meant."""
    found = {}
    for key, entry in sorted(
        parse_file(BIBLIOGRAPHY).entries.items(), key=lambda item: item[0][-1].isdigit()
    ):
        names = [
            " ".join(map(str, author.rich_prelast_names + author.rich_last_names))
            for author in entry.persons["author"]
        ]
        forms = [" & ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names), f"{names[0]} et al."]
        found |= {(form, entry.fields["year"]): key for form in forms[: len(names)]}
    return found


@lru_cache
def _pattern() -> re.Pattern:
    names = sorted({name for name, _ in _keys()}, key=len, reverse=True)
    either = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names)
    return re.compile(rf"\b({either})(\s+\(?)(\d{{4}})\b")
