"""The queue of a real gateway: across SIGKILLs, without a database, and with a thousand jobs."""

from __future__ import annotations

import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise

import pytest

from gateway.storage.claims import LONGEST_QUEUE
from tests.conftest import Tell
from tests.support import process_facts
from tests.support.dying import DyingGateway, all_is_well, ran_in_turn, submitted
from tests.support.gateway import wait_for
from tests.support.kill_loop_gateway import SUBMIT
from tests.support.quick_jobs import pid

MEMORY = 64  # MB that a thousand queued jobs may add
TURNS = 30


def queue(gateway: DyingGateway, number: int) -> list[str]:
    """Queue this many jobs behind the running one; their ids in order."""
    return [str(gateway.submit(wait=True)) for _ in range(number)]


@pytest.mark.parametrize("damage", ["none", "noise", "lost"])
def test_the_queue_keeps_its_order_across_restarts_and_a_lost_database(dying: DyingGateway, damage: str) -> None:
    dying.hold()
    dying.serve()
    first = submitted(dying)
    others = queue(dying, 5)
    cancelled = others.pop(2)
    dying.cancel(cancelled)
    wait_for(lambda: all((dying.jobs / job / "job.json").exists() for job in others), "their folders")
    for _ in range(2):
        dying.kill()
        database = dying.state / "gateway.db"
        if damage == "lost":
            database.unlink()
        if damage == "noise":
            database.write_bytes(os.urandom(database.stat().st_size))
        dying.serve()
        assert [dying.poll(job)["phase"] for job in (first, *others)] == ["ingester", *["queued"] * 4]
        assert dying.poll(cancelled)["reason"] == "cancelled"
    dying.release()
    ran_in_turn(dying, first, *others)
    assert dying.runs(cancelled) == [0, 0]
    all_is_well(dying)


def test_a_queued_job_does_not_delay_readiness_after_a_restart(dying: DyingGateway) -> None:
    """A start is not ready until the state of every active job is known."""
    dying.hold()
    dying.serve()
    running, waiting = submitted(dying), queue(dying, 3)
    dying.kill()
    dying.serve()
    wait_for(lambda: dying.call("GET", "/readyz").status == 200, "a ready gateway")
    assert [dying.poll(job)["phase"] for job in waiting] == ["queued"] * 3
    dying.release()
    ran_in_turn(dying, running, *waiting)


def test_the_next_job_begins_as_soon_as_the_previous_has_ended(dying: DyingGateway, tell: Tell) -> None:
    dying.serve()
    jobs = queue(dying, TURNS)
    records = [dying.finished(job) for job in jobs]
    gaps = [_seconds(after["startedAt"]) - _seconds(before["finishedAt"]) for before, after in pairwise(records)]
    assert min(gaps) > 0
    median, most = 1000 * statistics.median(gaps), 1000 * max(gaps)
    tell(f"from the end of a job to the start of the next one's step: median {median:.0f} ms, max {most:.0f} ms")
    assert median < 1000


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_a_thousand_queued_jobs_take_little_memory_and_fill_the_queue(dying: DyingGateway, tell: Tell) -> None:
    dying.environment |= {"GATEWAY_TRIGGER_RATE": "1000", "GATEWAY_TRIGGER_BURST": "1000"}
    dying.hold()
    dying.serve()
    running = submitted(dying)
    empty = _memory(dying)
    body = {"label": "many", "project": "small", "resources": ["warehouse"], "steps": 1, "wait": True}

    def submit(_: int) -> str:
        answer = dying.call("POST", SUBMIT, body)
        assert answer.status == 202, answer
        return str(answer.json["jobId"])

    with ThreadPoolExecutor(8) as pool:
        waiting = list(pool.map(submit, range(LONGEST_QUEUE)))
    full = _memory(dying)
    refused = dying.call("POST", SUBMIT, body)
    assert (refused.status, refused.json["code"]) == (503, "queue_full")
    dying.kill()
    dying.serve()
    again = _memory(dying)
    tell(f"{LONGEST_QUEUE:,} waiting jobs: {full - empty:.0f} MB, {again - empty:.0f} MB after a restart")
    assert max(full, again) - empty < MEMORY
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(dying.cancel, waiting))
    dying.release()
    assert dying.finished(running)["exitCode"] == 7
    all_is_well(dying)


def _memory(gateway: DyingGateway) -> float:
    """The gateway's private memory in MB."""
    return process_facts.memory(pid(gateway)).heap
