"""The files of the page at /, as a browser gets them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.web.page import files
from tests.conftest import MakeApi
from tests.support import access, projects
from tests.support.api import Api
from tests.support.raw import request, send

PATHS = sorted(files.PATHS)


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(projects.make(tmp_path / "project"))


@pytest.mark.parametrize("path", PATHS)
async def test_a_file_may_run_and_load_only_what_is_the_gateways(api: Api, path: str) -> None:
    answer = await api.call("GET", path)
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", "": "text/html"}
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kinds[Path(path).suffix]}; charset=utf-8")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", PATHS)
async def test_a_file_is_sent_again_only_where_it_is_another(api: Api, path: str) -> None:
    """Also where a proxy that packs it has made its tag a weak one. A browser asks each time."""
    whole = await api.call("GET", path)
    tag = whole.headers["ETag"]
    assert whole.headers["Cache-Control"] == "no-cache"
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await api.call("GET", path, headers={"If-None-Match": given})
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", tag), given
        assert same.headers["Cache-Control"] == "no-cache"
    assert (await api.call("GET", path, headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize("path", ["/", "/page/app.js"])
async def test_head_has_the_headers_of_get_and_no_body(api: Api, path: str) -> None:
    whole, head = await api.call("GET", path), await api.call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for name in ("ETag", "Content-Type", "Content-Length", "Content-Security-Policy"):
        assert head.headers[name] == whole.headers[name], name


async def test_after_an_upgrade_a_browser_gets_the_new_files(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ("/", "/page/app.js")
    old = {path: (await api.call("GET", path)).headers["ETag"] for path in paths}
    shutil.copytree(files.FOLDER, tmp_path / "page")
    for name in ("index.html", "app.js"):
        with (tmp_path / "page" / name).open("a", encoding="utf-8") as file:
            file.write("\n")
    monkeypatch.setattr(files, "FOLDER", tmp_path / "page")
    cached = [one for one in vars(files).values() if hasattr(one, "cache_clear")]
    assert cached
    for one in cached:
        one.cache_clear()
    try:
        for path, tag in old.items():
            new = await api.call("GET", path, headers={"If-None-Match": tag})
            assert new.status == 200
            assert new.body.endswith(b"\n\n")
    finally:
        for one in cached:
            one.cache_clear()


@pytest.mark.parametrize("name", ["files.py", "nothing.js", "..%2ffiles.py", "%2e%2e%2fdocs.py", "index.html", ""])
async def test_a_file_that_is_not_the_pages_is_a_404_in_the_usual_shape(api: Api, name: str) -> None:
    answer = await api.call("GET", f"/page/{name}")
    assert (answer.status, answer.json["code"]) == (404, "unknown_path")


async def test_the_page_is_read_without_a_token_and_shows_nothing(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder, token=project.tokens["read"])
    assert api.base.port is not None
    for path in PATHS:
        for method in ("GET", "HEAD"):
            assert (await send(api.base.port, request(method, path))).status == 200, path
    for method, path in (("GET", "/page/nothing.js"), ("POST", "/"), ("GET", "//"), ("GET", "/api/v1/jobs")):
        assert (await send(api.base.port, request(method, path))).status == 401, path
