"""Text that would be more than letters on a page, and answers of the API that have it in every place."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, unquote

from playwright.sync_api import Page, Route

from tests.support.gateway import Gateway

# Markup, a URL with code, quotes, what reverses text and ends isolates, no width, a NUL and no place for a line break.
# dbt takes it, for it has no space.
MARKUP = "<img/src=x/onerror=alert(1)>\"'</title></script><script>alert(2)</script>javascript:alert(3)"
REVERSING = "\u202e\u2066\u2069\u2069\u202eevil\u200b\u200d"
LONG = "W" * 200
HOSTILE = MARKUP + REVERSING + LONG
_KEPT = {"status", "outcome", "phase", "type", "resourceType", "state", "action", "code"}  # words of the API's own
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(T|$)")


def poisoned(value: Any, name: str = "") -> Any:
    """An answer whose texts, names of parameters too, end with all of it, but for the API's own words and moments."""
    if isinstance(value, dict):
        hostile_names = name == "parameters"
        return {
            key + (HOSTILE if hostile_names else ""): poisoned(item, "" if hostile_names else key)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [poisoned(item, name) for item in value]
    if not isinstance(value, str) or name in _KEPT or _MOMENT.match(value):
        return value
    return f"{value}{HOSTILE}\0"


def poison(page: Page, gateway: Gateway) -> None:
    """Have all answers of the jobs API to a page be so."""

    def answer(route: Route) -> None:
        request = route.request
        path = quote(_wholesome(request.url), safe=":/?=&,%")[len(gateway.base) :]
        if path.partition("?")[0].endswith("/events"):
            job = gateway.call("GET", path.partition("/events")[0]).json
            return route.fulfill(content_type="text/event-stream", body=_events(poisoned(job)))
        given = gateway.call(request.method, path, request.post_data_buffer)
        is_json = "json" in given.headers["Content-Type"]
        body = json.dumps(poisoned(given.json)).encode() if is_json else given.body + HOSTILE.encode()
        return route.fulfill(status=given.status, headers=dict(given.headers), body=body)

    page.route("**/api/v1/**", answer)


def _wholesome(url: str) -> str:
    return unquote(url.replace("+", " ")).replace(f"{HOSTILE}\0", "")


def _events(record: dict[str, Any]) -> str:
    """The events of a job: its state, and a log that has all of it in lines of each kind."""
    text = f"==> {HOSTILE} <==\nERROR {HOSTILE}\nWARNING {HOSTILE}\n{HOSTILE}\n"
    log = {"offset": 0, "next": len(text), "text": text, "dropped": 0}
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in (("log", log), ("state", record)))
