"""axe, which finds what keeps people from using a page."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Page

_GRAVE = ("serious", "critical")


def violations(page: Page, *rules: str, without: str | None = None) -> list[str]:
    """What axe finds serious or critical on a page as it is now: the rule, the node, and why.

    rules: only these are asked, else all that are on by default. without: a selector of what is left out.
    Its script runs by the browser's debugger, so the page's content security policy is as it always is.
    """
    context = {"exclude": [[without]]} if without else None
    options = {"runOnly": list(rules)} if rules else None
    found: list[dict[str, Any]] = Axe().run(page, context, options).response["violations"]
    return [
        f"{violation['impact']}: {violation['id']} at {' '.join(map(str, node['target']))}: {node['failureSummary']}"
        for violation in found
        if violation["impact"] in _GRAVE
        for node in violation["nodes"]
    ]
