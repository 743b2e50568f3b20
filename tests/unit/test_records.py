"""A job in the answers of the APIs, in each of its states."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.jobs.execution import JobSnapshot
from gateway.model.job import (
    Active,
    AuditAction,
    AuditEntry,
    Caller,
    Cancelling,
    Completed,
    Ended,
    Failed,
    Finished,
    Job,
    Pending,
    Queued,
    Reason,
    Skipped,
    SourceCommit,
    StepState,
)
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.output.parts import OutputSize
from gateway.web.answers import Answer, json_text
from gateway.web.records import listed_record, record, whole_record
from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, Stopped, StopReport, TimedOut
from runners.report import Failure, Progress
from runners.runner import Liveness
from tests.support.jobs import NOON, SPAN, later, make_job, planned

STOPPED = StopReport(("SIGINT", "SIGKILL"), 10.1234, 3)
AT_NOON = "2026-11-21T12:00:00.000000+00:00"
NO_STEP = {
    "note": None,
    "exitCode": None,
    "startedAt": None,
    "finishedAt": None,
    "durationSeconds": None,
    "peakMemoryBytes": None,
    "cpuSeconds": None,
    "progress": None,
}
RAN = {"startedAt": AT_NOON, "finishedAt": "2026-11-21T12:00:02.500000+00:00", "durationSeconds": 2.5}
PLAN = planned("deps", "build", "elementary")
FIELDS = {
    "success",
    "status",
    "exitCode",
    "jobId",
    "phase",
    "pipeline",
    "command",
    "createdAt",
    "startedAt",
    "finishedAt",
    "durationSeconds",
    "steps",
    "progress",
    "outputBytes",
    "outputDroppedBytes",
    "logUrl",
}


def decoded(answer: Answer) -> dict[str, Any]:
    """An answer as a client decodes it."""
    fields: dict[str, Any] = json.loads(json_text(answer))
    return fields


def whole(job: Job, output: OutputSize | None = None) -> dict[str, Any]:
    return decoded(whole_record(JobSnapshot(job, output=output or OutputSize()), now=later(1)))


def shown(job: Job, progress: Progress | None = None, *, orphaned: bool = False, seconds: float = 10) -> dict[str, Any]:
    """The record as a client decodes it."""
    liveness = Liveness.ORPHANED if orphaned else Liveness.SUPERVISED
    return decoded(record(JobSnapshot(job, progress, liveness), now=later(seconds)))


def result(answer: dict[str, Any]) -> tuple[str, bool, int]:
    return answer["status"], answer["success"], answer["exitCode"]


def test_a_new_job_is_starting_and_all_its_steps_are_pending() -> None:
    answer = shown(make_job("full-1-abc", plan=PLAN))
    assert set(answer) == FIELDS
    assert result(answer) == ("running", True, -1)
    assert (answer["jobId"], answer["pipeline"], answer["command"]) == ("full-1-abc", "full", "daily")
    assert (answer["phase"], answer["createdAt"], answer["durationSeconds"]) == ("starting", AT_NOON, 10)
    assert answer["startedAt"] is answer["finishedAt"] is answer["progress"] is None
    names = ["deps", "build", "elementary"]
    assert answer["steps"] == [{"name": name, "status": "pending", **NO_STEP} for name in names]


def test_a_running_job_shows_the_live_progress_of_its_step() -> None:
    progress = Progress(done=5, total=17, passed=3, warn=1, error=1, skip=0, current="fct_orders")
    steps: list[StepState] = [Finished(Exited(0, SPAN), None, None), Active(later(3), 100), Pending()]
    answer = shown(make_job(plan=PLAN, steps=steps), progress)
    assert result(answer) == ("running", True, -1)
    assert (answer["phase"], answer["startedAt"]) == ("build", AT_NOON)
    expected = {"done": 5, "total": 17, "pass": 3, "warn": 1, "error": 1, "skip": 0, "noop": 0, "current": "fct_orders"}
    assert answer["progress"] == expected
    assert answer["steps"] == [
        {"name": "deps", "status": "completed", **NO_STEP, "exitCode": 0, **RAN},
        {
            "name": "build",
            "status": "running",
            **NO_STEP,
            "startedAt": "2026-11-21T12:00:03.000000+00:00",
            "durationSeconds": 7,
            "progress": expected,
        },
        {"name": "elementary", "status": "pending", **NO_STEP},
    ]


def test_a_queued_job_reads_running_in_polls_and_queued_in_its_record() -> None:
    """Clients of the data-analytics API stop polling at any other status than `running`."""
    job = make_job(plan=PLAN, state=Queued())
    assert result(shown(job)) == result(whole(job) | {"status": "running"})
    assert result(shown(job)) == ("running", True, -1)
    assert shown(job)["phase"] == "queued"
    assert whole(job)["status"] == "queued"
    assert whole(make_job(plan=PLAN))["status"] == "running"


@pytest.mark.parametrize("orphaned", [True, False])
def test_a_job_that_is_being_cancelled_reads_as_running(orphaned: bool) -> None:
    job = make_job(plan=planned("build"), steps=[Active(NOON, 0)], state=Cancelling(later(2)))
    answer = shown(job, orphaned=orphaned)
    assert result(answer) == ("running", True, -1)
    assert answer["phase"] == ("orphaned" if orphaned else "cancelling")


def test_the_progress_of_a_job_is_that_of_its_latest_step_with_any() -> None:
    built, reported = Progress(done=5, total=5, passed=5), Progress(done=2, total=2, passed=2)
    steps = [
        Finished(Exited(0, SPAN), None, None),
        Finished(Exited(0, SPAN), built, None),
        Finished(Exited(0, SPAN), reported, None),
    ]
    assert shown(make_job(plan=PLAN, steps=steps))["progress"]["done"] == 2
    assert shown(make_job(plan=PLAN, steps=[*steps[:2], Pending()]))["progress"]["done"] == 5
    assert shown(make_job(plan=PLAN, steps=[*steps[:2], Active(NOON, 0)]))["progress"]["done"] == 5
    assert shown(make_job(plan=PLAN, steps=[steps[0], Pending(), Pending()]))["progress"] is None


def test_a_completed_job_has_exit_code_0_and_its_duration() -> None:
    steps = [Finished(Exited(0, SPAN), None, None)]
    answer = shown(make_job(plan=planned("deps"), steps=steps, state=Ended(later(4), Completed(0, None))), seconds=99)
    assert set(answer) == FIELDS
    assert result(answer) == ("completed", True, 0)
    assert (answer["phase"], answer["finishedAt"]) == ("ended", "2026-11-21T12:00:04.000000+00:00")
    assert answer["durationSeconds"] == 4


def test_a_step_tells_the_memory_and_the_processor_time_that_it_used() -> None:
    used = replace(SPAN, peak_memory=70 << 20, cpu=1.23456)
    steps = [Finished(Exited(0, used), None, None)]
    answer = shown(make_job(plan=planned("deps"), steps=steps, state=Ended(later(4), Completed(0, None))), seconds=4)
    assert (answer["steps"][0]["peakMemoryBytes"], answer["steps"][0]["cpuSeconds"]) == (70 << 20, 1.235)


def test_a_completed_job_with_a_non_zero_exit_code_has_a_first_failure() -> None:
    failure = Failure("test.small.unique_orders", "Got 5 results, configured to fail if != 0", 2)
    steps = [Finished(Exited(1, SPAN), None, failure)]
    answer = shown(make_job(plan=planned("build"), steps=steps, state=Ended(later(4), Completed(1, failure))))
    assert set(answer) == FIELDS | {"firstFailure"}
    assert result(answer) == ("completed", True, 1)
    assert answer["firstFailure"] == {
        "node": "test.small.unique_orders",
        "message": "Got 5 results, configured to fail if != 0",
        "more": 2,
    }
    assert (answer["steps"][0]["status"], answer["steps"][0]["exitCode"]) == ("completed", 1)


@pytest.mark.parametrize("reason", Reason)
def test_a_failed_job_has_a_reason_and_exit_code_minus_1(reason: Reason) -> None:
    steps: list[StepState] = [Finished(Killed(9, SPAN), None, None), *[Skipped("earlier step failed: deps")] * 2]
    answer = shown(make_job(plan=PLAN, steps=steps, state=Ended(later(4), Failed(reason, "What, why, what to do."))))
    assert set(answer) == FIELDS | {"error", "reason"}
    assert result(answer) == ("failed", False, -1)
    assert (answer["reason"], answer["error"]) == (str(reason), "What, why, what to do.")
    assert answer["steps"] == [
        {"name": "deps", "status": "failed", **NO_STEP, "exitCode": 137, **RAN},
        {"name": "build", "status": "skipped", **NO_STEP, "note": "earlier step failed: deps"},
        {"name": "elementary", "status": "skipped", **NO_STEP, "note": "earlier step failed: deps"},
    ]


def test_a_step_that_was_lost_or_never_began_has_no_times() -> None:
    steps = [Finished(Lost("no witness"), None, None), Finished(NotStarted("no such program"), None, None)]
    job = make_job(plan=planned("deps", "build"), steps=steps, state=Ended(later(4), Failed(Reason.UNKNOWN, "Lost.")))
    answer = shown(job)
    assert answer["steps"] == [{"name": name, "status": "failed", **NO_STEP} for name in ("deps", "build")]
    assert answer["startedAt"] is None


def test_a_step_without_results_keeps_its_exit_code_and_its_times() -> None:
    steps = [Finished(NotStarted("it left no results", 0, SPAN), None, None)]
    answer = shown(make_job(plan=planned("build"), steps=steps))
    assert answer["steps"] == [{"name": "build", "status": "failed", **NO_STEP, "exitCode": 0, **RAN}]


def test_the_whole_record_adds_fields_to_the_polled_one() -> None:
    """Where the job runs, its toggles, the audit trail and the notes."""
    plan = Plan((PlannedStep(StepName.BUILD, lineage=True),), ("warehouse",), ("Elementary is off: no package.",))
    acts = (
        AuditEntry(AuditAction.TRIGGERED, Caller("nightly", "127.0.0.1"), NOON),
        AuditEntry(AuditAction.CANCELLED, Caller(None, "::1"), later(2.5)),
    )
    source = SourceCommit("0123", "main", "v2", "", "https://git.example.com/shop.git")
    job = replace(make_job(plan=plan), acts=acts, source=source, parameters={"month": 3}, process="silver")
    assert whole(job) == shown(job, seconds=1) | {
        "outcome": None,
        "waitsFor": [],
        "retryOf": None,
        "notifications": [],
        "projectId": "default",
        "fabricId": "local",
        "commit": "0123",
        "branch": "main",
        "version": "v2",
        "parameters": {"month": 3},
        "processName": "silver",
        "enableOpenlineage": True,
        "enableElementary": False,
        "audit": [
            {"action": "triggered", "token": "nightly", "address": "127.0.0.1", "at": AT_NOON},
            {"action": "cancelled", "token": None, "address": "::1", "at": "2026-11-21T12:00:02.500000+00:00"},
        ],
        "notes": ["Elementary is off: no package."],
    }
    assert whole(make_job(plan=PLAN))["enableElementary"] is True


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Stopped(137, SPAN, STOPPED), Reason.CANCELLED),
        (Stopped(137, SPAN, STOPPED), Reason.KILLED),
        (TimedOut(137, SPAN, STOPPED), Reason.TIMED_OUT),
        (Lost("no witness", STOPPED), Reason.UNKNOWN),
    ],
)
def test_the_whole_record_says_what_was_stopped_and_how(outcome: Outcome, reason: Reason) -> None:
    job = make_job(plan=planned("build"), steps=[Finished(outcome)], state=Ended(later(4), Failed(reason, "Why.")))
    assert whole(job)["stopped"] == {"signals": ["SIGINT", "SIGKILL"], "seconds": 10.123, "processes": 3}


def test_only_a_cancel_says_that_nothing_was_stopped() -> None:
    """Not one during a step of an older version, whose supervisor did not tell."""
    cases: list[tuple[StepState, Reason, bool]] = [
        (Skipped("the job was cancelled"), Reason.CANCELLED, True),
        (Finished(NotStarted("it was cancelled")), Reason.CANCELLED, True),
        (Finished(Stopped(137, SPAN)), Reason.CANCELLED, False),
        (Finished(NotStarted("no program")), Reason.NOT_STARTED, False),
        (Finished(Killed(9, SPAN)), Reason.KILLED, False),
        (Finished(Lost("no witness")), Reason.UNKNOWN, False),
    ]
    for step, reason, tells in cases:
        job = make_job(plan=planned("build"), steps=[step], state=Ended(later(4), Failed(reason, "Why.")))
        nothing = {"stopped": {"signals": [], "seconds": 0.0, "processes": 0}} if tells else {}
        assert {name: value for name, value in whole(job).items() if name == "stopped"} == nothing
    assert "stopped" not in whole(make_job(plan=PLAN))


def test_a_lost_step_still_has_its_start() -> None:
    job = make_job(plan=planned("build"), steps=[Finished(Lost("no witness"), started=NOON)])
    assert shown(job)["steps"] == [{"name": "build", "status": "failed", **NO_STEP, "startedAt": AT_NOON}]


def test_the_record_notes_that_its_files_were_removed_to_make_room() -> None:
    notes = whole(make_job(), OutputSize(0, 10, removed=True))["notes"]
    assert [note for note in notes if "removed" in note and "state_cap" in note]


def test_the_record_says_how_much_output_there_is_and_where() -> None:
    snapshot = JobSnapshot(make_job("full-1-abc"), output=OutputSize(40, 2))
    answer = decoded(record(snapshot, "http://localhost:3000"))
    assert (answer["outputBytes"], answer["outputDroppedBytes"]) == (40, 2)
    assert answer["logUrl"] == "http://localhost:3000/api/v1/jobs/full-1-abc/log"


def test_a_listed_record_lacks_the_jobs_before_it_and_notifications() -> None:
    job = make_job(plan=PLAN, state=Queued())
    listed = decoded(listed_record(JobSnapshot(job), now=later(1)))
    assert listed | {"waitsFor": [], "notifications": []} == whole(job)
