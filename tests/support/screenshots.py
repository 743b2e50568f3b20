"""Take a picture of each view of the gateway's pages: in light, in dark, and on a phone.

    python -m tests.support.screenshots FOLDER

Makes the demo's lakehouse and runs its pipelines for real: one job succeeds, one is cancelled, one fails by a broken
model and a failing test, one is halted half-way, one is queued. Then writes NAME-light.png, NAME-dark.png and
NAME-phone.png of each view into FOLDER, and the pictures of the manual, page-NAME.png. Needs the extras `demo` and
`test` and Debian's package chromium, and takes two minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, FloatRect, Page

from gateway.demo import starter
from tests.support import process_facts, projects
from tests.support.browser import Pages, chromium, missing
from tests.support.gateway import Gateway, wait_for
from tests.support.quick_jobs import JOBS_API, ended


class View(NamedTuple):
    """A view: what its pictures are called, its URL after the gateway's, and what is there once it is complete.

    In the URL, {succeeded}, {failed}, {cancelled}, {running} and {queued} are the ids of such jobs.
    """

    name: str
    url: str
    complete: str


VIEWS = (
    View("now", "/#/", ".pipelines .row"),
    View("trigger", "/#/trigger", ".picker .row"),
    View("trigger-pipeline", "/#/trigger/flights/carrier_report", ".pipeline-status"),
    View("job-succeeded", "/#/jobs/{succeeded}", ".node-table tbody tr"),
    View("job-failed", "/#/jobs/{failed}", ".failure"),
    View("job-failed-node", "/#/jobs/{failed}?node=model.flights.monthly_delays", "dialog .copyable"),
    View("job-failed-graph", "/#/jobs/{failed}?tab=graph", ".model"),
    View("job-failed-log", "/#/jobs/{failed}?tab=log", ".line"),
    View("job-failed-details", "/#/jobs/{failed}?tab=details", ".facts"),
    View("job-cancelled", "/#/jobs/{cancelled}", ".line"),
    View("job-running", "/#/jobs/{running}", ".node-bar"),
    View("job-queued", "/#/jobs/{queued}", ".lead"),
    View("runs", "/#/runs", ".run"),
    View("docs", "/docs", "main h1"),
    View("docs-api", "/docs/api.md", "main h1"),
)
LOOKS: Mapping[str, dict[str, bool]] = {"light": {}, "dark": {"dark": True}, "phone": {"phone": True}}
# Those of the manual, gateway/docs/<name>: the first screen of one.
PICTURES = {"now-light.png": "page-now.png", "job-failed-light.png": "page-job.png"}
_SCREEN: FloatRect = {"x": 0, "y": 0, "width": 1280, "height": 860}
_HIGHEST = 3  # screens, of a page that is longer

_FAILING_TEST = """
    -- No day is so bad that it is worth a table.
    select * from {{ ref('worst_days') }}
"""


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go; made where it is missing")
    given = parser.parse_args()
    if why := missing():
        parser.error(f"{why}: apt-get install chromium")
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _lakehouse(Path(folder) / "lakehouse") as gateway:
        jobs = _run_all(gateway)
        with chromium() as browser:
            for view in VIEWS:
                _take(browser, view, gateway.base + view.url.format(**jobs), given.folder)


@contextmanager
def _lakehouse(folder: Path) -> Iterator[Gateway]:
    starter.copy(folder)
    gateway = Gateway(folder).start()
    try:
        yield gateway
    finally:
        _cancel_all(gateway)
        gateway.stop()


def _run_all(gateway: Gateway) -> dict[str, str]:
    """Run the pipelines; the ids of their jobs, by how they ended or what they still do."""
    jobs = {"succeeded": _end(gateway, "full"), "cancelled": _cancel(gateway, _start(gateway, "refresh"))}
    for carrier in ("UA", "B6", "HA"):
        _end(gateway, "carrier_report", parameters={"carrier": carrier, "month": 1})
    model = gateway.folder / "transform/models/gold/monthly_delays.sql"
    test = gateway.folder / "transform/tests/no_day_is_bad.sql"
    whole = model.read_text("utf-8")
    model.write_text(whole.replace("group by flight_month", "group by month_of_flight"), "utf-8")
    projects.write(test, _FAILING_TEST)
    jobs["failed"] = _end(gateway, "refresh", parameters={"month": 3})
    model.write_text(whole, "utf-8")
    test.unlink()
    jobs["running"] = _start(gateway, "dbt", command="build")
    _halt(gateway, jobs["running"])
    jobs["queued"] = _start(gateway, "gold", onConflict="queue")
    refused = gateway.call("POST", JOBS_API, {"pipeline": "ingester"})
    assert refused.status == 409, refused
    paused = gateway.call("PUT", "/api/v1/pipelines/flights/refresh/paused", {"paused": True})
    assert paused.status == 200, paused
    return jobs


def _start(gateway: Gateway, pipeline: str, **fields: Any) -> str:
    answer = gateway.call("POST", JOBS_API, {"pipeline": pipeline, **fields})
    assert answer.status == 202, answer
    return str(answer.json["jobId"])


def _end(gateway: Gateway, pipeline: str, **fields: Any) -> str:
    job = _start(gateway, pipeline, **fields)
    record = ended(gateway, job)
    sys.stdout.write(f"{pipeline}: {record['outcome']}, {record['durationSeconds']:.0f} s\n")
    return job


def _cancel(gateway: Gateway, job: str) -> str:
    wait_for(lambda: _progress(gateway, job) > 0, "its first table")
    gateway.call("POST", f"{JOBS_API}/{job}/cancel")
    ended(gateway, job)
    return job


def _cancel_all(gateway: Gateway) -> None:
    """What is queued before what runs, or it would begin."""
    for pid in _processes(gateway):
        os.kill(pid, signal.SIGCONT)
    for status in ("queued", "running"):
        for job in gateway.call("GET", f"{JOBS_API}?status={status}").json["jobs"]:
            gateway.call("POST", f"{JOBS_API}/{job['jobId']}/cancel")
            ended(gateway, job["jobId"])


def _halt(gateway: Gateway, job: str) -> None:
    """Have dbt stand still in the middle of its models, so that all pictures show the same."""
    wait_for(lambda: _progress(gateway, job) >= 30, "the middle of the build")
    for pid in _processes(gateway):
        os.kill(pid, signal.SIGSTOP)


def _progress(gateway: Gateway, job: str) -> int:
    record = gateway.call("GET", f"{JOBS_API}/{job}").json
    assert record["phase"] != "ended", record
    return int((record["progress"] or {"done": 0})["done"])


def _processes(gateway: Gateway) -> list[int]:
    """The processes of the steps that run, without their supervisors."""
    return [int(line.split()[0]) for line in process_facts.of_steps(gateway.state) if "shim" not in line]


def _take(browser: Browser, view: View, url: str, folder: Path) -> None:
    """A picture in each look. Fails where the page complains."""
    for look, options in LOOKS.items():
        pages = Pages(browser)
        page = pages.open(url, **options)
        page.wait_for_selector(view.complete)
        _enlarge(page)
        file = folder / f"{view.name}-{look}.png"
        page.screenshot(path=file, animations="disabled")
        if (name := PICTURES.get(file.name)) is not None:
            page.screenshot(path=folder / name, animations="disabled", clip=_SCREEN)
        pages.close()
        sys.stdout.write(f"{file}\n")


def _enlarge(page: Page) -> None:
    """Make the screen as high as the page: what is outside of it may not be drawn."""
    size = page.viewport_size
    assert size is not None
    height = min(int(page.evaluate("document.documentElement.scrollHeight")), _HIGHEST * size["height"])
    page.set_viewport_size({"width": size["width"], "height": height})
    page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


if __name__ == "__main__":
    main()
