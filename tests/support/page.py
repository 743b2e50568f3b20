"""What the tests of the page at / do with it, beside what Playwright's own pages can do."""

from __future__ import annotations

import re

from playwright.sync_api import Page

from tests.support.browser import Pages
from tests.support.gateway import Gateway

# What a page complains about while its gateway is away, for `Pages.expected`.
AWAY = r"ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|SOCKET_NOT_CONNECTED)"
# What the console says of an answer that is no success, such as REFUSED.format(401).
REFUSED = r"console error: .*the server responded with a status of {}"


def open_page(pages: Pages, gateway: Gateway, fragment: str = "#/", *, dark: bool = False, phone: bool = False) -> Page:
    """A view of the page, in a new profile; fragment: such as #/jobs/ID."""
    return pages.open(f"{gateway.base}/{fragment}", dark=dark, phone=phone)


def sign_in(page: Page, token: str) -> None:
    """Give the page the token that it asks for."""
    page.get_by_label(re.compile("token", re.IGNORECASE)).fill(token)
    page.keyboard.press("Enter")


def press(page: Page, *keys: str) -> None:
    """Press keys one after the other, each by its name (Tab, Shift+Tab, Enter, ArrowDown) or its letter."""
    for key in keys:
        page.keyboard.press(key)


def focused(page: Page) -> str:
    """The accessible name, or else the text, of what the keyboard is on."""
    return str(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText"))


def restart(gateway: Gateway) -> None:
    """Kill the gateway and start it again on the same port, as its pages expect."""
    gateway.environment["PORT"] = str(gateway.port)
    gateway.kill()
    gateway.start()
