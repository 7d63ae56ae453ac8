"""Binder: a server's environment, the repository at the last commit, `.binder/postBuild`, and then the
server's own REST API."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from simulation import ROOT, installed, make_hosting, pip

PYTHON = (ROOT / ".binder" / "runtime.txt").read_text().strip().replace("-", "")
SERVER = ["jupyterlab", "notebook", "jupyterhub"]  # what repo2docker puts around a repository, at its newest


@pytest.fixture(scope="module")
def binder(tmp_path_factory):
    """The home folder, the server's environment, and what was installed in it before and after the build."""
    if not shutil.which(PYTHON) or subprocess.run([PYTHON, "-c", ""], capture_output=True).returncode:
        pytest.skip(f".binder/runtime.txt asks for {PYTHON}, which does not run here")
    folder = tmp_path_factory.mktemp("binder")
    home, server = folder / "home", folder / "server"
    subprocess.run(["git", "clone", "--quiet", make_hosting(folder / "book.git"), home], check=True)
    subprocess.run([PYTHON, "-m", "venv", server], check=True)
    pip(server / "bin" / "python", "install", *SERVER)
    before = installed(server / "bin" / "python")
    environment = os.environ | {"HOME": str(home), "PATH": f"{server / 'bin'}:{os.environ['PATH']}"}
    subprocess.run([home / ".binder" / "postBuild"], cwd=home, env=environment, check=True)
    yield home, environment, before, installed(server / "bin" / "python")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def address(binder):
    """The address of JupyterLab, started as Binder starts it."""
    home, environment, *_ = binder
    command = [
        "jupyter",
        "lab",
        "--no-browser",
        "--ip",
        "127.0.0.1",
        "--port",
        "0",
        "--allow-root",
        "--IdentityProvider.token=",
    ]
    with (home / "lab.log").open("w+") as log:
        lab = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        for _ in range(120):
            if found := re.search(r"http://127\.0\.0\.1:\d+/", Path(log.name).read_text()):
                break
            time.sleep(1)
        yield found[0]
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait(60)


def get(address: str) -> dict:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.load(answer)


def test_the_server_is_left_as_it_was(binder):
    *_, before, after = binder
    assert before == after


def test_lab_lists_every_chapter(binder, address):
    listed = {
        each["name"]
        for each in get(f"{address}api/contents/notebooks")["content"]
        if each["type"] == "notebook"
    }
    assert listed == {path.name for path in (binder[0] / "notebooks").glob("*.ipynb")} != set()


def test_the_chapters_kernel_is_the_locks(binder, address):
    python = Path(get(f"{address}api/kernelspecs")["kernelspecs"]["python3"]["spec"]["argv"][0])
    assert python.is_relative_to(binder[0])
    lock = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^(?:jax|jaxlib)==\S+(?= ; python_full_version < '3.12')", lock, re.MULTILINE))
    assert len(pinned) == 2 and pinned <= installed(python)
    kernel = subprocess.run(
        [python, "-c", "import ntk_helpers as n; print(n.__file__)"], cwd="/", capture_output=True, text=True
    )
    assert Path(kernel.stdout).is_relative_to(binder[0])
