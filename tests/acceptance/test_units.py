"""The unit files, as systemd's own tools judge them; nothing is booted."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import manual, parts
from tests.support.source import ROOT

UNITS = sorted((ROOT / "systemd").glob("pipeline-*"))
SERVICE = ROOT / "systemd/pipeline-gateway.service"
EXPOSURE = 15  # tenths: 1.5 of 10
# What the tool lists although the unit has chosen it: these kinds of sockets are what a service of the network needs,
# and the device list is the one of PrivateDevices.
CHOSEN = {"RestrictAddressFamilies", "DeviceAllow"}


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """How systemd-analyze ended."""
    if shutil.which("systemd-analyze") is None:
        parts.missing("systemd-analyze is not installed")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_has_no_mistake_but_that_nothing_is_installed_here(unit: Path, tmp_path: Path) -> None:
    for file in UNITS:
        shutil.copy(file, tmp_path)
    name = unit.name.replace("@.", "@full.")
    said = analyze("verify", "--man=no", str(tmp_path / name)).stderr.splitlines()
    absent = re.compile(r"(Command|Failed to|Unit \S+\.service: ).*(/opt/pipeline-gateway/|curl|docker\.service)")
    assert [line for line in said if not absent.search(line)] == []


def test_the_service_is_as_little_exposed_as_promised() -> None:
    judged = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(SERVICE))
    assert judged.returncode == 0, judged.stdout


def test_what_the_service_is_not_hardened_by_has_its_reason_beside_it() -> None:
    judged = analyze("security", "--offline=true", "--no-pager", str(SERVICE)).stdout
    flagged = {name for line in judged.splitlines() if line.startswith("✗") for name in [re.split(r"[ =]", line)[1]]}
    assert "PrivateNetwork" in flagged
    assert flagged - set(reasons()) == CHOSEN & flagged
    assert set(reasons()) <= flagged | {"DynamicUser"}


def reasons() -> Iterator[str]:
    """What the closing comment of the unit gives a reason for."""
    comment = SERVICE.read_text("utf-8").partition("# What is not hardened, and why:\n")[2].partition("\n\n")[0]
    for line in comment.splitlines():
        names, _, reason = line.removeprefix("# ").partition("  ")
        assert reason.strip(), line
        yield from (name.partition("=")[0] for name in names.split(", "))


def test_the_manual_names_no_unit_that_is_not_there() -> None:
    named = set(re.findall(r"pipeline-[\w-]+(?:@\w*)?\.(?:service|socket|timer)", manual.TEXT))
    there = {unit.name for unit in UNITS}
    assert named
    assert {re.sub(r"@\w+", "@", name) for name in named} <= there
