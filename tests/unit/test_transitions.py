"""The transitions of a job and how it ends: the contract's table, row by row and then exhaustively."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from gateway.model.job import (
    Active,
    AuditAction,
    AuditEntry,
    Caller,
    Cancelling,
    Completed,
    Ended,
    Ending,
    Failed,
    Finished,
    Job,
    JobState,
    Pending,
    Queued,
    Reason,
    Running,
    Skipped,
    StepState,
    TimeLimit,
    Waiting,
)
from gateway.model.plan import Plan, PlannedStep, Retries, StepName
from gateway.model.status import seconds_left
from gateway.model.transitions import (
    CANCELLED,
    OVERDUE,
    EndJob,
    EndStep,
    RunStep,
    SkipStep,
    begin,
    end_attempt,
    end_step,
    expire,
    next_transition,
    request_cancel,
)
from runners.outcome import Exited, Killed, Lost, NotStarted, Outcome, StepError, Stopped, TimedOut
from runners.report import Failure
from tests.support.jobs import NOON, SPAN, later, make_job, planned

FAILURE = Failure("model.small.broken", "no such column", 2)
DAILY = Plan(
    (
        PlannedStep(StepName.INGESTER),
        PlannedStep(StepName.DEPS),
        PlannedStep(StepName.BUILD, without_elementary=True, tolerates=1),
        PlannedStep(StepName.ELEMENTARY),
    ),
    ("warehouse",),
)
OUTCOMES: dict[str, Outcome] = {
    "exited 0": Exited(0, SPAN),
    "exited 1": Exited(1, SPAN),
    "exited 2": Exited(2, SPAN),
    "killed": Killed(9, SPAN),
    "not started": NotStarted("The program dbt was not found: install it."),
    "timed out": TimedOut(143, SPAN),
    "stopped": Stopped(130, SPAN),
    "lost": Lost("the host was restarted meanwhile"),
}


def finished(outcome: Outcome) -> Finished:
    failure = FAILURE if isinstance(outcome, Exited) and outcome.code else None
    return Finished(outcome, None, failure)


def run_plan(plan: Plan, *outcomes: Outcome, state: JobState | None = None) -> tuple[Job, list[str]]:
    """The job after its steps had these outcomes in order, and the names of the steps that ran."""
    job, ran, remaining = make_job(plan=plan, state=state), list[str](), list(outcomes)
    for _ in range(2 * len(plan.steps) + 1):
        match next_transition(job):
            case RunStep(n=n):
                ran.append(plan.steps[n].name)
                job = job.with_step(n, finished(remaining.pop(0)))
            case SkipStep(n=n, note=note):
                job = job.with_step(n, Skipped(note))
            case EndStep(n=n):
                job = end_step(job, n)
            case EndJob(ending=ending):
                return replace(job, state=Ended(NOON, ending)), ran
    raise AssertionError(f"the job did not end: {job}")


def ending_of(job: Job) -> Ending:
    assert isinstance(job.state, Ended)
    return job.state.ending


@pytest.mark.parametrize(
    ("outcomes", "ran", "ending"),
    [
        (["exited 0"] * 4, 4, Completed(0, None)),
        (["exited 1"], 1, Completed(1, FAILURE)),
        (["exited 0", "exited 2"], 2, Completed(2, FAILURE)),
        (["exited 0", "exited 0", "exited 1", "exited 0"], 4, Completed(1, FAILURE)),
        (["exited 0", "exited 0", "exited 1", "exited 2"], 4, Completed(1, FAILURE)),
        (["exited 0", "exited 0", "exited 2"], 3, Completed(2, FAILURE)),
        (["exited 0", "exited 0", "exited 0", "exited 1"], 4, Completed(1, FAILURE)),
        (["not started"], 1, Reason.NOT_STARTED),
        (["exited 0", "not started"], 2, Reason.NOT_STARTED),
        (["exited 0", "exited 0", "timed out"], 3, Reason.TIMED_OUT),
        (["exited 0", "exited 0", "killed"], 3, Reason.KILLED),
        (["exited 0", "exited 0", "stopped"], 3, Reason.KILLED),
        (["exited 0", "exited 0", "lost"], 3, Reason.UNKNOWN),
        (["exited 0", "exited 0", "exited 1", "timed out"], 4, Reason.TIMED_OUT),
        (["exited 0", "exited 0", "exited 1", "lost"], 4, Reason.UNKNOWN),
    ],
)
def test_how_a_job_ends(outcomes: list[str], ran: int, ending: Completed | Reason) -> None:
    job, names = run_plan(DAILY, *(OUTCOMES[outcome] for outcome in outcomes))
    assert names == [step.name for step in DAILY.steps[:ran]]
    match ending_of(job):
        case Failed(reason=reason, error=error):
            assert reason == ending
            assert error.endswith((".", "it.", "again.", "meanwhile"))
        case completed:
            assert completed == ending
    stopper = DAILY.steps[ran - 1].name
    assert list(job.steps[ran:]) == [Skipped(f"earlier step failed: {stopper}")] * (4 - ran)


def test_the_first_failure_is_of_the_step_whose_exit_code_the_job_has() -> None:
    second = Failure("model.elementary.runs", "no table", 0)
    steps: list[StepState] = [finished(Exited(0, SPAN)), finished(Exited(0, SPAN))]
    steps += [Finished(Exited(1, SPAN), None, FAILURE), Finished(Exited(2, SPAN), None, second)]
    assert next_transition(make_job(plan=DAILY, steps=steps)) == EndJob(Completed(1, FAILURE))


@pytest.mark.parametrize("code", [1, 2, 77, 127, 255])
def test_a_tolerated_ingester_failure_stays_the_jobs_exit_code(code: int) -> None:
    plan = Plan((PlannedStep(StepName.INGESTER, tolerates=255), PlannedStep(StepName.BUILD)), ("warehouse",))
    job, ran = run_plan(plan, Exited(code, SPAN), Exited(0, SPAN))
    assert ran == ["ingester", "build"]
    assert ending_of(job) == Completed(code, FAILURE)


@pytest.mark.parametrize("outcome", ["killed", "not started", "timed out", "lost"])
def test_a_tolerant_ingester_that_did_not_exit_by_itself_ends_the_job(outcome: str) -> None:
    plan = Plan((PlannedStep(StepName.INGESTER, tolerates=255), PlannedStep(StepName.BUILD)), ("warehouse",))
    job, ran = run_plan(plan, OUTCOMES[outcome])
    assert ran == ["ingester"]
    assert isinstance(ending_of(job), Failed)


def test_the_reason_why_a_step_did_not_start_is_the_jobs_error() -> None:
    job, _ = run_plan(planned("deps"), OUTCOMES["not started"])
    assert ending_of(job) == Failed(Reason.NOT_STARTED, "The program dbt was not found: install it.")


@pytest.mark.parametrize(
    ("outcome", "parts"),
    [
        (TimedOut(143, SPAN), ["build", "time limit", "2 s", "time_limit"]),
        (Killed(9, SPAN), ["build", "signal 9", "out of memory", "trigger it again"]),
        (Killed(11, SPAN), ["build", "signal 11", "trigger it again"]),
        (Lost("the host was restarted"), ["build", "can't be known", "the host was restarted"]),
    ],
)
def test_an_error_says_what_failed_why_and_what_to_do(outcome: Outcome, parts: list[str]) -> None:
    ending = ending_of(run_plan(planned("build"), outcome)[0])
    assert isinstance(ending, Failed)
    assert [part for part in parts if part not in ending.error] == []
    assert ("memory" in ending.error) == (outcome == Killed(9, SPAN))


def test_a_cancel_before_the_first_step_runs_none() -> None:
    job, ran = run_plan(DAILY, state=Cancelling(NOON))
    assert ran == []
    assert job.steps == (Skipped(CANCELLED),) * 4
    ending = ending_of(job)
    assert isinstance(ending, Failed)
    assert ending.reason is Reason.CANCELLED


def test_a_cancel_between_two_steps_runs_no_further_step() -> None:
    steps: list[StepState] = [finished(Exited(0, SPAN)), finished(Exited(0, SPAN)), Pending(), Pending()]
    job = make_job(plan=DAILY, steps=steps, state=Cancelling(NOON))
    assert next_transition(job) == SkipStep(2, CANCELLED)
    job = job.with_step(2, Skipped(CANCELLED)).with_step(3, Skipped(CANCELLED))
    transition = next_transition(job)
    assert isinstance(transition, EndJob)
    assert isinstance(transition.ending, Failed)
    assert transition.ending.reason is Reason.CANCELLED


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (Stopped(130, SPAN), Reason.CANCELLED),
        (NotStarted("stopped before it began"), Reason.CANCELLED),
        (Exited(0, SPAN), Completed(0, None)),
        (Exited(1, SPAN), Completed(1, FAILURE)),
        (Killed(9, SPAN), Reason.KILLED),
        (TimedOut(143, SPAN), Reason.TIMED_OUT),
        (Lost("its supervisor was killed"), Reason.UNKNOWN),
    ],
)
def test_a_cancel_during_the_last_step_counts_only_if_it_ended_the_step(
    outcome: Outcome, ending: Completed | Reason
) -> None:
    job = make_job(plan=planned("build"), steps=[finished(outcome)], state=Cancelling(NOON))
    transition = next_transition(job)
    assert isinstance(transition, EndJob)
    assert (transition.ending.reason if isinstance(transition.ending, Failed) else transition.ending) == ending


def test_a_cancel_does_not_hide_a_step_that_exited_without_its_results() -> None:
    """The step ran and exited, so `cancelled before it began` would be false; the first failure wins."""
    lie = NotStarted("dbt build exited 0 without leaving a run_results.json.", 0, SPAN)
    transition = next_transition(make_job(plan=planned("build"), steps=[finished(lie)], state=Cancelling(NOON)))
    assert transition == EndJob(Failed(Reason.NOT_STARTED, lie.why))


@pytest.mark.parametrize("state", [None, Cancelling(NOON)])
def test_an_active_step_is_always_awaited(state: JobState | None) -> None:
    steps: list[StepState] = [finished(Exited(0, SPAN)), Active(NOON, 10), Pending(), Pending()]
    assert next_transition(make_job(plan=DAILY, steps=steps, state=state)) == RunStep(1)


def test_a_cancel_ends_a_queued_job_and_marks_a_running_one() -> None:
    """The running job ends once none of its processes is alive."""
    by = Caller("ops", "127.0.0.1")
    act = AuditEntry(AuditAction.CANCELLED, by, later(1))
    waited = request_cancel(make_job(plan=DAILY, state=Queued()), by, later(1))
    ending = Failed(Reason.CANCELLED, "The job was cancelled while it waited for its turn.")
    assert (waited.state, waited.acts) == (Ended(later(1), ending), (act,))
    assert waited.steps == (Skipped(CANCELLED),) * 4
    running = request_cancel(make_job(plan=DAILY), by, later(1))
    assert (running.state, running.acts) == (Cancelling(later(1)), (act,))
    for job in (waited, running):
        assert request_cancel(job, by, later(2)) is job


def test_only_a_queued_job_changes_when_it_is_promoted() -> None:
    assert begin(make_job(state=Queued())) == make_job()
    for state in (Running(), Cancelling(NOON), Ended(NOON, Completed(0, None))):
        assert begin(make_job(state=state)) == make_job(state=state)


def retried(errors: list[StepError], attempts: int = 3, state: JobState | None = None) -> Job:
    """A job of one step that is tried again after these errors."""
    step = PlannedStep(StepName.BUILD, tolerates=1, retries=Retries(attempts, 5, tuple(errors)))
    return make_job(plan=Plan((step, PlannedStep(StepName.ELEMENTARY)), ("warehouse",)), state=state)


def attempted(job: Job, outcome: Outcome) -> Job:
    """The job after one more attempt of its first step."""
    state = job.steps[0]
    earlier = state.attempts if isinstance(state, Waiting) else ()
    failure = FAILURE if isinstance(outcome, Exited) and outcome.code else None
    return end_attempt(job, 0, Finished(outcome, None, failure, NOON, 0, earlier), later(60))


def test_a_step_is_tried_again_until_it_succeeds_or_has_no_attempts_left() -> None:
    job = attempted(retried([StepError.KILLED]), Killed(9, SPAN))
    assert next_transition(job) == RunStep(0)
    assert isinstance(job.steps[0], Waiting)
    assert job.steps[0].since == later(60)
    assert isinstance(attempted(job, Exited(0, SPAN)).steps[0], Finished)
    job = attempted(attempted(job, Killed(9, SPAN)), Killed(9, SPAN))
    assert isinstance(job.steps[0], Finished)
    assert [attempt.outcome for attempt in job.steps[0].earlier] == [Killed(9, SPAN)] * 2
    assert next_transition(job) == SkipStep(1, "earlier step failed: build")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_an_end_of_a_named_kind_is_tried_again(outcome: str) -> None:
    kinds = {StepError.KILLED: ["killed", "stopped"], StepError.TIMED_OUT: ["timed out"], StepError.LOCKED: []}
    for kind, expected in kinds.items():
        job = attempted(retried([kind]), OUTCOMES[outcome])
        assert isinstance(job.steps[0], Waiting) == (outcome in expected), kind
    any_error = attempted(retried([StepError.ANY]), OUTCOMES[outcome])
    assert isinstance(any_error.steps[0], Finished) == (outcome in ("exited 0", "lost"))


def test_nothing_is_tried_again_after_a_cancel_or_without_a_begin() -> None:
    asked = retried([StepError.ANY], state=Cancelling(NOON))
    assert isinstance(attempted(asked, Killed(9, SPAN)).steps[0], Finished)
    never_begun = Finished(NotStarted("The program dbt was not found: install it."))
    assert isinstance(end_attempt(retried([StepError.ANY]), 0, never_begun, NOON).steps[0], Finished)


@pytest.mark.parametrize("outcome", [Exited(1, SPAN), Exited(2, SPAN), Killed(9, SPAN), NotStarted("no descriptors.")])
def test_a_cancel_between_two_attempts_ends_the_job_as_cancelled(outcome: Outcome) -> None:
    job = replace(attempted(retried([StepError.ANY]), outcome), state=Cancelling(later(61)))
    assert next_transition(job) == EndStep(0)
    job = end_step(job, 0)
    assert isinstance(job.steps[0], Finished)
    transition = next_transition(job.with_step(1, Skipped(CANCELLED)))
    assert isinstance(transition, EndJob)
    assert isinstance(transition.ending, Failed)
    assert transition.ending.reason is Reason.CANCELLED


@pytest.mark.parametrize("outcome", [Exited(1, SPAN), Killed(9, SPAN), NotStarted("no descriptors.")])
def test_a_job_past_its_time_limit_between_two_attempts_times_out(outcome: Outcome) -> None:
    job = replace(attempted(retried([StepError.ANY]), outcome), time_limit=TimeLimit(90, True))
    job = expire(job)
    assert next_transition(job) == EndStep(0)
    job = end_step(job, 0)
    assert isinstance(job.steps[0], Finished)
    transition = next_transition(job.with_step(1, Skipped("earlier step failed: build")))
    assert isinstance(transition, EndJob)
    assert isinstance(transition.ending, Failed)
    assert transition.ending.reason is Reason.TIMED_OUT
    assert "its time limit of 90 s" in transition.ending.error


def test_nothing_is_tried_again_after_the_time_limit_of_the_job() -> None:
    retrying = retried([StepError.ANY])
    late = Finished(TimedOut(143, SPAN), started=NOON, limited_by_job=True)
    assert isinstance(end_attempt(retrying, 0, late, later(60)).steps[0], Finished)
    assert isinstance(end_attempt(retrying, 0, replace(late, limited_by_job=False), later(60)).steps[0], Waiting)


@pytest.mark.parametrize("cancelled_before", [None, 0, 1, 2, 3])
def test_every_sequence_of_outcomes_ends_as_the_table_allows(
    cancelled_before: int | None,
) -> None:
    """Each step takes one transition."""
    plan = Plan(DAILY.steps[1:], DAILY.resources)
    for outcomes in itertools.product(OUTCOMES.values(), repeat=3):
        job = make_job(plan=plan)
        for n, outcome in enumerate(outcomes):
            if n == cancelled_before:
                job = replace(job, state=Cancelling(NOON))
            match next_transition(job):
                case SkipStep() as transition:
                    assert transition.n == n
                    job = job.with_step(n, Skipped(transition.note))
                case transition:
                    assert transition == RunStep(n)
                    job = job.with_step(n, finished(outcome))
        transition = next_transition(job if cancelled_before != 3 else replace(job, state=Cancelling(NOON)))
        assert isinstance(transition, EndJob), outcomes
        ran = [state.outcome for state in job.steps if isinstance(state, Finished)]
        unfinished = [outcome for outcome in ran if not isinstance(outcome, Exited)]
        codes = [outcome.code for outcome in ran if isinstance(outcome, Exited)]
        match transition.ending:
            case Failed(reason=reason, error=error):
                assert error
                assert unfinished or reason is Reason.CANCELLED
                assert unfinished in ([], ran[-1:])  # no step runs after the one that failed the job
            case Completed(exit_code=code, failure=failure):
                assert not unfinished
                assert code == next((code for code in codes if code), 0)
                assert (failure is None) == (code == 0)


@pytest.mark.parametrize(
    ("by_request", "said"), [(True, "timeoutSeconds of the trigger"), (False, "the pipeline full")]
)
def test_a_job_past_its_time_limit_fails_with_the_limit_in_its_error(by_request: bool, said: str) -> None:
    stopped = Finished(TimedOut(143, SPAN), limited_by_job=True)
    job = replace(make_job(plan=DAILY, steps=[stopped, *[Pending()] * 3]), time_limit=TimeLimit(90, by_request))
    for n in range(1, 4):
        assert next_transition(job) == SkipStep(n, "earlier step failed: ingester")
        job = job.with_step(n, Skipped("earlier step failed: ingester"))
    match next_transition(job):
        case EndJob(ending=Failed(reason=Reason.TIMED_OUT, error=error)):
            assert "its time limit of 90 s" in error
            assert "during the step ingester" in error
            assert said in error
        case other:
            raise AssertionError(other)


def test_no_step_begins_once_the_job_has_passed_its_time_limit() -> None:
    done = finished(Exited(0, SPAN))
    job = replace(make_job(plan=planned("ingester", "build"), steps=[done, Pending()]), time_limit=TimeLimit(90, True))
    assert next_transition(job) == RunStep(1)
    job = expire(job)
    assert next_transition(job) == SkipStep(1, OVERDUE)
    match next_transition(job.with_step(1, Skipped(OVERDUE))):
        case EndJob(ending=Failed(reason=Reason.TIMED_OUT, error=error)):
            assert "between two steps" in error
        case other:
            raise AssertionError(other)


def test_a_job_that_is_being_cancelled_does_not_expire() -> None:
    for state in (Cancelling(NOON), Queued()):
        job = make_job(state=state)
        assert expire(job) is job


def test_a_time_limit_counts_from_the_first_step_by_the_uptime() -> None:
    job = replace(make_job(plan=planned("ingester", "build")), time_limit=TimeLimit(90, True))
    assert seconds_left(job, later(1000)) == 90
    job = job.with_step(0, Finished(Exited(0, SPAN), started=later(1000))).with_step(1, Active(later(1060), 0))
    for jump in (-86_400, 0, 86_400):
        assert seconds_left(job, replace(later(1080), wall=NOON.wall + jump)) == 10
    assert seconds_left(replace(job, time_limit=None), later(10**6)) > 10**9
