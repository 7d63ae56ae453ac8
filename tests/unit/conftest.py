"""Settings of every unit test: 64 bits, programs compiled in a hurry, reproducible examples, no screen."""

import io
import os
import platform
from hashlib import sha256
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
from hypothesis import settings

# Two thirds of the tests' time were XLA's, which makes a fast program of what runs once. A test asks whether
# numbers are right.
HURRY = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jax.__version_info__ < (0, 11):  # later ones do not know it, and end the process
    HURRY.append("--xla_cpu_use_fusion_emitters=false")


def compiled_here() -> Path:
    """The folder of compiled programs, which both workers and the next call use: one for each processor."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    processor = "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    digest = sha256((processor or platform.processor()).encode()).hexdigest()[:8]
    return Path(__file__).parents[2] / ".compilation_cache" / digest


before = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([before, *HURRY])
jax.devices()  # reads the flags; what a test starts, a notebook's kernel for one, compiles as anybody's does
os.environ["XLA_FLAGS"] = before
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", str(compiled_here()))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
matplotlib.use("Agg")
settings.register_profile("unit", deadline=None, max_examples=20, derandomize=True, database=None)
settings.load_profile("unit")


@pytest.fixture(scope="module", autouse=True)
def no_programs_of_other_files():
    """Two workers that keep every program take 11 GB."""
    jax.clear_caches()


@pytest.fixture(scope="session")
def x1():
    return np.random.default_rng(1).normal(size=(4, 3))


@pytest.fixture(scope="session")
def x2():
    return np.random.default_rng(2).normal(size=(5, 3))


@pytest.fixture(scope="session")
def digits():
    """All 1797 in an order of chance, the mean removed, of norm 8; and their labels, one column each, less
    0.1."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = images - images.mean(0)
    return (8 * x / np.linalg.norm(x, axis=1, keepdims=True))[order], np.eye(10)[labels[order]] - 0.1


@pytest.fixture
def rng():
    """The same numbers for every test, whichever ran before it."""
    return np.random.default_rng(0)


@pytest.fixture
def bars(monkeypatch):
    """The progress bars made from here on: shown at once whatever the environment says, written to nowhere,
    and kept."""
    from tqdm import tqdm  # reads TQDM_DISABLE when it is imported

    made, start = [], tqdm.__init__

    def init(bar, **settings):
        start(bar, **settings | {"delay": 0, "file": io.StringIO(), "disable": False})
        made.append(bar)

    monkeypatch.setattr(tqdm, "__init__", init)
    return made
