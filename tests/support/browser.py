"""A real Chromium, Debian's, whose pages fail the test that opened them by what they complain about.

Playwright drives it. While it does, its thread has a running event loop, so the tests of a file that uses it are plain
functions, and it ends with the file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, expect, sync_playwright

from tests.support.gateway import DEADLINE

_PROGRAM = "chromium"
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # whatever a page asks of another host is refused, with or without a network
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
_DESKTOP, _PHONE = (1280, 900), (390, 844)
_ENDED_BY_THE_PAGE = "net::ERR_ABORTED"  # a request that its page gave up, by leaving or with an AbortController


def missing() -> str | None:
    """Which part of a browser is missing here, in a sentence."""
    return None if shutil.which(_PROGRAM) else f"{_PROGRAM} is not installed"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without profile and without windows; it is gone at the end."""
    expect.set_options(DEADLINE * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=shutil.which(_PROGRAM), args=_FLAGS)
        try:
            yield started
        finally:
            started.close()


@dataclass
class Pages:
    """The pages that one test opens, each in a new profile, and what they complain about.

    A complaint is an error or a warning in the console (what the content security policy refuses is one), an exception,
    a request that failed, and any request to another origin than the page's; not that for /favicon.ico, which Chromium
    makes by itself, at a time of its own, where a page names no icon. expected: regular expressions of the
    complaints that the test means to cause; every other one fails it when the pages are closed.

    A content security policy holds for `Page.wait_for_function` too: wait by locators and their `expect`.
    """

    browser: Browser
    expected: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str, *, dark: bool = False, phone: bool = False) -> Page:
        """The page once it is loaded. dark: as by the system's setting. phone: as on a small touch screen."""
        width, height = _PHONE if phone else _DESKTOP
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            is_mobile=phone,
            has_touch=phone,
            locale="en-GB",
            timezone_id="UTC",
        )
        context.set_default_timeout(DEADLINE * 1000)
        parts = urlsplit(url)
        self._listen(context, f"{parts.scheme}://{parts.netloc}/")
        page = context.new_page()
        page.goto(url)
        return page

    def _listen(self, context: BrowserContext, origin: str) -> None:
        def asked(request: Request) -> None:
            if not request.url.startswith(origin):
                self.complaints.append(f"request to another origin: {request.method} {request.url}")

        def failed(request: Request) -> None:
            if request.failure != _ENDED_BY_THE_PAGE:
                self.complaints.append(f"request failed: {request.method} {request.url}: {request.failure}")

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and message.location["url"] != f"{origin}favicon.ico":
                self.complaints.append(f"console {message.type}: {message.text} ({message.location['url']})")

        context.on("request", asked)
        context.on("requestfailed", failed)
        context.on("console", said)
        context.on("weberror", lambda error: self.complaints.append(f"exception: {error.error}"))
        context.on("page", lambda page: page.on("crash", lambda _: self.complaints.append(f"crash of {page.url}")))

    def unexpected(self) -> list[str]:
        """The complaints so far that the test did not mean to cause."""
        for context in self.browser.contexts:
            for page in context.pages:
                with suppress(Error):  # a page that is being left, or has crashed, has no answer
                    page.evaluate("0")  # what a page said before arrives before its answer
        return [one for one in self.complaints if not any(re.search(known, one) for known in self.expected)]

    def close(self) -> None:
        """Close them; fails where one of them complained."""
        unexpected = self.unexpected()
        for context in self.browser.contexts:
            context.close()
        assert unexpected == [], "\n".join(["The pages of this test complained:", *unexpected])
