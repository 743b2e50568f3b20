"""The trigger pipeline API: trigger a project's pipeline by name, and poll the run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.errors import UnknownJobError
from gateway.jobs.execution import JobSnapshot
from gateway.model.job import Completed, Ended, Ending, Failed, Job
from gateway.model.request import OnConflict, TriggerRequest
from gateway.web import SERVICE, body
from gateway.web.access import CALLER
from gateway.web.answers import TRIGGER_PIPELINE, json_answer
from gateway.web.body import Branch, Id, Parameters, ProcessName, Version, Words
from gateway.web.idempotency import answer_once

PATH = f"{TRIGGER_PIPELINE}/pipeline"


def _number(given: Any) -> Any:
    """A string of digits as a number, for clients that send all values as strings."""
    return int(given) if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) < 20 else given


class TriggerBody(BaseModel):
    """The body of a trigger; null is the same as a missing field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fabricId: Annotated[int, Field(ge=0, le=2**63 - 1, examples=[1]), BeforeValidator(_number)]  # noqa: N815, the API's name
    pipelineName: Annotated[Words, Field(examples=["nightly"])]  # noqa: N815, the API's name
    projectId: Id  # noqa: N815, the API's name
    parameters: Parameters | None = None
    branch: Branch | None = None
    version: Version | None = None
    processName: ProcessName | None = None  # noqa: N815, the API's name


async def trigger(request: web.Request) -> web.Response:
    """Trigger a project's pipeline by name: 200 once its job is durable."""
    given = await body.read_trigger(request, TriggerBody)
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
    return json_answer({"success": True, "runId": job.id, "msg": text})


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


def _status(job: Job) -> dict[str, Any]:
    return {
        "success": True,
        "runId": job.id,
        "createdAt": _moment(job.created.wall),
        "updatedAt": _moment((job.updated or job.created).wall),
        "projectId": job.project,
        "pipelineName": job.pipeline,
        "fabricId": job.fabric,
        **_run_status(job),
    }


def _run_status(job: Job) -> dict[str, str]:
    match job.state:
        case Ended(ending=Completed(exit_code=0)):
            return {"runStatus": "SUCCEEDED"}
        case Ended(ending=ending):
            return {"runStatus": "ERROR", "errorMessage": _sentence(ending)}
        case _:
            return {"runStatus": "RUNNING"}


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
