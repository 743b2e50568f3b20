"""The data-analytics API: trigger, poll, list."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.errors import BadRequestError, UnknownJobError
from gateway.jobs.execution import JobSnapshot
from gateway.model.job import Status
from gateway.model.request import BuiltinPipeline, DbtCommand, OnConflict, TriggerRequest
from gateway.web import SERVICE, body
from gateway.web.answers import Answer, base_url, json_answer
from gateway.web.body import Conflict, JobId
from gateway.web.idempotency import answer_once
from gateway.web.openapi.operation import REPLAYED, TRIGGER_HEADERS, TRIGGER_REFUSALS, Reply, codes, operation
from gateway.web.records import JobAnswer, record
from gateway.web.server.access import CALLER

PATH = "/api/data-analytics/pipeline/trigger"
OUTPUT_SIZE = 10_240


def _daily_unless_given(given: Any) -> Any:
    return DbtCommand.DAILY if given is None else given


class PipelineTriggerBody(BaseModel):
    """The body of a trigger; null is the same as a missing field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pipeline: Annotated[BuiltinPipeline, Field(strict=False)]
    command: Annotated[
        DbtCommand,
        Field(strict=False),
        BeforeValidator(_daily_unless_given, json_schema_input_type=DbtCommand | None),
    ] = DbtCommand.DAILY
    enableOpenlineage: bool | None = None  # noqa: N815, the API's name
    enableElementary: bool | None = None  # noqa: N815, the API's name
    onConflict: Conflict | None = None  # noqa: N815, the API's name


class JobQuery(BaseModel):
    """The query of a poll; without an id it asks for the list."""

    model_config = ConfigDict(extra="forbid")

    jobId: JobId | None = None  # noqa: N815, the API's name


class Accepted(Answer):
    """The answer to a trigger."""

    success: bool
    output: str
    exit_code: int
    job_id: str
    status: Status


_ACCEPTED = Accepted(
    success=True,
    output='Pipeline "dbt" started in background.',
    exit_code=-1,
    job_id="dbt-1796043514018-ioqtdn",
    status=Status.RUNNING,
)


class PolledJob(JobAnswer):
    """The answer to a poll. output: its end, as a terminal would show it."""

    output: str


class JobList(Answer):
    """The list."""

    success: bool
    jobs: list[JobAnswer]


@operation(
    "triggerPipeline",
    {202: Reply(Accepted, headers=("Location", REPLAYED), example=_ACCEPTED)},
    body=PipelineTriggerBody,
    headers=TRIGGER_HEADERS,
    refusals=(
        *TRIGGER_REFUSALS,
        *codes(
            BadRequestError,
            unknown_pipeline="There is no such pipeline.",
            unknown_command="There is no such command.",
        ),
    ),
)
async def trigger(request: web.Request) -> web.Response:
    """Trigger a pipeline of the default project on the default fabric: 202 once its job is durable."""
    given = await body.read_trigger(request, PipelineTriggerBody)
    asked = TriggerRequest(
        given.pipeline,
        given.command,
        openlineage=given.enableOpenlineage,
        elementary=given.enableElementary,
        on_conflict=given.onConflict or OnConflict.REJECT,
        caller=request[CALLER],
    )

    def accepted(snapshot: JobSnapshot) -> web.Response:
        job_id = snapshot.job.id
        text = f'Pipeline "{given.pipeline}" started in background.'
        return json_answer(
            Accepted(success=True, output=text, exit_code=-1, job_id=job_id, status=Status.RUNNING),
            status=202,
            headers={"Location": f"{PATH}?jobId={job_id}"},
        )

    service = request.app[SERVICE]
    return await answer_once(request, given, lambda once: service.submit(asked, once), accepted)


@operation("getPipelineJobs", {200: Reply(PolledJob | JobList)}, query=JobQuery, refusals=(UnknownJobError,))
async def find(request: web.Request) -> web.Response:
    """One job with the end of its output, or the list of recent jobs."""
    service = request.app[SERVICE]
    asked, base = body.query(request, JobQuery), base_url(request)
    if asked.jobId is None:
        return json_answer(JobList(success=True, jobs=[record(job, base) for job in await service.recent()]))
    snapshot = await service.get_recent(asked.jobId)
    try:
        output = await service.output.tail(snapshot.job, OUTPUT_SIZE)
    except OSError as error:  # such as no free descriptor: a poll must still tell the job's status
        output = f"The output can't be read now: {error.strerror}."
    return json_answer(PolledJob(**dict(record(snapshot, base)), output=output))


ROUTES = (web.post(PATH, trigger), web.get(PATH, find))
