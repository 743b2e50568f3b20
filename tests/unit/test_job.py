"""The names that the APIs give to the states of a job and of its steps."""

from __future__ import annotations

import pytest

from gateway.model.job import (
    Active,
    Cancelling,
    Completed,
    Ended,
    Ending,
    Failed,
    Finished,
    JobState,
    Pending,
    Queued,
    Reason,
    Running,
    Skipped,
    Status,
    StepState,
)
from gateway.model.status import job_outcome, phase, step_exit_code, step_span, step_status
from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, Span, Stopped, TimedOut
from runners.report import Progress
from runners.runner import Liveness
from tests.support.jobs import NOON, SPAN, make_job, planned

SUPERVISED, ORPHANED, UNREACHABLE = Liveness


def finished(outcome: Outcome) -> Finished:
    return Finished(outcome, None, None)


def warned(code: int, warnings: int) -> Finished:
    return Finished(Exited(code, SPAN), Progress(done=3, passed=3 - warnings, warn=warnings))


@pytest.mark.parametrize(
    ("ending", "steps", "expected"),
    [
        (Completed(0, None), [warned(0, 0), Skipped("off")], "succeeded"),
        (Completed(0, None), [warned(0, 1), finished(Exited(0, SPAN))], "warnings"),
        (Completed(1, None), [warned(1, 1), Skipped("an earlier step failed")], "errors"),
        (Failed(Reason.CANCELLED, "cancelled"), [Skipped("cancelled")] * 2, "cancelled"),
        (Failed(Reason.KILLED, "killed"), [warned(0, 1), finished(Lost("lost"))], "failed"),
    ],
)
def test_an_outcome_says_in_one_word_how_a_job_ended(ending: Ending, steps: list[StepState], expected: str) -> None:
    assert job_outcome(make_job(plan=planned("deps", "build"), steps=steps, state=Ended(NOON, ending))) == expected


@pytest.mark.parametrize("state", [Queued(), Running(), Cancelling(NOON)])
def test_an_active_job_has_no_outcome(state: JobState) -> None:
    assert job_outcome(make_job(state=state)) is None


@pytest.mark.parametrize(
    ("state", "steps", "liveness", "expected"),
    [
        (None, [Pending(), Pending()], SUPERVISED, "starting"),
        (None, [Active(NOON, 0), Pending()], SUPERVISED, "deps"),
        (None, [finished(Exited(0, SPAN)), Pending()], SUPERVISED, "starting"),
        (None, [finished(Exited(0, SPAN)), Active(NOON, 0)], SUPERVISED, "build"),
        (None, [Active(NOON, 0), Pending()], ORPHANED, "orphaned"),
        (None, [Active(NOON, 0), Pending()], UNREACHABLE, "unreachable"),
        (Queued(), [Pending(), Pending()], SUPERVISED, "queued"),
        (Cancelling(NOON), [Active(NOON, 0), Pending()], SUPERVISED, "cancelling"),
        (Cancelling(NOON), [Active(NOON, 0), Pending()], ORPHANED, "orphaned"),
        (Ended(NOON, Completed(0, None)), [finished(Exited(0, SPAN))] * 2, SUPERVISED, "ended"),
        (Ended(NOON, Completed(0, None)), [finished(Exited(0, SPAN))] * 2, ORPHANED, "ended"),
    ],
)
def test_the_phase_of_a_job(state: JobState | None, steps: list[StepState], liveness: Liveness, expected: str) -> None:
    assert phase(make_job(plan=planned("deps", "build"), steps=steps, state=state), liveness) == expected


@pytest.mark.parametrize(
    ("outcome", "code", "status"),
    [
        (Exited(0, SPAN), 0, Status.COMPLETED),
        (Exited(2, SPAN), 2, Status.COMPLETED),
        (Killed(9, SPAN), 137, Status.FAILED),
        (Killed(15, SPAN), 143, Status.FAILED),
        (TimedOut(143, SPAN), 143, Status.FAILED),
        (Stopped(130, SPAN), 130, Status.FAILED),
        (NotStarted("no such program"), None, Status.FAILED),
        (NotStarted("it left no results", 0, SPAN), 0, Status.FAILED),
        (Lost("no witness"), None, Status.FAILED),
    ],
)
def test_a_step_has_its_own_exit_code_or_128_plus_its_signal(
    outcome: Outcome, code: int | None, status: Status
) -> None:
    assert step_exit_code(outcome) == code
    assert step_status(finished(outcome)) is status


@pytest.mark.parametrize(
    ("outcome", "span"),
    [
        (Exited(1, SPAN), SPAN),
        (Killed(9, SPAN), SPAN),
        (TimedOut(143, SPAN), SPAN),
        (Stopped(130, SPAN), SPAN),
        (NotStarted("it left no results", 0, SPAN), SPAN),
        (NotStarted("no such program"), None),
        (Lost("no witness"), None),
    ],
)
def test_a_step_that_ran_has_a_span(outcome: Outcome, span: Span | None) -> None:
    assert step_span(outcome) == span


@pytest.mark.parametrize(
    ("state", "status"),
    [(Pending(), "pending"), (Active(NOON, 0), "running"), (Skipped("packages unchanged"), "skipped")],
)
def test_a_step_that_has_not_run_has_a_status(state: StepState, status: str) -> None:
    assert step_status(state) == status
