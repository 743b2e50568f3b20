"""The requests that have no answer yet: a service that stops lets them finish."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler

_LATE = 0.05  # seconds for the request of a connection that was just taken


class Underway:
    """Counts requests; its middleware is the outermost of all."""

    def __init__(self) -> None:
        self._requests = 0
        self._none = asyncio.Event()
        self._none.set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request until it is answered."""
        self._requests += 1
        self._none.clear()
        try:
            return await handler(request)
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._none.set()

    async def finished(self, seconds: float) -> None:
        """Return once there is none, or after that many seconds."""
        await asyncio.sleep(_LATE)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()
