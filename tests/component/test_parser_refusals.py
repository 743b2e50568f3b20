"""Requests that aiohttp refuses before any handler: the common shape and headers, and no echo of the request."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import http

from gateway.app import Server
from gateway.errors import ConfigError
from gateway.settings import settings as config
from gateway.web import body as web_body
from gateway.web.answers import SECURITY_HEADERS
from gateway.web.server.connections import Connection, must_have_extensions
from tests.support.gateway import COMMAND, PATH, Answer
from tests.support.raw import JSON, request, send

SENT = b"hunter2"
CHUNKED = request("POST", PATH, JSON, b"Transfer-Encoding: chunked")
UPGRADE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
async def port(project: Path) -> AsyncIterator[int]:
    """The port of the service as `serve` starts it."""
    server = Server(config.load(project / "gateway.yaml", {"HOST": "127.0.0.1", "PORT": "0"}), dict(os.environ))
    await server.start()
    yield server.port
    await server.close()


def is_gateway_error(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (answer.headers["Server"], answer.headers["Connection"]) == ("pipeline-gateway", "close")
    assert SECURITY_HEADERS.items() <= answer.headers.items()
    assert re.fullmatch(r"[0-9a-f]{12}", answer.headers["X-Request-Id"])
    text = answer.json["error"]
    assert answer.json == {"success": False, "code": code, "error": text, "output": text}
    for inside in (b"Traceback", b".py", b"aiohttp", b"Error", b"Bad", SENT):
        assert inside not in answer.body


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00" + SENT,
        b"GET\r\n\r\n",
        b"BREW /hunter2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://xn--a/hunter2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://xn--55qx5dxn--/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/3.0\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        request("GET", b"/hunter2/\x00"),
        request("GET", b"/hunter2/\xff"),
        request("GET", "http://[::1/hunter2"),
        request("GET", "/healthz", b"Host: localhost", b"Host: hunter2"),
        request("GET", "/hunter2" + "a" * 100_000),
        request("GET", "/healthz", b"X-Long: " + SENT + b"a" * 100_000),
        request("GET", "/healthz", *[b"X-%d: hunter2" % number for number in range(1000)]),
        request("GET", "/healthz", b"X hunter2: 1"),
        request("GET", "/healthz", b"X: 1\r\n hunter2"),
        request("GET", "/healthz", b"X: 1\rhunter2: 2"),
        request("POST", PATH, JSON, b"Content-Length: -1"),
        request("POST", PATH, JSON, b"Content-Length: +2") + b"{}",
        request("POST", PATH, JSON, b"Content-Length: 2", b"Content-Length: 3") + b"{}",
        request("POST", PATH, JSON, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request("POST", PATH, JSON, b"Transfer-Encoding: chunked, hunter2"),
        request("POST", PATH, JSON, b"Transfer-Encoding : chunked"),
        CHUNKED + b"hunter2\r\n",
        CHUNKED + b"FFFFFFFFFFFFFFFFFF\r\n",
        CHUNKED + b"2\r\n{}hunter2\r\n0\r\n\r\n",
        CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: hunter2\r\n" * 1000 + b"\r\n",
    ],
)
async def test_malformed_http_gets_400_in_the_common_error_shape(port: int, data: bytes) -> None:
    is_gateway_error(await send(port, data), 400, "bad_request")
    assert (await send(port, request("GET", PATH))).json == {"success": True, "jobs": []}


@pytest.mark.parametrize("target", [PATH, "/nowhere"])
async def test_an_unknown_expect_header_gets_400_in_the_common_error_shape(port: int, target: str) -> None:
    is_gateway_error(
        await send(port, request("POST", target, JSON, b"Expect: hunter2", body=b"{}")), 400, "bad_request"
    )


async def test_a_malformed_chunk_after_a_valid_one_gets_408_or_400(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_body, "_SECONDS", 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CHUNKED + b"2\r\n{}\r\n")
    await writer.drain()
    await asyncio.sleep(0.1)  # the handler reads the body by then; if not, the answer is 400
    writer.write(b"hunter2\r\n")
    answer = await reader.readuntil(b"}")
    writer.close()
    assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 400 "))
    assert b'"success": false' in answer
    assert SENT not in answer


async def test_bytes_after_a_valid_request_get_their_own_answer(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE + b"\x00hunter2\r\n\r\n")
    answers = await reader.read()
    writer.close()
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b" 400 " in answers
    assert answers.count(b"Server: pipeline-gateway\r\n") == 2
    assert SENT not in answers


@pytest.mark.parametrize(
    "data",
    [
        request("GET", "/healthz"),
        request("GET", "/nowhere"),
        request("POST", PATH, JSON, body=b"{"),
        request("GET", PATH, b"Host: evil.com"),
    ],
)
async def test_no_answer_names_the_http_server(port: int, data: bytes) -> None:
    answer = await send(port, data)
    assert answer.headers["Server"] == "pipeline-gateway"


async def test_the_log_does_not_repeat_an_unreadable_request(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    await send(port, b"GET /hunter2 HTTP/1.1\r\nhunter2 : 1\r\n\r\n")
    await send(port, CHUNKED + b"hunter2\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", PATH, b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n")
    await reader.readuntil(b"}")  # the refusal comes before the body is read; aiohttp then reads the rest
    writer.write(b"hunter2\r\n")
    await writer.drain()
    writer.close()
    assert (await send(port, request("GET", "/healthz"))).status == 200
    logged = "".join(capfd.readouterr())
    assert "request unreadable" in logged
    assert "hunter2" not in logged
    assert "Traceback" not in logged


async def test_a_bug_outside_all_routes_shows_only_its_request_id(
    port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gateway.web.server.guard._refused", None)
    answer = await send(port, request("GET", "/nowhere"))
    is_gateway_error(answer, 500, "internal")
    assert answer.json["error"].rpartition(" ")[2].rstrip(".") in "".join(capfd.readouterr())


def test_serve_refuses_aiohttp_without_its_c_extensions(project: Path) -> None:
    environment = {**os.environ, "PORT": "0", "AIOHTTP_NO_EXTENSIONS": "1"}
    done = subprocess.run(
        [COMMAND, "serve"], cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 78
    assert "AIOHTTP_NO_EXTENSIONS" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_wheel_without_c_extensions_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.server.connections.HttpRequestParser", Connection)  # any class written in Python
    with pytest.raises(ConfigError, match="pip install"):
        must_have_extensions()
    monkeypatch.undo()
    must_have_extensions()
    assert http.HttpRequestParser.__module__ == "aiohttp._http_parser"
