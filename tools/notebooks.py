"""The notebooks' stored runs and generated lines, of chapters and appendices.

    python tools/notebooks.py execute [NAME ...]   run notebooks (01 is enough of a name), store the outputs
    python tools/notebooks.py links [NAME ...]     rewrite what is generated, after the host changed
    python tools/notebooks.py check [NAME ...]     fail where `links` would change a file

Generated are the line under a title, the cell that installs the package in Colab, the list
of what is cited, the anchors of equations, the metadata and the cell ids. The host is
`project.urls.Repository` in pyproject.toml.
"""

import argparse
import html
import importlib.metadata
import re
import sys
import time
import tomllib
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 -- lists the fonts now: in a cell, it would say that it does
import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from pybtex.database import parse_file
from pybtex.plugin import find_plugin
from traitlets import default

ROOT = Path(__file__).resolve().parent.parent
OUTPUT_TIMEOUT = 120
KERNEL_SPEC = ROOT / "tools" / "kernels" / "python3"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
FOLDED = {"hide-cell", "hide-input", "solution"}
EQUATION = re.compile(
    r"(?: <a id=\"eq-[\w-]+\"></a>)?(\n\n\$\$\n(?:(?!\n\$\$).)*\n\$\$ \((eq-[\w-]+)\))", re.S
)


class BookKernel(AsyncKernelManager):
    """The kernel that executes the book, to store and to test it, of the interpreter that runs this script.

    Its kernel.json keeps what depends on the machine and the clock out of the outputs: progress bars, what
    libraries write to the process's own streams (XLA's alarm of a slow compilation), the history's troubles.
    It gives BLAS one thread: two kernels on two cores would wait for each other's threads.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec.from_resource_dir(str(KERNEL_SPEC))

    @default("transport_encryption")
    def _transport_encryption(self) -> str:
        return "auto"


def repository(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """Return the address of the project's repository."""
    with open(pyproject, "rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"].rstrip("/")


def first_line(name: str, stored: dict, host: str) -> str:
    """Return the line under a notebook's title; `stored` is what is known of the stored run."""
    slug = host.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{name}"
    run = f"{stored['cpu_seconds']} CPU seconds on {stored['date']}, JAX {stored['jax']}"
    return f"[Open in Colab]({colab}) · [Download]({name}) · {run}"


def about_run(**took: int) -> NotebookNode:
    """What is stored of a run: what it took, its date, its JAX (the last cell prints all versions)."""
    today = datetime.now(UTC).date().isoformat()
    return NotebookNode(**took, date=today, jax=importlib.metadata.version("jax"))


def install_source(host: str, compat: bool) -> str:
    """Return the source of the cell that installs the package where it is missing, as in Colab.

    With `compat` it brings neural-tangents too, without the TensorFlow that its metadata asks for.
    """
    pip = [f'    %pip install -q "ntk-helpers[{"book,compat" if compat else "book"}] @ git+{host}"']
    if compat:
        with open(ROOT / "pyproject.toml", "rb") as file:
            (pinned,) = tomllib.load(file)["dependency-groups"]["neural-tangents"]
        pip.append(f"    %pip install -q --no-deps {pinned}")
    return "\n".join(["import importlib.util\n", 'if importlib.util.find_spec("ntk_helpers") is None:', *pip])


def reference_list(prose: str) -> str:
    """Return a Markdown list of the works that `prose` cites by `(#cite-key)`, each at the anchor that this
    names."""
    entries = parse_file(str(ROOT / "notebooks" / "references.bib"))
    keys = sorted(key for key in set(re.findall(r"\(#cite-([\w-]+)\)", prose)) if key in entries.entries)
    style, backend = (
        find_plugin("pybtex.style.formatting", "plain")(),
        find_plugin("pybtex.backends", "html")(),
    )
    works = {
        work.key: " ".join(work.text.render(backend).split())
        for work in style.format_bibliography(entries, keys)
    }
    plain = {
        key: re.sub(r"</?(span|a)\b[^>]*>", "", re.sub(r"</?em>", "*", text)) for key, text in works.items()
    }
    lines = "\n".join(f'- <a id="cite-{key}"></a>{html.unescape(text)}' for key, text in plain.items())
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", lines)


def refresh(notebook: NotebookNode, name: str, host: str) -> NotebookNode:
    """Return `notebook` in place with its generated lines, metadata and cell ids up to date."""
    stored = notebook.metadata.get("ntk_book", {})
    if not {"cpu_seconds", "date", "jax"} <= set(stored):
        raise ValueError(
            f"{name} holds no measured run: run `python tools/notebooks.py execute {name}` first"
        )
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info=LANGUAGE, ntk_book=stored)
    _write_first_line(notebook.cells[0], first_line(name, stored, host))
    compat = any(
        cell.cell_type == "code" and "neural_tangents_compat" in cell.source for cell in notebook.cells
    )
    _write_install_cell(notebook, install_source(host, compat))
    _write_reference_cell(notebook)
    _normalize_cells(notebook.cells)
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def _write_first_line(cell: NotebookNode, line: str) -> None:
    title, *rest = cell.source.split("\n")
    rest = [text for text in rest if not text.startswith("[Open in Colab]")]
    cell.source = "\n".join([title, "", line, *rest]).replace("\n\n\n", "\n\n").rstrip()


def _write_install_cell(notebook: NotebookNode, source: str) -> None:
    """The install cell is the first code cell; a chapter without one gets it."""
    first = next(
        (i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), len(notebook.cells)
    )
    if first == len(notebook.cells) or "colab-only" not in notebook.cells[first].metadata.get("tags", []):
        notebook.cells.insert(first, new_code_cell())
    cell = notebook.cells[first]
    cell.source, cell.metadata = source, NotebookNode(tags=["colab-only", "hide-input"])


def _write_reference_cell(notebook: NotebookNode) -> None:
    """What is cited, after the References or at the end; the site, which has a bibliography, leaves it
    out."""
    generated = [
        cell.cell_type == "markdown" and "colab-only" in cell.metadata.get("tags", [])
        for cell in notebook.cells
    ]
    cells = [cell for cell, old in zip(notebook.cells, generated) if not old]
    if works := reference_list("\n".join(cell.source for cell in cells if cell.cell_type == "markdown")):
        place = next(
            (i for i, cell in enumerate(cells) if cell.source.startswith("## References")), len(cells) - 1
        )
        cells.insert(place + 1, new_markdown_cell(works, metadata=NotebookNode(tags=["colab-only"])))
    notebook.cells = cells


def _normalize_cells(cells: list[NotebookNode]) -> None:
    seen = Counter()
    for cell in cells:
        cell.source = cell.source.rstrip()
        if cell.cell_type == "markdown":  # an equation's anchor ends the paragraph before it
            cell.source = EQUATION.sub(r' <a id="\2"></a>\1', cell.source)
        cell.metadata = NotebookNode({"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {})
        if cell.cell_type == "code":
            _fold(cell)
            cell.outputs = _merge_streams(cell.outputs)
        # An id that follows from the content: the same text gives the same file.
        digest = sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _fold(cell: NotebookNode) -> None:
    """Give a cell that the site folds the metadata by which JupyterLab and Colab fold it; not the one that
    installs, which its reader should see."""
    tags = set(cell.metadata.get("tags", []))
    if tags & FOLDED and "colab-only" not in tags:
        cell.metadata["cellView"] = "form"
        hidden = {} if "hide-input" in tags else {"outputs_hidden": True}
        cell.metadata["jupyter"] = NotebookNode(source_hidden=True, **hidden)


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    merged = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def run(notebook: NotebookNode, folder: Path) -> dict[str, int]:
    """Execute `notebook` in place and return what its kernel took: CPU seconds, and on Linux its peak memory
    in MB."""
    client = NotebookClient(
        notebook,
        kernel_manager_class=BookKernel,
        timeout=None,
        iopub_timeout=OUTPUT_TIMEOUT,  # a busy machine brings the outputs late: nbclient would go on without
        raise_on_iopub_timeout=True,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    with client.setup_kernel():
        for number, (index, cell) in enumerate(code, 1):
            start = time.perf_counter()
            client.execute_cell(cell, index, execution_count=number)
            summary = cell.source.strip().partition("\n")[0][:60]
            print(f"  {number:2}/{len(code)}  {time.perf_counter() - start:6.1f} s  {summary}", flush=True)
        pid = client.km.provisioner.pid
        times, memory = psutil.Process(pid).cpu_times(), peak_memory(pid)
    return {
        "cpu_seconds": round(times.user + times.system + times.children_user + times.children_system),
        **memory,
    }


def peak_memory(pid: int) -> dict[str, int]:
    """The largest resident memory of a process so far; nothing where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    return {"peak_mb": round(int(peak[1]) * 1024 / 1e6)} if peak else {}


def execute(path: Path, host: str) -> None:
    """Run one notebook and store its outputs, its time and its generated lines."""
    print(path.stem, flush=True)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["ntk_book"] = about_run(cpu_seconds=0)
    refresh(notebook, path.name, host)
    start = time.perf_counter()
    took = run(notebook, path.parent)
    notebook.metadata["ntk_book"] = about_run(**took)
    path.write_text(text_of(refresh(notebook, path.name, host)), encoding="utf-8")
    print(f"  {took}, {time.perf_counter() - start:.1f} seconds on the clock", flush=True)


def text_of(notebook: NotebookNode) -> str:
    """Return the text of a notebook's file."""
    return nbformat.writes(notebook) + "\n"


def chapters(names: list[str], folder: Path) -> list[Path]:
    """Return the notebooks whose names start so, chapters first; all of them where no name is given."""
    found = sorted(folder.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(Path(name).name) for path in found):
            raise ValueError(f"no notebook is called {name!r}; there are {[path.stem for path in found]}")
    return [
        path for path in found if not names or path.name.startswith(tuple(Path(name).name for name in names))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["execute", "links", "check"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    host, stale = repository(), 0
    for path in chapters(arguments.names, ROOT / "notebooks"):
        if arguments.command == "execute":
            execute(path, host)
            continue
        old = path.read_text(encoding="utf-8")
        new = text_of(refresh(nbformat.reads(old, as_version=4), path.name, host))
        if arguments.command == "links":
            path.write_text(new, encoding="utf-8")
        elif new != old:
            stale += 1
            print(f"{path.name} is not as generated: run `python tools/notebooks.py links`", file=sys.stderr)
    return int(stale > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, CellExecutionError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
