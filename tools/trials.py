"""What a claim is worth: every notebook on trial, with other random numbers and with planted errors.

    python tools/trials.py keys [NAME ...]      five times with other keys: no claim may fail
    python tools/trials.py planted [NAME ...]   once with each error of tools/planted.py: which claims notice?
    python tools/trials.py slips [NAME ...]     once with its slips of tools/slips/, in its own cells

A claim that fails does not stop a trial. It takes hours: one notebook after the other, each trial a file in
.stored/trials/, so that a run which was stopped goes on; two calls with different names may run side by side.
An error in code that a notebook does not call is not planted for it. Each call ends by writing what is
finished to notebooks/stored/trials.json, with the date, the versions and a hash of the numbers; `keys` exits
with 1 where a claim failed.
"""

import argparse
import ast
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from planted import ERRORS, Slip, slips_of

import notebooks
from ntk_helpers.book import digest

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "notebooks" / "stored" / "trials.json"
KEYS = range(1, 6)
KEY_TRIALS = [f"keys-{shift}" for shift in KEYS]
UNCHANGED = "unchanged"  # the trial that only sees which code is called
SLIPS = "slips"
SAID = re.compile(r"^([✓✗]) (.+?): measured .* \[(.*)\]$", re.M)
REPEATS = "stored_runs.py"  # the source of claims that make a part of a stored run again, with its keys
PRELUDE = """
def prepare():
    import builtins
    builtins.reached = set()  # before the package is imported: its marks use it
    import jax, numpy as np
    import ntk_helpers.book.claims as claims
    key, generator = jax.random.key, np.random.default_rng
    def report(claim, measured, expected, holds, source):
        print("✓" if holds else "✗", f"{{claim}}: measured {{measured}}, expected {{expected}} [{{source}}]")
    jax.random.key = lambda seed, **options: key(seed + 1000 * {shift}, **options)
    np.random.default_rng = lambda seed=None: generator(seed if seed is None else seed + 1000 * {shift})
    claims._report = report
prepare()  # in a function, as a notebook may use these names
"""
REACHED = "import builtins; print(*sorted(builtins.reached))"


def trial(path: Path, shift: int, package: Path, slips: Sequence[Slip]) -> dict:
    """The claims of a notebook that fail and those that are not reached, by number, the errors of cells, and
    the marks that were called.

    The random numbers are those of keys moved by 1000 times `shift`; `package` is the one that is imported.
    """
    stored = nbformat.read(path, as_version=4)
    tried = nbformat.from_dict(stored)
    for slip in slips:
        slip.plant(tried)
    tried.cells.insert(0, new_code_cell(PRELUDE.format(shift=shift)))
    tried.cells.append(new_code_cell(REACHED))
    programs = {  # most of a trial's programs are those of the trial before
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".stored" / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    with environment(PYTHONPATH=str(package.parent), **programs):
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
    reached = "".join(output.get("text", "") for output in tried.cells[-1].outputs).split()
    found: dict[str, list] = {"failed": [], "lost": [], "errors": [], "reached": reached}
    number = 0
    for before, after in zip(stored.cells, tried.cells[1:-1]):
        said = claims_of(after)
        for k, (_, text, source) in enumerate(claims_of(before)):
            number += 1
            if k >= len(said):
                found["lost"].append([number, text])
            elif said[k][0] == "✗" and not (shift and REPEATS in source):
                found["failed"].append([number, text])
        found["errors"] += [
            f"{output.ename}: {output.evalue}"[:200]
            for output in after.get("outputs", [])
            if output.output_type == "error"
        ]
    return {"notebook": path.stem, "claims": number} | found


def claims_of(cell: NotebookNode) -> list[tuple[str, str, str]]:
    """The marks, the texts and the sources of a cell's claims."""
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


def code_of(path: Path, slips: Sequence[Slip] = ()) -> str:
    """A hash of what a trial was of: the code of the notebook, and its slips."""
    cells = nbformat.read(path, as_version=4).cells
    code = [program_of(cell.source) for cell in cells if cell.cell_type == "code"]
    return sha256("".join([*code, *(slip.old + slip.new for slip in slips)]).encode()).hexdigest()[:12]


def package_now() -> str:
    """A hash of the package's code: a trial with another package is made again."""
    files = sorted((ROOT / "ntk_helpers").rglob("*.py"))
    return sha256("".join(program_of(file.read_text("utf-8")) for file in files).encode()).hexdigest()[:12]


def program_of(source: str) -> str:
    """Code without what no claim depends on: comments, layout, docstrings, and the words below a figure."""
    tree = ast.parse(TransformerManager().transform_cell(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("caption", "alt")]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.dump(tree)


def finished(
    path: Path,
    name: str,
    shift: int = 0,
    change: Callable[[Path], None] = lambda package: None,
    slips: Sequence[Slip] = (),
) -> dict:
    """One trial of a notebook with its slips and with a copy of the package that `change` has changed; read,
    if it was made."""
    file = ROOT / ".stored" / "trials" / f"{path.stem}_{name}.json"
    row = rows_made().get((path.stem, name), {})
    made_of = {"code": code_of(path, slips), "package": package_now()}
    if not made_of.items() <= row.items():
        with tempfile.TemporaryDirectory() as copy:
            package = Path(copy) / "ntk_helpers"
            shutil.copytree(ROOT / "ntk_helpers", package, ignore=shutil.ignore_patterns("__pycache__"))
            change(package)
            row = {"trial": name} | made_of | trial(path, shift, package, slips)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row))
    print(f"{path.stem} {name}: {len(row['failed'])} of {row['claims']} claims fail, "
          f"{len(row['lost'])} are not reached", flush=True)  # fmt: skip
    return row


def rows_made() -> dict[tuple[str, str], dict]:
    """The trials that were made: what is stored, and the files of those that came later."""
    files = sorted((ROOT / ".stored" / "trials").glob("*.json"))
    return rows_stored() | _by_name(json.loads(file.read_text()) for file in files)


def rows_stored() -> dict[tuple[str, str], dict]:
    """The trials of notebooks/stored/trials.json."""
    return _by_name(json.loads(TARGET.read_text(encoding="utf-8"))["rows"] if TARGET.exists() else [])


def _by_name(rows: Iterable[dict]) -> dict[tuple[str, str], dict]:
    return {(row["notebook"], row["trial"]): row for row in rows}


def with_keys(path: Path) -> list[dict]:
    """The trials of a notebook with other keys."""
    return [finished(path, name, shift) for name, shift in zip(KEY_TRIALS, KEYS)]


def with_errors(path: Path) -> list[dict]:
    """The trials of a notebook with each error in code that it calls."""

    def mark(package: Path) -> None:
        for error in ERRORS:
            error.mark(package)

    called = finished(path, UNCHANGED, change=mark)["reached"]
    return [finished(path, error.name, change=error.plant) for error in ERRORS if error.name in called]


def with_slips(path: Path) -> list[dict]:
    """The trial of a notebook with all its slips; says which claims do not notice their own."""
    slips = slips_of(path.stem, ROOT / "tools" / "slips")
    if not slips:
        return []
    row = finished(path, SLIPS, slips=slips)
    failed = [text for _, text in row["failed"]]
    for slip in slips:
        if not any(text.startswith(slip.claim) for text in failed):
            print(f"  not noticed by {slip.claim!r}: {slip.wrong}", flush=True)
    return [row]


def collect() -> None:
    """Write what is finished, one trial a line, with the errors and the claims that were on trial.

    Trials with other keys and with slips are those of the notebook's present code. Of errors planted in the
    package a notebook's last complete set is kept, in which each error that is called was tried, until there
    is another.
    """
    claims = json.loads(TARGET.read_text(encoding="utf-8"))["claims"] if TARGET.exists() else {}
    stored, made, rows, tried = rows_stored(), rows_made(), [], {}
    for path in notebooks.chapters([], ROOT / "notebooks"):
        stem, code = path.stem, code_of(path)
        rows += [row for name in KEY_TRIALS if (row := made.get((stem, name))) and row["code"] == code]
        slips = slips_of(stem, ROOT / "tools" / "slips")
        if slips and (row := made.get((stem, SLIPS), {})).get("code") == code_of(path, slips):
            rows.append(row | {"slips": [[slip.claim, slip.wrong] for slip in slips]})
        whole = _complete_set(stem, made) or _complete_set(stem, stored)
        if whole and whole[0]["code"] == code:
            cells = nbformat.read(path, as_version=4).cells
            tried[stem] = [text for cell in cells for _, text, _ in claims_of(cell)]
        elif whole and stem in claims:
            tried[stem] = claims[stem]
        rows += whole if stem in tried else []
    about = {
        "command": "python tools/trials.py",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "numpy", "ntk-helpers")},
        "sha256": digest(rows),
    }
    parts = [
        f'"about": {json.dumps(about)}',
        '"errors": {\n' + _lines([f"{_json(e.name)}: {_json([e.wrong, e.file])}" for e in ERRORS]) + "\n}",
        '"claims": {\n' + _lines([f"{_json(stem)}: {_json(texts)}" for stem, texts in tried.items()]) + "\n}",
        '"rows": [\n' + _lines(list(map(_json, rows))) + "\n]",
    ]
    TARGET.write_text("{" + _lines(parts) + "}\n", encoding="utf-8")


def _complete_set(stem: str, made: dict[tuple[str, str], dict]) -> list[dict]:
    """The trials of a notebook with each error that it calls, all of one code; none where one is missing."""
    unchanged = made.get((stem, UNCHANGED))
    if unchanged is None:
        return []
    errors = [made.get((stem, name), {}) for name in unchanged["reached"]]
    same = all(row.get(part) == unchanged.get(part) for row in errors for part in ("code", "package"))
    return [unchanged, *errors] if same else []


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(items: list[str]) -> str:
    return ",\n".join(items)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["keys", "planted", "slips"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    kinds = {"keys": with_keys, "planted": with_errors, "slips": with_slips}
    rows = [
        row
        for path in notebooks.chapters(arguments.names, ROOT / "notebooks")
        for row in kinds[arguments.kind](path)
    ]
    collect()
    failed = [row for row in rows if row["failed"]]
    for row in failed if arguments.kind == "keys" else []:
        print(row["notebook"], row["trial"], *(f"\n  ✗ {text}" for _, text in row["failed"]))
    return int(bool(failed) and arguments.kind == "keys")


if __name__ == "__main__":
    sys.exit(main())
