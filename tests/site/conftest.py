"""The site, built once for all tests; the book's Sphinx extension on the path."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks" / "_ext"))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site; the build fails on every warning."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    folders = ["-d", str(out / "doctrees"), str(ROOT / "notebooks"), str(out / "html")]
    result = subprocess.run(command + folders, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out / "html"
