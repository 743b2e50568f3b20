"""The unit files, checked by systemd's own tools without a boot."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import manual, parts
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


def test_the_units_copy_of_the_tokens_is_private_and_whole(tmp_path: Path) -> None:
    """It is the file, else `none`. If the file can't be read, or the copy has no name, the one from before stays."""
    at_start, at_reload = re.findall(
        r"^Exec(?:StartPre|Reload)=\+((?:.*\\\n)*.*)", SERVICE.read_text("utf-8"), re.MULTILINE
    )
    assert at_start == at_reload
    [*shell, script] = shlex.split(at_start.replace("\\\n", "").replace("$$", "$"))
    tokens, copy = tmp_path / "tokens", tmp_path / "copy"
    for path, here in (("/etc/pipeline-gateway/tokens", tokens), ("%S/pipeline-gateway", tmp_path)):
        assert path in script
        script = script.replace(path, str(here))

    def made(**named: str) -> tuple[int, str]:
        """Run it as root's part of the unit; its exit code, and what is in the copy then."""
        environment = {"PATH": "/usr/bin:/bin", **named}
        done = subprocess.run([*shell, script], check=False, env=environment, cwd=tmp_path)
        return done.returncode, copy.read_text("utf-8")

    name = {"CALLERS_FILE": str(copy)}
    assert made(**name) == (0, "none\n")
    tokens.write_text("one")
    assert made(**name) == (0, "one")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o440
    tokens.unlink()
    tokens.mkdir()
    assert [made(**name)[0] > 0, made(**name)[1]] == [True, "one"]
    tokens.rmdir()
    tokens.write_text("two")
    assert [made()[0] > 0, made()[1]] == [True, "one"]
    assert made(**name) == (0, "two")
    assert {file.name for file in tmp_path.iterdir()} == {"tokens", "copy"}


def test_the_manual_names_only_units_that_exist() -> None:
    named = set(re.findall(r"pipeline-[\w-]+(?:@\w*)?\.(?:service|socket|timer)", manual.TEXT))
    there = {unit.name for unit in UNITS}
    assert named
    assert {re.sub(r"@\w+", "@", name) for name in named} <= there
