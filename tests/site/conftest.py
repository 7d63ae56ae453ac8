"""The site, built once for all tests and served to a browser; the book's Sphinx extension on the path."""

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
sys.path.insert(0, str(ROOT / "notebooks" / "_ext"))


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
def site(build):
    """The folder of the built site."""
    return build()


@pytest.fixture(scope="session")
def pages(site):
    """The site's pages by name, parsed; a test leaves them as they are."""
    return {path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in sorted(site.glob("*.html"))}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """The requests are of no interest here."""


@pytest.fixture(scope="session")
def in_browser(site):
    """A function that runs a script of this folder on the served site and returns the JSON that it prints."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no Chromium: install Debian's chromium, or name it in CHROMIUM")
    if not shutil.which("node"):
        pytest.skip("no Node.js, which drives the browser")
    if not (HERE / "node_modules").is_dir():
        pytest.skip("run `npm ci --ignore-scripts` in tests/site for the browser tests")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(script, *arguments):
        command = ["node", str(HERE / script), f"http://127.0.0.1:{server.server_port}/", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "CHROMIUM": chromium})
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    yield run
    server.shutdown()
    server.server_close()
