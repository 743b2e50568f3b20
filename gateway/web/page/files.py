"""The files of the page, served as they are: the document at /, the rest at /page/<file>."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import MappingProxyType

from aiohttp import web

from gateway.errors import UnknownPathError

FOLDER = Path(__file__).parent
_INDEX = "index.html"
# Each is public, so each is named.
FILES = (
    "api.js",
    "app.js",
    "base.css",
    "dialogs.js",
    "dom.js",
    "follow.js",
    "format.js",
    "graph.js",
    "icon.svg",
    "job.js",
    "layout.js",
    "log.js",
    "nodes.js",
    "now.js",
    "page.css",
    "runs.js",
    "timeline.js",
    "trigger.js",
)
PATHS = frozenset({"/", *(f"/page/{name}" for name in FILES)})
_TYPES: Mapping[str, str] = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)
_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        # Nothing but this origin's own files and answers, and no HTML from text: that no script makes any is the
        # browser's own check. The icon in the tab is a data: URL, since it shows the outcome.
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'",
        "Cache-Control": "no-cache",  # asked for each time, and answered with 304 until the next version
    }
)


async def index(request: web.Request) -> web.Response:
    """The document."""
    return _served(request, _INDEX)


async def file(request: web.Request) -> web.Response:
    """A file that the document loads."""
    name = request.match_info["file"]
    if name not in FILES:
        raise UnknownPathError(f"The page has no file {name[:100]!a}.")
    return _served(request, name)


ROUTES = (web.get("/", index), web.get("/page/{file}", file))


def _served(request: web.Request, name: str) -> web.Response:
    content, tag = _content(name), _tag()
    headers = {**_HEADERS, "ETag": f'"{tag}"'}
    if any(given.value in ("*", tag) for given in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=content, content_type=_TYPES[PurePath(name).suffix], charset="utf-8", headers=headers)


@functools.cache
def _content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@functools.cache
def _tag() -> str:
    """Of all files together: the page asks for that of its document, to know whether it is still the gateway's."""
    return hashlib.sha256(b"".join(map(_content, (_INDEX, *FILES)))).hexdigest()[:16]
