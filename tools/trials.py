"""What a claim is worth: every notebook on trial, with other random numbers and with planted errors.

    python tools/trials.py keys [NAME ...]      five times with other keys: no claim may fail
    python tools/trials.py planted [NAME ...]   once with each error of tools/planted.py: which claims notice?

A claim that fails does not stop a trial. It takes hours: one notebook after the other, each trial a file in
.stored/trials/, so that a run which was stopped goes on. Each call ends by writing what is finished
to notebooks/stored/trials.json, with the date, the versions and a hash of the numbers; `keys`
exits with 1 where a claim failed.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from planted import ERRORS

import notebooks
from ntk_helpers.book import digest

ROOT = Path(__file__).resolve().parent.parent
KEYS = range(1, 6)
SAID = re.compile(r"^([✓✗]) (.+?): measured ", re.M)
PRELUDE = """
import jax, numpy as np
import ntk_helpers.book.claims as claims
key, generator = jax.random.key, np.random.default_rng
jax.random.key = lambda seed, **options: key(seed + 1000 * {shift}, **options)
np.random.default_rng = lambda seed=None: generator(seed if seed is None else seed + 1000 * {shift})
def report(claim, measured, expected, holds, source):
    print("✓" if holds else "✗", f"{{claim}}: measured {{measured}}, expected {{expected}} [{{source}}]")
claims._report = report
"""


def trial(path: Path, shift: int, package: Path) -> dict:
    """The claims of a notebook that fail and those that are not reached, by number, and the errors of cells.

    The random numbers are those of keys moved by 1000 times `shift`; `package` is the one that is imported.
    """
    stored = nbformat.read(path, as_version=4)
    tried = nbformat.from_dict(stored)
    tried.cells.insert(0, new_code_cell(PRELUDE.format(shift=shift)))
    with environment(PYTHONPATH=str(package.parent)):
        client = NotebookClient(
            tried,
            kernel_manager_class=notebooks.BookKernel,
            timeout=None,
            iopub_timeout=notebooks.OUTPUT_TIMEOUT,
            allow_errors=True,
            coalesce_streams=True,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute()
    found: dict[str, list] = {"failed": [], "lost": [], "errors": []}
    number = 0
    for before, after in zip(stored.cells, tried.cells[1:]):
        said = claims_of(after)
        for k, (_, text) in enumerate(claims_of(before)):
            number += 1
            if k >= len(said):
                found["lost"].append([number, text])
            elif said[k][0] == "✗":
                found["failed"].append([number, text])
        found["errors"] += [
            f"{output.ename}: {output.evalue}"[:200]
            for output in after.get("outputs", [])
            if output.output_type == "error"
        ]
    return {"notebook": path.stem, "claims": number} | found


def claims_of(cell: NotebookNode) -> list[tuple[str, str]]:
    """The marks and the texts of a cell's claims."""
    streams = [o.text for o in cell.get("outputs", []) if o.get("name") == "stdout"]
    return [claim for text in streams for claim in SAID.findall(text)]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """The environment that kernels inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def trials(kind: str) -> Iterator[tuple[str, int, object]]:
    """Name, shift of keys and planted error of each trial."""
    if kind == "keys":
        yield from ((f"keys-{shift}", shift, None) for shift in KEYS)
    else:
        yield from ((error.name, 0, error) for error in ERRORS)


def sources() -> str:
    """What a finished trial holds for: the package's text."""
    files = sorted((ROOT / "ntk_helpers").rglob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def compute(kind: str, paths: list[Path]) -> list[dict]:
    """The trials of one kind; those that are finished for this package and this notebook are read."""
    folder, rows, of_package = ROOT / ".stored" / "trials", [], sources()
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        holds_for = sha256(path.read_bytes()).hexdigest()[:12] + of_package[:12]
        for name, shift, error in trials(kind):
            file = folder / f"{path.stem}_{name}.json"
            row = json.loads(file.read_text()) if file.exists() else {}
            if row.get("holds_for") != holds_for:
                with tempfile.TemporaryDirectory() as copy:
                    package = Path(copy) / "ntk_helpers"
                    shutil.copytree(
                        ROOT / "ntk_helpers", package, ignore=shutil.ignore_patterns("__pycache__")
                    )
                    if error:
                        error.plant(package)
                    row = {"trial": name, "holds_for": holds_for} | trial(path, shift, package)
                file.write_text(json.dumps(row))
            print(f"{path.stem} {name}: {len(row['failed'])} of {row['claims']} claims fail, "
                  f"{len(row['lost'])} are not reached", flush=True)  # fmt: skip
            rows.append(row)
    return rows


def collect() -> None:
    """Write what is finished, one trial a line."""
    files = sorted((ROOT / ".stored" / "trials").glob("*.json"))
    rows = [json.loads(file.read_text()) for file in files]
    about = {
        "command": "python tools/trials.py",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "numpy", "ntk-helpers")},
        "sha256": digest(rows),
    }
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    target = ROOT / "notebooks" / "stored" / "trials.json"
    target.write_text(f'{{"about": {json.dumps(about)},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["keys", "planted"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    rows = compute(arguments.kind, notebooks.chapters(arguments.names, ROOT / "notebooks"))
    collect()
    failed = [row for row in rows if row["failed"]]
    for row in failed if arguments.kind == "keys" else []:
        print(row["notebook"], row["trial"], *(f"\n  ✗ {text}" for _, text in row["failed"]))
    return int(bool(failed) and arguments.kind == "keys")


if __name__ == "__main__":
    sys.exit(main())
