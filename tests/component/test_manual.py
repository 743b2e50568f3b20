"""The manual as a browser gets it at /docs."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pytest

from gateway.web import docs
from tests.conftest import MakeApi
from tests.support import access, projects
from tests.support.api import Api
from tests.support.gateway import Answer
from tests.support.raw import JSON, request, send

PATHS = ["/docs", *(f"/docs/{name}" for name in docs.PAGES)]
ELEMENTS = {
    *("html", "head", "meta", "title", "link", "body", "nav", "main", "h1", "h2", "h3", "p", "ul", "ol", "li"),
    *("a", "img", "code", "em", "pre", "strong", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {
    *("alt", "aria-current", "aria-label", "charset", "class", "content", "href", "id", "lang", "name", "rel", "src"),
    *("start", "tabindex"),
}


class Page(HTMLParser):
    """What a page has: its elements and attributes, where its links lead, and the names of its headings."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.feed(answer.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href":
                self.targets.append(str(value))
            if name == "id":
                self.names.add(str(value))


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(projects.make(tmp_path / "project"))


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_is_html_without_script_or_style_in_it(api: Api, path: str) -> None:
    answer = await api.call("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = Page(answer)
    assert page.elements <= ELEMENTS
    assert page.attributes <= ATTRIBUTES
    assert {"nav", "h1"} <= page.elements


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_may_load_nothing_but_styles_and_pictures(api: Api, path: str) -> None:
    policy = (await api.call("GET", path)).headers["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    style = await api.call("GET", "/docs/style.css")
    assert (style.status, style.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert style.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("name", docs.PICTURES)
async def test_the_pictures_of_the_manual_are_served(api: Api, name: str) -> None:
    answer = await api.call("GET", f"/docs/{name}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.body.startswith(b"\x89PNG")


async def test_every_link_of_every_page_leads_to_what_is_served(api: Api) -> None:
    pages = {path: Page(await api.call("GET", path)) for path in PATHS}
    for path, page in pages.items():
        assert len(page.targets) > len(docs.PAGES)
        for target in page.targets:
            there, name = urldefrag(urljoin(path, target))
            assert (await api.call("GET", there)).status == 200, (path, target)
            assert not name or name in pages[there].names, (path, target)


async def test_raw_html_in_a_page_is_shown_as_text(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api.md").write_text("# API\n\n<script>x</script>\n\n<b onclick=x>[x](javascript:x)</b>\n")
    monkeypatch.setattr(docs, "_FOLDER", tmp_path)
    for cached in (docs._text, docs._rendered):
        cached.cache_clear()
    try:
        page = Page(await api.call("GET", "/docs/api.md"))
    finally:
        for cached in (docs._text, docs._rendered):
            cached.cache_clear()
    assert page.elements <= ELEMENTS
    assert page.attributes <= ATTRIBUTES
    assert [target for target in page.targets if ":" in target] == []


@pytest.mark.parametrize("path", ["/docs/nothing.md", "/docs/style", "/docs/..%2fsettings%2ftokens.py", "/docs/"])
async def test_a_page_that_is_not_there_is_a_404_in_the_usual_shape(api: Api, path: str) -> None:
    answer = await api.call("GET", path)
    assert (answer.status, answer.json["code"]) == (404, "unknown_path")


async def test_the_manual_is_read_without_a_token_and_not_written(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["admin"])
    assert api.base.port is not None
    for path in (*PATHS, "/docs/style.css"):
        assert (await send(api.base.port, request("GET", path))).status == 200
    assert (await send(api.base.port, request("GET", "/docs/nothing.md"))).status == 401
    assert (await send(api.base.port, request("POST", "/docs", JSON, body=b"{}"))).status == 401
