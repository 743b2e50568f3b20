"""Jobs: trigger, list, get and cancel."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal

from aiohttp import ETag, web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from gateway import clock
from gateway.errors import BadRequestError, RetryRefusedError, StorageError, UnknownJobError
from gateway.jobs.execution import JobSnapshot
from gateway.jobs.service import Once
from gateway.model.history import JobFilter
from gateway.model.job import Ended, Job, JobOutcome, Status
from gateway.model.request import DbtCommand, OnConflict, TriggerRequest
from gateway.model.retry import RetryFrom
from gateway.output.parts import OutputSize
from gateway.web import SERVICE, body
from gateway.web.answers import Answer, HolderAnswer, Moment, base_url, json_answer, json_text
from gateway.web.body import Branch, Conflict, Id, Parameters, ProcessName, Version, Words
from gateway.web.idempotency import answer_once
from gateway.web.openapi.operation import REPLAYED, TRIGGER_HEADERS, TRIGGER_REFUSALS, Reply, codes, operation
from gateway.web.records import ListedJob, WholeRecord, listed_record, whole_record
from gateway.web.server.access import CALLER

PATH = "/api/v1/jobs"
_LONGEST_WAIT = 60
_LONGEST_PAGE = 200
_LONGEST_JOB = 366 * 86400  # seconds
_MOST_VALUES = 100  # of one filter
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9:]{8}(?:\.[0-9]{1,9})?)([Zz]|[+ -][0-9]{2}:[0-9]{2})")


class TriggerBody(BaseModel):
    """The body of a trigger; null is the same as a missing field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pipeline: Annotated[Words, Field(examples=["full"])]
    command: Annotated[DbtCommand, Field(strict=False)] | None = None
    projectId: Id | None = None  # noqa: N815, the API's name
    fabricId: Id | None = None  # noqa: N815, the API's name
    parameters: Parameters | None = None
    branch: Branch | None = None
    version: Version | None = None
    processName: ProcessName | None = None  # noqa: N815, the API's name
    enableOpenlineage: bool | None = None  # noqa: N815, the API's name
    enableElementary: bool | None = None  # noqa: N815, the API's name
    onConflict: Conflict | None = None  # noqa: N815, the API's name
    timeoutSeconds: Annotated[float, Field(gt=0, le=_LONGEST_JOB, examples=[3600])] | None = None  # noqa: N815, the API's name


class RetryBody(BaseModel):
    """The body of a retry; null is the same as a missing field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: Annotated[Literal[RetryFrom.FAILED, RetryFrom.START] | None, Field(alias="from")] = None
    onConflict: Conflict | None = None  # noqa: N815, the API's name


class WaitQuery(BaseModel):
    """How long to wait, in seconds, and for what: any change, or the end."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=_LONGEST_WAIT, allow_inf_nan=False, examples=[30])] = 0
    until: Literal["ended"] | None = None


def _list(text: str) -> list[str]:
    return text.split(",")


def _moment(text: str) -> datetime:
    """A time of RFC 3339. A plus sign that is not escaped in a URL arrives as a space."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError("expected a time with a zone, such as 2026-01-31T06:00:00Z")
    day, time, zone = match.groups()
    return datetime.fromisoformat(f"{day}T{time}{zone.upper().replace(' ', '+')}")


_SOME = Field(min_length=1, max_length=_MOST_VALUES)
Listed = Annotated[str, StringConstraints(min_length=1)]
Filter = Annotated[tuple[Listed, ...], _SOME, BeforeValidator(_list)]
Time = Annotated[datetime, BeforeValidator(_moment), Field(examples=["2026-01-31T06:00:00Z"])]
_REFUSED = "refused"
Statuses = Literal[Status.QUEUED, Status.RUNNING, Status.COMPLETED, Status.FAILED, "refused"]
Outcomes = Literal[
    JobOutcome.SUCCEEDED, JobOutcome.WARNINGS, JobOutcome.ERRORS, JobOutcome.CANCELLED, JobOutcome.FAILED
]


class ListQuery(BaseModel):
    """Which jobs to list. cursor: the `next` of the page before."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[tuple[Statuses, ...], _SOME, BeforeValidator(_list)] = ()
    outcome: Annotated[tuple[Outcomes, ...], _SOME, BeforeValidator(_list)] = ()
    pipeline: Annotated[Filter, Field(examples=[["full", "dbt"]])] = ()
    project: Annotated[Filter, Field(examples=[["shop"]])] = ()
    fabric: Annotated[Filter, Field(examples=[["1"]])] = ()
    since: Time | None = None
    until: Time | None = None
    limit: Annotated[int, Field(ge=1, le=_LONGEST_PAGE)] = 50
    cursor: Annotated[int, Field(ge=1, le=2**63 - 1, examples=[1200])] | None = None


class JobPage(Answer):
    """A page of the list of jobs. next: the cursor of the next one."""

    jobs: list[ListedJob]
    next: str | None


class RefusedTrigger(Answer):
    """A trigger that was refused because of a conflict or a full queue. It has no job, and so no id."""

    created_at: Moment
    pipeline: str
    code: str
    error: str
    conflict: HolderAnswer | None


class RefusalPage(Answer):
    """A page of the list of refused triggers, in the form of that of jobs."""

    jobs: list[RefusedTrigger]
    next: str | None


@operation(
    "triggerJob",
    {202: Reply(WholeRecord, headers=("Location", REPLAYED))},
    body=TriggerBody,
    headers=TRIGGER_HEADERS,
    refusals=(*TRIGGER_REFUSALS, *codes(BadRequestError, unknown_command="There is no such command.")),
)
async def trigger(request: web.Request) -> web.Response:
    """Trigger a pipeline of any project on any fabric: 202 once its job is durable."""
    given = await body.read_trigger(request, TriggerBody)
    asked = TriggerRequest(
        given.pipeline,
        given.command,
        openlineage=given.enableOpenlineage,
        elementary=given.enableElementary,
        project=given.projectId,
        fabric=given.fabricId,
        parameters=given.parameters or {},
        branch=given.branch,
        version=given.version,
        process=given.processName,
        on_conflict=given.onConflict or OnConflict.REJECT,
        caller=request[CALLER],
        time_limit=given.timeoutSeconds,
    )

    service = request.app[SERVICE]
    return await answer_once(
        request, given, lambda once: service.submit(asked, once), lambda snapshot: _accepted(request, snapshot)
    )


@operation(
    "retryJob",
    {202: Reply(WholeRecord, headers=("Location", REPLAYED))},
    body=RetryBody,
    headers=TRIGGER_HEADERS,
    refusals=(
        *TRIGGER_REFUSALS,
        UnknownJobError,
        *codes(
            RetryRefusedError,
            job_not_ended="The job has not ended.",
            nothing_to_retry="The job has no step to begin with.",
        ),
    ),
)
async def retry(request: web.Request) -> web.Response:
    """Do the work of an ended job again, from the step that failed on or all of it: 202 once the new job is durable."""
    given = await body.read_trigger(request, RetryBody, optional=True)
    job_id, start, on_conflict = request.match_info["id"], given.start or RetryFrom.FAILED, given.onConflict
    service = request.app[SERVICE]

    async def submit(once: Once | None) -> Job:
        return await service.retry(job_id, start, on_conflict or OnConflict.REJECT, request[CALLER], once)

    return await answer_once(request, given, submit, lambda snapshot: _accepted(request, snapshot))


@operation("listJobs", {200: Reply(JobPage | RefusalPage)}, query=ListQuery)
async def list_jobs(request: web.Request) -> web.Response:
    """A page of the history, newest first: of jobs, or of refused triggers."""
    asked, base = body.query(request, ListQuery), base_url(request)
    if _REFUSED in asked.status:
        return await _list_refusals(request, asked)
    found, following = await request.app[SERVICE].page(_filter(asked), asked.cursor, asked.limit)
    jobs = [listed_record(snapshot, base) for snapshot in found]
    return json_answer(JobPage(jobs=jobs, next=_cursor(following)))


async def _list_refusals(request: web.Request, asked: ListQuery) -> web.Response:
    if asked.status != (_REFUSED,) or asked.outcome:
        raise BadRequestError(
            "invalid_field",
            "The query parameter 'status' has 'refused', which lists refused triggers instead of jobs: give no other "
            "status and no outcome with it, such as ?status=refused&pipeline=full",
        )
    found, following = await request.app[SERVICE].refusals(_filter(asked), asked.cursor, asked.limit)
    triggers = [
        RefusedTrigger(
            created_at=clock.rfc3339(one.created_at / 1e6),
            pipeline=one.pipeline,
            code=one.code,
            error=one.error,
            conflict=None if one.conflict is None else HolderAnswer.model_validate(one.conflict),
        )
        for one in found
    ]
    return json_answer(RefusalPage(jobs=triggers, next=_cursor(following)))


def _cursor(following: int | None) -> str | None:
    return None if following is None else str(following)


def _filter(asked: ListQuery) -> JobFilter:
    return JobFilter(
        tuple(Status(status) for status in asked.status if status != _REFUSED),
        asked.outcome,
        asked.pipeline,
        asked.project,
        asked.fabric,
        None if asked.since is None else clock.microseconds(asked.since),
        None if asked.until is None else clock.microseconds(asked.until),
    )


@operation(
    "getJob",
    {200: Reply(WholeRecord, headers=("ETag",)), 304: Reply(None, headers=("ETag",))},
    query=WaitQuery,
    headers={"If-None-Match": "The ETags of the records that the client has."},
    refusals=(UnknownJobError,),
)
async def get(request: web.Request) -> web.Response:
    """A job's whole record, at once, when it changes or when it ends: 200, or 304 to a matching If-None-Match."""
    service = request.app[SERVICE]
    asked = body.query(request, WaitQuery)
    snapshot = await service.get(request.match_info["id"])
    known = request.if_none_match
    if asked.wait and not isinstance(snapshot.job.state, Ended):
        if asked.until == "ended":
            snapshot = await service.wait(snapshot.job.id, _has_ended, asked.wait)
        elif known is None or _has(known, snapshot):
            shown = etag(snapshot)
            snapshot = await service.wait(snapshot.job.id, lambda now: etag(now) != shown, asked.wait)
    snapshot = await service.with_notifications(snapshot)
    headers = {"ETag": f'"{etag(snapshot)}"'}
    if known is not None and _has(known, snapshot):
        return web.Response(status=304, headers=headers)
    return json_answer(whole_record(snapshot, base_url(request)), headers=headers)


@operation("cancelJob", {200: Reply(WholeRecord), 202: Reply(WholeRecord)}, refusals=(UnknownJobError, StorageError))
async def cancel(request: web.Request) -> web.Response:
    """Ask for a job's end: 202, or 200 where it had ended."""
    service = request.app[SERVICE]
    before = await service.get(request.match_info["id"])
    snapshot = await service.with_notifications(await service.cancel(before.job.id, request[CALLER]))
    status = 200 if isinstance(before.job.state, Ended) else 202
    return json_answer(whole_record(snapshot, base_url(request)), status=status)


ROUTES = (
    web.post(PATH, trigger),
    web.get(PATH, list_jobs),
    web.get(f"{PATH}/{{id}}", get),
    web.post(f"{PATH}/{{id}}/cancel", cancel),
    web.post(f"{PATH}/{{id}}/retry", retry),
)


def _accepted(request: web.Request, snapshot: JobSnapshot) -> web.Response:
    """The answer to a request that made a job."""
    record = whole_record(snapshot, base_url(request))
    return json_answer(record, status=202, headers={"Location": f"{PATH}/{snapshot.job.id}"})


def _has_ended(snapshot: JobSnapshot) -> bool:
    return isinstance(snapshot.job.state, Ended)


def _has(known: tuple[ETag, ...], snapshot: JobSnapshot) -> bool:
    """Whether a client has this record, by its If-None-Match. A compressing proxy makes tags weak."""
    return any(tag.value in ("*", etag(snapshot)) for tag in known)


def etag(snapshot: JobSnapshot) -> str:
    """The ETag of a record with its clock stopped: a duration or an output that only grows makes no other record."""
    stopped = replace(snapshot, output=OutputSize(removed=snapshot.output.removed))
    return hashlib.sha256(json_text(whole_record(stopped, now=snapshot.job.created)).encode()).hexdigest()[:32]
