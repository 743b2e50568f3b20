"""The output of a job as text."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import BadRequestError, UnknownJobError, UnknownTargetError
from gateway.web import SERVICE, body
from gateway.web.openapi.operation import Reply, codes, operation

_UNREAD = 30.0  # seconds for a client to read what was sent before

_log = structlog.get_logger()

Offset = Annotated[int, Field(ge=0, le=2**63 - 1, examples=[10240])]


class LogQuery(BaseModel):
    """Which part of the output. end: the offset behind it. download: browsers save it to a file."""

    model_config = ConfigDict(extra="forbid")

    offset: Offset | None = None
    tail: Offset | None = None
    end: Offset | None = None
    step: Annotated[str, Field(min_length=1, examples=["build"])] | None = None
    download: Literal["true", ""] | None = None


@operation(
    "getLog",
    {200: Reply(str, "text/plain", ("Log-Start", "Log-Next", "Log-Dropped", "Content-Disposition"))},
    query=LogQuery,
    refusals=(UnknownJobError, *codes(UnknownTargetError, unknown_step="The job has no such step.")),
)
async def get(request: web.Request) -> web.StreamResponse:
    """All that is kept at this moment of a job's output, or a part of it."""
    asked, service = body.query(request, LogQuery), request.app[SERVICE]
    if asked.offset is not None and asked.tail is not None:
        raise BadRequestError("invalid_field", "The query has `offset` and `tail`: give one of them.")
    job, found = await service.output.find(
        request.match_info["id"], offset=asked.offset, tail=asked.tail, until=asked.end, step=asked.step
    )
    headers = {"Log-Start": str(found.start), "Log-Next": str(found.end), "Log-Dropped": str(found.dropped)}
    if asked.download is not None:
        headers["Content-Disposition"] = f'attachment; filename="{job.id}.log"'
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8", **headers})
    await response.prepare(request)
    try:
        offset = found.start
        while request.method != "HEAD" and (part := await service.output.part(job, offset, found.end)) is not None:
            gap = f"==> {part.dropped} bytes were dropped here <==\n" if part.dropped else ""
            async with asyncio.timeout(_UNREAD):
                await response.write(f"{gap}{part.text}".encode())
            offset = part.next
    except OSError as error:  # a client that is gone, or reads too slowly; the answer has begun, so it can only be cut
        _log.info("log not sent to its end", job=job.id, error=str(error) or type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response


ROUTES = (web.get("/api/v1/jobs/{id}/log", get),)
