"""Server-sent events of a job: its record whenever it changes, and its output."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import structlog
from aiohttp import web
from aiohttp_sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict

from gateway.errors import OverloadedError, RequestError, UnknownJobError
from gateway.jobs.service import JobService
from gateway.model.job import Ended
from gateway.web import SERVICE, body
from gateway.web.answers import SECURITY_HEADERS, Answer, base_url, json_text
from gateway.web.jobs_api.jobs import etag
from gateway.web.jobs_api.log import Offset
from gateway.web.openapi.operation import Reply, operation
from gateway.web.records import WholeRecord, whole_record

FOLLOWERS = web.AppKey("followers", set[asyncio.Task[object] | None])
_MOST = 256  # followers of all jobs together
_INTERVAL = 0.25  # seconds between two looks at the output
_UNREAD = 30.0  # seconds for a client to read what was sent before
_PING = 15.0  # seconds between two signs of life, by which proxies keep the connection, and a dead client is found

_log = structlog.get_logger()


class EventsQuery(BaseModel):
    """Where to go on. The header Last-Event-ID, which a client sends when it connects again, comes before it."""

    model_config = ConfigDict(extra="forbid")

    offset: Offset = 0


class LogEvent(Answer):
    """A part of the output. offset, next: of its first byte, and of the next part. dropped: bytes lost before it."""

    offset: int
    next: int
    text: str
    dropped: int


@operation(
    "followJob",
    {200: Reply(str, "text/event-stream", events={"state": WholeRecord, "log": LogEvent})},
    query=EventsQuery,
    headers={"Last-Event-ID": "The `id` of the last event that the client has."},
    refusals=(UnknownJobError,),
)
async def get(request: web.Request) -> web.StreamResponse:
    """Follow a job until it has ended and all its output was sent."""
    service = request.app[SERVICE]
    asked = body.query(request, EventsQuery)
    last = request.headers.get("Last-Event-ID")
    if last is not None:
        asked = body.validate(EventsQuery, {"offset": last}, "header Last-Event-ID as")
    job_id = (await service.get(request.match_info["id"])).job.id
    with _counted(request.app[FOLLOWERS]):
        offset = await service.output.line_start(job_id, asked.offset)
        response = EventSourceResponse(sep="\n", send_timeout=_UNREAD, ping_interval=_PING)
        response.headers.update(SECURITY_HEADERS)
        await response.prepare(request)
        async with response:
            try:
                await _follow(service, job_id, offset, response, base_url(request))
            except (TimeoutError, ConnectionError):
                _log.info("follower cut off", job=job_id)
            except (RequestError, OSError) as error:  # the answer has begun, so the client has to come again
                _log.warning("follower not served", job=job_id, error=str(error))
    return response


ROUTES = (web.get("/api/v1/jobs/{id}/events", get, allow_head=False),)


@contextlib.contextmanager
def _counted(followers: set[asyncio.Task[object] | None]) -> Iterator[None]:
    """Count this task among the followers while it serves one. Raises OverloadedError."""
    if len(followers) >= _MOST:
        raise OverloadedError(f"{_MOST} clients follow jobs already: come again, or poll with `wait`.")
    followers.add(asyncio.current_task())
    try:
        yield
    finally:
        followers.discard(asyncio.current_task())


async def _follow(service: JobService, job_id: str, offset: int, response: EventSourceResponse, base: str) -> None:
    shown, ended, seen = None, False, None
    while not service.is_draining:
        changed = service.changed(job_id)
        if shown is None or changed is not seen:
            snapshot = await service.with_notifications(await service.get(job_id))
            seen, ended, tag = changed, isinstance(snapshot.job.state, Ended), etag(snapshot)
            if tag != shown:
                shown = tag
                await response.send(json_text(whole_record(snapshot, base)), event="state")
        part = await service.output.next_part(job_id, offset)
        if part is not None:
            offset = part.next
            event = LogEvent(offset=part.offset, next=part.next, text=part.text, dropped=part.dropped)
            await response.send(json_text(event), event="log", id=str(offset))
            await asyncio.sleep(0)  # sending alone gives others no turn, as long as the client reads
        elif ended:
            return
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await (changed or asyncio.Event()).wait()
