"""What holds for all tests, the notebooks' cells among them: threads, the kernel, groups, the order."""

import json
import os
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
OUTPUT_TIMEOUT = 120

# Read when NumPy and tqdm are imported, by the workers and by all that they start. Two workers on two cores,
# each with a BLAS of two threads, wait for each other: an SVD takes thirty times as long.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
os.environ["JUPYTER_PATH"] = str(ROOT / "tools")  # the kernel that executes the book


def pytest_collection_modifyitems(items):
    """Start with what takes longest; the unit tests fill the gaps at the end."""
    cells = [item for item in items if item.path.suffix == ".ipynb"]
    if cells:
        import matplotlib.font_manager  # noqa: F401 -- lists the fonts now: in a cell, it would say that it does
    for cell in cells:
        cell.output_timeout = OUTPUT_TIMEOUT  # nbval's five seconds are short on a busy machine
    items.sort(key=lambda item: -cpu_seconds(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A notebook's cells share a kernel, and a file of the site's tests a visit: one worker has them all.

    (What --dist loadgroup is for, which pytest 9.2 breaks in pytest-xdist 3.8.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file.endswith(".ipynb") or file.startswith("tests/site/") else nodeid

    config.option.loadscopereorder = False  # the order is that of the tests
    return Together(config, log)


@cache
def cpu_seconds(path: Path) -> float:
    """What a notebook took when it was stored; less for tests, those of the site before the others."""
    if path.suffix == ".ipynb":
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        return metadata.get("ntk_book", {}).get("cpu_seconds", 0)
    return -1 if path.parent.name == "site" else -2
