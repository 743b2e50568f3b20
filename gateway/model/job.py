"""A job: one accepted trigger and the states of it and of its steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from gateway.clock import Instant
from gateway.model.plan import Plan, PlannedStep
from gateway.model.request_fields import RequestFields
from gateway.settings.fabric import RunnerName
from runners.outcome import (
    Outcome,
)
from runners.parameters import ParameterValue
from runners.report import Failure, Progress


class Status(StrEnum):
    """What the APIs call the states of a job and of a step."""

    QUEUED = "queued"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Reason(StrEnum):
    """Why a job failed."""

    NOT_STARTED = "not_started"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    KILLED = "killed"
    UNKNOWN = "unknown"


class JobOutcome(StrEnum):
    """How a job ended, in one word."""

    SUCCEEDED = "succeeded"
    WARNINGS = "warnings"
    ERRORS = "errors"
    CANCELLED = "cancelled"
    FAILED = "failed"


class AuditAction(StrEnum):
    """What a caller did with a job."""

    TRIGGERED = "triggered"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the name of the token, None where none is needed, and the address of the client."""

    token: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What a caller did with a job, and when."""

    action: AuditAction
    by: Caller
    at: Instant


@dataclass(frozen=True, slots=True)
class Pending:
    """The step has not begun."""

    kind: Literal["pending"] = "pending"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a step that has ended, and that another one followed or is to follow. Fields: as in Finished."""

    outcome: Outcome
    failure: Failure | None = None
    started: Instant | None = None
    output_from: int | None = None


@dataclass(frozen=True, slots=True)
class Active:
    """The runner has an attempt of the step, which is the only one unless its plan has retries.

    output_from: offset of the first byte of the job's output that may be the attempt's. begun: the runner has started
    it, so it is never started again, even if its folder is removed. earlier: the attempts before it.
    limited_by_job: its own time limit is longer than what was left of the job's.
    """

    started: Instant
    output_from: int
    begun: bool = False
    earlier: tuple[Attempt, ...] = ()
    limited_by_job: bool = False
    kind: Literal["active"] = "active"


@dataclass(frozen=True, slots=True)
class Finished:
    """The step has ended.

    failure: the first thing that went wrong, where its exit code is not 0.
    started: when the runner got it, None if it never did.
    output_from: as in Active; None if the runner never got it, and in records of older versions.
    earlier, limited_by_job: as in Active; the other fields are those of the last attempt.
    """

    outcome: Outcome
    progress: Progress | None = None
    failure: Failure | None = None
    started: Instant | None = None
    output_from: int | None = None
    earlier: tuple[Attempt, ...] = ()
    limited_by_job: bool = False
    kind: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An attempt of the step has ended, and another one is to follow. last: its end. since: when that was found."""

    last: Finished
    since: Instant
    kind: Literal["waiting"] = "waiting"

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts so far."""
        last = self.last
        return (*last.earlier, Attempt(last.outcome, last.failure, last.started, last.output_from))


@dataclass(frozen=True, slots=True)
class Skipped:
    """The step did not run; the note says why."""

    note: str
    kind: Literal["skipped"] = "skipped"


StepState = Pending | Active | Waiting | Finished | Skipped


@dataclass(frozen=True, slots=True)
class Completed:
    """Each step that had to run ran to its end; exit_code is the first that is not 0, else 0."""

    exit_code: int
    failure: Failure | None
    kind: Literal["completed"] = "completed"


@dataclass(frozen=True, slots=True)
class Failed:
    """The job did not do its work; error is one sentence: what, why, what to do."""

    reason: Reason
    error: str
    kind: Literal["failed"] = "failed"


Ending = Completed | Failed


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits for its resources; no step of it has begun."""

    kind: Literal["queued"] = "queued"


@dataclass(frozen=True, slots=True)
class Running:
    """The job holds its resources and its steps run. overdue: it has passed its time limit, so no other step begins."""

    overdue: bool = False
    kind: Literal["running"] = "running"


@dataclass(frozen=True, slots=True)
class Cancelling:
    """A caller asked for the job's end; a process of it may still be alive."""

    asked: Instant
    kind: Literal["cancelling"] = "cancelling"


@dataclass(frozen=True, slots=True)
class Ended:
    """No process of the job is alive, and its record never changes again."""

    at: Instant
    ending: Ending
    kind: Literal["ended"] = "ended"


JobState = Queued | Running | Cancelling | Ended


@dataclass(frozen=True, slots=True)
class SourceCommit:
    """The commit of a project that a job runs on.

    branch, version: from the request, else from the configuration. folder: of the project in its repository, empty for
    the top. repository: its address, or its absolute path on this host.
    """

    commit: str
    branch: str | None
    version: str | None
    folder: str
    repository: str


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long a job may take from the begin of its first step. by_request: by its trigger, else by its pipeline."""

    seconds: float
    by_request: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted trigger.

    project, fabric: ids. runner: of the fabric.
    steps: the states of the plan's steps, in the plan's order.
    revision: counts the changes of the record. The record is kept in two places; the higher revision is right.
    acts: what callers did with the job, oldest first.
    source: None for the project's directory as it is. parameters: those that have a value, defaults included.
    process: the step or model after which the job stops.
    updated: when the record last changed; None in a record that never did, or that an older version wrote.
    output_end: the bytes of output that an ended job has printed, kept or not; None where that is not known.
    request: what it was asked for; None in a record of an older version.
    retry_of: the job that it is a retry of. begins_at: its first step, counted from 0; an earlier job did those before.
    continues: what the step that failed goes on from: the folder of that job's last attempt, below that of all jobs.
    time_limit: of the whole job; None where only its steps have limits.
    """

    id: str
    pipeline: str
    command: str | None
    project: str
    fabric: str
    plan: Plan
    created: Instant
    steps: tuple[StepState, ...]
    state: JobState
    runner: RunnerName = RunnerName.LOCAL
    revision: int = 0
    acts: tuple[AuditEntry, ...] = ()
    source: SourceCommit | None = None
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    process: str | None = None
    updated: Instant | None = None
    output_end: int | None = None
    request: RequestFields | None = None
    retry_of: str | None = None
    begins_at: int = 0
    continues: str | None = None
    time_limit: TimeLimit | None = None

    def with_step(self, n: int, state: StepState) -> Job:
        """This job with another state of its nth step, counted from 0."""
        return replace(self, steps=(*self.steps[:n], state, *self.steps[n + 1 :]))

    def with_planned(self, n: int, planned: PlannedStep, notes: tuple[str, ...]) -> Job:
        """This job with another nth step in its plan, counted from 0, and with more notes."""
        steps = (*self.plan.steps[:n], planned, *self.plan.steps[n + 1 :])
        notes = tuple(note for note in notes if note not in self.plan.notes)
        return replace(self, plan=replace(self.plan, steps=steps, notes=(*self.plan.notes, *notes)))


@dataclass(frozen=True, slots=True)
class WaitsFor:
    """Another job that comes first on a resource that a queued job needs. job: its id."""

    job: str
    resource: str
