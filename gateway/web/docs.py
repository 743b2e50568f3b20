"""The manual: the Markdown pages of gateway/docs as HTML, at /docs and /docs/<page>."""

from __future__ import annotations

import functools
import html
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from aiohttp import web

from gateway.errors import UnknownPathError

_FOLDER = Path(__file__).parents[1] / "docs"
_INDEX = "index.md"
_STYLE = "style.css"
# In the order of the links at the top of every page.
PAGES: Mapping[str, str] = MappingProxyType(
    {
        _INDEX: "Manual",
        "page.md": "The page",
        "configuration.md": "Configuration",
        "commands.md": "Commands",
        "pipelines.md": "Pipelines",
        "containers.md": "Containers",
        "service.md": "Service",
        "api.md": "API",
        "security.md": "Security",
        "reliability.md": "Reliability",
        "troubleshooting.md": "Troubleshooting",
        "architecture.md": "Architecture",
    }
)
# Every path that is served here, and those that a page of another site may link to.
PAGE_PATHS = frozenset({"/docs", *(f"/docs/{name}" for name in PAGES)})
PICTURES = ("page-job.png", "page-now.png")
PATHS = PAGE_PATHS | {f"/docs/{_STYLE}", *(f"/docs/{name}" for name in PICTURES)}

# A page may have stylesheets and pictures of this origin; everything else stays forbidden, scripts above all.
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
}
_DOCUMENT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · Pipeline Gateway</title>
<link rel="stylesheet" href="{root}page/base.css">
<link rel="stylesheet" href="{folder}style.css">
</head>
<body>
<nav aria-label="Manual">
<a href="{root}./">Pipeline Gateway</a>
{links}
</nav>
<main>
{content}</main>
</body>
</html>
"""


async def index(_: web.Request) -> web.Response:
    """The manual's first page. Its path has no trailing slash, so its links begin with the folder."""
    return _page(_INDEX, "docs/")


async def page(request: web.Request) -> web.Response:
    """A page or a picture by the name of its file, so that links between the files work here too."""
    name = request.match_info["page"]
    if name in PICTURES:
        return web.Response(body=(_FOLDER / name).read_bytes(), content_type="image/png")
    if name not in PAGES:
        raise UnknownPathError(f"The manual has no page {name[:100]!a}; GET /docs lists its pages.")
    return _page(name, "")


async def style(_: web.Request) -> web.Response:
    """The stylesheet of all pages."""
    return web.Response(text=_text(_STYLE), content_type="text/css", charset="utf-8")


ROUTES = (web.get("/docs", index), web.get(f"/docs/{_STYLE}", style), web.get("/docs/{page}", page))


def _page(name: str, folder: str) -> web.Response:
    return web.Response(text=_rendered(name, folder), content_type="text/html", charset="utf-8", headers=_POLICY)


@functools.cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


@functools.cache
def _rendered(name: str, folder: str) -> str:
    """A page as HTML. folder: what links to other pages begin with."""
    from markdown_it import MarkdownIt  # here, since a service that starts again has no time for it

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_text(name))
    for token, following in itertools.pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(following.content))
    for token in itertools.chain.from_iterable(token.children or () for token in tokens):
        for attribute in ("href", "src"):
            target = str(token.attrGet(attribute))
            if target.partition("#")[0] in (*PAGES, *PICTURES):
                token.attrSet(attribute, f"{folder}{target}")
    links = (
        f'<a href="{folder}{other}"{" aria-current=page" if other == name else ""}>{html.escape(title)}</a>'
        for other, title in PAGES.items()
    )
    return _DOCUMENT.format(
        title=html.escape(PAGES[name]),
        folder=folder,
        root="" if folder else "../",
        links="\n".join(links),
        content=_scrolled_by_keys(parser.renderer.render(tokens, parser.options, {})),
    )


def _scrolled_by_keys(content: str) -> str:
    """Let the keyboard reach what is wider than the page. All text is escaped, so these are the tags themselves."""
    return content.replace("<pre>", '<pre tabindex="0">').replace("<table>", '<table tabindex="0">')


def anchor(heading: str) -> str:
    """The name of a heading in links, made as repository viewers make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
