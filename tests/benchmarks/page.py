"""How soon the page at / is seen, and how long it keeps the browser busy at once, with much to show.

    python -m tests.benchmarks.page [LOADS]

Prints the median of the first paint, each time in a new profile, beside that of a static file of as many bytes; and
the longest task of the page's main thread by Chromium's own trace, while each view loads and while it is scrolled. On a
busy machine a task waits for its turn, so the longest processor time of a task is told too. Needs the extras `demo` and
`test` and Debian's package chromium.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page

from gateway.model.job import Completed, Finished, Job
from gateway.storage.store import Store
from runners.outcome import Exited
from tests.benchmarks.timing import say
from tests.support import projects
from tests.support.browser import Pages, chromium
from tests.support.gateway import Gateway, wait_for
from tests.support.jobs import SPAN, ended, later, make_job, planned
from tests.support.quick_dbt import QUICK_DBT

JOBS, LINES, NODES = 1_000, 5_000, 500
LAYER = 25  # nodes of the models' graph that depend on the same number before them
PATIENCE = 1_800  # seconds, for the many models on a busy machine
GOAL_OF_PAINT, GOAL_OF_TASKS = 100, 50  # milliseconds
DISTANCE, SPEED = 15_000, 5_000  # pixels that are scrolled each way, and in a second
INGESTER = f"""
    for number in range({LINES}):
        print(f"\\x1b[32mINFO\\x1b[0m  line {{number}} of a log, such as a loader writes it about a table and its rows")
"""
PAINTED = """
    new Promise(resolve => new PerformanceObserver(list => resolve(list.getEntriesByName('first-paint')[0].startTime))
        .observe({type: 'paint', buffered: true}))
"""
BYTES = """
    performance.getEntries().filter(one => one.decodedBodySize && !one.name.includes('/api/'))
        .reduce((sum, one) => sum + one.decodedBodySize, 0)
"""
# What a trace needs for its tasks, and for the process that the page is in.
CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline"]


class View(NamedTuple):
    """A view with much to show. url: with the ids {log} and {nodes}. rows: what there are so many of once all is there.

    scrolled: what is scrolled. more: the button that brings more rows, where they don't come by themselves.
    """

    name: str
    url: str
    rows: str
    many: int
    scrolled: str
    more: str = ""


VIEWS = (
    View(f"{JOBS:,} jobs", "/#/runs", ".run", JOBS, "html", more="Show earlier runs"),
    View(f"{LINES:,} lines of log", "/#/jobs/{log}?tab=log", ".line", LINES, ".log"),
    View(f"table of {NODES:,} nodes", "/#/jobs/{nodes}?tab=nodes", ".node-table tbody tr", NODES, "html"),
)


class Painted(NamedTuple):
    """The first paint: milliseconds after the navigation, and the bytes of the files that were loaded."""

    after: float
    size: int


class Longest(NamedTuple):
    """The longest task in milliseconds, by the clock and by the processor's time; they may be two."""

    clock: float
    processor: float

    def __str__(self) -> str:
        return f"{self.clock:4.0f} ms ({self.processor:.0f} ms)"


def main(loads: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, _gateway(Path(folder) / "project") as gateway:
        jobs = {
            "log": _ended(gateway, gateway.trigger(pipeline="ingester")),
            "nodes": _ended(gateway, gateway.trigger(pipeline="dbt", command="run")),
        }
        with chromium() as browser:
            _say_first_paint(browser, f"{gateway.base}/", loads)
            say(f"longest task (processor time), goal {GOAL_OF_TASKS} ms")
            for view in VIEWS:
                _say_longest_tasks(browser, view, gateway.base + view.url.format(**jobs))


@contextmanager
def _gateway(folder: Path) -> Iterator[Gateway]:
    """One with a history of jobs, a project of many models, and an ingester that says much."""
    projects.make(folder, ingester=INGESTER, settings={"record_days": 36_500})
    for number in range(NODES - 2):  # the project has two models of its own
        before = [f"m{number - LAYER}", f"m{number - LAYER - 1}"] if number > LAYER else ["numbers"]
        sources = " union ".join(f"select n from {{{{ ref('{name}') }}}}" for name in before)
        text = f"{{{{ config(materialized='table') }}}} {sources}\n"
        projects.write(folder / f"transform/models/m{number}.sql", text)
    state = folder / ".pipeline-gateway"
    state.mkdir()
    asyncio.run(_record_history(state / "gateway.db"))
    gateway = Gateway(folder).start()
    try:
        yield gateway
    finally:
        gateway.stop()
        QUICK_DBT.close()


async def _record_history(file: Path) -> None:
    store = await Store.open(file)
    await asyncio.gather(*(store.insert(_ended_job(number)) for number in range(JOBS)))
    await store.close()


def _ended_job(number: int) -> Job:
    began = later(60 * number)
    job = make_job(
        f"ingester-1795262400000-{number:06}",
        plan=planned("ingester", resources=()),
        steps=[Finished(Exited(0, SPAN), started=began)],
        created=began,
    )
    return ended(replace(job, pipeline="ingester", command=None), Completed(0, None), later(30, began))


def _ended(gateway: Gateway, job: str) -> str:
    """The job, once it has run."""
    wait_for(lambda: gateway.poll(job)["status"] != "running", f"the end of {job}", PATIENCE)
    return job


def _say_first_paint(browser: Browser, url: str, loads: int) -> None:
    pages: list[float] = []
    files: list[float] = []
    with _static(_painted(browser, url).size) as static:
        for _ in range(loads):
            pages.append(_painted(browser, url).after)
            files.append(_painted(browser, static).after)
    page, file = statistics.median(pages), statistics.median(files)
    say(f"first paint of /     {page:.0f} ms, goal {GOAL_OF_PAINT} ms")
    say(f"of a static file     {file:.0f} ms; the page takes {page / file:.1f} times that")


def _painted(browser: Browser, url: str) -> Painted:
    pages = Pages(browser)
    page = pages.open(url)
    painted = Painted(page.evaluate(PAINTED), page.evaluate(BYTES))
    pages.close()
    return painted


@contextmanager
def _static(size: int) -> Iterator[str]:
    """A server of one file of so many bytes; its URL."""
    content = b"<!doctype html><link rel=icon href=data:,><title>static</title><h1>A static file</h1><!--"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content.ljust(size))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _say_longest_tasks(browser: Browser, view: View, url: str) -> None:
    """While it loads, and while it is scrolled."""
    pages = Pages(browser)
    with _traced(browser) as loading:
        page = pages.open(url)
        _show_all(page, view)
    with _traced(browser) as scrolling:
        _scroll(page, view.scrolled)
    pages.close()
    process = _process(loading, url)
    say(f"{view.name:20} loading {_longest(loading, process)}, scrolling {_longest(scrolling, process)}")


def _show_all(page: Page, view: View) -> None:
    """Wait for all rows."""
    rows = page.locator(view.rows)
    rows.first.wait_for(state="attached")
    while (shown := rows.count()) < view.many:
        if view.more:
            page.get_by_role("button", name=view.more).click()
        rows.nth(shown).wait_for(state="attached")


def _scroll(page: Page, where: str) -> None:
    """Down and up, as a finger would, with the pointer on an element of the page."""
    page.evaluate("scrollTo(0, 0)")
    page.evaluate("addEventListener('scroll', () => { window.wasScrolled = true; }, {capture: true, passive: true})")
    element, size = page.locator(where).first, page.viewport_size
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    assert box is not None
    assert size is not None
    at = {"x": box["x"] + box["width"] / 2, "y": min(max(box["y"], 0) + 100, size["height"] - 10)}
    debugger = page.context.new_cdp_session(page)
    for distance in (-DISTANCE, DISTANCE):
        debugger.send("Input.synthesizeScrollGesture", {**at, "yDistance": distance, "speed": SPEED})
    if not page.evaluate("window.wasScrolled"):
        raise SystemExit(f"{page.url} was not scrolled at {where}")


@contextmanager
def _traced(browser: Browser) -> Iterator[list[dict[str, Any]]]:
    """Chromium's events of meanwhile, which are there at the end."""
    events: list[dict[str, Any]] = []
    browser.start_tracing(categories=CATEGORIES)
    yield events
    events += json.loads(browser.stop_tracing())["traceEvents"]


def _process(events: list[dict[str, Any]], url: str) -> int:
    """The process that the page of this URL was loaded in."""
    [process] = {
        event["pid"]
        for event in events
        if event["name"] == "CommitLoad" and event["args"]["data"]["url"].startswith(url.partition("#")[0])
    }
    return int(process)


def _longest(events: list[dict[str, Any]], process: int) -> Longest:
    """Of the main thread of a page's process."""
    mine = [event for event in events if event["pid"] == process]
    [thread] = {
        event["tid"] for event in mine if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = [event for event in mine if (event["name"], event["tid"]) == ("RunTask", thread)]
    return Longest(*(max(task.get(time, 0) for task in tasks) / 1000 for time in ("dur", "tdur")))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
