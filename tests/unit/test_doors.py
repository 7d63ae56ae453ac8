"""The doors open: make's targets and complaints, the workflows that call them, and Binder."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = ROOT / ".github" / "workflows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def make(*arguments, **environment) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    return subprocess.run(
        [shutil.which("make"), "-C", ROOT, *arguments],
        capture_output=True,
        text=True,
        env=clean | environment,
    )


def complaint(outcome: subprocess.CompletedProcess) -> str:
    """The one line that is not make's own."""
    assert outcome.returncode != 0
    (line,) = [line for line in outcome.stderr.splitlines() if not line.startswith("make")]
    return line


def test_make_help_is_the_default_and_lists_every_target():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert re.findall(r"^  make ([\w-]+)", make().stdout, re.MULTILINE) == phony.split()


@pytest.mark.parametrize("python", ["no-such-python", "old-python"])
def test_make_without_a_new_python_says_so_in_one_sentence(python, tmp_path):
    if python == "old-python":
        python = tmp_path / python
        python.write_text(
            f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); $2"\n'
        )
        python.chmod(0o755)
    said = complaint(make("lab", f"PYTHON={python}", f"VENV={tmp_path}/venv"))
    assert said.startswith("The book needs Python 3.11 or newer")
    assert str(python) in said and not (tmp_path / "venv").exists()


@pytest.mark.parametrize("version", [None, "v16.20.2"])
def test_make_without_npm_says_so_in_one_sentence(version, tmp_path):
    for tool in ("sh", "find", "touch"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    if version:
        major = version[1:].partition(".")[0]
        (tmp_path / "node").write_text(f"#!/bin/sh\nexit $(({major} < 18))\n")
        (tmp_path / "npm").write_text("#!/bin/sh\nexit 3\n")
        for tool in ("node", "npm"):
            (tmp_path / tool).chmod(0o755)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "package-lock.json").write_text("{}")
    target = f"{tmp_path}/pages/node_modules/.package-lock.json"
    assert complaint(make(target, PATH=str(tmp_path))).startswith("The site needs npm and Node 18 or newer")


def workflow(name: str) -> dict:
    return yaml.safe_load((WORKFLOWS / name).read_text())


@pytest.mark.slow
def test_workflows_are_valid(tmp_path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    assert subprocess.run([*check, *WORKFLOWS.iterdir()]).returncode == 0
    planted = tmp_path / "planted.yml"
    planted.write_text((WORKFLOWS / "test.yml").read_text().replace("runs-on:", "runs-at:"))
    assert subprocess.run([*check, planted]).returncode == 1


def test_workflows_run_the_doors():
    runs = {p.name: re.findall(r"- run: (.*)", p.read_text()) for p in WORKFLOWS.iterdir()}
    targets, published = runs.pop("pages.yml")
    assert runs == {"test.yml": [".ci/run", "make test-oldest"]}
    assert targets == "make site pdf offline slides"
    built = re.findall(r"(?<=notebooks/_build/)[\w.-]+", published)
    assert built == ["ntk-book.pdf", "ntk-book-offline.zip", "slides", "html"]
    lecturers = (ROOT / "notebooks" / "lecturers.md").read_text()
    assert all(f"ntk-book/{name}" in lecturers for name in built[:-1])
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("\nmake test </dev/null")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_pages_workflow_uploads_what_make_site_builds():
    upload = workflow("pages.yml")["jobs"]["build"]["steps"][-1]
    assert f"HTML    := {upload['with']['path']}\n" in MAKEFILE


def test_binder_makes_the_chapters_kernel_from_the_lock_as_make_does():
    build = ROOT / ".binder" / "postBuild"
    steps = build.read_text()
    assert os.access(build, os.X_OK) and "\nset -euo pipefail\n" in steps
    install = [
        line.replace("$(LOCK)", "requirements.lock")
        for line in MAKEFILE.splitlines()
        if line.startswith("\t$(PIP) ")
    ]
    assert [
        f"\t$(PIP) {line}" for line in re.findall(r'^"\${install\[@\]}" (.*)$', steps, re.MULTILINE)
    ] == install
    assert "--no-deps" in re.search(r"^install=\((.*)\)$", steps, re.MULTILINE)[1]
    kernels = {
        json.loads(path.read_text())["metadata"]["kernelspec"]["name"]
        for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    assert set(re.findall(r"ipykernel install --name (\S+)", steps)) == kernels


def test_binder_has_the_python_of_the_stored_runs_and_nothing_that_would_replace_it():
    texts = [path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")]
    stored = {found for text in texts for found in re.findall(r'"Python (3\.\d+)', text)}
    assert {f"python-{version}\n" for version in stored} == {(ROOT / ".binder" / "runtime.txt").read_text()}
    assert {path.name for path in (ROOT / ".binder").iterdir()} == {"postBuild", "runtime.txt"}


def test_supported_pythons_are_the_same_everywhere():
    classified = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    jobs = workflow("test.yml")["jobs"]
    assert classified == jobs["test"]["strategy"]["matrix"]["python"]
    (oldest,) = [step["with"]["python-version"] for step in jobs["oldest"]["steps"] if "with" in step]
    assert oldest == classified[0]
    assert PROJECT["requires-python"] == f">={classified[0]}"
