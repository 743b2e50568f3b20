"""Which files say what a container has used."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.containers.usage import group_file

ID = "0123456789abcdef" * 4
ROOT = Path("/sys/fs/cgroup")
V1 = f"9:memory:/docker/{ID}\n5:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"
V2 = f"0::/system.slice/docker-{ID}.scope\n"


@pytest.mark.parametrize(
    ("text", "memory", "cpu"),
    [
        (V1, f"memory/docker/{ID}/memory.max_usage_in_bytes", f"cpuacct/docker/{ID}/cpuacct.usage"),
        (V1 + V2, f"memory/docker/{ID}/memory.max_usage_in_bytes", f"cpuacct/docker/{ID}/cpuacct.usage"),
        (V2, f"system.slice/docker-{ID}.scope/memory.peak", f"system.slice/docker-{ID}.scope/cpu.stat"),
    ],
    ids=["version 1", "both", "version 2"],
)
def test_the_files_of_a_group_are_those_of_its_version(text: str, memory: str, cpu: str) -> None:
    assert group_file(text, ID, "memory") == ROOT / memory
    assert group_file(text, ID, "cpuacct") == ROOT / cpu


@pytest.mark.parametrize("text", ["", "0::/\n", "0::/user.slice\n", "9:memory:/\n", V2.replace("0123", "3210")])
def test_a_group_that_is_not_the_containers_own_is_not_read(text: str) -> None:
    """The pid may be another process's: the engine is on another host."""
    assert group_file(text, ID, "memory") is None
