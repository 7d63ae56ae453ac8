"""A progress bar on the host for a loop inside `jit`."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from tqdm import tqdm

from ntk_helpers._lib.inputs import is_traced

__all__ = ["progress", "tick"]

_running: list[tqdm] = []


@contextmanager
def progress(steps: int, desc: str, unit: str, arguments) -> Iterator[bool]:
    """Show a bar over the block after two seconds; gives whether the loop in it shall `tick`.

    It shall not if it has a single step, if `arguments` are being traced, or if tqdm is disabled
    (`TQDM_DISABLE=1`).
    """
    if steps < 2 or is_traced(arguments):
        yield False
        return
    with tqdm(total=steps, desc=desc, unit=unit, delay=2) as bar:
        if bar.disable:
            yield False
            return
        _running.append(bar)
        try:
            yield True
            jax.effects_barrier()
        finally:
            _running.remove(bar)


def tick() -> None:
    """Move the bar by one step. To be called in the loop's body."""
    jax.debug.callback(_update)


def _update() -> None:
    if _running:
        _running[-1].update()
