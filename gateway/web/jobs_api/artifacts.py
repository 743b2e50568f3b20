"""What the steps of a job left behind: the list, each file, and links to it for browsers."""

from __future__ import annotations

import asyncio
from pathlib import PurePath
from typing import Annotated, Any

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.artifacts.kept import Artifact
from gateway.errors import UnknownJobError, UnknownTargetError
from gateway.web import SERVICE, body
from gateway.web.answers import Answer, base_url, json_answer
from gateway.web.openapi.operation import Refusals, Reply, codes, operation
from gateway.web.server.links import LIFETIME, Links

LINKS = web.AppKey("links", Links)
_PATH = "/api/v1/jobs/{id}/artifacts"
_FILE = f"{_PATH}/{{step}}/{{name}}"
_UNREAD = 30.0  # seconds for a client to read what was sent before
_TYPES = {
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".html": "text/html; charset=utf-8",
}
# A report is a page with its scripts inside of it. It gets an origin of its own, which no page shares: it can't call
# this API, read what this origin has stored, or load or send anything.
_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline' data:; img-src data: blob:; font-src data:; worker-src blob:; frame-ancestors 'none'"
)

_NOT_FOUND: Refusals = (
    UnknownJobError,
    *codes(
        UnknownTargetError,
        unknown_step="The job has no such step.",
        unknown_artifact="The step has kept no such file.",
    ),
)

_log = structlog.get_logger()


class ArtifactAnswer(Answer):
    """A file that a step has left. bytes: its size."""

    step: str
    name: str
    bytes: int
    content_type: str
    url: str


class ArtifactList(Answer):
    """The files that are kept of a job."""

    artifacts: list[ArtifactAnswer]


class LinkAnswer(Answer):
    """A URL that opens one artifact without a token. seconds: for so long."""

    url: str
    seconds: float


class ArtifactQuery(BaseModel):
    """link: opens the artifact without a token."""

    model_config = ConfigDict(extra="forbid")

    link: Annotated[str, Field(min_length=1, examples=["123.456-0f3a"])] | None = None


@operation("listArtifacts", {200: Reply(ArtifactList)}, refusals=(UnknownJobError,))
async def list_artifacts(request: web.Request) -> web.Response:
    """The files that are kept of a job."""
    job_id, base = request.match_info["id"], base_url(request)
    found = await request.app[SERVICE].artifacts.listed(job_id)
    return json_answer(ArtifactList(artifacts=[_answer(job_id, artifact, base) for artifact in found]))


@operation(
    "getArtifact",
    {200: Reply(Any, "*/*", ("ETag",)), 304: Reply(None, headers=("ETag",))},
    query=ArtifactQuery,
    headers={"If-None-Match": "The ETags of the files that the client has."},
    refusals=_NOT_FOUND,
)
async def get(request: web.Request) -> web.StreamResponse:
    """One file: 200, or 304 to a matching If-None-Match."""
    body.query(request, ArtifactQuery)
    reader, where = request.app[SERVICE].artifacts, request.match_info
    artifact, file = await reader.open(where["id"], where["step"], where["name"])
    try:
        headers = {"ETag": f'"{artifact.version}"'}
        if any(tag.value in ("*", artifact.version) for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = _type(artifact)
        if artifact.name.endswith(".html"):
            headers["Content-Security-Policy"] = _SANDBOX
        response = web.StreamResponse(headers=headers)
        response.content_length = artifact.size
        await response.prepare(request)
        try:
            while request.method != "HEAD" and (part := await reader.read(file)):
                async with asyncio.timeout(_UNREAD):
                    await response.write(part)
        except OSError as error:  # a client that is gone, or reads too slowly; the answer has begun
            _log.info("artifact not sent to its end", job=where["id"], error=str(error) or type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response
    finally:
        file.close()


@operation("linkArtifact", {200: Reply(LinkAnswer)}, refusals=_NOT_FOUND)
async def link(request: web.Request) -> web.Response:
    """A URL to one file that needs no token for a minute."""
    where = request.match_info
    artifact, file = await request.app[SERVICE].artifacts.open(where["id"], where["step"], where["name"])
    file.close()
    path = _path(where["id"], artifact)
    url = f"{base_url(request)}{path}?{request.app[LINKS].query(path)}"
    return json_answer(LinkAnswer(url=url, seconds=LIFETIME))


ROUTES = (
    web.get(_PATH, list_artifacts),
    web.get(_FILE, get),
    web.post(f"{_FILE}/link", link),
)


def _path(job_id: str, artifact: Artifact) -> str:
    return _FILE.format(id=job_id, step=artifact.step, name=artifact.name)


def _type(artifact: Artifact) -> str:
    return _TYPES[PurePath(artifact.name).suffix]


def _answer(job_id: str, artifact: Artifact, base: str) -> ArtifactAnswer:
    return ArtifactAnswer(
        step=artifact.step,
        name=artifact.name,
        bytes=artifact.size,
        content_type=_type(artifact),
        url=base + _path(job_id, artifact),
    )
