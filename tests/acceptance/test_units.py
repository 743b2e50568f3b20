"""The unit files, checked by systemd's own tools without a boot."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import parts
from tests.support.source import ROOT

UNITS = sorted((ROOT / "systemd").glob("pipeline-*"))
SERVICE = ROOT / "systemd/pipeline-gateway.service"
EXPOSURE = 15  # tenths: 1.5 of 10
# The tool lists these although the unit sets them: a network service needs these kinds of sockets, and the device
# list is that of PrivateDevices.
CHOSEN = {"RestrictAddressFamilies", "DeviceAllow"}


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        parts.missing("systemd-analyze is not installed")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_passes_systemd_analyze_but_for_missing_programs(unit: Path, tmp_path: Path) -> None:
    for file in UNITS:
        shutil.copy(file, tmp_path)
    name = unit.name.replace("@.", "@full.")
    said = analyze("verify", "--man=no", str(tmp_path / name)).stderr.splitlines()
    absent = re.compile(r"(Command|Failed to|Unit \S+\.service: ).*(/opt/pipeline-gateway/|curl|docker\.service)")
    assert [line for line in said if not absent.search(line)] == []


def test_the_services_exposure_is_below_the_threshold() -> None:
    judged = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(SERVICE))
    assert judged.returncode == 0, judged.stdout


def test_every_unused_hardening_option_has_its_reason_in_the_unit() -> None:
    judged = analyze("security", "--offline=true", "--no-pager", str(SERVICE)).stdout
    flagged = {name for line in judged.splitlines() if line.startswith("✗") for name in [re.split(r"[ =]", line)[1]]}
    assert "PrivateNetwork" in flagged
    assert flagged - set(reasons()) == CHOSEN & flagged
    assert set(reasons()) <= flagged | {"DynamicUser"}


def reasons() -> Iterator[str]:
    """The options for which the unit's closing comment gives a reason."""
    comment = SERVICE.read_text("utf-8").partition("# What is not hardened, and why:\n")[2].partition("\n\n")[0]
    for line in comment.splitlines():
        names, _, reason = line.removeprefix("# ").partition("  ")
        assert reason.strip(), line
        yield from (name.partition("=")[0] for name in names.split(", "))


def test_the_readme_names_only_units_that_exist() -> None:
    named = set(re.findall(r"pipeline-[\w-]+(?:@\w*)?\.(?:service|socket|timer)", (ROOT / "README.md").read_text()))
    there = {unit.name for unit in UNITS}
    assert named
    assert {re.sub(r"@\w+", "@", name) for name in named} <= there
