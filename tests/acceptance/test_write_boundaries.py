"""The gateway or a supervisor is killed once at every boundary between two writes; the next gateway recovers.

The calls are wrapped from outside (tests/support/dying_gateway.py, patched_shim.py); the product has no hooks for this.
"""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import process_facts
from tests.support.dying import (
    JOBS_API,
    STEPS,
    DyingGateway,
    all_is_well,
    killed,
    output_of,
    ran_in_turn,
    ran_undisturbed,
    submitted,
    was_cancelled,
)
from tests.support.dying_gateway import points
from tests.support.gateway import PATH, wait_for

MIB = 2**20


@pytest.mark.parametrize("point", points("accepting"))
def test_a_trigger_cut_off_by_a_kill_is_no_job_or_one_that_completes(dying: DyingGateway, point: str) -> None:
    dying.serve(point)
    answered = dying.submit()
    dying.died()
    dying.start()
    jobs = set(dying.listed())
    assert {answered} - {None} <= jobs
    assert len(jobs) == (point not in ("accepting: before insert", "accepting: in the transaction of insert"))
    for job in jobs:
        ran_undisturbed(dying, job)
    all_is_well(dying)


@pytest.mark.parametrize("point", [point for point in points("accepting") if "insert" in point])
def test_a_trigger_with_a_key_sent_again_after_a_kill_makes_one_job(dying: DyingGateway, point: str) -> None:
    asked = ("POST", PATH, {"pipeline": "ingester"}, {"Idempotency-Key": "night"})
    dying.serve(point)
    with pytest.raises((OSError, http.client.HTTPException)):
        dying.call(*asked)
    dying.died()
    dying.start()
    answer, again = dying.call(*asked), dying.call(*asked)
    was_recorded = point not in ("accepting: before insert", "accepting: in the transaction of insert")
    assert (answer.status, "Idempotent-Replayed" in answer.headers) == (202, was_recorded)
    assert (again.body, "Idempotent-Replayed" in again.headers) == (answer.body, True)
    assert list(dying.listed()) == [answer.json["jobId"]]
    assert dying.finished(answer.json["jobId"])["exitCode"] == 0
    all_is_well(dying)


@pytest.mark.parametrize("point", points("living"))
def test_a_job_whose_gateway_is_killed_ends_as_if_undisturbed(dying: DyingGateway, point: str) -> None:
    dying.serve(point)
    answered = dying.submit()
    dying.died()
    dying.start()
    [job] = dying.listed()
    assert answered in (None, job)
    ran_undisturbed(dying, job)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("retrying"))
def test_a_retry_cut_off_by_a_kill_begins_exactly_once(dying: DyingGateway, point: str) -> None:
    dying.serve(point)
    answered = dying.submit(retry=0.2)
    dying.died()
    dying.start()
    [job] = dying.listed()
    assert answered in (None, job)
    record = dying.finished(job)
    attempts = [attempt["exitCode"] for attempt in record["steps"][1]["attempts"]]
    assert (record["status"], record["exitCode"], attempts) == ("completed", 7, [7, 7]), record
    again = "2-ingester.2"
    assert dying.runs(job) == [1, 1]
    assert (dying.folder / "runs" / f"{job}.{again}").read_text() == "run\n"
    assert dying.output(job) == "".join(map(output_of, (*STEPS, again)))
    all_is_well(dying)


@pytest.mark.parametrize("point", points("queueing"))
def test_a_queued_trigger_cut_off_by_a_kill_is_queued_or_no_job(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve(point)
    first = submitted(dying)
    answered = dying.submit(wait=True)
    dying.died()
    dying.start()
    none = point in ("queueing: before insert", "queueing: in the transaction of insert")
    waiting = [job for job, record in dying.listed().items() if record["phase"] == "queued"]
    assert len(waiting) == (not none)
    assert {answered} - {None} <= set(waiting)
    dying.release()
    ran_in_turn(dying, first, *waiting)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("promoting"))
def test_a_promotion_cut_off_by_a_kill_happens_exactly_once(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve(point)
    first = submitted(dying)
    second, third = (dying.submit(wait=True) for _ in range(2))
    dying.release()
    dying.died()
    dying.start()
    ran_in_turn(dying, first, second, third)
    all_is_well(dying)


@pytest.mark.parametrize("point", [*points("not given up"), *points("given up")])
def test_a_queued_jobs_cancel_holds_exactly_if_it_was_recorded(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve(point)
    first = submitted(dying)
    second, third = (dying.submit(wait=True) for _ in range(2))
    assert dying.cancel(str(second)) is None
    dying.died()
    dying.start()
    dying.release()
    if point in points("given up"):
        record = dying.finished(str(second))
        assert (record["status"], record["reason"]) == ("failed", "cancelled")
        assert [step["status"] for step in record["steps"]] == ["skipped", "skipped"]
        assert dying.runs(str(second)) == [0, 0]
        ran_in_turn(dying, first, third)
    else:
        ran_in_turn(dying, first, second, third)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("not cancelled"))
def test_a_cancel_that_was_neither_recorded_nor_answered_has_no_effect(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve(point)
    job = submitted(dying)
    assert dying.cancel(job) is None
    dying.died()
    dying.start()
    dying.release()
    ran_undisturbed(dying, job)
    all_is_well(dying)


@pytest.mark.parametrize("point", points("cancelled"))
def test_a_recorded_cancel_is_carried_out_by_the_next_gateway(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve(point)
    job = submitted(dying)
    dying.cancel(job)
    dying.died()
    dying.start()
    was_cancelled(dying, job)
    dying.release()
    all_is_well(dying)


@pytest.mark.parametrize("point", points("expiring"))
def test_a_removal_cut_off_by_a_kill_is_finished_by_the_next_gateway(dying: DyingGateway, point: str) -> None:
    old, active = killed(dying)
    dying.environment["GATEWAY_RECORD_DAYS"] = "0.00000001"
    dying.launch_until(point)
    dying.died()
    dying.start()
    for job in old:
        wait_for(lambda job=job: dying.call("GET", f"{JOBS_API}/{job}").status == 404, f"the end of {job}'s record")
        assert not (dying.jobs / job).exists()
    dying.release()
    ran_undisturbed(dying, active)
    del dying.environment["GATEWAY_RECORD_DAYS"]
    dying.kill()
    dying.start()
    assert [folder.name for folder in dying.jobs.iterdir()] == list(dying.listed()) == [active]
    all_is_well(dying)


@pytest.mark.parametrize("point", points("shrinking"))
def test_a_cut_off_sweep_of_files_over_the_cap_is_finished_later(dying: DyingGateway, point: str) -> None:
    old, active = killed(dying)
    for job in (*old, active):
        (dying.jobs / job / STEPS[0] / "large").touch()
        os.truncate(dying.jobs / job / STEPS[0] / "large", 4 * MIB)
    dying.environment["GATEWAY_STATE_CAP"] = "1MiB"
    dying.launch_until(point)
    dying.died()
    dying.start()
    for job in old:
        wait_for(lambda job=job: _names(dying.jobs / job) == ["job.json"], f"the end of {job}'s files")
        assert (dying.poll(job)["status"], dying.poll(job)["exitCode"]) == ("completed", 7)
    assert (dying.jobs / active / STEPS[0] / "large").stat().st_size == 4 * MIB
    dying.release()
    ran_undisturbed(dying, active)
    all_is_well(dying)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Where a supervisor dies: status, exitCode and reason of the job, statuses of its steps, runs of the first step.
NOT_STARTED: tuple[Any, ...] = ("failed", -1, "not_started", ["failed", "skipped"], 0)
NEVER_RAN: tuple[Any, ...] = ("failed", -1, "unknown", ["failed", "skipped"], 0)
RAN: tuple[Any, ...] = ("failed", -1, "unknown", ["failed", "skipped"], 1)
DONE: tuple[Any, ...] = ("completed", 7, None, ["completed", "completed"], 1)
SUPERVISOR = {
    "launcher forked": DONE,
    "before the lock": NOT_STARTED,
    "after the lock": NOT_STARTED,
    "before started": NOT_STARTED,
    "started is empty": NEVER_RAN,
    "after started": NEVER_RAN,
    "before the step": NEVER_RAN,
    "before exit": RAN,
    "after exit": DONE,
}


def _ended_so(gateway: DyingGateway, job: str) -> tuple[Any, ...]:
    record = gateway.finished(job)
    statuses = [step["status"] for step in record["steps"]]
    return record["status"], record["exitCode"], record.get("reason"), statuses, gateway.runs(job)[0]


@pytest.mark.parametrize("point", SUPERVISOR)
def test_a_supervisor_killed_at_any_point_gives_the_right_outcome(dying: DyingGateway, point: str) -> None:
    dying.serve(point)
    job = dying.submit()
    assert job is not None
    dying.supervisor_died()
    assert _ended_so(dying, job) == SUPERVISOR[point]
    if SUPERVISOR[point] in (DONE, RAN):
        assert dying.output(job).startswith(output_of(STEPS[0]))
    dying.kill()
    dying.start()
    assert _ended_so(dying, job) == SUPERVISOR[point]
    all_is_well(dying)


@pytest.mark.parametrize("point", ["before exit", "after exit"])
def test_a_supervisor_killed_without_a_gateway_gives_the_right_outcome(dying: DyingGateway, point: str) -> None:
    dying.hold()
    dying.serve(point)
    job = submitted(dying)
    dying.kill()
    dying.release()
    dying.supervisor_died()
    dying.start()
    assert _ended_so(dying, job) == SUPERVISOR[point]
    all_is_well(dying)


@pytest.mark.parametrize("point", ["step runs", "output copied"])
@pytest.mark.parametrize("gateway_dies", [False, True], ids=["gateway lives", "gateway dies too"])
def test_a_supervisor_killed_during_its_step_leaves_no_process(
    dying: DyingGateway, gateway_dies: bool, point: str
) -> None:
    dying.hold()
    dying.serve(point)
    job = dying.submit()
    assert job is not None
    dying.supervisor_died()
    if gateway_dies:
        dying.kill()
        dying.start()
    status, code, reason, steps, runs = _ended_so(dying, job)
    assert (status, code, reason, steps) == RAN[:4]
    assert runs <= 1
    assert process_facts.of_steps(dying.state) == []
    dying.release()
    all_is_well(dying)


@pytest.mark.parametrize("gateway_dies", [False, True], ids=["gateway lives", "gateway dies too"])
def test_a_supervisor_killed_while_it_stops_its_step_leaves_no_process(dying: DyingGateway, gateway_dies: bool) -> None:
    dying.hold()
    dying.serve("stop has begun")
    job = submitted(dying)
    dying.cancel(job)
    dying.supervisor_died()
    if gateway_dies:
        dying.kill()
        dying.start()
    assert _ended_so(dying, job) == RAN
    assert process_facts.of_steps(dying.state) == []
    dying.release()
    all_is_well(dying)
