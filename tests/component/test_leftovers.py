"""How long a container that runs no step may live: as long as a caller may be waiting for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.jobs import leftovers
from gateway.jobs.leftovers import Leftovers
from gateway.model.job import Active, Attempt
from gateway.storage.store import Store
from runners.containers.docker import Docker
from runners.containers.identity import INSTANCE_LABEL, JOB_LABEL, STEP_LABEL
from runners.mask import Mask
from runners.outcome import Exited
from tests.support.docker import BUSYBOX_IMAGE, Engine
from tests.support.jobs import NOON, SPAN, make_job


def look(engine: Engine, name: str, *command: str, labels: tuple[str, ...] = ()) -> None:
    label = f"--label={INSTANCE_LABEL}=feed"
    engine.docker("run", "--detach", "--network=none", label, *labels, f"--name={name}", BUSYBOX_IMAGE, *command)


def on(engine: Engine) -> Docker:
    return Docker(("docker",), {**os.environ, **engine.environment}, Mask())


async def swept(engine: Docker, store: Store, times: int) -> Leftovers:
    made = Leftovers(lambda: [engine], "feed", store)
    for _ in range(times):
        await made.sweep(engine)
    return made


async def test_a_running_inspection_is_kept_while_a_caller_may_wait_for_it(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    try:
        look(engine, "listing", "sleep", "1000")
        made = await swept(on(engine), store, 3)
        assert engine.containers() == ["listing"]
        monkeypatch.setattr(leftovers, "_ONE_OFF_TAKES", 0.0)
        await made.sweep(on(engine))
        assert engine.containers() == []
    finally:
        engine.remove_containers()
        await store.close()


async def test_only_the_container_of_a_steps_last_attempt_is_needed(tmp_path: Path, engine: Engine) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    earlier = Attempt(Exited(3, SPAN), None, NOON, 0)
    job = await store.insert(make_job(steps=[Active(NOON, 0, begun=True, earlier=(earlier,))]))
    try:
        for step in ("1-ingester", "1-ingester.2"):
            labels = (f"--label={JOB_LABEL}={job.id}", f"--label={STEP_LABEL}={step}")
            look(engine, step, "sleep", "1000", labels=labels)
        await swept(on(engine), store, 1)
        assert engine.containers() == ["1-ingester.2"]
    finally:
        engine.remove_containers()
        await store.close()


async def test_an_ended_inspection_is_removed_by_the_second_sweep(tmp_path: Path, engine: Engine) -> None:
    store = await Store.open(tmp_path / "gateway.db")
    try:
        look(engine, "ended", "true")
        engine.docker("wait", "ended")
        await swept(on(engine), store, 1)
        assert engine.containers() == ["ended"]
        await swept(on(engine), store, 2)
        assert engine.containers() == []
    finally:
        engine.remove_containers()
        await store.close()
