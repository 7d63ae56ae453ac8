"""Every kernel on this machine's GPU: whether it is right, and how fast.

    make gpu    # or: PYTHONPATH=. python3 tools/gpu.py

Nothing is installed. It takes a Python that has JAX with CUDA and what `ntk_helpers` imports: NumPy, SciPy,
jaxtyping, tqdm. Packages that are missing can be unpacked into a folder elsewhere (`pip install --no-deps
--target FOLDER ...`) which then stands in PYTHONPATH too. neural-tangents, which needs frozendict, and
PyTorch are compared with where they are there.

It ends within `--seconds`. Each result is written to `--out` as soon as it is known; what fails, or is left
out for want of time, is recorded under its name, and the exit status is then 1. `--tiny --out FILE` goes
through everything in small sizes, on any device.
"""

import argparse
import faulthandler
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")  # the rest is for PyTorch, in the same process

import gpu_checks
import gpu_times
import jax

import ntk_helpers
from ntk_helpers.book import digest

OUT = Path(__file__).resolve().parent.parent / "notebooks" / "stored" / "gpu.json"


class Run:
    """Cases one after another, each recorded under its name and written at once."""

    def __init__(self, out: Path, about: dict, seconds: float):
        self.out, self.about, self.rows = out, about, []
        self.start = time.monotonic()
        self.end = self.start + seconds

    def left(self) -> float:
        """Seconds until the end; `TimeoutError` where there are none."""
        if time.monotonic() >= self.end:
            raise TimeoutError("left out, there was no time")
        return self.end - time.monotonic()

    def case(self, section: str, what: str, measure: Callable[[], dict], **known) -> dict:
        """Record what `measure` finds, or how it failed; returns the row."""
        row = {"section": section, "what": what, **known}
        try:
            self.left()
            row |= measure()
        except Exception as error:
            if not isinstance(error, TimeoutError):
                traceback.print_exc()
            row["failed"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]
        self.rows.append(row)
        shown = (f"{value:.3g}" if isinstance(value, float) else value for value in row.values())
        print(*shown, sep=" | ", flush=True)
        self.write()
        return row

    def write(self) -> None:
        self.about |= {"seconds": round(time.monotonic() - self.start, 1), "sha256": digest(self.rows)}
        lines = ",\n".join(json.dumps(row) for row in self.rows)
        new = self.out.with_suffix(".new")
        new.write_text(f'{{"about": {json.dumps(self.about)},\n"rows": [\n{lines}\n]}}\n')
        os.replace(new, self.out)


def about() -> dict:
    """Where and with what this is."""
    device = jax.devices()[0]
    versions = {"Python": platform.python_version(), "ntk-helpers": ntk_helpers.__version__}
    for name in ("jax", "jaxlib", "numpy", "neural-tangents", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a rival that is not here
    return {
        "command": "make gpu",
        "date": datetime.now(UTC).date().isoformat(),
        "device": device.device_kind,
        "platform": device.client.platform_version.replace("\n", ", "),
        "versions": versions,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help="the file of the results")
    parser.add_argument("--seconds", type=float, default=320, help="when to stop")
    parser.add_argument("--tiny", action="store_true", help="small sizes, on any device, with --out")
    asked = parser.parse_args(arguments)
    if asked.tiny and asked.out == OUT:
        parser.error("--tiny is no result to be stored; say --out FILE")
    if jax.default_backend() != "gpu" and not asked.tiny:
        print(f"JAX sees no GPU here, but {jax.devices()}; --tiny tries this script out.", file=sys.stderr)
        return 2
    faulthandler.dump_traceback_later(asked.seconds + 30, exit=True, file=sys.__stderr__)  # a case hangs
    run = Run(asked.out, about(), asked.seconds)
    gpu_checks.check(run, gpu_checks.TINY if asked.tiny else gpu_checks.Sizes())
    gpu_times.measure(run, gpu_times.TINY if asked.tiny else gpu_times.Sizes())
    faulthandler.cancel_dump_traceback_later()
    failed = [row for row in run.rows if "failed" in row]
    print(f"{len(run.rows)} results in {run.about['seconds']} s, written to {run.out}; {len(failed)} failed")
    for row in failed:
        print("FAILED", row["section"], row["what"], row.get("who", ""), row["failed"], sep=" | ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
