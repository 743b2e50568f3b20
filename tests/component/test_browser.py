"""The browser of the tests: what a page complains about fails the test that opened it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.axe import violations
from tests.support.browser import Pages

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
FILES = {
    "/quiet": "<title>quiet</title><link rel=stylesheet href=style.css><p>Nothing to see.",
    "/style.css": "p { color: green }",
    "/console-error": "<script src=console-error.js></script>",
    "/console-error.js": "console.error('no good')",
    "/console-warning": "<script src=console-warning.js></script>",
    "/console-warning.js": "console.warn('not so good')",
    "/exception": "<script src=exception.js></script>",
    "/exception.js": "throw new Error('out of range')",
    "/rejection": "<script src=rejection.js></script>",
    "/rejection.js": "Promise.reject(new Error('out of reach'))",
    "/no-such-file": "<img src=/nothing alt=''>",
    "/inline-script": "<script>document.title = 'run'</script>",
    "/inline-style": "<p style='color: red'>",
    "/html-of-text": "<p><script src=html-of-text.js></script>",
    "/html-of-text.js": "document.querySelector('p').innerHTML = '<b>bold</b>'",
    "/unusable": "<html lang=en><title>unusable</title><main><h1>No names</h1><button></button></main>",
    "/other-origin": "<img src='http://other.example/x.png' alt=''>",
    "/link": "<a href='http://127.0.0.1:9/'>elsewhere</a>",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = FILES.get(self.path)
        kind = {"js": "text/javascript", "css": "text/css"}.get(self.path.rpartition(".")[2], "text/html")
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A server of these files; the start of their URLs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/console-error", "console error: no good"),
        ("/console-warning", "console warning: not so good"),
        ("/exception", "exception: .*out of range"),
        ("/rejection", "exception: .*out of reach"),
        ("/no-such-file", "console error: .*404"),
        ("/inline-script", "console error: .*Content Security Policy"),
        ("/inline-style", "console error: .*Content Security Policy"),
        ("/html-of-text", "console error: .*TrustedHTML|exception: .*TrustedHTML"),
        ("/other-origin", "console error: .*Content Security Policy|request .*other.example/x.png"),
    ],
)
def test_what_a_page_complains_about_fails_its_test(site: str, pages: Pages, path: str, complaint: str) -> None:
    pages.open(f"{site}{path}")
    assert any(re.match(complaint, one) for one in pages.unexpected())
    pages.expected.append(complaint)
    assert pages.unexpected() == []


def test_axe_says_what_is_serious_under_a_strict_policy(site: str, pages: Pages) -> None:
    [violation] = violations(pages.open(f"{site}/unusable"))
    assert violation.startswith("critical: button-name at button: Fix any of the following:")
    assert "does not have inner text" in violation


def test_a_request_to_another_origin_fails_the_test(site: str, pages: Pages) -> None:
    page = pages.open(f"{site}/link")
    with page.expect_event("requestfailed"):
        page.get_by_role("link").click(no_wait_after=True)
    assert any("request to another origin: GET http://127.0.0.1:9/" in one for one in pages.unexpected())
    pages.expected += ["request to another origin", "request failed: .*ERR_"]


def test_the_pages_fail_when_they_are_closed(site: str, pages: Pages) -> None:
    pages.open(f"{site}/exception")
    with pytest.raises(AssertionError, match=r"exception: .*out of range"):
        pages.close()
    pages.expected.append("out of range")


def test_a_page_without_complaint_passes_and_has_a_profile_of_its_own(site: str, pages: Pages) -> None:
    first = pages.open(f"{site}/quiet")
    first.evaluate("localStorage.setItem('kept', 'yes')")
    second = pages.open(f"{site}/quiet", dark=True, phone=True)
    assert second.evaluate("localStorage.getItem('kept')") is None
    for page, dark, width in ((first, False, 1280), (second, True, 390)):
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
        assert page.evaluate("innerWidth") >= width
