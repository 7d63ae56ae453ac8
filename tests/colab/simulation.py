"""A stand-in for Colab: its Python and packages, the hosting's copy of this repository, and a run of a
chapter there."""

import configparser
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
CELL_TIMEOUT = 1200


@dataclass
class Run:
    """What a chapter did in a fresh copy of Colab's environment."""

    before: set[str]
    after: set[str] = field(default_factory=set)
    install_seconds: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    error: str | None = None
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        added = " ".join(sorted(self.after - self.before))
        took = f"then {self.seconds:.0f} s ({self.cpu_seconds:.0f} CPU seconds)"
        return f"install {self.install_seconds:.0f} s, {took}; added {added}"


def pip(python: Path, *arguments) -> str:
    """What pip prints in the environment of `python`."""
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def installed(python: Path) -> set[str]:
    """The distributions in the environment of `python`, as name==version."""
    return {
        f"{each['name']}=={each['version']}" for each in json.loads(pip(python, "list", "--format", "json"))
    }


def make_base(python: str, folder: Path) -> Path:
    """Make an environment with what Colab has."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip(folder / "bin" / "python", "install", "--upgrade", "-r", Path(__file__).with_name("colab.txt"))
    return folder


def copy_of(base: Path, folder: Path) -> Path:
    """Copy an environment by linking its files, which pip replaces and never rewrites; return its Python."""
    shutil.copytree(base, folder, symlinks=True, copy_function=os.link)
    return folder / "bin" / "python"


def make_hosting(folder: Path) -> Path:
    """Make a bare repository that holds the last commit here, and serves it as hosts do."""
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, folder], check=True)
    subprocess.run(["git", "-C", folder, "config", "uploadpack.allowFilter", "true"], check=True)
    return folder


def hosted(hosting: Path, path: str) -> str:
    """The text of a file in the hosting's repository."""
    return subprocess.run(
        ["git", "-C", hosting, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True
    ).stdout


def kernel_manager(python: Path, hosting: Path) -> type[AsyncKernelManager]:
    """The manager of a kernel of `python`, for which git finds the book's address at `hosting`, and pip
    caches nothing."""
    settings = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{hosting.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
        "PIP_NO_CACHE_DIR": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONPATH": "",
        "TQDM_DISABLE": "1",
    }
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=argv, env=settings, language="python")

    return Kernel


def run_chapter(name: str, folder: Path, python: Path, hosting: Path) -> Run:
    """Run a notebook to its end, alone in `folder`; its first code cell installs the package."""
    path = folder / f"{name}.ipynb"
    path.write_text(hosted(hosting, f"notebooks/{name}.ipynb"), encoding="utf-8")
    stored, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    install, *rest = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    run = Run(before=installed(python))
    runner = NotebookClient(
        notebook,
        kernel_manager_class=kernel_manager(python, hosting),
        timeout=CELL_TIMEOUT,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    with runner.setup_kernel():
        try:
            run.install_seconds = timed(lambda: runner.execute_cell(notebook.cells[install], install))
            run.after = installed(python)
            for i in rest:
                run.seconds += timed(lambda: runner.execute_cell(notebook.cells[i], i))
        except CellExecutionError as error:
            run.error = str(error)
        times = psutil.Process(runner.km.provisioner.pid).cpu_times()
        run.cpu_seconds = times.user + times.system
    kept = [i for i in rest if "nbval-ignore-output" not in notebook.cells[i].metadata.get("tags", [])]
    run.differences = [line for i in kept for line in differences(stored.cells[i], notebook.cells[i])]
    return run


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def differences(stored, new) -> list[str]:
    """Where what a cell printed or showed is not what is stored, but for what nbval's sanitizer takes out."""
    pairs = zip(printed(stored), printed(new), strict=False)
    found = [f"stored {was!r}, now {now!r}" for was, now in pairs if was != now]
    if len(printed(stored)) != len(printed(new)):
        found.append(f"stored {len(printed(stored))} lines, now {len(printed(new))}, of {new.source[:60]!r}")
    return found


def printed(cell) -> list[str]:
    """The sanitized lines of a cell's outputs: what it printed, and texts and HTML that it showed."""
    rules = configparser.ConfigParser(interpolation=None)
    rules.read(ROOT / "tests" / "book" / "sanitize.cfg")
    texts = [
        output.get("text")
        or "\n".join(output.get("data", {}).get(f"text/{kind}", "") for kind in ("plain", "html"))
        for output in cell.outputs
        if output.output_type != "error"
    ]
    text = "\n".join(texts)
    for rule in rules.sections():
        text = re.sub(rules[rule]["regex"], rules[rule]["replace"], text)
    return text.splitlines()
