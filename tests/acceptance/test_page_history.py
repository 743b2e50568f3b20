"""The page's history: the last runs of each pipeline as bars, and all runs, by filters that its URL holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from gateway.model.job import Completed, Ending, Failed, Finished, Job, Reason
from gateway.storage.store import Store
from runners.outcome import Exited
from runners.report import Progress
from tests.support import projects
from tests.support.browser import Pages
from tests.support.gateway import Gateway
from tests.support.jobs import SPAN, ended, later, make_job, planned
from tests.support.page import open_page

GOOD = Completed(0, None)
DAY = 24 * 60  # minutes
# Of the pipeline `varied`, the oldest first: how each run ended, and its seconds.
VARIED: tuple[tuple[Ending, float], ...] = (
    *((GOOD, 60) for _ in range(32)),
    (Completed(1, None), 30),
    (Failed(Reason.KILLED, "It was killed."), 40),
    (Failed(Reason.CANCELLED, "It was cancelled."), 0),
    (GOOD, 121),
    (GOOD, 250_000),
    (GOOD, 119),
)
BUSY = 230  # runs of the pipeline `busy`, one a day
MANY = 40  # pipelines in all


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One with a recorded history."""
    folder = tmp_path_factory.mktemp("history") / "project"
    names = ["varied", "busy", "never", *(f"p{number}" for number in range(MANY - 3))]
    settings = {
        "record_days": 36_500,
        "projects": {"small": {"dbt": "transform", "pipelines": {name: {"dbt": {}} for name in names}}},
    }
    projects.make(folder, settings=settings)
    (folder / ".pipeline-gateway").mkdir()
    asyncio.run(_record(folder / ".pipeline-gateway/gateway.db", names))
    started = Gateway(folder).start()
    yield started
    started.stop()


async def _record(file: Path, names: list[str]) -> None:
    store = await Store.open(file)
    for number, (ending, seconds) in enumerate(VARIED):
        await store.insert(_job("varied", number, ending, seconds))
    for number in range(BUSY):
        await store.insert(_job("busy", number, GOOD, 0, warned=number == BUSY - 1))
    for name in names[3:]:
        await store.insert(_job(name, 0, GOOD, 1))
    await store.close()


def _job(pipeline: str, number: int, ending: Ending, seconds: float, *, warned: bool = False) -> Job:
    """A run of the day `number`."""
    began = later(60 * DAY * number)
    progress = Progress(done=1, total=1, warn=1) if warned else None
    job = make_job(
        f"{pipeline}-{1795262400000 + number}-{number:06}",
        plan=planned("build", resources=()),
        steps=[Finished(Exited(0, SPAN), progress, started=began)],
        created=began,
    )
    return ended(replace(job, pipeline=pipeline, project="small", command=None), ending, later(seconds, began))


@pytest.fixture
def page(gateway: Gateway, pages: Pages) -> Page:
    """The history."""
    return open_page(pages, gateway, "#/runs")


def history(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def labels(page: Page, name: str) -> list[str]:
    """What the bars of a pipeline say, without when; waits for the last pipeline."""
    bars = history(page, name).locator(".bars a")
    expect(bars.first).to_be_attached()
    return [str(bar.get_attribute("aria-label")).rpartition(", ")[0].partition(", 2")[0] for bar in bars.all()]


def test_each_bar_says_its_outcome_and_how_long_it_took(page: Page) -> None:
    """The last thirty, the newest last; by a shape as well, unless it was good."""
    found = labels(page, "varied")
    assert len(found) == 30
    bars = history(page, "varied").locator(".bars li")
    states = [bar.locator(".bar").get_attribute("class") for bar in bars.all()[-6:]]
    assert states == [f"bar is-{state}" for state in ("errors", "failed", "cancelled", *["succeeded"] * 3)]
    assert [bar.locator("svg.icon").count() for bar in bars.all()[-6:]] == [1, 1, 1, 0, 0, 0]


def test_a_run_beyond_twice_its_usual_time_is_marked(page: Page) -> None:
    bars = history(page, "varied").locator(".bars li")
    expect(bars).to_have_count(30)
    expect(history(page, "varied")).to_contain_text("usually 1 min")
    assert [bar.locator(".slow").count() for bar in bars.all()[-6:]] == [0, 0, 0, 1, 1, 0]
    expect(bars.nth(27).get_by_role("link")).to_have_accessible_name(re.compile("more than twice the usual 1 min"))


def test_a_run_that_hung_leaves_the_others_their_height(page: Page) -> None:
    """And one that took no time is seen."""
    bars = history(page, "varied").locator(".bars li")
    expect(bars).to_have_count(30)
    heights = [bar.locator(".bar").evaluate("bar => bar.getBoundingClientRect().height") for bar in bars.all()]
    assert heights[28] == max(heights)
    assert heights[0] > heights[28] / 5  # 60 s beside 70 hours
    assert 0 < heights[26] < heights[0]


def test_runs_that_take_no_time_are_not_slow(page: Page) -> None:
    expect(history(page, "busy").locator(".bars li")).to_have_count(30)
    assert history(page, "busy").locator(".slow").count() == 0


def test_forty_pipelines_have_bars_and_one_that_never_ran_is_named(page: Page) -> None:
    expect(page.locator(".history .bars:has(li)")).to_have_count(MANY - 1)
    expect(page.get_by_text("Never ran: never")).to_be_visible()


def test_a_bar_leads_to_its_run_and_back_leads_to_the_same_history(page: Page) -> None:
    page.get_by_role("checkbox", name="Errors").check()
    expect(page.locator(".run")).to_have_count(1)
    history(page, "varied").locator(".bars a").nth(24).click()
    expect(page.get_by_role("heading", name="varied")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("checkbox", name="Errors")).to_be_checked()
    expect(page.locator(".run")).to_have_count(1)


def test_a_reload_shows_the_same_filters_and_runs(page: Page) -> None:
    page.get_by_role("combobox", name="Pipeline").select_option("busy")
    page.get_by_label("From").fill("2026-11-22")
    newest = page.locator(".run a").first
    expect(newest).to_have_attribute("href", re.compile(f"-{BUSY - 1:06}$"))
    expect(page.locator(".run")).to_have_count(100)
    page.get_by_role("button", name="Show earlier runs").click()
    expect(page.locator(".run")).to_have_count(200)
    expect(page).to_have_url(re.compile("shown=200"))
    page.reload()
    expect(page.locator(".run")).to_have_count(200)
    expect(newest).to_have_attribute("href", re.compile(f"-{BUSY - 1:06}$"))
    expect(page.get_by_role("combobox", name="Pipeline")).to_have_value("small/busy")
    expect(page.get_by_label("From")).to_have_value("2026-11-22")
    page.get_by_role("button", name="Show earlier runs").click()
    expect(page.locator(".run")).to_have_count(BUSY - 1)  # the first is of the day before
    expect(page.get_by_role("button", name="Show earlier runs")).to_be_hidden()
    page.get_by_role("checkbox", name="Warnings").check()
    expect(page.locator(".run")).to_have_count(1)
    expect(page).not_to_have_url(re.compile("shown="))


def test_filters_that_no_run_fits_say_so(page: Page) -> None:
    page.get_by_role("combobox", name="Pipeline").select_option("never")
    expect(page.get_by_text("No run fits these filters.")).to_be_visible()
    expect(page.locator(".run")).to_have_count(0)


def test_a_strange_url_of_the_history_shows_the_history(gateway: Gateway, pages: Pages) -> None:
    page = open_page(pages, gateway, "#/runs?since=yesterday&until=2026-99-99&shown=-1&pipeline=/&outcome=fine")
    expect(page.locator(".run")).to_have_count(100)
