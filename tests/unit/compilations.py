"""How often JAX compiles."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"
"""Told of at each compilation before the persistent cache is asked, which a machine may or may not have."""

_running: list[list[str]] = []


def _heard(event: str, _: float, **about) -> None:
    if event == EVENT:
        for made in _running:
            made.append(str(about.get("fun_name", "?")))


jax.monitoring.register_event_duration_secs_listener(_heard)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs that are compiled inside the block."""
    made: list[str] = []
    _running.append(made)
    try:
        yield made
    finally:
        _running.remove(made)
