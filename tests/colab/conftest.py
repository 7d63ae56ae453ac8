"""One Colab and one hosting for all chapters, a fresh copy of its environment for each, and a table at the
end."""

import shutil
import subprocess

import pytest
from simulation import copy_of, make_base, make_hosting, run_chapter

PYTHON = "python3.12"
runs = {}


@pytest.fixture(scope="session")
def colab(tmp_path_factory):
    """Colab's environment before a notebook runs; nothing is installed into it afterwards."""
    if not shutil.which(PYTHON) or subprocess.run([PYTHON, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"Colab has Python 3.12, and {PYTHON} does not run here")
    base = make_base(PYTHON, tmp_path_factory.mktemp("colab") / "base")
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def hosting(tmp_path_factory):
    return make_hosting(tmp_path_factory.mktemp("hosting") / "book.git")


@pytest.fixture(scope="session")
def run(request, colab, hosting, tmp_path_factory):
    """The run of one chapter, shared by the tests that look at it."""
    name = request.param
    runtime = colab.with_name(name)
    runs[name] = run_chapter(name, tmp_path_factory.mktemp("content"), copy_of(colab, runtime), hosting)
    shutil.rmtree(runtime)
    return runs[name]


def pytest_terminal_summary(terminalreporter):
    for name, each in runs.items():
        terminalreporter.write_line(f"{name}: {each}")
