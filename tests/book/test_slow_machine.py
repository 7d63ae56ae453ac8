"""What depends on the clock is in no output: a notebook of slow cells, executed to store and to test it."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks

ROOT = Path(__file__).resolve().parents[2]
SLOW = [
    "import time, tqdm\nfor _ in tqdm.tqdm(range(2)): time.sleep(0.2)\nprint('done')",
    "for _ in tqdm.tqdm(range(3), delay=0.3): time.sleep(0.2)\nprint('done')",
    "import os\nfor stream in (1, 2): os.write(stream, b'Very slow compile?')\nprint('done')",
]


@pytest.fixture
def slow(tmp_path):
    """A notebook of slow cells; the stored outputs are those of a fast machine."""
    path = tmp_path / "03_title.ipynb"
    cells = [
        new_code_cell(source, execution_count=1, outputs=[new_output("stream", text="done\n")])
        for source in SLOW
    ]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# 03 Title"), *cells]), path)
    return path


@pytest.mark.slow
def test_no_slowness_is_stored(slow, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # where it is set, no kernel listens to what libraries write
    notebooks.execute(slow, notebooks.repository())
    cells = nbformat.read(slow, as_version=4).cells[-len(SLOW) :]
    assert [[(out.name, out.text) for out in cell.outputs] for cell in cells] == [[("stdout", "done\n")]] * 3


@pytest.mark.slow
def test_no_slowness_fails_a_test(slow):
    """However pytest is called; `tools` makes it read conftest.py for a notebook elsewhere."""
    command = [sys.executable, "-m", "pytest", "--nbval", "tools", slow]
    here = {name: value for name, value in os.environ.items() if name not in ("JUPYTER_PATH", "TQDM_DISABLE")}
    result = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True)
    assert result.returncode == 0 and f"{len(SLOW)} passed" in result.stdout, result.stdout
