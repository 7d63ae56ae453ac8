"""What the trials of `make trials` found: the claims on trial with other keys and with planted errors."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

from .runs import table

__all__ = ["PlantedErrors", "Slips", "Trials"]


class Trials:
    """The stored trials of the notebooks in a folder; none where nothing is stored."""

    def __init__(self, folder: Path):
        path = folder / "stored" / "trials.json"
        self.notebooks = len(list(folder.glob("*.ipynb")))
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.about: dict = stored.get("about", {})
        self.errors: dict[str, list[str]] = stored.get("errors", {})
        self.claims: dict[str, list[str]] = stored.get("claims", {})
        rows = stored.get("rows", [])
        self.keys = [row for row in rows if row["trial"].startswith("keys-")]
        self.planted = {
            (row["trial"], row["notebook"]): row
            for row in rows
            if row["trial"] in self.errors and row["notebook"] in self.claims
        }
        self.slips = {row["notebook"]: row for row in rows if row["trial"] == "slips"}
        self._noticed = Counter(
            (row["notebook"], text)
            for row in [*self.planted.values(), *self.slips.values()]
            for _, text in row["failed"]
        )

    def noticed(self, notebook: str, claim: str) -> int | None:
        """How many planted errors a claim noticed, a notebook's slips as one; None if it was not on trial."""
        return self._noticed[notebook, claim] if claim in self.claims.get(notebook, []) else None

    def noticers(self, error: str, notebook: str) -> int | None:
        """How many claims of a notebook noticed an error; None where its code is not called."""
        row = self.planted.get((error, notebook))
        return None if row is None else len(row["failed"])


def matrix(trials: Trials) -> str:
    """Counts in words, and the table of errors and notebooks."""
    stems = list(trials.claims)
    versions = ", ".join(f"{name} {version}" for name, version in trials.about["versions"].items())
    tried = [(stem, claim) for stem in stems for claim in trials.claims[stem]]
    noticing = {(row["notebook"], text) for row in trials.planted.values() for _, text in row["failed"]}
    planted = {error for error, _ in trials.planted}
    rows = []
    for error, (wrong, file) in trials.errors.items():
        counts = [trials.noticers(error, stem) for stem in stems]
        counts.append(sum(filter(None, counts)) if any(count is not None for count in counts) else None)
        rows.append([f"{wrong} (`{file}`)", *("·" if count is None else str(count) for count in counts)])
    failed = sum(len(row["failed"]) for row in trials.keys)
    return (
        f"**{len(noticing & set(tried))} of {len(tried)} claims** in the {len(stems)} of {trials.notebooks} "
        f"notebooks that were tried so far noticed at least one of the {len(planted)} errors whose code they "
        f"call ({trials.about['date']}; {versions}). In {len(trials.keys)} trials with other keys {failed} "
        "claims failed.\n\n"
        + table(["What is wrong", *(f"[{_short(stem)}]({stem}.ipynb)" for stem in stems), "all"], rows)
    )


def slips_table(trials: Trials) -> str:
    """Counts in words, and the table of slips and the claims that should notice them."""
    rows = []
    for stem, row in trials.slips.items():
        failed = [text for _, text in row["failed"]]
        for claim, wrong in row["slips"]:
            noticed = [text for text in failed if text.startswith(claim)]
            page, said = f"[{_short(stem)}]({stem}.ipynb)", "yes" if noticed else "**no**"
            whole = noticed[0] if noticed else f"{claim} …"
            rows.append([page, *(text.replace("|", "\\|") for text in (wrong, whole)), said])
    noticed = sum(row[-1] == "yes" for row in rows)
    return f"**{noticed} of {len(rows)} slips** were noticed.\n\n" + table(
        ["Page", "What is wrong", "Claim", "Noticed"], rows
    )


def _short(stem: str) -> str:
    """The number of a chapter, the name of an appendix."""
    return stem[:2] if stem[:2].isdigit() else stem.replace("_", " ")


class TrialTable(SphinxDirective):
    """What `say` makes of the stored trials."""

    say: Callable[[Trials], str]

    def run(self) -> list:
        folder = Path(self.env.srcdir)
        self.env.note_dependency(str(folder / "stored" / "trials.json"))
        return self.parse_text_to_nodes(self.say(Trials(folder)))


class PlantedErrors(TrialTable):
    """``planted-errors``: what was tried, and how many claims of each notebook noticed each error."""

    say = staticmethod(matrix)


class Slips(TrialTable):
    """``slips``: the errors in the notebooks' own cells, and which claims noticed."""

    say = staticmethod(slips_table)
