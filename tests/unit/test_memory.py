"""How much memory a process may use: the machine's, or what control groups leave of it."""

import os

import jax
import pytest

from ntk_helpers._lib.memory import default_budget, host_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**33
GB = 10**9
V1_UNLIMITED = 2**63 - 4096


@pytest.fixture
def machine(tmp_path):
    """A machine whose /proc and /sys hold these groups and limits; its memory is that of the real one."""

    def make(groups: str, limits: dict[str, object]):
        files = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{k}": f"{v}\n" for k, v in limits.items()}
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        # version 2: a container sees its own group as the top
        ("0::/\n", {"memory.max": GB}, GB),
        ("0::/\n", {"memory.max": "max"}, MACHINE),
        # a batch job in groups of groups: the smallest counts, wherever it stands
        (
            "0::/jobs/7/step\n",
            {"jobs/memory.max": 3 * GB, "jobs/7/memory.max": GB, "jobs/7/step/memory.max": "max"},
            GB,
        ),
        ("0::/jobs/7\n", {"jobs/memory.max": GB, "jobs/7/memory.max": 2 * GB}, GB),
        # another process's group
        ("0::/mine\n", {"mine/memory.max": 2 * GB, "other/memory.max": GB}, 2 * GB),
        # version 1, alone and joined with other controllers
        (
            "4:memory:/a/b\n3:cpu:/a\n",
            {"memory/a/memory.limit_in_bytes": GB, "memory/a/b/memory.limit_in_bytes": 2 * GB},
            GB,
        ),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": GB}, GB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": V1_UNLIMITED}, MACHINE),
        # a container that sees the host's path, under which it has no folder
        ("4:memory:/docker/ab:cd\n", {"memory/memory.limit_in_bytes": GB}, GB),
        ("0::/../../docker/abcd\n", {"memory.max": GB}, GB),
        # both versions at once
        ("4:memory:/a\n0::/a\n", {"memory/a/memory.limit_in_bytes": 2 * GB, "a/memory.max": GB}, GB),
        # no limit, and more than there is
        ("3:cpu:/a\n", {"a/memory.max": GB}, MACHINE),
        ("", {}, MACHINE),
        ("0::/\n", {"memory.max": 2 * MACHINE}, MACHINE),
    ],
)  # fmt: skip
def test_the_smallest_limit_of_the_groups_counts(machine, groups, limits, expected):
    assert host_memory(machine(groups, limits)) == expected


def test_a_machine_without_control_groups_has_its_own_memory(tmp_path):
    assert host_memory(tmp_path) == MACHINE


def test_the_budget_is_half_of_what_the_device_or_else_the_host_has(monkeypatch):
    (device,) = jax.local_devices()[:1]
    assert default_budget() == host_memory() // 2 <= MACHINE // 2  # a CPU does not tell
    gpu = type("Device", (), {"memory_stats": lambda self: {"bytes_limit": 6 * GB}})()
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert default_budget() == 3 * GB and device.memory_stats() is None
