"""What containers have used: the reading at the end of a real process, and of real containers."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runners.containers import usage
from runners.containers.usage import UsageWatch
from tests.conftest import MakeApi
from tests.support import compose
from tests.support.docker import Engine
from tests.support.gateway import DEADLINE

ATTEMPTS = 20
# Needs 20 MB and some time of a processor, and is not over before it can be looked at.
WORKS = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; x=$(head -c 20000000 /dev/zero | tr '\\0' a); sleep 1"


@pytest.mark.parametrize(
    ("cpu", "seconds"),
    [("1500000000\n", 1.5), ("usage_usec 1500000\nuser_usec 1\n", 1.5), ("nonsense\n", None), (None, None)],
    ids=["version 1", "version 2", "damaged", "gone"],
)
async def test_the_use_is_what_the_group_says_when_its_first_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: str | None, seconds: float | None
) -> None:
    files = {"cpuacct": tmp_path / "cpu", "memory": tmp_path / "memory"}
    monkeypatch.setattr(usage, "_files", lambda *_: files)
    (tmp_path / "memory").write_text("1\n")
    watch = UsageWatch()
    with subprocess.Popen(["sleep", "1000"]) as process:  # noqa: ASYNC220 - nothing else runs meanwhile
        for _ in range(3):
            watch.begin("id", process.pid)
            await asyncio.sleep(0)
        assert (watch.peak_memory, watch.cpu) == (None, None)
        (tmp_path / "memory").write_text("4096\n")
        if cpu is not None:
            (tmp_path / "cpu").write_text(cpu)
        process.kill()
        async with asyncio.timeout(DEADLINE):
            while watch.peak_memory is None:  # noqa: ASYNC110 - it sets no event
                await asyncio.sleep(0.01)
    assert (watch.peak_memory, watch.cpu) == (4096, seconds)


async def test_a_process_of_another_program_tells_nothing() -> None:
    watch = UsageWatch()
    with subprocess.Popen(["true"]) as process:  # noqa: ASYNC220 - as above
        watch.begin("f" * 64, process.pid)
        task = watch._task
        assert task is not None
        process.wait(DEADLINE)
        await task
    assert (watch.peak_memory, watch.cpu) == (None, None)


async def test_the_record_has_the_memory_and_processor_time_of_a_container(
    tmp_path: Path, engine: Engine, make_api: MakeApi
) -> None:
    """Where this host was too busy to look before the engine removed the group, it has none: then once more."""
    folder = compose.write(tmp_path / "lake", fabric={}, ingester=compose.shell(WORKS))
    api = await make_api(folder, {**engine.environment, "PIPELINE_ENABLED": "true"})
    step: dict[str, Any] = {}
    for _ in range(ATTEMPTS):
        record = await api.run(pipeline="ingester")
        [step] = record["steps"]
        if step["peakMemoryBytes"] is not None:
            break
    assert 20_000_000 < step["peakMemoryBytes"] < 1 << 30
    assert 0.01 < step["cpuSeconds"] <= step["durationSeconds"] * 64
    engine.remove_containers()
