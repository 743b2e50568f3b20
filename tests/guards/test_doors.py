"""The guard covers every route. The tests walk the router, so a new route is covered without a change here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from gateway.web.answers import SECURITY_HEADERS
from gateway.web.page import files
from gateway.web.server import access
from tests.conftest import MakeApi
from tests.support import access as guarded
from tests.support import manual
from tests.support.api import Api, app
from tests.support.gateway import PATH, Answer
from tests.support.raw import JSON, request, send

# Contract section 4: a path added here is served without a token.
PICTURES = {f"/docs/{picture.name}" for picture in manual.PAGES[0].parent.glob("*.png")}
MANUAL = {f"/docs/{page.name}" for page in manual.PAGES} | {"/docs", "/docs/style.css"} | PICTURES
PAGE = {f"/page/{file.name}" for file in files.FOLDER.iterdir() if file.suffix in (".js", ".css", ".svg")}
PUBLIC = {"/", "/healthz", "/readyz"} | MANUAL | PAGE
# a POST that only reads
LINK = "/api/v1/jobs/x/artifacts/x/x/link"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
UNKNOWN = (
    "/nothing",
    "/api",
    "/api/trigger",
    "/api/trigger/pipeline/x/y",
    "/api/triggers",
    "/api/v1/jobs/x/y",
    "/static/app.js",
    "/favicon.ico",
    "//healthz",
    "/healthz/",
    "/healthz/../api/v1/jobs/x",
    "/%68ealthz",
    "/healthz%2f..%2fapi",
    "/HEALTHZ",
    "/readyz;x",
    "/api/v1/jobs/healthz",
    "/docs/",
    "/docs/nothing.md",
    "/docs/../api/v1/pipelines",
    "/docs/%2e%2e/setup.cfg",
    "/page",
    "/page/",
    "/page/index.html",
    "/page/files.py",
    "/page/../docs/style.css",
)


@dataclass(frozen=True)
class Doors:
    """The service behind its tokens, and every method and path that its router knows."""

    api: Api
    port: int
    tokens: dict[str, str]
    known: list[tuple[str, str]]

    async def knock(self, method: str, path: str, *headers: bytes, token: str | None = None) -> Answer:
        """The answer to a request that is valid except for what the test changes."""
        given = [] if token is None else [b"X-AUTH-TOKEN: " + self.tokens[token].encode()]
        body = b"{}" if method == "POST" else None
        return await send(self.port, request(method, path, JSON, *given, *headers, body=body))


@pytest.fixture
async def doors(tmp_path: Path, make_api: MakeApi) -> Doors:
    project = guarded.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["admin"])
    # a second application, whose router the test may read once it is set up
    other = app(guarded.project(tmp_path / "other").folder)
    runner = web.AppRunner(other)
    await runner.setup()
    known = [
        (route.method, re.sub(r"\{\w+\}", "x", route.resource.canonical))
        for route in other.router.routes()
        if route.resource is not None
    ]
    await runner.cleanup()
    assert ("POST", PATH) in known
    assert api.base.port is not None
    return Doors(api, api.base.port, dict(project.tokens), known)


def is_refused(answer: Answer, status: int, code: str, where: object) -> None:
    assert answer.status == status, (where, answer)
    if answer.body:  # HEAD has none
        has_the_shape_of_its_api(answer, code, where)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value, (where, answer)
    assert re.fullmatch(r"[0-9a-f]{12}", answer.headers["X-Request-Id"]), (where, answer)


def has_the_shape_of_its_api(answer: Answer, code: str, where: object) -> None:
    assert answer.body.endswith(b"}\n"), (where, answer)
    if re.search(r"/api/trigger(?!s)", str(where)):
        assert set(answer.json) == {"success", "msg"}, (where, answer)
        assert answer.json["success"] is False
        assert answer.json["msg"], (where, answer)
        return
    assert (answer.json["success"], answer.json["code"]) == (False, code), (where, answer)
    assert answer.json["output"] == answer.json["error"], (where, answer)


async def test_only_the_list_of_the_contract_is_public() -> None:
    assert set(access.PUBLIC) == PUBLIC


async def test_nothing_but_the_public_list_answers_without_a_token(doors: Doors) -> None:
    for method, path in [*doors.known, *((method, path) for method in METHODS for path in (PATH, *PUBLIC, *UNKNOWN))]:
        if path in PUBLIC and method in ("GET", "HEAD"):
            assert (await doors.knock(method, path)).status in (200, 404, 503)  # there is no page yet
            continue
        answer = await doors.knock(method, path)
        is_refused(answer, 401, "unauthorized", (method, path))
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_made_up_link_opens_no_door(doors: Doors) -> None:
    for method, path in doors.known:
        if path not in PUBLIC:
            asked = f"{path}?link=9999999999.000-{'0' * 64}"
            is_refused(await doors.knock(method, asked), 401, "unauthorized", (method, asked))


async def test_foreign_expired_and_truncated_tokens_are_refused(doors: Doors) -> None:
    half = doors.tokens["admin"][:-1]
    for header in (
        b"Authorization: Bearer pgw_" + b"A" * 43,
        b"Authorization: Bearer " + half.encode(),
        b"Authorization: Bearer",
        b"Authorization: Basic " + doors.tokens["admin"].encode(),
        b"X-AUTH-TOKEN: " + doors.tokens["expired"].encode(),
        b"X-AUTH-TOKEN:",
        b"X-AUTH-TOKEN: \xff\xfe",
        b"Cookie: token=" + doors.tokens["admin"].encode(),
    ):
        for method, path in doors.known:
            if path not in PUBLIC:
                is_refused(await doors.knock(method, path, header), 401, "unauthorized", (header, method, path))
    in_the_query = f"{PATH}?token={doors.tokens['admin']}"
    is_refused(await doors.knock("GET", in_the_query), 401, "unauthorized", in_the_query)


async def test_a_read_token_reads_everything_and_starts_nothing(doors: Doors) -> None:
    for method, path in [*doors.known, *((method, PATH) for method in METHODS)]:
        answer = await doors.knock(method, path, token="read")
        if method in ("GET", "HEAD") or (method, path) == ("POST", LINK):
            assert answer.status not in (401, 403), (method, path, answer)
        else:
            is_refused(answer, 403, "insufficient_scope", (method, path))
    assert ("POST", LINK) in doors.known


async def test_a_run_token_may_use_every_route_and_no_other_method(doors: Doors) -> None:
    for method, path in [*doors.known, *((method, PATH) for method in METHODS)]:
        answer = await doors.knock(method, path, token="run")
        if method in ("GET", "HEAD", "POST"):
            assert answer.status not in (401, 403), (method, path, answer)
        else:
            is_refused(answer, 403, "insufficient_scope", (method, path))
        assert (await doors.knock(method, path, token="admin")).status not in (401, 403), (method, path)


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (b"Host: rebound.example", 421, "misdirected"),
        (b"Host: localhost.rebound.example:3000", 421, "misdirected"),
        (b"Sec-Fetch-Site: cross-site", 403, "foreign_origin"),
        (b"Sec-Fetch-Site: same-site", 403, "foreign_origin"),
        (b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site", 403, "foreign_origin"),
        (b"Origin: null", 403, "foreign_origin"),
        (b"Origin: http://page.example", 403, "foreign_origin"),
        (b"Origin: http://localhost:9", 403, "foreign_origin"),
        (b"Origin: http://localhost\r\nOrigin: http://page.example", 403, "foreign_origin"),
    ],
)
async def test_a_cross_origin_page_is_refused_everywhere_with_any_token(
    doors: Doors, header: bytes, status: int, code: str
) -> None:
    for method, path in [*doors.known, *(("GET", path) for path in UNKNOWN)]:
        is_refused(await doors.knock(method, path, header, token="admin"), status, code, (method, path))


async def test_cross_site_navigation_is_allowed_to_the_page_and_nothing_else(doors: Doors) -> None:
    link = (b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document")
    for page in ("/", "/docs", "/docs/security.md"):
        assert (await doors.knock("GET", page, *link)).status != 403
    assert (await doors.knock("GET", "/docs/style.css", *link)).status == 403
    assert (await doors.knock("GET", "/docs/nothing.md", *link)).status == 403
    assert (await doors.knock("GET", "/healthz", *link)).status == 403
    assert (await doors.knock("POST", "/", *link, token="admin")).status == 403
    assert (await doors.knock("GET", "/", *link[:2], b"Sec-Fetch-Dest: iframe")).status == 403


async def test_a_body_that_is_not_json_is_refused_everywhere(doors: Doors) -> None:
    token = b"X-AUTH-TOKEN: " + doors.tokens["admin"].encode()
    for method, path in doors.known:
        answer = await send(doors.port, request(method, path, b"Content-Type: text/plain", token, body=b"x=1"))
        is_refused(answer, 415, "unsupported_type", (method, path))


async def test_no_answer_can_be_read_by_a_cross_origin_page(doors: Doors) -> None:
    for method, path in [*doors.known, *(("GET", path) for path in UNKNOWN)]:
        answer = await doors.knock(method, path, b"Access-Control-Request-Method: POST", token="admin")
        assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
