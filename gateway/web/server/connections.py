"""The connections of clients: their number, their idle time, and the answers given outside of aiohttp's handlers."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import secrets
from contextlib import suppress
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import LineTooLong
from aiohttp.typedefs import Handler

from gateway.errors import ConfigError, OverloadedError
from gateway.web.answers import SECURITY_HEADERS, SERVER, error_body, json_answer

_MAX = 1000  # connections
_RESERVED = 200  # descriptors for everything else: SQLite, steps that start, polls that read output, calls of docker
_MIN = 16  # connections, however few descriptors there are
_IDLE = 15.0  # seconds without a request, which also ends a client that never finishes its headers
_UNREAD = 30.0  # the same for a client that has not read its answer yet
_CHECK = 1.0  # seconds between two checks
_READS = ("GET", "HEAD")
_LATE = 0.05  # seconds for the request of a connection that was just accepted
_MAX_LINE = 32 * 1024  # bytes of a request line: enough for a handler to refuse an absurd job id itself
_MAX_FIELD = 8 * 1024  # bytes of a header

_log = structlog.get_logger()


def most_connections() -> int:
    """How many connections this process can have with the descriptors that it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX
    return max(_MIN, min(_MAX, soft - _RESERVED))


class Connections:
    """Counts connections and requests; its middleware is around each route.

    A poll is never refused for load. So at the limit a new connection replaces the one that has been idle for longest.
    For there to be an idle one, requests may not take all connections: those that wait for a change leave a fifth of
    them, those with a body, which may be slow, leave a tenth, and polls leave a few for refusals.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._max_waiting = limit * 8 // 10
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}
        self._idle: dict[web.RequestHandler, float] = {}  # since when, the longest first
        self._requests: dict[
            web.RequestHandler, asyncio.Task[object] | None
        ] = {}  # with the task of a request that may be cancelled
        self._no_requests = asyncio.Event()
        self._no_requests.set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request until it is answered. Raises OverloadedError."""
        self._admit(request)
        connection = request.protocol
        self._requests[connection] = asyncio.current_task() if request.method in _READS else None
        self._idle.pop(connection, None)
        self._no_requests.clear()
        try:
            return await handler(request)
        finally:
            del self._requests[connection]
            if connection in self._open:
                self._idle[connection] = _now()
            if not self._requests:
                self._no_requests.set()

    def _admit(self, request: web.Request) -> None:
        if len(self._requests) < self._max_waiting:
            return
        if request.can_read_body:
            limit = self.limit * 9 // 10
        elif "wait" in request.query or request.path.endswith("/events"):
            limit = self._max_waiting
        else:
            limit = self.limit - max(1, self.limit // 50)
        if len(self._requests) >= limit:
            raise OverloadedError("As many requests are underway as can be: come again, and poll without `wait`.")

    def opened(self, connection: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a new connection, and at the limit close the one that has been idle for longest."""
        if len(self._open) >= self.limit and self._idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            self._open.pop(longest).abort()
        self._open[connection] = transport
        self._idle[connection] = _now()

    def closed(self, connection: web.RequestHandler) -> None:
        """Forget a closed connection, and cancel its request if that only reads."""
        self._open.pop(connection, None)
        self._idle.pop(connection, None)
        if reading := self._requests.get(connection):
            reading.cancel()

    async def watch(self) -> None:
        """Close connections that have been idle for too long, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK)
            for connection, since in tuple(self._idle.items()):
                idle = _now() - since
                if idle < _IDLE:
                    break
                transport = self._open[connection]
                if idle >= _UNREAD or not transport.get_write_buffer_size():
                    transport.abort()

    async def drained(self, seconds: float) -> None:
        """Return once no request is underway, or after that many seconds."""
        await asyncio.sleep(_LATE)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._no_requests.wait()


def must_have_extensions() -> None:
    """Raise ConfigError where aiohttp has no C extensions: its parser in Python let requests be smuggled."""
    if HttpRequestParser.__module__ == "aiohttp._http_parser":
        return
    if os.environ.get("AIOHTTP_NO_EXTENSIONS"):
        raise ConfigError("AIOHTTP_NO_EXTENSIONS is set, and aiohttp is not safe without its extensions: unset it.")
    raise ConfigError(
        "aiohttp is installed without its C extensions, and not safe so: install a wheel that has them, "
        "with `pip install --force-reinstall --only-binary aiohttp aiohttp`."
    )


class Connection(web.RequestHandler):
    """One connection, counted while it lives. What aiohttp itself would answer is answered in the gateway's shape."""

    __slots__ = ("_connections",)

    def __init__(self, server: web.Server, connections: Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast(logging.Logger, None),
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_FIELD,
            auto_decompress=False,  # a compressed body is refused, so it must not be unpacked first
        )
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, then read from it."""
        self._connections.opened(self, cast(asyncio.Transport, transport))
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed, by either end."""
        self._connections.closed(self)
        super().connection_lost(exc)

    async def start(self) -> None:
        """Answer requests for as long as the connection lives."""
        try:
            await super().start()
        except ValueError as error:  # aiohttp parses the host of an absolute target outside of its own error handling
            request_id = secrets.token_hex(6)
            _log.info("request unreadable", why=type(error).__name__, request=request_id)
            if self.transport is not None:
                self.transport.write(_raw("The request's target is no address that can be read.", request_id))
                self.transport.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002, aiohttp's text, which quotes what was sent
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed, so that no middleware saw it."""
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer is sent already.")
        request_id = secrets.token_hex(6)
        if status != HTTPStatus.BAD_REQUEST:
            _log.error("connection broke", request=request_id, exc_info=exc)
            text = f"The gateway made a mistake; its log tells more under request id {request_id}."
            return _refusal(500, "internal", text, request_id)
        why = type(exc).__name__  # and not its text, which quotes what was sent, perhaps a token
        _log.info("request unreadable", why=why, request=request_id)
        text = "The request is not HTTP/1.1 as it should be: its first line, a header or its length."
        if isinstance(exc, LineTooLong):
            text = f"The request line is over {_MAX_LINE} bytes, or a header over {_MAX_FIELD}."
        return _refusal(400, "bad_request", text, request_id)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer."""
        if isinstance(resp, web.HTTPException):  # made before the middlewares, for the header Expect only
            text = "The header Expect asks for what is not known: only 100-continue is."
            resp = _refusal(400, "bad_request", text, secrets.token_hex(6))
        return await super().finish_response(request, resp, start_time)


def _raw(text: str, request_id: str) -> bytes:
    """A refusal as bytes, for where aiohttp has no request to answer."""
    refusal = _refusal(HTTPStatus.BAD_REQUEST, "bad_request", text, request_id)
    body = cast(bytes, refusal.body)
    lines = [f"{name}: {value}" for name, value in (*refusal.headers.items(), ("Content-Length", str(len(body))))]
    return "\r\n".join(["HTTP/1.1 400 Bad Request", *lines, "", ""]).encode() + body


def _refusal(status: int, code: str, text: str, request_id: str) -> web.Response:
    content = error_body("", code, text, {})
    headers = {**SECURITY_HEADERS, "Server": SERVER, "X-Request-Id": request_id}
    refusal = json_answer(content, status=status, headers=headers)
    refusal.force_close()
    refusal.headers["Connection"] = "close"  # also for an unknown version of HTTP
    return refusal


def _now() -> float:
    return asyncio.get_running_loop().time()
