"""The HTTP client of a gateway, for the command line: requests, and a job's events across lost connections."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp

from gateway.errors import GatewayError

JOBS = "/api/v1/jobs"
ENDED = frozenset({"completed", "failed"})  # each `status` of a job that has ended

_TIMEOUT = 90.0  # seconds, more than the longest `wait` that the API takes
_WAIT = 60  # seconds, the longest `wait`
_SILENCE = 60.0  # seconds without a byte after which an event stream is taken for dead
_BUSY = 30.0  # seconds for a gateway that is too busy for a trigger
_PATIENCE = 300.0  # seconds for a gateway that does not answer in the middle of a job: it may be restarting
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds before one attempt after the other; the last one is repeated
_BUSY_STATUSES = (429, 503)
_MAX_LINE = 16 << 20  # bytes


class RefusedError(GatewayError):
    """The gateway refused a request. retry_after: seconds after which it may not, where that is a matter of load."""

    exit_code: ClassVar[int] = 75  # EX_TEMPFAIL

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnreachableError(GatewayError):
    """The gateway does not answer. may_have_arrived: the request perhaps reached it."""

    exit_code: ClassVar[int] = 69  # EX_UNAVAILABLE

    def __init__(self, message: str, *, may_have_arrived: bool = True) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job. name: `state` with the whole record, or `log` with `offset`, `next`, `text`, `dropped`."""

    name: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class _Patience:
    """The attempts of a gateway that does not answer. They end some minutes after its last answer."""

    last_answer: float = field(default_factory=time.monotonic)
    attempts: int = 0

    def answered(self) -> None:
        self.last_answer, self.attempts = time.monotonic(), 0

    async def pause(self, error: UnreachableError) -> None:
        """Wait before the next attempt. Raises the error if it is too late for one."""
        if time.monotonic() - self.last_answer > _PATIENCE:
            raise error
        await asyncio.sleep(_PAUSES[min(self.attempts, len(_PAUSES) - 1)])
        self.attempts += 1


class Client:
    """A client of one gateway. base: its address, such as http://localhost:3000."""

    def __init__(self, session: aiohttp.ClientSession, base: str, token: str | None = None) -> None:
        self._session = session
        self.base = base.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def trigger(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Trigger a pipeline; the record of its job. Raises RefusedError, UnreachableError."""
        return await self._start(JOBS, body)

    async def retry(self, job_id: str, start: str) -> dict[str, Any]:
        """Do the work of an ended job again, from `failed` or `start` on; the record of the new job.

        Raises RefusedError, UnreachableError.
        """
        return await self._start(f"{JOBS}/{job_id}/retry", {"from": start})

    async def _start(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request that starts a job; its record. Raises RefusedError, UnreachableError.

        A gateway that is restarting or busy, and says when to come again, is asked again for half a minute; so is one
        whose answer was lost, with the same key, so that no second job is started.
        """
        late = time.monotonic() + _BUSY
        key = {"Idempotency-Key": str(uuid.uuid4())}
        has_arrived = False  # perhaps
        error: GatewayError
        while True:
            try:
                return await self._ask("POST", path, json=body, headers=key)
            except RefusedError as refused:
                pause, error = refused.retry_after, refused
            except UnreachableError as lost:
                has_arrived = has_arrived or lost.may_have_arrived
                pause, error = 1.0 if has_arrived else None, lost
            if pause is None or time.monotonic() + pause > late:
                raise error
            await asyncio.sleep(pause)

    async def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        """A job's record, once it changes or after `wait` seconds. Raises RefusedError, UnreachableError."""
        return await self._ask("GET", f"{JOBS}/{job_id}", params={"wait": f"{wait:g}"})

    async def jobs(self, filters: Mapping[str, str]) -> dict[str, Any]:
        """A page of jobs, newest first: `jobs` and `next`. Raises RefusedError, UnreachableError."""
        return await self._ask("GET", JOBS, params=filters)

    async def pipelines(self) -> list[dict[str, Any]]:
        """What can be triggered. Raises RefusedError, UnreachableError."""
        found: list[dict[str, Any]] = (await self._ask("GET", "/api/v1/pipelines"))["pipelines"]
        return found

    async def set_paused(self, project: str, name: str, *, paused: bool) -> dict[str, Any]:
        """Pause a pipeline, or allow it again; the pipeline. Raises RefusedError, UnreachableError."""
        return await self._ask("PUT", f"/api/v1/pipelines/{project}/{name}/paused", json={"paused": paused})

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Ask for the end of a job; its record. Raises RefusedError, UnreachableError."""
        return await self._ask("POST", f"{JOBS}/{job_id}/cancel")

    async def log(self, job_id: str, parameters: Mapping[str, str]) -> str:
        """A job's output. parameters: `tail` or `offset`, `step`. Raises RefusedError, UnreachableError."""
        async with self._request("GET", f"{JOBS}/{job_id}/log", params=parameters) as response:
            return await response.text(errors="replace")

    async def nodes(self, job_id: str, filters: Mapping[str, str]) -> list[dict[str, Any]]:
        """The nodes of a job. filters: `step`, `status`, `resourceType`. Raises RefusedError, UnreachableError."""
        found: list[dict[str, Any]] = (await self._ask("GET", f"{JOBS}/{job_id}/nodes", params=filters))["nodes"]
        return found

    async def sql(self, job_id: str, node: str, step: str) -> dict[str, Any]:
        """The SQL of a node in a step: `compiledSql`, `failuresSql`. Raises RefusedError, UnreachableError."""
        return await self._ask("GET", f"{JOBS}/{job_id}/nodes/{node}/sql", params={"step": step})

    async def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        """The files that the steps of a job have left. Raises RefusedError, UnreachableError."""
        found: list[dict[str, Any]] = (await self._ask("GET", f"{JOBS}/{job_id}/artifacts"))["artifacts"]
        return found

    async def artifact(self, job_id: str, step: str, name: str) -> AsyncIterator[bytes]:
        """One of these files, in pieces. Raises RefusedError, UnreachableError."""
        options = {"timeout": aiohttp.ClientTimeout(total=None, sock_read=_SILENCE)}
        async with self._request("GET", f"{JOBS}/{job_id}/artifacts/{step}/{name}", **options) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def changes(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """The job's record now, and whenever it changes, until the job has ended; it survives restarts of the gateway.

        Raises RefusedError; UnreachableError if the gateway does not answer for five minutes, or not at first.
        """
        record = await self.job(job_id)
        patience = _Patience()
        yield record
        while record["status"] not in ENDED:
            try:
                record = await self.job(job_id, _WAIT)
            except UnreachableError as error:
                await patience.pause(error)
                continue
            patience.answered()
            yield record

    async def events(self, job_id: str, parameters: Mapping[str, str]) -> AsyncIterator[Event]:
        """The events of a job until its end, each byte of its output once; they survive restarts of the gateway.

        parameters: `offset`, the byte of the output to begin at. Raises as `changes`.
        """
        patience = _Patience()
        resume: str | None = None
        end: int | None = None  # of the output of a job that has ended
        is_first = True
        while True:
            lost = UnreachableError(f"{self.base} ended the events of {job_id} too early.")  # as one that stops does
            try:
                async for number, event in self._stream(job_id, parameters, resume):
                    is_first = False
                    resume = number or resume
                    if event.name == "state":
                        end = _output_end(event.data)
                    if event.name == "log" or end is None:
                        patience.answered()
                    yield event
            except UnreachableError as error:
                if is_first:
                    raise
                lost, end = error, None
            if end is not None and int(resume or parameters.get("offset", "0")) >= end:
                return
            await patience.pause(lost)

    async def _stream(
        self, job_id: str, parameters: Mapping[str, str], resume: str | None
    ) -> AsyncIterator[tuple[str, Event]]:
        """The events of one connection, each with its id."""
        headers = {"Accept": "text/event-stream"} | ({} if resume is None else {"Last-Event-ID": resume})
        options = {"headers": headers, "timeout": aiohttp.ClientTimeout(total=None, sock_read=_SILENCE)}
        async with self._request("GET", f"{JOBS}/{job_id}/events", params=parameters, **options) as response:
            fields: dict[str, str] = {}
            try:
                async for line in _lines(response.content):
                    name, _, value = line.partition(":")
                    if line and name:
                        fields[name] = value.removeprefix(" ")
                    elif not line and "data" in fields:
                        yield fields.get("id", ""), Event(fields.get("event", "message"), json.loads(fields["data"]))
                        fields = {}
            except (aiohttp.ClientError, TimeoutError) as error:
                raise self._unreachable(error) from None

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        async with self._request(method, path, **options) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    @asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request that was not refused."""
        given = {"timeout": aiohttp.ClientTimeout(total=_TIMEOUT), **options}
        given["headers"] = {**self._headers, **options.get("headers", {})}
        try:
            async with self._session.request(method, self.base + path, **given) as response:
                if response.status in (502, 503, 504) and method == "GET":  # it stops, or a proxy waits for it
                    raise UnreachableError(f"{self.base} answers {response.status} now; try again in a moment.")
                if response.status >= 400:
                    raise await _refusal(response)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"No gateway answers at {self.base}: {str(error) or 'no answer in time'}. Start it with `pipeline-gateway "
            "serve`, or name another one, such as --server http://HOST:3000.",
            may_have_arrived=not isinstance(error, aiohttp.ClientConnectorError),
        )


def _output_end(record: Mapping[str, Any]) -> int | None:
    """Where the output of a job ends, by its record; None while it is active."""
    if record["status"] not in ENDED:
        return None
    return (record["outputBytes"] or 0) + (record["outputDroppedBytes"] or 0)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The lines of a stream, however long, without their ends."""
    pending = bytearray()
    async for chunk in content.iter_any():
        pending += chunk
        *whole, rest = pending.split(b"\n")
        pending = bytearray(rest)
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(pending) > _MAX_LINE:
            raise aiohttp.ClientPayloadError("the answer has a line that is too long")


async def _refusal(response: aiohttp.ClientResponse) -> RefusedError:
    after = response.headers.get("Retry-After", "")
    retry_after = float(after) if response.status in _BUSY_STATUSES and after.isdecimal() else None
    try:
        return RefusedError(str((await response.json(content_type=None))["error"]), retry_after)
    except (ValueError, KeyError, TypeError):
        return RefusedError(
            f"{response.url} answers {response.status}, and is perhaps no pipeline gateway.", retry_after
        )
