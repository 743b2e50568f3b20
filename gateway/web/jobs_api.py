"""The jobs API: for people, pages and tools that want more than the published APIs give."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.jobs.execution import Snapshot
from gateway.jobs.service import Service
from gateway.model.job import Ended
from gateway.web import body
from gateway.web.access import CALLER
from gateway.web.records import whole_record

_LONGEST_WAIT = 60


class WaitQuery(BaseModel):
    """How long to wait for a change, in seconds."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=_LONGEST_WAIT, allow_inf_nan=False)] = 0


def routes(service: Service) -> list[web.AbstractRouteDef]:
    """The routes of this API over a service."""

    async def get(request: web.Request) -> web.Response:
        seconds = body.query(request, WaitQuery).wait
        snapshot = await service.get(request.match_info["id"])
        known = request.headers.get("If-None-Match")
        if seconds and not isinstance(snapshot.job.state, Ended) and known in (None, _etag(snapshot)):
            snapshot = await service.wait(snapshot.job.id, snapshot, seconds)
        headers = {"ETag": _etag(snapshot)}
        if known == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.json_response(whole_record(snapshot), headers=headers)

    async def cancel(request: web.Request) -> web.Response:
        before = await service.get(request.match_info["id"])
        snapshot = await service.cancel(before.job.id, request[CALLER])
        status = 200 if isinstance(before.job.state, Ended) else 202
        return web.json_response(whole_record(snapshot), status=status)

    return [web.get("/api/v1/jobs/{id}", get), web.post("/api/v1/jobs/{id}/cancel", cancel)]


def _etag(snapshot: Snapshot) -> str:
    """Of the record with its clock stopped: a duration that merely goes on makes no other record."""
    content = json.dumps(whole_record(snapshot, now=snapshot.job.created))
    return f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
