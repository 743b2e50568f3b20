"""The connections that clients have: how many, which of them have a request underway, and when the others end."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import OverloadedError

_MOST = 1000  # connections
_KEPT = 200  # descriptors for all else: SQLite, steps that start, polls that read output, calls of docker
_FEWEST = 16  # connections, however few descriptors there are
_IDLE = 15.0  # seconds without a request: also what ends a client that never finishes its headers
_UNREAD = 30.0  # the same for one that still has to take an answer
_LOOK = 1.0  # seconds between two looks
_READS = ("GET", "HEAD")
_LATE = 0.05  # seconds for the request of a connection that was just taken


def most_connections() -> int:
    """How many connections this process can have with the descriptors that it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(_FEWEST, min(_MOST, soft - _KEPT))


class Underway:
    """Counts connections and requests; its middleware is around each route.

    A poll is never refused for load. So at the limit room is made for whoever comes, by closing the connection that has
    had no request underway for longest; and for there always to be one, not all may have. Requests that wait for a
    change leave a fifth of the connections to others; those with a body, which may be slow, leave a tenth to polls; and
    these leave a few for being told that it is full.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._most_waiting = limit * 8 // 10
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._idle: dict[web.RequestHandler, float] = {}  # since when; who is for longest comes first
        self._requests: dict[web.RequestHandler, asyncio.Task[object] | None] = {}  # with what can just be dropped
        self._none = asyncio.Event()
        self._none.set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request until it is answered. Raises OverloadedError."""
        self._admit(request)
        connection = request.protocol
        self._requests[connection] = asyncio.current_task() if request.method in _READS else None
        self._idle.pop(connection, None)
        self._none.clear()
        try:
            return await handler(request)
        finally:
            del self._requests[connection]
            if connection in self._open:
                self._idle[connection] = _now()
            if not self._requests:
                self._none.set()

    def _admit(self, request: web.Request) -> None:
        if len(self._requests) < self._most_waiting:
            return
        if request.can_read_body:
            most = self.limit * 9 // 10
        elif "wait" in request.query:
            most = self._most_waiting
        else:
            most = self.limit - max(1, self.limit // 50)
        if len(self._requests) >= most:
            raise OverloadedError("As many requests are underway as can be: come again, and poll without `wait`.")

    def came(self, connection: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take a new connection in, for which another one may have to go."""
        if len(self._open) >= self.limit and self._idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            self._open.pop(longest).abort()
        self._open[connection] = transport
        self._idle[connection] = _now()

    def left(self, connection: web.RequestHandler) -> None:
        """Forget a connection that is closed, and stop finding out what nobody waits for any more."""
        self._open.pop(connection, None)
        self._idle.pop(connection, None)
        if reading := self._requests.get(connection):
            reading.cancel()

    async def watch(self) -> None:
        """Close, for as long as the service lives, connections that have had no request underway for too long."""
        while True:
            await asyncio.sleep(_LOOK)
            for connection, since in tuple(self._idle.items()):
                idle = _now() - since
                if idle < _IDLE:
                    break
                transport = self._open[connection]
                if idle >= _UNREAD or not transport.get_write_buffer_size():
                    transport.abort()

    async def finished(self, seconds: float) -> None:
        """Return once there is no request, or after that many seconds."""
        await asyncio.sleep(_LATE)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()
