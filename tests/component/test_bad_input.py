"""Malformed requests: a refusal that names the problem, no record, no internals in the answer, and service goes on."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.app import Server
from gateway.settings import settings as config
from gateway.web import body as web_body
from tests.support import projects
from tests.support.gateway import PATH, Answer
from tests.support.raw import JSON, request, send

JOBS = "/api/v1/jobs"
EMPTY = {"success": True, "jobs": []}
LONG = "a" * 10_000


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """The port of the service as `serve` starts it; its dbt is missing, so that an accepted job ends at once."""
    dbt = {"executable": "/no/dbt"}
    folder = projects.make(tmp_path / "project", settings={"fabrics": {"local": {"dbt": dbt}}, "trigger_rate": 1e6})
    environment = {"HOST": "127.0.0.1", "PORT": "0"}
    server = Server(config.load(folder / "gateway.yaml", environment), dict(os.environ))
    await server.start()
    yield server.port
    await server.close()


def is_refused(answer: Answer, status: int, *mentions: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (answer.json["success"], answer.json["output"]) == (False, answer.json["error"])
    assert answer.json["code"].replace("_", "").isalpha()
    for word in mentions:
        assert word in answer.json["error"], answer
    reveals_no_internals(answer)


def reveals_no_internals(answer: Answer) -> None:
    for inside in (b"Traceback", b".py", b"File ", b"site-packages"):
        assert inside not in answer.body


async def is_still_serving(port: int) -> None:
    """Nothing was recorded and the service answers."""
    assert (await send(port, request("GET", PATH))).json == EMPTY
    assert (await send(port, request("GET", "/healthz"))).status == 200


@pytest.mark.parametrize(
    ("body", "mentioned"),
    [
        (None, "not JSON"),
        (b"", "not JSON"),
        (b"pipeline=full", "not JSON"),
        (b'{"pipeline": "full"', "not JSON"),
        (b'{"pipeline": "full"} x', "not JSON"),
        (b"{'pipeline': 'full'}", "not JSON"),
        (b'{"pipeline": NaN}', "NaN"),
        (b'{"pipeline": -Infinity}', "-Infinity"),
        (b'{"pipeline": "full\x00"}', "not JSON"),
        (b"\x00" * 100, "not JSON"),
        (b'{"pipeline": "\xff\xfe"}', "not JSON"),
        ('{"pipeline": "full"}'.encode("utf-16"), "not JSON"),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"pipeline": "full"}', "not JSON"),
        (b'{"pipeline": "full", "command": "run", "pipeline": "dbt"}', "'pipeline' is given more than once"),
        (b'{"pipeline": "full", "a": [{"b": 1, "b": 1}]}', "'b' is given more than once"),
        (b"[" * 60_000, "nested too deep"),
        (b'{"a":' * 12_000, "nested too deep"),
        (b"[" * 100_000, "has 100000 bytes"),
        (b'{"pipeline": %s}' % (b"9" * 5_000), "number"),
        (b"null", "must be a JSON object"),
        (b"true", "must be a JSON object"),
        (b"7", "must be a JSON object"),
        (b'"full"', "must be a JSON object"),
        (b'[{"pipeline": "full"}]', "must be a JSON object"),
        (b'{"pipeline": "full\\u0000"}', r'"full\u0000"'),
        (b'{"pipeline": "\\ud800"}', r'"\ud800"'),
        (b'{"pipeline": "full", "\\ud800": 1}', r"\ud800"),
        (b'{"pipeline": "full", "": 1}', "''"),
        (b'{"pipeline": "full", "__class__": 1}', "'__class__'"),
        (b'{"pipeline": %s}' % (b"9" * 4_000), "'pipeline'"),
        (b'{"pipeline": 1e999}', "'pipeline'"),
        (b'{"pipeline": "dbt", "command": {"a": {"b": []}}}', "'command'"),
        (b'{"pipeline": "dbt", "command": "%s"}' % (b"x" * 60_000), "command"),
        (b'{"pipeline": "dbt", "%s": 1}' % (b"x" * 60_000), "field"),
        (b"{%s}" % b",".join(b'"%d":1' % number for number in range(7_000)), "'pipeline'"),
        (b'{"pipeline": [%s]}' % b",".join([b"1"] * 30_000), "[1, 1, 1"),
        (b'{"pipeline": "dbt", "x": %s%s}' % (b"[" * 900, b"]" * 900), "'x'"),
    ],
)
async def test_a_malformed_trigger_gets_400_and_a_short_message(port: int, body: bytes | None, mentioned: str) -> None:
    answer = await send(port, request("POST", PATH, JSON, body=body))
    is_refused(answer, 400, mentioned)
    assert len(answer.json["error"]) < 500
    await is_still_serving(port)


async def test_a_byte_order_mark_before_the_body_is_no_harm(port: int) -> None:
    """PowerShell and Windows editors write one."""
    answer = await send(port, request("POST", PATH, JSON, body=b'\xef\xbb\xbf{"pipeline": "ingester"}'))
    assert answer.status == 202, answer


async def test_a_body_nested_to_any_depth_gets_400(port: int) -> None:
    for depth in (*range(5, 900, 50), *range(900, 1010)):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            nested = opening * depth + b"1" + closing * depth
            for field in (b"x", b"pipeline", b"command", b"enableElementary"):
                answer = await send(port, request("POST", PATH, JSON, body=b'{"%s": %s}' % (field, nested)))
                assert answer.status == 400, (depth, field, answer)
    await is_still_serving(port)


@pytest.mark.parametrize(
    "content_type",
    [
        b"Content-Type: text/plain",
        b"Content-Type: application/x-www-form-urlencoded",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Type: text/json",
        b"Content-Type: ",
        b"X-No-Content-Type: at all",
    ],
)
async def test_a_body_whose_content_type_is_not_json_gets_415(port: int, content_type: bytes) -> None:
    answer = await send(port, request("POST", PATH, content_type, body=b'{"pipeline": "ingester"}'))
    is_refused(answer, 415, "application/json")
    await is_still_serving(port)


async def test_a_charset_in_the_content_type_is_accepted(port: int) -> None:
    content_type = b"Content-Type: application/json; charset=utf-8"
    is_refused(await send(port, request("POST", PATH, content_type, body=b"{}")), 400, "'pipeline'")


async def test_a_body_over_1_mib_gets_413(port: int) -> None:
    body = b'{"pipeline": "%s"}' % (b"x" * 2**21)
    is_refused(await send(port, request("POST", PATH, JSON, body=body)), 413, "1048576 bytes")
    await is_still_serving(port)


async def test_a_gzip_bomb_is_refused(port: int) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    answer = await send(port, request("POST", PATH, JSON, b"Content-Encoding: gzip", body=bomb))
    assert answer.status in (413, 415)
    reveals_no_internals(answer)
    await is_still_serving(port)


async def test_a_body_that_does_not_match_its_encoding_is_refused(port: int) -> None:
    answer = await send(port, request("POST", PATH, JSON, b"Content-Encoding: gzip", body=b"no gzip"))
    assert answer.status in (400, 415)


async def test_a_slow_body_gets_408_and_a_closed_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_body, "_SECONDS", 0.1)
    whole = request("POST", PATH, JSON, body=b'{"pipeline": "ingester"}')
    answer = await send(port, whole.replace(b"Connection: close\r\n", b"")[:-1])
    is_refused(answer, 408, "did not arrive")
    assert answer.headers["Connection"] == "close"
    await is_still_serving(port)


async def test_a_client_that_disconnects_within_its_body_causes_no_traceback(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", PATH, JSON, body=b'{"pipeline": "ingester"}')[:-1])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await is_still_serving(port)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "target",
    [
        f"{PATH}?jobId={LONG}",
        f"{JOBS}/{LONG}",
        f"{PATH}?jobId=..%2F..%2Fetc%2Fpasswd",
        f"{JOBS}/..%2F..%2Fgateway.db",
        f"{JOBS}/%2e%2e",
        f"{JOBS}/..",
        f"{JOBS}/../../healthz",
        f"{PATH}?jobId=%00",
        f"{JOBS}/%00",
        f"{PATH}?jobId=%ff%fe",
        f"{PATH}?jobId=%ed%a0%80",
        f"{JOBS}/%zz",
        f"{PATH}?jobId=%0d%0aX-Injected:%201",
        f"{PATH}?jobId=%27%20OR%201=1%20--",
        f"{PATH}?jobId=-rf",
        f"{PATH}?jobId=.",
    ],
)
async def test_an_invalid_job_id_gets_404_and_reaches_no_file(port: int, target: str) -> None:
    answer = await send(port, request("GET", target))
    is_refused(answer, 404)
    assert len(answer.json["error"]) < 300
    assert "X-Injected" not in answer.headers
    await is_still_serving(port)


@pytest.mark.parametrize(
    "host",
    [b"evil.com", b"evil.com:3000", b"localhost.evil.com", b"127.0.0.1.evil.com", b"", b"[::1", b"a:b", b"a" * 4000],
)
async def test_a_foreign_host_header_gets_421(port: int, host: bytes) -> None:
    is_refused(await send(port, request("GET", PATH, b"Host: " + host)), 421, "Host", "localhost")
    assert (await send(port, request("POST", PATH, b"Host: " + host, JSON, body=b"{}"))).status == 421
    await is_still_serving(port)


async def test_a_request_without_a_host_gets_421(port: int) -> None:
    is_refused(await send(port, f"GET {PATH} HTTP/1.0\r\n\r\n".encode()), 421, "Host")


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:80", b"127.0.0.1:3000", b"[::1]:3000", b"[::1]", b"10.1.2.3"]
)
async def test_localhost_and_ip_addresses_are_served_with_any_port(port: int, host: bytes) -> None:
    assert (await send(port, request("GET", PATH, b"Host: " + host))).json == EMPTY


async def test_a_configured_host_name_is_served(tmp_path: Path) -> None:
    folder = projects.make(tmp_path / "project", settings={"allowed_hosts": ["Pipelines.example"]})
    environment = {"HOST": "127.0.0.1", "PORT": "0"}
    server = Server(config.load(folder / "gateway.yaml", environment), {})
    await server.start()
    answer = await send(server.port, request("GET", PATH, b"Host: pipelines.EXAMPLE:8443"))
    other = await send(server.port, request("GET", PATH, b"Host: example"))
    await server.close()
    assert (answer.status, other.status) == (200, 421)


@pytest.mark.parametrize(
    "header",
    [
        b"Origin: https://evil.com",
        b"Origin: null",
        b"Origin: ",
        b"Origin: http://localhost.evil.com",
        b"Origin: http://localhost:1",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-site",
    ],
)
async def test_a_cross_origin_page_gets_403_and_no_cors_header(port: int, header: bytes) -> None:
    for data in (
        request("GET", PATH, header),
        request("OPTIONS", PATH, header, b"Access-Control-Request-Method: POST"),
        request("POST", PATH, header, JSON, body=b'{"pipeline": "ingester"}'),
    ):
        answer = await send(port, data)
        is_refused(answer, 403, "page of another")
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    await is_still_serving(port)


@pytest.mark.parametrize(
    "header", [b"Origin: http://localhost", b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Site: none"]
)
async def test_same_origin_pages_and_direct_requests_are_served(port: int, header: bytes) -> None:
    assert (await send(port, request("GET", PATH, header))).json == EMPTY
