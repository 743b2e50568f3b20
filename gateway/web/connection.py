"""One connection of a client, on which whatever aiohttp itself would answer is answered in our words."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import LineTooLong

from gateway.errors import ConfigError
from gateway.web import refusals
from gateway.web.connections import Underway
from gateway.web.headers import SECURITY_HEADERS, SERVER

_LONGEST_LINE = 32 * 1024  # so that an absurd job id gets our own answer
_LONGEST_FIELD = 8 * 1024

_log = structlog.get_logger()


def must_have_its_extensions() -> None:
    """Raise ConfigError where aiohttp runs without them: its parser in Python had holes that smuggled requests."""
    if HttpRequestParser.__module__ == "aiohttp._http_parser":
        return
    if os.environ.get("AIOHTTP_NO_EXTENSIONS"):
        raise ConfigError("AIOHTTP_NO_EXTENSIONS is set, and aiohttp is not safe without its extensions: unset it.")
    raise ConfigError(
        "aiohttp is installed without its C extensions, and not safe so: install a wheel that has them, "
        "with `pip install --force-reinstall --only-binary aiohttp aiohttp`."
    )


class Connection(web.RequestHandler):
    """Speaks HTTP over one connection, and is counted for as long as it lives."""

    __slots__ = ("_underway",)

    def __init__(self, server: web.Server, underway: Underway) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast(logging.Logger, None),
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_FIELD,
            auto_decompress=False,  # none is taken, so nothing may grow
        )
        self._underway = underway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._underway.came(self, cast(asyncio.Transport, transport))
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client, or we, have closed it."""
        self._underway.left(self)
        super().connection_lost(exc)

    async def start(self) -> None:
        """Answer requests for as long as the connection lives."""
        try:
            await super().start()
        except ValueError as error:  # aiohttp reads the host of an absolute target outside of all that it guards
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
        message: str | None = None,  # noqa: ARG002, aiohttp's own text, which quotes what was sent
    ) -> web.StreamResponse:
        """What is answered to a request that never got to a route."""
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer is sent already.")
        request_id = secrets.token_hex(6)
        if status != HTTPStatus.BAD_REQUEST:
            _log.error("connection broke", request=request_id, exc_info=exc)
            text = f"The gateway made a mistake; its log tells more under request id {request_id}."
            return _refusal(500, "internal", text, request_id)
        why = type(exc).__name__  # and not its text, which has what was sent, a token maybe
        _log.info("request unreadable", why=why, request=request_id)
        text = "The request is not HTTP/1.1 as it should be: its first line, a header or its length."
        if isinstance(exc, LineTooLong):
            text = f"The request line is over {_LONGEST_LINE} bytes, or a header over {_LONGEST_FIELD}."
        return _refusal(400, "bad_request", text, request_id)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer."""
        if isinstance(resp, web.HTTPException):  # from before the middlewares, where only this header is looked at
            text = "The header Expect asks for what is not known: only 100-continue is."
            resp = _refusal(400, "bad_request", text, secrets.token_hex(6))
        return await super().finish_response(request, resp, start_time)


def _raw(text: str, request_id: str) -> bytes:
    """A refusal as it goes over the wire, for where there is no request that it could be an answer to."""
    refusal = _refusal(HTTPStatus.BAD_REQUEST, "bad_request", text, request_id)
    body = cast(bytes, refusal.body)
    lines = [f"{name}: {value}" for name, value in (*refusal.headers.items(), ("Content-Length", str(len(body))))]
    return "\r\n".join(["HTTP/1.1 400 Bad Request", *lines, "", ""]).encode() + body


def _refusal(status: int, code: str, text: str, request_id: str) -> web.Response:
    content = refusals.content("", code, text, {})
    headers = {**SECURITY_HEADERS, "Server": SERVER, "X-Request-Id": request_id}
    refusal = web.json_response(content, status=status, headers=headers)
    refusal.force_close()
    refusal.headers["Connection"] = "close"  # said also to a client whose version of HTTP nobody knows
    return refusal
