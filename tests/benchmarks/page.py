"""How soon the page at / is seen, and how long it keeps the browser busy at once, with much to show.

    python -m tests.benchmarks.page [LOADS]

Prints the median of the first paint, each time in a new profile, beside that of a static file of as many bytes; and
the longest task of the page's main thread by Chromium's own trace: while each view loads, while it is scrolled, and
while a job runs that prints much and goes on with its nodes. On a busy machine a task waits for its turn, so the
longest processor time of a task is told too. The jobs are real; the nodes of a job are made up, as the answer of its
gateway.
Needs the extras `demo` and `test` and Debian's package chromium.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from playwright.sync_api import Browser, Page, Route

from gateway.clock import rfc3339
from gateway.model.job import Completed, Finished, Job
from gateway.storage.store import Store
from runners.outcome import Exited, Span
from tests.benchmarks.timing import say
from tests.support import projects
from tests.support.browser import Pages, chromium
from tests.support.gateway import Gateway
from tests.support.jobs import ended, later, make_job, planned

JOBS, LINES, NODES = 1_000, 5_000, 500
LAYER = 40  # models of a layer, each of which depends on two of the layer before
GOAL_OF_PAINT, GOAL_OF_TASKS = 100, 50  # milliseconds
DISTANCE, SPEED = 15_000, 5_000  # pixels that are scrolled each way, and in a second
RATE, SECONDS = 2_000, 10  # lines in a second, of a job that runs so long
# Prints lines at once or, told --seconds, so long at the rate, and says how far it is.
INGESTER = f"""
    import json, sys, time
    seconds = int(sys.argv[2]) if sys.argv[1:] else 0
    lines = seconds * {RATE} or {LINES}
    for number in range(lines):
        print(f"\\x1b[32mINFO\\x1b[0m  line {{number}} of a log, such as a loader writes it about a table and its rows")
        if seconds and number % ({RATE} // 20) == 0:
            print(json.dumps({{"table": f"t{{number}}", "rows": 1, "done": number, "total": lines}}), flush=True)
            time.sleep(1 / 20)
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


def _all_runs(page: Page) -> None:
    more = page.get_by_role("button", name="Show earlier runs")
    for number in range(100, JOBS + 1, 100):
        page.locator(".run").nth(number - 1).wait_for(state="attached")
        if number < JOBS:
            more.click()


def _elements(selector: str, number: int) -> Callable[[Page], None]:
    return lambda page: page.locator(selector).nth(number - 1).wait_for(state="attached")


class View(NamedTuple):
    """A view: its URL, with a job's id as {job}; how to wait until it is complete; what is scrolled."""

    name: str
    url: str
    complete: Callable[[Page], None]
    scrolled: str


VIEWS = (
    View(f"{JOBS:,} jobs", "/#/runs", _all_runs, "html"),
    View(f"{LINES:,} lines of log", "/#/jobs/{job}?tab=log", _elements(".line", LINES), ".log"),
    View(f"{NODES:,} nodes", "/#/jobs/{job}?tab=nodes", _elements(".node-table tbody tr", NODES), "html"),
    View(f"a graph of {NODES:,}", "/#/jobs/{job}?tab=graph", _elements(".model", NODES), ".graph-box"),
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
    with tempfile.TemporaryDirectory() as folder, _gateway(Path(folder) / "project") as gateway, chromium() as browser:
        _say_first_paint(browser, f"{gateway.base}/", loads)
        job = gateway.run(pipeline="ingester")["jobId"]
        say(f"longest task (processor time), goal {GOAL_OF_TASKS} ms")
        for view in VIEWS:
            _say_longest_tasks(browser, gateway, view, job)
        for tab in ("log", "nodes", "graph"):
            _say_longest_of_live(browser, gateway, tab)


@contextmanager
def _gateway(folder: Path) -> Iterator[Gateway]:
    """One with a history of jobs, a pipeline that prints much at once, and one that prints much for some time."""
    pipelines = {"load": {"ingester": True, "parameters": {"seconds": {"type": "integer", "option": "--seconds"}}}}
    projects.make(folder, ingester=INGESTER, settings={"record_days": 36_500})
    settings = yaml.safe_load((folder / "gateway.yaml").read_text())
    settings["projects"]["small"]["pipelines"] = pipelines
    (folder / "gateway.yaml").write_text(yaml.safe_dump(settings))
    state = folder / ".pipeline-gateway"
    state.mkdir()
    asyncio.run(_record_history(state / "gateway.db"))
    gateway = Gateway(folder, installed=True).start()
    try:
        yield gateway
    finally:
        gateway.stop()


async def _record_history(file: Path) -> None:
    store = await Store.open(file)
    await asyncio.gather(*(store.insert(_ended_job(number)) for number in range(JOBS)))
    await store.close()


def _ended_job(number: int) -> Job:
    began = later(60 * number)
    job = make_job(
        f"ingester-1795262400000-{number:06}",
        plan=planned("ingester", resources=()),
        steps=[Finished(Exited(0, Span(began.wall, began.wall + 30, 30.0)), started=began)],
        created=began,
    )
    return ended(replace(job, pipeline="ingester", command=None), Completed(0, None), later(30, began))


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


def _say_longest_tasks(browser: Browser, gateway: Gateway, view: View, job: str) -> None:
    """While it loads, and while it is scrolled."""
    url = gateway.base + view.url.format(job=job)
    pages = Pages(browser, expected=["/favicon.ico"])
    page = _page(pages, gateway, 0)
    with _traced(browser) as loading:
        page.goto(url)
        view.complete(page)
    with _traced(browser) as scrolling:
        _scroll(page, view.scrolled)
    pages.close()
    process = _process(loading, url)
    say(f"{view.name:20} loading {_longest(loading, process)}, scrolling {_longest(scrolling, process)}")


def _say_longest_of_live(browser: Browser, gateway: Gateway, tab: str) -> None:
    """While a job prints much, and its nodes go on, from the first to the last."""
    answer = gateway.call("POST", "/api/v1/jobs", {"pipeline": "load", "parameters": {"seconds": SECONDS}})
    url = f"{gateway.base}/#/jobs/{answer.json['jobId']}?tab={tab}"
    pages = Pages(browser, expected=["/favicon.ico"])
    page = _page(pages, gateway, SECONDS)
    with _traced(browser) as events:
        page.goto(url)
        page.get_by_text("Run again").wait_for()
        page.wait_for_timeout(2_000)  # for the last look at the nodes
    pages.close()
    say(f"{f'live, {tab}':20} {_longest(events, _process(events, url))}")


def _page(pages: Pages, gateway: Gateway, seconds: float) -> Page:
    """A page whose jobs have nodes, all of which have ended after so many seconds."""
    page = pages.open(f"{gateway.base}/docs")
    began = time.time()

    def answer(route: Route) -> None:
        done = NODES if seconds == 0 else min(NODES, int(NODES * (time.time() - began) / seconds))
        started = (began + number * SECONDS / NODES for number in range(NODES))
        nodes = [_node(number, at, number < done) for number, at in zip(range(done + 4), started, strict=False)]
        route.fulfill(json={"nodes": nodes})

    page.route("**/nodes", answer)
    return page


def _node(number: int, started: float, has_ended: bool) -> dict[str, Any]:
    """A node as the jobs API tells it, of layers in which each depends on two of the layer before."""
    before = {max(0, number - LAYER), max(0, number - LAYER - 7)} - {number}
    return {
        "step": "ingester",
        "uniqueId": f"model.small.m{number}",
        "name": f"m{number}",
        "resourceType": "model",
        "status": "success" if has_ended else "running",
        "message": "OK" if has_ended else None,
        "startedAt": rfc3339(started),
        "durationSeconds": 0.08 if has_ended else None,
        "thread": f"Thread-{number % 4}",
        "failures": None,
        "rowsAffected": number if has_ended else None,
        "path": f"models/m{number}.sql",
        "column": None,
        "dependsOn": [f"model.small.m{other}" for other in sorted(before)],
    }


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
