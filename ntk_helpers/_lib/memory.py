"""How much memory this process may use."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jax

__all__ = ["default_budget", "host_memory"]


def default_budget() -> int:
    """Half of the device's memory in bytes, or of the host's where the device does not tell."""
    told = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return (told or host_memory()) // 2


@cache
def host_memory(root: Path = Path("/")) -> int:
    """Bytes of the machine under `root`, or fewer where a container or a batch job is held to them; 8 GiB
    where the system tells neither."""
    machine = []
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        machine = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min([*machine, *_limits(root)], default=2**33)


def _limits(root: Path) -> Iterator[int]:
    """The limits of Linux's control groups of this process, and of every group around it (cgroups(7))."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            tree, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):  # version 1
            tree, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's and lead nowhere; the tree's top is then the container.
        group = tree / path.strip("/")
        for folder in (group, *group.parents[: len(group.parts) - len(tree.parts)]):
            limit = _read(folder / name).strip()
            if limit.isdecimal():  # not "max"
                yield int(limit)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
