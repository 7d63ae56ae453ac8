"""The ``stored-runs`` directive: what each notebook's stored run took, the long runs that chapters read, a
run on a GPU where there is one, and the versions asked for."""

import json
import re
import tomllib
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

__all__ = ["StoredRuns", "chapters", "gpu", "long_runs", "table", "versions"]


class StoredRuns(SphinxDirective):
    """A table made from files: ``chapters``, ``long`` and ``gpu`` from what is stored beside the page,
    ``versions`` from pyproject.toml."""

    required_arguments = 1

    def run(self) -> list:
        make = {"chapters": chapters, "long": long_runs, "gpu": gpu, "versions": versions}
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
    return table(["Notebook", "CPU seconds", "Peak memory", "Date", "JAX"], rows)


def long_runs(folder: Path) -> str:
    """The table of the runs in `stored`: command, rows, CPU hours, date, versions, and the start of the
    hash."""
    rows = []
    for path in sorted(folder.glob("stored/[0-9]*.json")):  # each is a chapter's
        content = json.loads(path.read_text(encoding="utf-8"))
        about, hours = content["about"], sum(row["seconds"] for row in content["rows"]) / 3600
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        count, digest = f"{len(content['rows']):,}", f"`{about['sha256'][:12]}`"
        rows.append([f"`{about['command']}`", count, f"{hours:.1f}", about["date"], versions, digest])
    return table(["Command", "Rows", "CPU hours", "Date", "Versions", "SHA-256"], rows)


def gpu(folder: Path) -> str:
    """What `make gpu` found and timed, with its device and date; nothing where no such run is stored."""
    path = folder / "stored" / "gpu.json"
    if not path.is_file():
        return ""
    content = json.loads(path.read_text(encoding="utf-8"))
    about, rows = content["about"], content["rows"]
    checks = [row for row in rows if row["section"] == "check"]
    times = [row for row in rows if row["section"] == "time"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        f"On one {about['device']}, on {about['date']}, by `{about['command']}`: {versions}.",
        "The error of each kernel against its float64 value on the CPU, relative to the largest entry; the "
        "float32 products around it may round to TF32, or not:",
        _errors(checks),
        "And the times, compiled, in float32. A ratio is theirs to ours; the peak is the device's own rate "
        "in the float32 product of the first row:",
        _times(times),
    ]
    failed = [row for row in rows if "failed" in row]
    if failed:
        parts += ["What failed, or found no time:"]
        parts += [
            "\n".join(f"- {row['what']} ({row.get('who', 'check')}): {row['failed']}" for row in failed)
        ]
    return "\n\n".join(parts)


def _errors(rows: list[dict]) -> str:
    columns = ["float32", "float32, TF32", "float64", "float64, TF32"]
    cell = lambda row, name: f"{row[name]:.1e}" if name in row else ""
    return table(
        ["Kernel", *columns], [[row["what"], *(cell(row, name) for name in columns)] for row in rows]
    )


def _times(rows: list[dict]) -> str:
    ours = {row["what"]: row["seconds"] for row in rows if row["who"] == "ntk_helpers" and "seconds" in row}
    body = []
    for row in rows:
        if "seconds" not in row:
            continue
        rival = row["who"] != "ntk_helpers" and row["what"] in ours
        ratio = f"{row['seconds'] / ours[row['what']]:.1f}" if rival else ""
        of_peak = f"{row['of_peak']:.0%}" if "of_peak" in row else ""
        rate = f"{row['flops_per_second'] / 1e12:.1f} TFLOP/s" if "flops_per_second" in row else of_peak
        body.append([row["what"], row["who"], f"{1e3 * row['seconds']:.3g} ms", ratio, rate])
    return table(["What", "Who", "Time", "Ratio", "Rate, or part of the peak"], body)


def versions(folder: Path) -> str:
    """The table of the Python and the packages that `ntk_helpers` itself asks for."""
    project = tomllib.loads((folder.parent / "pyproject.toml").read_text())["project"]
    asked = [re.match(r"([\w-]+)(.*)", requirement).groups() for requirement in project["dependencies"]]
    return table(["Needs", "Version"], [["Python", project["requires-python"]], *map(list, asked)])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown whose dates stay on one line."""
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
    return re.sub(r"(?<=\d)-(?=\d)", "\N{NON-BREAKING HYPHEN}", text)
