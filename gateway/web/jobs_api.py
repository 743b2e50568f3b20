"""The jobs API: for people, pages and tools that want more than the published APIs give."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from aiohttp import ETag, web
from pydantic import BaseModel, ConfigDict, Field

from gateway.jobs.execution import JobSnapshot
from gateway.jobs.requests import PipelineInfo
from gateway.model.job import Ended
from gateway.model.request import is_fabric_number
from gateway.settings.project import ParameterSettings
from gateway.web import SERVICE, body
from gateway.web.access import CALLER
from gateway.web.answers import json_answer
from gateway.web.records import whole_record

_LONGEST_WAIT = 60
_LAST_RUN_FIELDS = ("jobId", "status", "exitCode", "createdAt", "startedAt", "finishedAt", "durationSeconds")


class WaitQuery(BaseModel):
    """How long to wait for a change, in seconds."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=_LONGEST_WAIT, allow_inf_nan=False, examples=[30])] = 0


async def get(request: web.Request) -> web.Response:
    """A job's whole record, at once or when it changes: 200, or 304 to a matching If-None-Match."""
    service = request.app[SERVICE]
    seconds = body.query(request, WaitQuery).wait
    snapshot = await service.get(request.match_info["id"])
    known = request.if_none_match
    if seconds and not isinstance(snapshot.job.state, Ended) and (known is None or _has(known, snapshot)):
        shown = _etag(snapshot)
        snapshot = await service.wait(snapshot.job.id, lambda now: _etag(now) != shown, seconds)
    headers = {"ETag": f'"{_etag(snapshot)}"'}
    if known is not None and _has(known, snapshot):
        return web.Response(status=304, headers=headers)
    return json_answer(whole_record(snapshot), headers=headers)


async def cancel(request: web.Request) -> web.Response:
    """Ask for a job's end: 202, or 200 where it had ended."""
    service = request.app[SERVICE]
    before = await service.get(request.match_info["id"])
    snapshot = await service.cancel(before.job.id, request[CALLER])
    status = 200 if isinstance(before.job.state, Ended) else 202
    return json_answer(whole_record(snapshot), status=status)


async def list_pipelines(request: web.Request) -> web.Response:
    """The pipelines that can be triggered by name."""
    infos = request.app[SERVICE].pipelines()
    return json_answer({"pipelines": [await _pipeline(request, info) for info in infos]})


ROUTES = (
    web.get("/api/v1/jobs/{id}", get),
    web.post("/api/v1/jobs/{id}/cancel", cancel),
    web.get("/api/v1/pipelines", list_pipelines),
)


def _has(known: tuple[ETag, ...], snapshot: JobSnapshot) -> bool:
    """Whether a client has this record, by its If-None-Match. A compressing proxy makes tags weak."""
    return any(tag.value in ("*", _etag(snapshot)) for tag in known)


def _etag(snapshot: JobSnapshot) -> str:
    """The ETag of a record with its clock stopped: a duration that only grows makes no other record."""
    content = json.dumps(whole_record(snapshot, now=snapshot.job.created))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


async def _pipeline(request: web.Request, info: PipelineInfo) -> dict[str, Any]:
    last = await request.app[SERVICE].last_run(info)
    record = None if last is None else whole_record(last)
    return {
        "name": info.name,
        "projectId": info.project,
        "fabricIds": list(filter(is_fabric_number, info.fabrics)),
        "fabrics": list(info.fabrics),
        "steps": list(info.steps),
        "parameters": [_parameter(name, given) for name, given in info.settings.parameters.items()],
        "lastRun": None if record is None else {field: record[field] for field in _LAST_RUN_FIELDS},
    }


def _parameter(name: str, given: ParameterSettings) -> dict[str, Any]:
    limits = {"minimum": given.minimum, "maximum": given.maximum, "choices": given.choices}
    limited = {limit: value for limit, value in limits.items() if value is not None}
    return {"name": name, "type": given.type, "default": given.default, **limited}
