"""The ``stored-runs`` directive: what each notebook's stored run took, the long runs that chapters read, and
the versions asked for."""

import json
import re
import tomllib
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

__all__ = ["StoredRuns", "chapters", "long_runs", "versions"]


class StoredRuns(SphinxDirective):
    """A table made from files: ``chapters`` and ``long`` from what is stored beside the page, ``versions``
    from pyproject.toml."""

    required_arguments = 1

    def run(self) -> list:
        make = {"chapters": chapters, "long": long_runs, "versions": versions}
        if self.arguments[0] not in make:
            raise self.error(f"stored-runs takes one of {', '.join(make)}, not {self.arguments[0]}.")
        folder = Path(self.env.srcdir)
        for path in [
            *folder.glob("*.ipynb"),
            *folder.glob("stored/*.json"),
            folder.parent / "pyproject.toml",
        ]:
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(make[self.arguments[0]](folder))


def chapters(folder: Path) -> str:
    """The table of the notebooks: CPU seconds, peak memory, date and JAX of each stored run."""
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        title = "".join(notebook["cells"][0]["source"]).partition("\n")[0].removeprefix("# ")
        stored = notebook["metadata"]["ntk_book"]
        peak = f"{stored['peak_mb']:,} MB" if "peak_mb" in stored else "not stored"
        rows.append(
            [f"[{title}]({path.name})", str(stored["cpu_seconds"]), peak, stored["date"], stored["jax"]]
        )
    return _table(["Notebook", "CPU seconds", "Peak memory", "Date", "JAX"], rows)


def long_runs(folder: Path) -> str:
    """The table of the runs in `stored`: command, rows, CPU hours, date, versions, and the start of the
    hash."""
    rows = []
    for path in sorted(folder.glob("stored/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        about, hours = content["about"], sum(row["seconds"] for row in content["rows"]) / 3600
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        count, digest = f"{len(content['rows']):,}", f"`{about['sha256'][:12]}`"
        rows.append([f"`{about['command']}`", count, f"{hours:.1f}", about["date"], versions, digest])
    return _table(["Command", "Rows", "CPU hours", "Date", "Versions", "SHA-256"], rows)


def versions(folder: Path) -> str:
    """The table of the Python and the packages that `ntk_helpers` itself asks for."""
    project = tomllib.loads((folder.parent / "pyproject.toml").read_text())["project"]
    asked = [re.match(r"([\w-]+)(.*)", requirement).groups() for requirement in project["dependencies"]]
    return _table(["Needs", "Version"], [["Python", project["requires-python"]], *map(list, asked)])


def _table(head: list[str], rows: list[list[str]]) -> str:
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
    return re.sub(r"(?<=\d)-(?=\d)", "\N{NON-BREAKING HYPHEN}", text)  # dates stay on one line
