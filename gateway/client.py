"""A small HTTP client of the gateway, for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from gateway.errors import GatewayError
from gateway.web.data_analytics import PATH

_TIMEOUT = 90.0  # seconds, more than the longest `wait` that the API takes


class RefusedError(GatewayError):
    """The gateway refused a request, or could not be reached."""


class Client:
    """A client of one gateway. base: its address, such as http://localhost:3000."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def trigger(self, body: Mapping[str, Any]) -> str:
        """Trigger a pipeline; the id of its job. Raises RefusedError."""
        answer = await self._call("POST", PATH, json=body)
        return str(answer["jobId"])

    async def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        """A job's record, once it changes or after `wait` seconds. Raises RefusedError."""
        return await self._call("GET", f"/api/v1/jobs/{job_id}", params={"wait": str(wait)})

    async def output(self, job_id: str) -> str:
        """The last 10 KB of a job's output. Raises RefusedError."""
        return str((await self._call("GET", PATH, params={"jobId": job_id}))["output"])

    async def cancel(self, job_id: str) -> None:
        """Ask the gateway to cancel a job. Raises RefusedError."""
        await self._call("POST", f"/api/v1/jobs/{job_id}/cancel")

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        try:
            async with self._session.request(method, self._base + path, timeout=timeout, **options) as response:
                answer: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RefusedError(f"{self._base} can't be reached: {str(error) or 'no answer in time'}") from None
        if response.status >= 400:
            raise RefusedError(f"{response.status}: {answer.get('error')}")
        return answer
