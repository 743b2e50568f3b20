"""The pages that people see, in a real Chromium: safe with any text, and usable by everybody."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import yaml
from playwright.sync_api import Locator, Page, Route, expect

from gateway.web.docs import PAGES
from tests.support import hostile, projects
from tests.support.axe import violations
from tests.support.browser import Pages
from tests.support.gateway import Gateway
from tests.support.page import REFUSED, focused, open_page, press
from tests.support.quick_jobs import JOBS_API, ended

# A name that dbt takes, without the length that a file's name can't have.
NAME = hostile.MARKUP.replace("/", "_") + hostile.REVERSING
INGESTER = """
    import sys, time
    for word in sys.argv[1:]:
        print("ERROR", word, flush=True)
    while "--mode=wait" in sys.argv:
        time.sleep(0.1)
"""
PARAMETERS = {
    "mode": {"type": "string", "choices": ["quick", "wait"], "default": "quick", "option": "--mode"},
    "label": {"type": "string", "default": "plain", "option": "--label"},
    "count": {"type": "integer", "minimum": 1, "maximum": 9, "required": True, "option": "--count"},
    "day": {"type": "date", "default": "2026-01-01", "option": "--day"},
}
PIPELINES = {
    "report": {"ingester": True, "parameters": PARAMETERS},
    "held": {"ingester": True},
}


# Where the page is wider than its window: the elements that make it so.
WIDER = """
    [...document.querySelectorAll('html, dialog')].every(one => one.scrollWidth <= one.clientWidth) ? [] :
    [...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)
        .map(one => `${one.localName}.${one.getAttribute('class')}`).slice(0, 5)
"""
# Elements that no file of the page makes.
MADE = (
    "document.querySelectorAll('main :is(img, script, iframe, title:not(svg title)), dialog :is(img, script)').length"
)
# Texts in which what reverses letters may reach the text beside it: an element that is no line of its own.
REVERSED = r"""
    const found = [document.title];
    for (const one of document.querySelectorAll('body *')) {
        found.push(one.getAttribute('title') ?? '', one.getAttribute('aria-label') ?? '');
        const style = getComputedStyle(one);
        if (/^(isolate|plaintext)/.test(style.unicodeBidi) && ['CODE', 'PRE', 'DIV'].includes(one.tagName)) continue;
        found.push(...[...one.childNodes].filter(child => child.nodeType === 3).map(child => child.data));
    }
    found.filter(text => /[\u202a-\u202e\u2066-\u2069]/.test(text))
"""


# The levels of the headings that a person may come to.
LEVELS = """
    [...document.querySelectorAll('main :is(h1, h2, h3)')].filter(one => one.checkVisibility())
        .map(one => +one.localName[1])
"""
# Each state that is shown, with its shape and its colour.
LOOKS = """
    [...document.querySelectorAll('.icon')].map(one => [
        /is-([a-z]+)/.exec(one.getAttribute('class'))[1],
        [...one.children].map(part => part.getAttribute('d')) + getComputedStyle(one).getPropertyValue('--state'),
    ])
"""
# Times without the exact one on hover.
TIMES = r"""
    [...document.querySelectorAll('time')].filter(one => !/(just now|\d+ (s|min|h|d) ago)/.test(one.textContent)
        || !/\d{4}.*\d\d:\d\d:\d\d/.test(one.title)).map(one => one.outerHTML)
"""
BARS = ".bars, .lane-box"
SPACED = """
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(
        '* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important }' +
        'p { margin-bottom: 2em !important }');
    document.adoptedStyleSheets.push(sheet);
"""
# What screen readers say by themselves, as it comes.
SAID = """
    const said = [];
    for (const one of document.querySelectorAll('[aria-live], [role=status], [role=alert]')) {
        const say = () => said.push(one.textContent);
        new MutationObserver(say).observe(one, {childList: true, subtree: true, characterData: true});
    }
    said
"""


class Stage(NamedTuple):
    """A gateway, a job of dbt with a failing model and a failing test of a hostile name, and one that succeeded."""

    gateway: Gateway
    failed: str
    succeeded: str


class Live:
    """Answers of a gateway on which the failed job still runs, and is further by each turn, until it is over."""

    def __init__(self, stage: Stage) -> None:
        self.turn = 1
        self.over = False
        self._stage = stage

    def answer(self, route: Route) -> None:
        gateway, job = self._stage.gateway, self._stage.failed
        path = route.request.url[len(gateway.base) :]
        if path.endswith(f"/{job}"):
            return route.fulfill(json=self._record())
        if "/events" in path:
            state = f"event: state\ndata: {json.dumps(self._record())}\n\n"
            return route.fulfill(content_type="text/event-stream", body=state)
        if "status=running" in path:
            return route.fulfill(json={"jobs": [] if self.over else [self._record()], "next": None})
        given = gateway.call("GET", path)
        return route.fulfill(status=given.status, headers=dict(given.headers), body=given.body)

    def _record(self) -> dict[str, Any]:
        record = self._stage.gateway.call("GET", f"{JOBS_API}/{self._stage.failed}").json
        if self.over:
            return record
        progress = {**record["progress"], "done": self.turn, "total": 9}
        running = {"status": "running", "outcome": None, "phase": "build", "finishedAt": None, "firstFailure": None}
        build = {**record["steps"][-1], "status": "running", "exitCode": None, "finishedAt": None, "progress": progress}
        return {**record, **running, "steps": [*record["steps"][:-1], build], "durationSeconds": float(self.turn)}


class View(NamedTuple):
    """A view: its fragment, and what is there once it is complete."""

    fragment: str
    complete: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The gateway of all tests of the page in this file."""
    ingester = {"command": [sys.executable, "ingest.py"]}
    small = {"dbt": "transform", "ingester": ingester, "pipelines": PIPELINES}
    folder = tmp_path_factory.mktemp("stage") / "project"
    projects.make(folder, ingester=INGESTER, settings={"projects": {"small": small}})
    column = {"name": "n", "data_tests": [{"not_null": {}}, {"accepted_values": {"name": NAME, "values": [1]}}]}
    models = yaml.safe_dump({"models": [{"name": "evens", "columns": [column]}]})
    projects.write(folder / "transform/models/models.yml", models)
    message = hostile.MARKUP.replace("'", "''") + hostile.REVERSING
    broken = f"{{{{ config(materialized='table') }}}} select error('{message}') from {{{{ ref('numbers') }}}}\n"
    projects.write(folder / "transform/models/broken.sql", broken)
    gateway = Gateway(folder).start()
    try:
        failed = start(gateway, "dbt", command="build")
        assert ended(gateway, failed)["outcome"] == "errors"
        succeeded = start(gateway, "report", parameters={"count": 1, "label": hostile.HOSTILE})
        assert ended(gateway, succeeded)["outcome"] == "succeeded"
        paused = gateway.call("PUT", "/api/v1/pipelines/small/held/paused", {"paused": True})
        assert paused.status == 200, paused
        yield Stage(gateway, failed, succeeded)
    finally:
        gateway.stop()


@pytest.fixture
def running(stage: Stage) -> Iterator[str]:
    """A job that runs, with another one that waits for it and a trigger that was refused for it."""
    gateway = stage.gateway
    job = start(gateway, "report", parameters={"count": 1, "mode": "wait"})
    queued = start(gateway, "dbt", command="build", onConflict="queue")
    assert gateway.call("POST", JOBS_API, {"pipeline": "dbt", "command": "run"}).status == 409
    yield job
    for one in (queued, job):
        cancel(gateway, one)


def start(gateway: Gateway, pipeline: str, **fields: Any) -> str:
    answer = gateway.call("POST", JOBS_API, {"pipeline": pipeline, **fields})
    assert answer.status == 202, answer
    return str(answer.json["jobId"])


def cancel(gateway: Gateway, job: str) -> None:
    gateway.call("POST", f"{JOBS_API}/{job}/cancel")
    ended(gateway, job)


def views(stage: Stage) -> list[View]:
    """All of them, with what each can show."""
    job = f"#/jobs/{stage.failed}"
    node = "model.small.broken"
    return [
        View("#/", ".pipelines .row"),
        View("#/runs", ".bars li"),
        View("#/runs?outcome=errors,failed&since=2026-01-01", ".run"),
        View("#/trigger", ".picker .row"),
        View("#/trigger/small/report", ".pipeline-status"),
        View(f"{job}?tab=nodes", ".node-table tbody tr"),
        View(f"{job}?tab=graph", ".model"),
        View(f"{job}?tab=log", ".line"),
        View(f"{job}?tab=details", ".facts"),
        View(f"{job}?node={node}", "dialog .copyable"),
    ]


def poisoned_id(text: str) -> str:
    """As the page has it in its links, where answers are poisoned."""
    return quote(hostile.poisoned(text), safe="")


def go(page: Page, stage: Stage, view: View) -> None:
    """Load a view, and wait until it is complete."""
    page.goto("about:blank")  # else only the fragment changes, and what was shown before may be taken for it
    page.goto(f"{stage.gateway.base}/{view.fragment}")
    expect(page.locator(view.complete).first).to_be_visible()


def misfits(page: Page) -> list[str]:
    """What is beside the page, so that a person would have to scroll to it."""
    found: list[str] = page.evaluate(WIDER)
    return found


def test_axe_finds_nothing_serious_in_the_manual_which_fits_a_phone(gateway: Gateway, pages: Pages) -> None:
    """On a phone more is wider than its place. All pages have the same colours, so one is looked at in the dark."""
    for name, dark in [*((name, False) for name in PAGES), ("api.md", True)]:
        page = pages.open(f"{gateway.base}/docs/{name}", dark=dark, phone=True)
        assert violations(page) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth"), name


def test_hostile_text_is_shown_as_letters_in_every_view(stage: Stage, running: str, pages: Pages) -> None:
    """In every text of every answer, at three widths; the pages themselves fail for a request or a script."""
    page = open_page(pages, stage.gateway)
    hostile.poison(page, stage.gateway)
    found: list[str] = []
    for view in [*views(stage), View(f"#/jobs/{running}", ".lead"), View("#/trigger/x/y", "[role=alert]")]:
        poisoned = view.fragment.replace(stage.failed, poisoned_id(stage.failed)).replace(running, poisoned_id(running))
        poisoned = poisoned.replace("small/report", "/".join(map(poisoned_id, ("small", "report"))))
        poisoned = poisoned.replace("model.small.broken", poisoned_id("model.small.broken"))
        go(page, stage, View(poisoned, view.complete))
        if view.fragment != "#/trigger/x/y":
            assert hostile.MARKUP in page.evaluate("document.body.innerText"), view
        assert page.evaluate(MADE) == 0, view
        found += [f"{view.fragment}: {text[:100]!a}" for text in page.evaluate(REVERSED)]
        for width in (1280, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            found += [f"{view.fragment} at {width}: {one}" for one in misfits(page)]
    assert found == [], "\n".join(found)


def test_hostile_names_and_output_of_real_tools_are_letters(stage: Stage, pages: Pages) -> None:
    """What dbt and an ingester let through: a test's name, the message of an error, a parameter, a line of the log."""
    page = open_page(pages, stage.gateway)
    go(page, stage, View(f"#/jobs/{stage.failed}", ".node-table tbody tr"))
    shown = NAME.replace("\u202e", "\ufffd").replace("\u2066", "\ufffd").replace("\u2069", "\ufffd")
    page.get_by_role("button", name=shown, exact=True).first.click()
    expect(page.get_by_role("dialog").get_by_role("heading").first).to_have_text(shown)
    go(page, stage, View(f"#/jobs/{stage.failed}?node=model.small.broken", "dialog .copyable"))
    expect(page.get_by_role("dialog")).to_contain_text(hostile.MARKUP)
    for tab in ("log", "details"):
        go(page, stage, View(f"#/jobs/{stage.succeeded}?tab={tab}", f"#panel-{tab} :is(.error, .facts)"))
        expect(page.get_by_role("tabpanel")).to_contain_text(hostile.MARKUP)


def test_any_fragment_of_the_url_shows_a_readable_view(stage: Stage, pages: Pages) -> None:
    pages.expected.append(REFUSED.format("(400|404|414)"))
    page = open_page(pages, stage.gateway)
    job = f"#/jobs/{stage.failed}"
    markup = quote(hostile.MARKUP, safe="")
    fragments = {
        "#/jobs/%": "Nothing here",
        "#/jobs/%ff": "Nothing here",
        f"#/{'x' * 20_000}": "Nothing here",
        f"#/{hostile.MARKUP}": "Nothing here",
        "#javascript:alert(1)": "Nothing here",
        "#/trigger/%c0/%af": "Nothing here",
        "#/jobs/..%2f..%2fhealthz": "Not found",
        "#/jobs/..": "Not found",
        "#/jobs/.": "Not found",
        f"#/jobs/{markup}": "Not found",
        f"#/jobs/{'x' * 5_000}": "Not found",
        f"#/trigger/a/b?x={markup}": "Trigger a pipeline",
        f"#/trigger/{markup}/constructor": "Trigger a pipeline",
        f"#/runs?outcome={markup}&since=today&until=2026-99-99&pipeline={markup}/{markup}": "Runs",
        "#/runs?since=%&until=275760-09-14": "Runs",
        f"{job}?tab=__proto__&sort=__proto__&show=constructor": "dbt",
        f"{job}?tab=nodes&sort=constructor&show={markup}&type={markup}&find={markup}": "dbt",
        f"{job}?node={markup}&tab={markup}": "dbt",
    }
    for fragment, title in fragments.items():
        page.goto("about:blank")
        page.goto(f"{stage.gateway.base}/{fragment}")
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(title))
        expect(page.get_by_text("Loading")).to_have_count(0)
        assert page.evaluate(MADE) == 0, fragment[:100]


def answering(**answer: Any) -> Callable[[Route], None]:
    return lambda route: route.fulfill(**answer)


def test_answers_that_are_not_the_gateways_are_told_and_gone_past(stage: Stage, pages: Pages) -> None:
    """A server's error, a proxy's page, and an answer that is cut in its middle."""
    pages.expected += [REFUSED.format("(500|502)"), "request failed: .*api/v1.*ERR_"]
    page = open_page(pages, stage.gateway)
    strange: dict[str, dict[str, Any]] = {
        "The answer has the status 500": {"status": 500, "body": "<h1>Oops</h1>", "content_type": "text/html"},
        "is not the gateway": {"status": 200, "body": "<script>alert(1)</script>", "content_type": "text/html"},
        "has not answered since": {"status": 502, "body": "<h1>Bad gateway</h1>", "content_type": "text/html"},
        "has not answered  since": {"status": 200, "body": '{"jobs": [', "content_type": "application/json"},
    }
    for said, answer in strange.items():
        for view in (View("#/", ".pipelines .row"), View("#/runs", ".run"), View(f"#/jobs/{stage.failed}", ".failure")):
            page.route("**/api/v1/**", answering(**answer))
            page.goto("about:blank")
            page.goto(f"{stage.gateway.base}/{view.fragment}")
            expect(page.get_by_text(said.replace("  ", " ")).first).to_be_visible()
            page.unroute("**/api/v1/**")
            if (again := page.get_by_role("button", name="Try again")).is_visible():
                again.click()
            expect(page.locator(view.complete).first).to_be_visible()
            expect(page.locator("#connection")).to_be_hidden()


def test_axe_finds_nothing_serious_in_any_view(stage: Stage, running: str, pages: Pages) -> None:
    """Headings are in order too, and each state has one shape and one colour wherever it is shown."""
    page = open_page(pages, stage.gateway)
    looks: dict[str, set[str]] = {}
    for view in [*views(stage), View(f"#/jobs/{running}", ".line"), View(f"#/jobs/{stage.succeeded}", ".line")]:
        go(page, stage, view)
        assert grave(page) == [], view
        levels = page.evaluate(LEVELS)
        assert levels[0] == 1, (view, levels)
        assert all(after <= before + 1 for before, after in pairwise(levels)), (view, levels)
        for state, look in page.evaluate(LOOKS):
            looks.setdefault(state, set()).add(look)
        assert page.evaluate(TIMES) == [], view
    assert {state: found for state, found in looks.items() if len(found) > 1} == {}
    assert looks.keys() >= {"succeeded", "errors", "running", "queued", "refused"}
    page.get_by_role("button", name="Run again").click()
    assert grave(page) == [], "a question"
    pages.expected.append(REFUSED.format(401))
    page.route("**/api/v1/**", lambda route: route.fulfill(status=401, json={"code": "unauthorized", "error": "no"}))
    go(page, stage, View("#/", "#token"))
    assert grave(page) == [], "the sign-in"


def grave(page: Page) -> list[str]:
    """What axe finds, in the dark too, in which nothing but the colours is different."""
    found = violations(page)
    page.emulate_media(color_scheme="dark")
    found += violations(page, "color-contrast")
    page.emulate_media(color_scheme="light")
    return found


def test_nothing_moves_for_people_who_want_less_motion(stage: Stage, running: str, pages: Pages) -> None:
    page = open_page(pages, stage.gateway)
    go(page, stage, View("#/", ".job-card .is-running"))
    moving = "document.getAnimations().length"
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    for view in (View("#/", ".job-card .is-running"), View(f"#/jobs/{running}", ".job-head .is-running")):
        go(page, stage, view)
        assert page.evaluate(moving) == 0, view


def test_every_view_fits_small_screens_and_fingers(stage: Stage, running: str, pages: Pages) -> None:
    """At 320 pixels, which 1280 at 400 % are too; also with the text spaced as WCAG 1.4.12 has it.

    A target has 24 pixels of its own. Bars are narrower; rows on the same page lead to the same.
    """
    page = open_page(pages, stage.gateway, phone=True)
    found: list[str] = []
    for view in [*views(stage), View(f"#/jobs/{running}", ".lead")]:
        go(page, stage, view)
        found += violations(page, "target-size", without=BARS)
        for width in (640, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            found += [f"{view.fragment} at {width}: {one}" for one in misfits(page)]
        page.evaluate(SPACED)
        found += [f"{view.fragment} spaced: {one}" for one in misfits(page)]
    assert found == [], "\n".join(found)


def test_a_keyboard_is_enough(stage: Stage, pages: Pages) -> None:
    page = open_page(pages, stage.gateway)
    expect(page.locator(".pipelines .row").first).to_be_visible()
    press(page, "Tab")
    assert focused(page) == "Skip to the content"
    reach(page, "Trigger", "Enter")
    reach(page, "report", "Enter")
    expect(page.get_by_role("spinbutton", name=re.compile("^count"))).to_be_visible()
    reach(page, page.get_by_role("combobox", name=re.compile("^mode")), "w")  # a choice by its first letter
    reach(page, page.get_by_role("spinbutton", name=re.compile("^count")), "1")
    reach(page, "Start", "Enter")
    expect(page.locator(".lead")).to_contain_text("Runs")
    reach(page, "Cancel", "Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    reach(page, "Cancel the job", "Enter")
    expect(page.locator(".outcome-word")).to_have_text("Cancelled")
    assert page.evaluate("document.activeElement !== document.body")
    reach(page, "Run again", "Enter")
    press(page, "Escape")
    assert focused(page) == "Run again"

    reach(page, page.get_by_role("link", name="Runs").first, "Enter")
    reach(page, page.locator(f".run a[href*={stage.failed}]"), "Enter")
    expect(page.locator(".node-table tbody tr").first).to_be_visible()
    reach(page, "Nodes", "ArrowRight")
    assert focused(page) == "Graph"
    press(page, "ArrowRight", "ArrowRight")
    assert focused(page) == "Details"
    press(page, "ArrowRight")
    assert focused(page) == "Nodes"
    reach(page, page.locator(".node-table").get_by_role("button", name="broken"), "Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Compiled SQL")
    press(page, "Escape")
    assert focused(page) == "broken"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def reach(page: Page, what: str | Locator, *keys: str) -> None:
    """Go with Tab to what has this name, which must be seen to have the focus, and press keys."""
    for _ in range(60):
        press(page, "Tab")
        if focused(page) == what if isinstance(what, str) else what.evaluate("one => one === document.activeElement"):
            assert page.evaluate("document.activeElement.matches(':focus-visible')"), what
            return press(page, *keys)
    raise AssertionError(f"60 times Tab did not come to {what}")


def test_news_neither_take_the_focus_nor_are_all_read_out(stage: Stage, pages: Pages) -> None:
    """A job whose record, nodes and clock change, by answers that are made from those of one that has ended."""
    page = open_page(pages, stage.gateway)
    live = Live(stage)
    page.route("**/api/v1/**", live.answer)
    go(page, stage, View(f"#/jobs/{stage.failed}?tab=nodes", ".chain"))
    page.locator(".chain summary").click()
    said = page.evaluate_handle(SAID)
    for what in (
        page.locator(".chain .link").first,
        page.get_by_role("tab", name="Log"),
        page.locator("tbody .link").last,
    ):
        what.focus()
        held = what.element_handle()
        live.turn += 1
        expect(page.locator(".lead")).to_contain_text(f" {live.turn} of 9 done")
        live.turn += 1
        expect(page.locator(".lead")).to_contain_text(f" {live.turn} of 9 done")
        assert held.evaluate("one => one === document.activeElement")  # a copy of it would be read out again
    assert said.json_value() == []
    live.over = True
    expect(page.locator(".outcome-word")).to_have_text("Errors")
    expect(page.locator("#announcer")).to_contain_text("dbt: Errors")

    live.over = False
    go(page, stage, View("#/", ".job-card"))
    button = page.get_by_role("button", name=f"Cancel {stage.failed}")
    button.focus()
    live.turn += 1
    expect(page.locator(".job-card")).to_contain_text(f" {live.turn} of 9 done")
    assert focused(page) == f"Cancel {stage.failed}"
    live.over = True
    expect(button).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "main"  # not the beginning of the page
