"""Steps that their supervisor does not end at their time limit: they are ended from outside of it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from runners.detached import pidfd, shim_files, supervisor
from runners.outcome import Command, Exited, TimedOut
from runners.process.local_runner import LocalRunner
from tests.support.gateway import DEADLINE

CAP = 1 << 20
# Beside the step, a process that only its parent leads to: without the step's variables, and it ignores SIGTERM.
SCRIPT = """
    (env -i sh -c 'trap "" TERM; echo $$ > bare.new; mv bare.new bare; while :; do sleep 0.05; done' &)
    echo $$ > pid.new && mv pid.new pid
    until [ -e go ]; do sleep 0.02; done
"""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_CONTINUE_INTERVAL", 0.05)
    monkeypatch.setattr(shim_files, "_OVERDUE", 0.0)


async def started(folder: Path) -> asyncio.Task[object]:
    """A step that is waited for, with a supervisor that would leave it an hour."""
    environment = {"PATH": os.environ["PATH"]}
    runner = LocalRunner(CAP)
    await runner.start(folder, Command((("sh", "-c", SCRIPT),), str(folder.parent), environment, grace=0.1))
    async with asyncio.timeout(DEADLINE):
        while not ((folder.parent / "bare").exists() and (folder.parent / "pid").exists()):  # noqa: ASYNC110 - files
            await asyncio.sleep(0.02)
    return asyncio.create_task(runner.wait(folder, lambda _: None))


def allow(folder: Path, seconds: float) -> None:
    """Say that the step may take so long, which its supervisor has read already."""
    file = folder / "spec.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "time_limit": seconds}))


def alive(folder: Path) -> list[str]:
    """Which of the step's two processes are alive; one that has ended may wait for its parent to collect it."""
    return [name for name in ("bare", "pid") if is_running(int((folder.parent / name).read_text()))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_step_that_its_supervisor_does_not_end_is_timed_out(tmp_path: Path) -> None:
    folder = tmp_path / "1-run"
    waiting = await started(folder)
    allow(folder, 0.01)
    async with asyncio.timeout(DEADLINE):
        outcome = await waiting
    assert isinstance(outcome, TimedOut)
    assert outcome.code == -1
    assert outcome.report is not None
    assert outcome.report.signals == ("SIGTERM", "SIGKILL")
    assert (outcome.report.processes or 0) >= 2
    again = await LocalRunner(CAP).wait(folder, lambda _: None)
    assert isinstance(again, TimedOut)
    assert again.report == outcome.report
    assert outcome.span.duration > 0
    assert outcome.span.started <= outcome.span.finished
    assert alive(folder) == []


async def test_an_overdue_step_is_timed_out_by_the_next_gateway_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "1-run"
    with monkeypatch.context() as patched:
        patched.setattr(pidfd, "send_to_all", lambda *_: None)  # a gateway that is killed before it has ended the step
        killed = await started(folder)
        allow(folder, 0.01)
        async with asyncio.timeout(DEADLINE):
            while shim_files.is_locked(folder):  # noqa: ASYNC110 - the supervisor sets no event here
                await asyncio.sleep(0.02)
        killed.cancel()
        await asyncio.wait([killed])
    assert alive(folder) == ["bare", "pid"]
    async with asyncio.timeout(DEADLINE):
        outcome = await LocalRunner(CAP).wait(folder, lambda _: None)
    assert isinstance(outcome, TimedOut)
    assert alive(folder) == []


async def test_no_wall_clock_makes_a_running_step_overdue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "1-run"
    waiting, looks, now = await started(folder), asyncio.Queue[float](), time.time()

    def look(starttime: int) -> float:
        looks.put_nowait(age(starttime))
        return age(starttime)

    age = pidfd.age
    monkeypatch.setattr(time, "time", lambda: now + 366 * 86400)
    monkeypatch.setattr(pidfd, "age", look)
    async with asyncio.timeout(DEADLINE):
        for _ in range(3):
            assert 0 <= await looks.get() < DEADLINE
        (tmp_path / "go").touch()
        assert isinstance(await waiting, Exited)
