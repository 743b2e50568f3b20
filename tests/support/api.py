"""The service inside the test's own process, spoken to over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

from gateway.app import build_app
from gateway.settings import settings as config
from tests.support.gateway import DEADLINE, NAMED, PATH, Answer, pause

Found = TypeVar("Found")


def app(
    folder: Path, environment: Mapping[str, str] | None = None, routes: Iterable[web.AbstractRouteDef] = ()
) -> web.Application:
    """The service on a project's folder; routes: more of them, that only a test wants."""
    given = dict(environment or {})
    built = build_app(config.load(folder / "gateway.yaml", given), {**os.environ, **given})
    built.add_routes(routes)
    return built


class Api:
    """A client of one service, and the folder of its project. token: sent with every request."""

    def __init__(self, session: aiohttp.ClientSession, base: URL, folder: Path, token: str | None = None) -> None:
        self.folder = folder
        self.base = base
        self.token = token
        self._session = session

    async def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request, its path sent as it is written here; a body that is not bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {**NAMED, **({} if content is None else {"Content-Type": "application/json"})}
        if self.token is not None:
            given["X-AUTH-TOKEN"] = self.token
        url = URL(f"{self.base.origin()}{path}", encoded=True)
        async with self._session.request(method, url, data=content, headers={**given, **(headers or {})}) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str) -> dict[str, Any]:
        """What a GET that must succeed answers."""
        answer = await self.call("GET", path)
        assert answer.status == 200, answer
        return answer.json

    async def trigger(self, **fields: Any) -> str:
        """Trigger a pipeline, which must be accepted; the job's id."""
        answer = await self.call("POST", PATH, fields)
        assert answer.status == 202, answer
        return str(answer.json["jobId"])

    async def poll(self, job_id: str) -> dict[str, Any]:
        """The data-analytics record of a job, which must be there."""
        return await self.get(f"{PATH}?jobId={job_id}")

    async def jobs(self) -> list[dict[str, Any]]:
        """The list."""
        listed: list[dict[str, Any]] = (await self.get(PATH))["jobs"]
        return listed

    async def finished(self, job_id: str) -> dict[str, Any]:
        """The record of a job, without its output, once it has ended."""
        while (record := await self.get(f"/api/v1/jobs/{job_id}?wait=20"))["phase"] != "ended":
            pass
        return record

    async def run(self, **fields: Any) -> dict[str, Any]:
        """Trigger a pipeline and wait for its end; the record, without its output."""
        return await self.finished(await self.trigger(**fields))

    async def end(self) -> None:
        """Cancel what still runs, and see it gone."""
        running = [job["jobId"] for job in await self.jobs() if job["phase"] != "ended"]
        for job_id in running:
            await self.call("POST", f"/api/v1/jobs/{job_id}/cancel")
        for job_id in running:
            await self.finished(job_id)


async def until(condition: Callable[[], Awaitable[Found]], what: str) -> Found:
    """The first true answer of a condition; fails with what was waited for."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(DEADLINE):
            while not (found := await condition()):  # noqa: ASYNC110, what other processes do sets no event here
                await asyncio.sleep(pause(time.monotonic() - began))
    except TimeoutError:
        raise AssertionError(f"waited {DEADLINE:.0f} s for {what}") from None
    return found
