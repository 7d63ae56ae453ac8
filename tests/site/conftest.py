"""The site, built once for all tests and served; a browser to visit it."""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--site", type=Path, help="the site as `make site` built it; without it, tests build one"
    )


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """A function that builds the site afresh and returns its folder; the build fails on every warning."""

    def built():
        out = tmp_path_factory.mktemp("site")
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
        folders = ["-d", str(out / "doctrees"), str(ROOT / "notebooks"), str(out / "html")]
        result = subprocess.run(command + folders, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return out / "html"

    return built


@pytest.fixture(scope="session")
def site(build, request):
    """The folder of the built site."""
    built = request.config.getoption("--site")
    return built.resolve() if built else build()


@pytest.fixture(scope="session")
def pages(site):
    """The site's pages by name, parsed; a test leaves them as they are."""
    return {
        path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(site.glob("*.html"))
    }


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """The requests are of no interest here."""


@pytest.fixture(scope="session")
def with_browser():
    """A function that runs a command which drives Chromium by Node.js, asserts how it ends, and returns what
    it was."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not (chromium and shutil.which("node") and (HERE / "node_modules").is_dir()):
        pytest.skip(
            "needs Chromium (or its name in CHROMIUM), Node.js, and `npm ci --ignore-scripts` in tests/site"
        )

    def run(*command, returncode=0):
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "CHROMIUM": chromium}
        )
        assert result.returncode == returncode, result.stdout + result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def in_browser(site, with_browser):
    """A function that runs a script of this folder on the served site and returns the JSON that it prints."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(script, *arguments):
        return json.loads(
            with_browser("node", HERE / script, f"http://127.0.0.1:{server.server_port}/", *arguments).stdout
        )

    yield run
    server.shutdown()
    server.server_close()
