"""The pages that people see, in a real Chromium."""

from __future__ import annotations

from gateway.web.docs import PAGES
from tests.support.axe import violations
from tests.support.browser import Pages
from tests.support.gateway import Gateway


def test_axe_finds_nothing_serious_in_the_manual_which_fits_a_phone(gateway: Gateway, pages: Pages) -> None:
    """On a phone more is wider than its place. All pages have the same colours, so one is looked at in the dark."""
    for name, dark in [*((name, False) for name in PAGES), ("api.md", True)]:
        page = pages.open(f"{gateway.base}/docs/{name}", dark=dark, phone=True)
        assert violations(page) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth"), name
