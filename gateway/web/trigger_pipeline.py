"""The trigger pipeline API: trigger a project's pipeline by name, and poll the run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from gateway.errors import UnknownJobError
from gateway.jobs.execution import JobSnapshot
from gateway.model.job import Completed, Ended, Ending, Failed, Job
from gateway.model.request import OnConflict, TriggerRequest
from gateway.web import SERVICE, body
from gateway.web.answers import TRIGGER_PIPELINE, Answer, is_none, json_answer
from gateway.web.body import Branch, Id, Parameters, ProcessName, Version, Words
from gateway.web.idempotency import answer_once
from gateway.web.openapi.operation import REPLAYED, TRIGGER_HEADERS, TRIGGER_REFUSALS, Reply, operation
from gateway.web.server.access import CALLER

PATH = f"{TRIGGER_PIPELINE}/pipeline"


RunMoment = Annotated[str, Field(examples=["2026-01-31T06:00:00.250000"])]


FabricNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,19}$")]


def _number(given: Any) -> Any:
    """A string of digits as a number, for clients that send all values as strings."""
    return int(given) if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) < 20 else given


class RunTriggerBody(BaseModel):
    """The body of a trigger; null is the same as a missing field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fabricId: Annotated[  # noqa: N815, the API's name
        FabricNumber, BeforeValidator(_number, json_schema_input_type=FabricNumber | Digits), Field(examples=[1])
    ]
    pipelineName: Annotated[Words, Field(examples=["nightly"])]  # noqa: N815, the API's name
    projectId: Id  # noqa: N815, the API's name
    parameters: Parameters | None = None
    branch: Branch | None = None
    version: Version | None = None
    processName: ProcessName | None = None  # noqa: N815, the API's name


class RunAccepted(Answer):
    """The answer to a trigger."""

    success: Literal[True]
    run_id: str
    msg: str


_ACCEPTED = RunAccepted(
    success=True,
    run_id="nightly-1796043514018-ioqtdn",
    msg="Pipeline `nightly` of project `shop` was triggered on fabric `1`.",
)


class RunAnswer(Answer):
    """How a run is. success: of the request, also where the run failed. Times are UTC and have no zone."""

    success: Literal[True]
    run_id: str
    created_at: RunMoment
    updated_at: RunMoment
    project_id: str
    pipeline_name: str
    fabric_id: str
    run_status: Literal["RUNNING", "SUCCEEDED", "ERROR"]
    error_message: Annotated[str | None, Field(exclude_if=is_none)] = None


_SUCCEEDED = RunAnswer(
    success=True,
    run_id="nightly-1796043514018-ioqtdn",
    created_at="2026-01-31T06:00:00.250000",
    updated_at="2026-01-31T06:10:00.500000",
    project_id="shop",
    pipeline_name="nightly",
    fabric_id="1",
    run_status="SUCCEEDED",
)


@operation(
    "triggerRun",
    {200: Reply(RunAccepted, headers=(REPLAYED,), example=_ACCEPTED)},
    body=RunTriggerBody,
    headers=TRIGGER_HEADERS,
    refusals=TRIGGER_REFUSALS,
)
async def trigger(request: web.Request) -> web.Response:
    """Trigger a project's pipeline by name: 200 once its job is durable."""
    given = await body.read_trigger(request, RunTriggerBody)
    asked = TriggerRequest(
        given.pipelineName,
        project=given.projectId,
        fabric=str(given.fabricId),
        parameters=given.parameters or {},
        branch=given.branch,
        version=given.version,
        process=given.processName,
        on_conflict=OnConflict.QUEUE,
        caller=request[CALLER],
    )
    service = request.app[SERVICE]
    return await answer_once(request, given, lambda once: service.submit(asked, once), _accepted)


def _accepted(snapshot: JobSnapshot) -> web.Response:
    job = snapshot.job
    text = f"Pipeline `{job.pipeline}` of project `{job.project}` was triggered on fabric `{job.fabric}`."
    return json_answer(RunAccepted(success=True, run_id=job.id, msg=text))


@operation("getRun", {200: Reply(RunAnswer, example=_SUCCEEDED)}, refusals=(UnknownJobError,))
async def find(request: web.Request) -> web.Response:
    """How a run is: 200 also where the run failed."""
    run_id = request.match_info["runId"]
    try:
        snapshot = await request.app[SERVICE].get(run_id)
    except UnknownJobError:
        shown = ascii(run_id[:100])[1:-1]
        raise UnknownJobError(
            f"Run with id `{shown}` not found. It may never have been, or its record has expired."
        ) from None
    return json_answer(_status(snapshot.job))


ROUTES = (web.post(PATH, trigger), web.get(f"{PATH}/{{runId}}", find))


def _status(job: Job) -> RunAnswer:
    return RunAnswer(
        success=True,
        run_id=job.id,
        created_at=_moment(job.created.wall),
        updated_at=_moment((job.updated or job.created).wall),
        project_id=job.project,
        pipeline_name=job.pipeline,
        fabric_id=job.fabric,
        **_run_status(job),
    )


def _run_status(job: Job) -> dict[str, Any]:
    match job.state:
        case Ended(ending=Completed(exit_code=0)):
            return {"run_status": "SUCCEEDED"}
        case Ended(ending=ending):
            return {"run_status": "ERROR", "error_message": _sentence(ending)}
        case _:
            return {"run_status": "RUNNING"}


def _sentence(ending: Ending) -> str:
    match ending:
        case Failed(error=error):
            return error
        case Completed(exit_code=code, failure=failure):
            if failure is None:
                return f"The run ended with exit code {code} and said nothing; look at its output."
            more = f" ({failure.more} more failed)" if failure.more else ""
            return f"{failure.node}: {failure.message}{more}"


def _moment(wall: float) -> str:
    """UTC, always with six digits of microseconds, without a zone."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
