"""The page at / with real jobs: what runs now, triggers, one job, its log, a gateway that is killed, and tokens."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support import access, projects
from tests.support.access import Guarded
from tests.support.bash import bash
from tests.support.browser import Pages
from tests.support.command import run
from tests.support.gateway import DEADLINE, Gateway, wait_for
from tests.support.page import AWAY, REFUSED, open_page, restart, sign_in
from tests.support.quick_dbt import QUICK_DBT
from tests.support.quick_jobs import JOBS_API, ended

expect.set_options(timeout=DEADLINE * 1000)

HELD = 5000  # lines of a log that the page holds
CAP = 1024 * 1024  # bytes of the output of a job
# Does what its options say, whatever their order: prints numbered lines, says how far it is, begins a wide line, waits
# for a file, ends that line, prints more lines, fails.
INGESTER = r"""
    for word in "$@"; do
        echo "given $word"
        export "${word#--}"
    done
    long="of a log that is long enough to be scrolled"
    [ -z "$lines" ] || seq -f "line %.0f $long" "$lines"
    [ -z "$until" ] || echo '{"table": "orders", "done": 1, "total": 3}'
    [ -z "$until" ] || echo "waits for $until"
    [ -z "$wide" ] || printf "%0${wide}d" 0
    while [ -n "$until" ] && ! [ -e "$until" ]; do sleep 0.05; done
    [ -z "$wide" ] || echo
    [ -z "$more" ] || seq -f "more %.0f $long" "$more"
    [ -z "$code" ] || echo "ERROR: code $code"
    exit "${code:-0}"
"""
TALK = {
    "lines": {"type": "integer", "option": "--lines"},
    "until": {"type": "string", "option": "--until"},
    "more": {"type": "integer", "option": "--more"},
    "say": {"type": "string", "option": "--say"},
    "wide": {"type": "integer", "option": "--wide"},
    "code": {"type": "integer", "minimum": 1, "maximum": 9, "option": "--code"},
}
LOAD = {
    "region": {"type": "string", "choices": ["north", "south"], "required": True, "option": "--region"},
    "since": {"type": "date", "default": "2026-01-01", "option": "--since"},
    "rows": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10, "option": "--rows"},
    "ratio": {"type": "number", "option": "--ratio"},
    "kind": {"type": "string", "choices": ["orders", "returns"], "default": "orders", "option": "--kind"},
    "full": {"type": "boolean", "option": "--full"},
    "note": {"type": "string", "option": "--note"},
}
MODELS = {
    "models/after.sql": "select * from {{ ref('broken') }}\n",
    "models/broken.sql": "select * from nowhere\n",
    "tests/few_evens.sql": "{{ config(severity='warn') }} select n from {{ ref('evens') }}\n",
    "tests/no_evens.sql": "select n from {{ ref('evens') }}\n",
}


def make(folder: Path) -> Path:
    """A project whose ingester is the script above; in its dbt project a model is broken, and a test fails."""
    made = projects.make(
        folder,
        settings={
            "output_cap": CAP,
            "trigger_rate": 1000,
            "fabrics": {
                "local": {
                    "resources": {"ingester": "warehouse", "dbt": "warehouse"},
                    "dbt": {"executable": str(QUICK_DBT.program)},
                }
            },
            "projects": {
                "small": {
                    "dbt": "transform",
                    "ingester": {"command": ["sh", "ingest.sh"]},
                    "pipelines": {
                        "talk": {"ingester": True, "parameters": TALK},
                        "load": {"ingester": True, "parameters": LOAD},
                    },
                }
            },
        },
    )
    projects.write(made / "ingest.sh", INGESTER)
    for file, text in MODELS.items():
        projects.write(made / "transform" / file, text)
    return made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway of all tests without tokens."""
    made = Gateway(make(tmp_path_factory.mktemp("page") / "project")).start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _ends_its_jobs(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails leaves nothing in the way of the next one."""
    yield
    if "gateway" not in request.fixturenames:
        return
    gateway: Gateway = request.getfixturevalue("gateway")
    for job in gateway.call("GET", f"{JOBS_API}?status=queued,running").json["jobs"]:
        gateway.call("POST", f"{JOBS_API}/{job['jobId']}/cancel")
        ended(gateway, job["jobId"])
    gateway.call("PUT", "/api/v1/pipelines/small/talk/paused", {"paused": False})


@pytest.fixture(scope="module")
def broken(gateway: Gateway) -> dict[str, Any]:
    """The record of a build with a broken model, a model after it, and tests that fail and warn."""
    return ended(gateway, trigger(gateway, "dbt", command="build"))


@pytest.fixture(scope="module")
def long(gateway: Gateway) -> str:
    """A job that has printed 12,000 lines, and then failed."""
    job = talk(gateway, lines=12_000, code=3)
    ended(gateway, job)
    return job


def trigger(gateway: Gateway, pipeline: str, **fields: Any) -> str:
    """Trigger as a script would, elsewhere than on the page; the job's id."""
    answer = gateway.call("POST", JOBS_API, {"pipeline": pipeline, **fields})
    assert answer.status == 202, answer
    return str(answer.json["jobId"])


def talk(gateway: Gateway, **parameters: Any) -> str:
    return trigger(gateway, "talk", parameters=parameters)


def waiting(gateway: Gateway, file: str, **parameters: Any) -> str:
    """A job that waits for this file."""
    job = talk(gateway, until=file, **parameters)
    wait_for(lambda: f"waits for {file}" in log_of(gateway, job), "its last line")
    return job


def go(gateway: Gateway, file: str) -> None:
    """Have the job that waits for this file go on."""
    (gateway.folder / file).touch()


def log_of(gateway: Gateway, job: str) -> str:
    return gateway.call("GET", f"{JOBS_API}/{job}/log").body.decode()


def record(gateway: Gateway, job: str) -> dict[str, Any]:
    return gateway.call("GET", f"{JOBS_API}/{job}").json


def newest(gateway: Gateway) -> dict[str, Any]:
    """The record of the newest job, once it has ended."""
    [job] = gateway.call("GET", f"{JOBS_API}?limit=1").json["jobs"]
    return ended(gateway, job["jobId"])


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name)


def button(place: Page | Locator, name: str) -> Locator:
    return place.get_by_role("button", name=name, exact=True)


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def lines(page: Page) -> list[str]:
    """The lines of the log that the page holds."""
    return page.locator(".line").all_text_contents()


def numbers(shown: list[str], word: str = "line") -> list[int]:
    """The numbers of the numbered lines."""
    return [int(line.split()[1]) for line in shown if line.startswith(f"{word} ")]


def load_all_earlier(page: Page) -> None:
    """Press Show earlier lines until it is gone."""
    earlier = page.locator("button.earlier")
    for _ in range(20):
        if not earlier.is_visible():
            return
        before = page.locator(".line").count()
        earlier.click()
        expect(page.locator(".line")).not_to_have_count(before)
    raise AssertionError(f"there are still earlier lines after {len(lines(page))}")


def at_end(page: Page) -> None:
    """The end of the log is in view."""
    left = "box => box.scrollHeight - box.scrollTop - box.clientHeight"
    wait_for(lambda: page.locator(".log").evaluate(left) <= 1, "the end of the log")


def icon(page: Page) -> str:
    """The icon of the tab, as its URL."""
    return str(page.locator("link[rel=icon]").get_attribute("href"))


def expect_state(page: Page, title: str, color: str) -> None:
    """The tab has this title, and an icon in this color of the page."""
    expect(page).to_have_title(f"{title} · Pipeline Gateway")
    value = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()", color)
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("^data:image/svg"))
    assert value.replace("#", "%23") in icon(page), (color, icon(page))


# Now


def test_now_shows_what_runs_and_waits_and_when_it_ends_by_itself(gateway: Gateway, pages: Pages) -> None:
    ended(gateway, talk(gateway, say="before"))  # without one there is no usual time
    page = open_page(pages, gateway)
    active = section(page, "Running and queued")
    expect(active).to_contain_text("Nothing runs now.")
    first = waiting(gateway, "go-now")
    refused = gateway.call("POST", JOBS_API, {"pipeline": "load", "parameters": {"region": "north"}})
    assert refused.status == 409
    card = active.locator(".job-card").filter(has=page.locator(f"a[href$='{first}']"))
    expect(card).to_contain_text("Runs ingester, 1 of 3 done. orders")
    expect(card.get_by_role("progressbar")).to_have_js_property("position", 1 / 3)
    expect(card).to_contain_text("1/3")
    expect(card.locator(".last-line")).to_have_text("waits for go-now")
    expect(card.locator(".elapsed")).to_have_text(re.compile(r"^\d+(\.\d)? s, usually [\d.]+ s"))
    expect_state(page, "Running: talk", "--running")
    second = trigger(gateway, "load", parameters={"region": "north"}, onConflict="queue")
    queued = active.locator(".job-card").filter(has=page.locator(f"a[href$='{second}']"))
    expect(queued).to_contain_text(f"Waits for {first}, which holds warehouse.")
    refusals = section(page, "Refused")
    expect(refusals.get_by_role("listitem").first).to_contain_text("load")
    expect(refusals.get_by_role("link").first).to_have_attribute("href", f"#/jobs/{first}")
    go(gateway, "go-now")
    expect(active).to_contain_text("Nothing runs now.")
    expect(active.locator(".job-card")).to_have_count(0)
    expect(section(page, "Pipelines").get_by_role("listitem").filter(has_text="load")).to_contain_text("Succeeded")


def test_a_run_that_fails_after_all_was_marked_as_seen_went_wrong(gateway: Gateway, pages: Pages) -> None:
    """Though it was triggered before."""
    failed = talk(gateway, code=3)
    ended(gateway, failed)
    page = open_page(pages, gateway)
    wrong = section(page, "Went wrong")
    expect(wrong.locator(f"a[href$='{failed}']")).to_be_visible()
    expect(page).to_have_title(re.compile(r"^\d+ went wrong · "))
    later = waiting(gateway, "go-wrong", code=4)
    expect(section(page, "Running and queued").locator(".job-card")).to_have_count(1)
    button(wrong, "Mark as seen").click()
    expect(wrong).to_contain_text("Nothing went wrong since you last looked")
    go(gateway, "go-wrong")
    expect(wrong.locator(f"a[href$='{later}']")).to_be_visible()
    expect(wrong).to_contain_text("1 run went wrong")
    expect(wrong.locator(".run")).to_contain_text("ERROR: code 4")
    expect_state(page, "1 went wrong", "--errors")
    page.reload()
    expect(wrong.locator(".run")).to_have_count(1)
    button(wrong, "Mark as seen").click()
    expect(wrong.locator(".run")).to_have_count(0)
    expect_state(page, "Now", "--succeeded")


# Trigger


def form(pages: Pages, gateway: Gateway, pipeline: str) -> Page:
    return open_page(pages, gateway, f"#/trigger/small/{pipeline}")


def test_a_parameter_has_a_field_of_its_type_with_default_and_limits(gateway: Gateway, pages: Pages) -> None:
    page = form(pages, gateway, "load")
    region, since, rows = (page.get_by_label(re.compile(name)) for name in ("^region", "^since", "^rows"))
    expect(since).to_have_attribute("type", "date")
    expect(page.locator("label").filter(has=since)).to_contain_text("2026-01-01")
    assert region.locator("option").all_text_contents() == ["choose", "north", "south"]
    kind, full = (page.get_by_label(re.compile(name)).locator("option") for name in ("^kind", "^full"))
    assert kind.all_text_contents() == ["orders (default)", "returns"]
    assert full.all_text_contents() == ["not given", "true", "false"]
    for name, value in {"type": "number", "min": "1", "max": "100", "step": "1", "placeholder": "10 (default)"}.items():
        expect(rows).to_have_attribute(name, value)
    expect(page.locator("label").filter(has=rows)).to_contain_text("from 1 to 100")
    expect(page.locator("label").filter(has_not=page.locator(".required")).get_by_label("region")).to_have_count(0)
    button(page, "Start").click()
    assert region.evaluate("field => field.validity.valueMissing"), "it starts without a required parameter"
    region.select_option("north")
    rows.fill("101")
    button(page, "Start").click()
    assert rows.evaluate("field => field.validity.rangeOverflow"), "it starts with a value beyond the limit"
    rows.fill("")
    button(page, "Start").click()
    expect(page).to_have_url(re.compile("#/jobs/"))
    assert newest(gateway)["parameters"] == {"region": "north", "since": "2026-01-01", "rows": 10, "kind": "orders"}


def test_a_trigger_sends_what_was_filled_in_and_nothing_else(gateway: Gateway, pages: Pages) -> None:
    page = form(pages, gateway, "load")
    given = {"since": "2026-02-28", "rows": "7", "ratio": "0.5", "note": "it's <b> $HOME"}
    for name, value in given.items():
        page.get_by_label(re.compile(f"^{name}")).fill(value)
    for name, value in {"region": "south", "kind": "returns", "full": "false"}.items():
        page.get_by_label(re.compile(f"^{name}")).select_option(value)
    with page.expect_request(f"**{JOBS_API}") as sent:
        button(page, "Start").click()
    parameters = {**given, "region": "south", "rows": 7, "ratio": 0.5, "kind": "returns", "full": False}
    assert sent.value.post_data_json == {"pipeline": "load", "projectId": "small", "parameters": parameters}
    expect(page).to_have_url(re.compile("#/jobs/"))
    made = newest(gateway)
    assert made["parameters"] == parameters
    expect(page.get_by_role("heading", name="load")).to_be_visible()
    expect(page.locator(".crumbs")).to_contain_text(made["jobId"])


def test_a_trigger_of_dbt_has_its_command_toggles_and_processes(
    gateway: Gateway, pages: Pages, broken: dict[str, Any]
) -> None:
    page = form(pages, gateway, "dbt")
    process = page.get_by_label(re.compile("^Up to"))
    names = page.locator("#processes option")
    expect(names.filter(has_not_text="never")).not_to_have_count(0)
    wait_for(lambda: "evens" in names.evaluate_all("all => all.map(one => one.value)"), "the models of the last run")
    process.fill("evens")
    page.get_by_label(re.compile("^Command")).select_option("build")
    page.get_by_text("Lineage, report, conflicts, time limit").click()
    page.get_by_label("OpenLineage").select_option("off")
    page.get_by_label(re.compile("^Elementary")).select_option("off")
    page.get_by_label("Time limit").fill("90")
    page.get_by_label("Where another job").select_option("queue")
    with page.expect_request(f"**{JOBS_API}") as sent:
        button(page, "Start").click()
    expected = {
        "pipeline": "dbt",
        "projectId": "small",
        "command": "build",
        "processName": "evens",
        "enableOpenlineage": False,
        "enableElementary": False,
        "onConflict": "queue",
        "timeoutSeconds": 90,
    }
    assert sent.value.post_data_json == expected
    expect(page).to_have_url(re.compile("#/jobs/"))
    made = newest(gateway)
    fields = ("pipeline", "projectId", "command", "processName", "enableOpenlineage", "enableElementary")
    assert {name: made[name] for name in fields} == {name: expected[name] for name in fields}
    assert made["outcome"] == "warnings" or made["firstFailure"]["node"].endswith("no_evens"), made


def test_the_lines_by_hand_make_the_same_job_in_a_shell(gateway: Gateway, pages: Pages, tmp_path: Path) -> None:
    page = form(pages, gateway, "load")
    page.get_by_label(re.compile("^region")).select_option("north")
    page.get_by_label(re.compile("^note")).fill("""it's "50" % of $HOME; `id` \\ é""")
    page.get_by_label(re.compile("^rows")).fill("3")
    page.get_by_text("Lineage, report, conflicts, time limit").click()
    page.get_by_label("Where another job").select_option("queue")
    page.get_by_label("Time limit").fill("60")
    by_hand = section(page, "The same by hand")
    curl = by_hand.get_by_role("region", name="curl line").inner_text()
    command = by_hand.get_by_role("region", name="as a command").inner_text()
    button(page, "Start").click()
    expect(page).to_have_url(re.compile("#/jobs/"))
    made = [newest(gateway)]
    answered = bash(gateway, curl)
    assert answered.status == 202
    made.append(ended(gateway, answered.json["jobId"]))
    words = json.loads(
        subprocess.run(
            ["bash", "-c", f"pipeline-gateway() {{ jq -nc '$ARGS.positional' --args -- \"$@\"; }}; {command}"],
            capture_output=True,
            check=True,
        ).stdout
    )
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, "region=north" in done.stdout) == (0, True), done
    made.append(newest(gateway))
    assert len({one["jobId"] for one in made}) == 3
    same = ("pipeline", "projectId", "parameters", "command", "processName", "outcome")
    assert [{name: one[name] for name in same} for one in made[1:]] == [{name: made[0][name] for name in same}] * 2


def test_a_refused_trigger_says_why_and_links_what_is_in_the_way(gateway: Gateway, pages: Pages) -> None:
    pages.expected += [REFUSED.format(409), REFUSED.format(400)]
    holder = waiting(gateway, "go-refused")
    page = form(pages, gateway, "load")
    page.get_by_label(re.compile("^region")).select_option("north")
    button(page, "Start").click()
    problem = page.locator("form .problem")
    expect(problem).to_contain_text(holder)
    expect(problem.get_by_role("link")).to_have_attribute("href", f"#/jobs/{holder}")
    go(gateway, "go-refused")
    ended(gateway, holder)
    page.get_by_label("Up to").fill("nowhere")
    button(page, "Start").click()
    expect(problem).to_contain_text("Process `nowhere` not found")
    expect(problem.get_by_role("link")).to_have_count(0)
    page.get_by_label("Up to").fill("")
    button(page, "Start").click()  # the same body as the one that was refused
    expect(page).to_have_url(re.compile("#/jobs/"))
    assert newest(gateway)["outcome"] == "succeeded"


def test_a_pipeline_is_paused_and_unpaused_on_the_page(gateway: Gateway, pages: Pages) -> None:
    pages.expected.append(REFUSED.format(409))
    page = form(pages, gateway, "talk")
    status = page.locator(".pipeline-status")
    button(status, "Pause").click()
    button(page, "No, leave it").click()
    expect(button(status, "Pause")).to_be_visible()
    button(status, "Pause").click()
    button(page, "Pause it").click()
    expect(status).to_contain_text("Paused")
    expect(button(page, "Start")).to_be_disabled()
    expect(page.locator(".picker .row").filter(has_text="talk")).to_contain_text("paused")
    refused = gateway.call("POST", JOBS_API, {"pipeline": "talk"})
    assert (refused.status, refused.json["code"]) == (409, "paused")
    button(status, "Unpause").click()
    expect(button(page, "Start")).to_be_enabled()
    expect(page.locator(".picker .row").filter(has_text="talk")).not_to_contain_text("paused")
    gateway.call("PUT", "/api/v1/pipelines/small/talk/paused", {"paused": True})  # by another person
    button(page, "Start").click()
    expect(page.locator("form .problem")).to_contain_text("is paused since")
    gateway.call("PUT", "/api/v1/pipelines/small/talk/paused", {"paused": False})
    button(page, "Start").click()
    expect(page).to_have_url(re.compile("#/jobs/"))
    assert newest(gateway)["outcome"] == "succeeded"


# A job


def test_a_failed_build_tells_its_first_failure_and_counts_filter(
    gateway: Gateway, pages: Pages, broken: dict[str, Any]
) -> None:
    page = open_page(pages, gateway, f"#/jobs/{broken['jobId']}")
    failure = section(page, "First failure")
    expect(page.locator(".lead")).to_contain_text("broken failed, and 1 more.")
    expect(failure).to_contain_text("nowhere does not exist")
    expect(failure).to_contain_text("models/broken.sql")
    button(failure, "Compiled SQL").click()
    node = page.get_by_role("dialog", name="broken")
    expect(node.get_by_role("region", name="compiled SQL")).to_contain_text("select * from nowhere")
    page.keyboard.press("Escape")
    expect(node).to_have_count(0)
    counts = page.get_by_role("group", name="Filter by outcome")
    shown = dict(text.split() for text in counts.get_by_role("button").all_inner_texts())
    assert shown == {"All": "9", "Errors": "2", "Warnings": "1", "Skipped": "1", "Succeeded": "5"}
    rows = page.locator(".node-table tbody tr")
    expect(rows).to_have_count(9)
    counts.get_by_role("button", name="Errors").click()
    expect(rows).to_have_count(2)
    assert {row.get_by_role("button").inner_text() for row in rows.all()} == {"broken", "no_evens"}
    page.reload()
    expect(rows).to_have_count(2)
    counts.get_by_role("button", name="Errors").click()
    expect(rows).to_have_count(9)
    button(failure, "First error in the log").click()
    current = page.locator(".line.current")
    expect(current).to_be_in_viewport()
    assert next(line for line in lines(page) if "ERROR" in line or "Error" in line) == current.inner_text()
    expect_state(page, "Errors: dbt", "--errors")


def test_run_again_goes_on_from_the_failure_or_from_the_start(
    gateway: Gateway, pages: Pages, broken: dict[str, Any]
) -> None:
    page = open_page(pages, gateway, f"#/jobs/{broken['jobId']}")
    button(page, "Run again").click()
    dialog = page.get_by_role("dialog")
    button(dialog, "No, leave it").click()
    expect(dialog).to_have_count(0)
    button(page, "Run again").click()
    button(dialog, "Run again").click()
    expect(page.locator(".crumbs code")).not_to_have_text(broken["jobId"])
    again = newest(gateway)
    assert (again["retryOf"], again["command"]) == (broken["jobId"], "build")
    expect(page.locator(".meta")).to_contain_text(f"retry of {broken['jobId']}")
    expect(page.locator(".crumbs code")).to_have_text(again["jobId"])
    assert any("only what had failed" in note for note in again["notes"]), again["notes"]
    talked = talk(gateway, say="hello", code=2)
    ended(gateway, talked)
    page.goto(f"{gateway.base}/#/jobs/{talked}")
    button(page, "Run again").click()
    page.get_by_label("All of it, from the start").check()
    button(dialog, "Run again").click()
    expect(page.locator(".crumbs code")).not_to_have_text(talked)
    whole = newest(gateway)
    assert (whole["retryOf"], whole["parameters"]) == (talked, {"say": "hello", "code": 2})


def test_cancel_asks_first_and_no_leaves_the_job_running(gateway: Gateway, pages: Pages) -> None:
    job = waiting(gateway, "go-never")
    page = open_page(pages, gateway, f"#/jobs/{job}")
    expect_state(page, "Running: talk", "--running")
    expect(page.locator(".lead")).to_have_text("Runs ingester, 1 of 3 done.")
    button(page, "Cancel").click()
    button(page, "No, leave it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    button(page, "Cancel").click()
    page.keyboard.press("Escape")
    assert record(gateway, job)["phase"] == "ingester"
    button(page, "Cancel").click()
    button(page, "Cancel the job").click()
    expect_state(page, "Cancelled: talk", "--cancelled")
    expect(button(page, "Cancel")).to_be_hidden()
    assert ended(gateway, job)["outcome"] == "cancelled"
    tab(page, "Details")
    expect(page.get_by_role("tabpanel", name="Details")).to_contain_text("by a caller without a token")
    job = waiting(gateway, "go-never")
    page.goto(f"{gateway.base}/#/")
    page.get_by_role("button", name=f"Cancel {job}").click()
    button(page, "Cancel the job").click()
    expect(section(page, "Running and queued")).to_contain_text("Nothing runs now.")
    assert ended(gateway, job)["outcome"] == "cancelled"


def test_details_tell_the_parameters_and_open_artifacts_in_a_sandbox(gateway: Gateway, pages: Pages) -> None:
    job = talk(gateway, say="hello")
    ended(gateway, job)
    [folder] = (gateway.state / "jobs" / job).glob("**/artifacts")
    (folder / "elementary_report.html").write_text("<script>document.title = `${origin}: report`</script>")
    page = open_page(pages, gateway, f"#/jobs/{job}?tab=details")
    details = page.get_by_role("tabpanel", name="Details")
    expect(details).to_contain_text("say = hello")
    expect(details.get_by_role("region", name="Steps and what they used")).to_contain_text("ingester")
    files = details.get_by_role("region", name="Files")
    for name in ("elementary_report.html", "command.json"):
        with page.context.expect_page() as opened:
            button(files, name).click()
        other = opened.value
        other.wait_for_load_state()
        assert re.search(rf"/{name}\?", other.url), other.url
        if name == "command.json":
            expect(other.locator("body")).to_contain_text("--say=hello")
        else:
            expect(other).to_have_title("null: report")
            assert other.evaluate("opener === null"), "the report can reach the page"
    assert page.url.endswith(f"/#/jobs/{job}?tab=details")


# The log


def test_earlier_lines_come_once_each_and_download_has_all(gateway: Gateway, pages: Pages, long: str) -> None:
    page = open_page(pages, gateway, f"#/jobs/{long}?tab=log")
    expect(page.locator(".line").last).to_have_text("ERROR: code 3")
    assert HELD <= len(lines(page)) < 12_000
    shown = numbers(lines(page))
    assert shown == list(range(shown[0], 12_001))
    load_all_earlier(page)
    assert "\n".join(lines(page)) + "\n" == log_of(gateway, long)
    with page.expect_download() as download:
        button(page, "Download").click()
    assert Path(download.value.path()).read_text("utf-8") == log_of(gateway, long)
    assert download.value.suggested_filename == f"{long}.log"


def test_the_log_is_searched_and_has_headings_and_a_first_error(gateway: Gateway, pages: Pages, long: str) -> None:
    page = open_page(pages, gateway, f"#/jobs/{long}?tab=log")
    expect(page.locator(".line").last).to_have_text("ERROR: code 3")
    search = page.get_by_label(re.compile("^Search"))
    search.fill("LINE 1199")
    found = page.get_by_role("status").filter(has_text=re.compile(r"of \d+ lines"))
    expect(found).to_have_text("1 of 10 lines")  # 11990 to 11999
    current = page.locator(".line.current")
    for key, number in {"Enter": 11990, "Tab": None, "Shift+Tab": None, "Shift+Enter": 11999}.items():
        page.keyboard.press(key)
        if number:
            expect(current).to_have_text(re.compile(f"^line {number} "))
            expect(current).to_be_in_viewport()
    expect(found).to_have_text("10 of 10 lines")
    button(page, "First error").click()
    expect(current).to_have_text("ERROR: code 3")
    load_all_earlier(page)
    expect(page.locator(".line.heading")).to_have_text("==> ingester <==")


def test_the_log_is_followed_until_a_person_scrolls_up(gateway: Gateway, pages: Pages) -> None:
    job = waiting(gateway, "go-follow", lines=2000, more=3000)
    page = open_page(pages, gateway, f"#/jobs/{job}?tab=log")
    expect(page.locator(".line").last).to_have_text("waits for go-follow")
    at_end(page)
    follows = page.get_by_label("Follow")
    expect(follows).to_be_checked()
    page.locator(".log").hover()
    page.mouse.wheel(0, -4000)
    expect(follows).not_to_be_checked()
    place = page.locator(".log").evaluate("box => box.scrollTop")
    go(gateway, "go-follow")
    expect(page.locator(".line").last).to_have_text(re.compile("^more 3000 "))
    assert page.locator(".log").evaluate("box => box.scrollTop") == place, "it moved under the reader"


def test_a_log_that_is_followed_stays_at_its_end_and_lets_lines_go(gateway: Gateway, pages: Pages) -> None:
    job = waiting(gateway, "go-let", lines=12_000, more=12_500)
    page = open_page(pages, gateway, f"#/jobs/{job}?tab=log")
    last = page.locator(".line").last
    expect(last).to_have_text("waits for go-let")
    go(gateway, "go-let")
    expect(last).to_have_text(re.compile("^more 12500 "))
    ended(gateway, job)
    at_end(page)
    assert len(lines(page)) < 12_500, "it holds more than it should"
    kept = record(gateway, job)
    load_all_earlier(page)
    shown = lines(page)
    more, line = numbers(shown, "more"), numbers(shown)
    assert more == list(range(1, 12_501))
    assert kept["outputDroppedBytes"] > 0
    assert line == list(range(line[0], 12_001))
    assert line[0] == numbers(log_of(gateway, job).splitlines())[0], "what is kept is not all shown"


def test_lines_that_were_dropped_before_they_came_are_told(gateway: Gateway, pages: Pages) -> None:
    job = talk(gateway, lines=60_000)
    ended(gateway, job)
    page = open_page(pages, gateway, f"#/jobs/{job}?tab=log")
    expect(page.locator(".line").last).to_have_text(re.compile("^line 60000 "))
    load_all_earlier(page)
    shown = numbers(lines(page))
    assert shown == list(range(shown[0], 60_001))
    assert shown[0] == numbers(log_of(gateway, job).splitlines())[0]
    expect(page.locator(".log")).to_contain_text(re.compile(r"[\d.]+ MiB .*dropped"))


def test_no_part_of_a_wide_line_is_lost_where_lines_were_let_go(gateway: Gateway, pages: Pages) -> None:
    """It comes in parts, since its end is late; its last parts are among the last 5,000 lines."""
    job = waiting(gateway, "go-wide", wide=200_000, more=HELD - 2)
    page = open_page(pages, gateway, f"#/jobs/{job}?tab=log")
    parts = page.locator(".line").filter(has_text=re.compile("^0+$"))
    expect(parts).to_have_count(3)
    go(gateway, "go-wide")
    expect(page.locator(".line").last).to_have_text(re.compile(f"^more {HELD - 2} "))
    load_all_earlier(page)
    assert "".join(lines(page)) == log_of(gateway, job).replace("\n", "")


# A gateway that is killed


def test_an_open_job_goes_on_after_the_gateway_was_killed(gateway: Gateway, pages: Pages) -> None:
    pages.expected.append(AWAY)
    job = waiting(gateway, "go-kill", lines=300, more=300)
    page = open_page(pages, gateway, f"#/jobs/{job}")
    expect(page.locator(".line").last).to_have_text("waits for go-kill")
    banner = page.locator("#connection")
    gateway.kill()
    expect(banner).to_contain_text("The gateway has not answered since")
    go(gateway, "go-kill")
    restart(gateway)
    expect(banner).to_be_hidden()
    expect_state(page, "Succeeded: talk", "--succeeded")
    expect(page.locator(".line").last).to_have_text(re.compile("^more 300 "))
    assert "\n".join(lines(page)) + "\n" == log_of(gateway, job)


def test_now_goes_on_after_the_gateway_was_killed(gateway: Gateway, pages: Pages) -> None:
    pages.expected.append(AWAY)
    job = waiting(gateway, "go-kill-now")
    page = open_page(pages, gateway)
    active = section(page, "Running and queued")
    expect(active.locator(f"a[href$='{job}']")).to_be_visible()
    gateway.kill()
    expect(page.locator("#connection")).to_contain_text("The gateway has not answered since")
    expect(active.locator(f"a[href$='{job}']")).to_be_visible()
    restart(gateway)
    expect(page.locator("#connection")).to_be_hidden()
    go(gateway, "go-kill-now")
    expect(active).to_contain_text("Nothing runs now.")


# A tab that is hidden

HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_a_hidden_tab_has_no_stream_and_still_tells_the_end(gateway: Gateway, pages: Pages) -> None:
    """A browser has six connections to a host for all its tabs. What was printed is there once it is shown."""
    job = waiting(gateway, "go-hidden", lines=10, more=10)
    page = open_page(pages, gateway, f"#/jobs/{job}?tab=log")
    expect(page.locator(".line").last).to_have_text("waits for go-hidden")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(HIDE, True)
    go(gateway, "go-hidden")
    expect_state(page, "Succeeded: talk", "--succeeded")
    assert asked
    assert not any("/events" in url for url in asked)
    expect(page.locator(".line").last).to_have_text("waits for go-hidden")
    page.evaluate(HIDE, False)
    expect(page.locator(".line").last).to_have_text(re.compile("^more 10 "))
    assert "\n".join(lines(page)) + "\n" == log_of(gateway, job)


# Tokens


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Guarded]]:
    """A gateway that wants tokens, whose ingester waits for the file `go`; and its tokens."""
    made = access.project(tmp_path_factory.mktemp("guarded") / "project")
    waits = 'import pathlib, time\nwhile not pathlib.Path("go").exists(): time.sleep(0.05)\n'
    projects.write(made.folder / "ingest.py", waits)
    gateway = Gateway(made.folder).start()
    yield gateway, made
    (made.folder / "go").touch()
    gateway.stop()


@pytest.mark.parametrize("fragment", ["#/", "#/runs"])
def test_the_page_asks_for_a_token_and_keeps_it_for_the_tab(
    guarded: tuple[Gateway, Guarded], pages: Pages, fragment: str
) -> None:
    pages.expected.append(REFUSED.format(401))
    gateway, made = guarded
    page = open_page(pages, gateway, fragment)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    for wrong in ("pgw_wrong", "pgw_wröng", "pgw_wr€ng"):
        sign_in(page, wrong)
        expect(page.get_by_role("alert")).to_have_text("The gateway does not know this token.")
    token = made.tokens["read"]
    sign_in(page, token)
    expect(page.get_by_role("heading", name="Now" if fragment == "#/" else "Runs", exact=True)).to_be_visible()
    storages = "[localStorage, sessionStorage].map(one => JSON.stringify(one)).concat(document.cookie)"
    local, session, cookie = page.evaluate(storages)
    assert (token in local, token in session, token in cookie) == (False, True, False)
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_have_count(0)
    assert open_in_another_tab(page, gateway) == "Sign in"
    button(page, "Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert token not in page.evaluate("JSON.stringify(sessionStorage)")
    expect(button(page, "Sign out")).to_be_hidden()
    assert len(urls) > 5
    assert not [url for url in urls if "pgw_" in url]


def open_in_another_tab(page: Page, gateway: Gateway) -> str:
    """The first heading of the page in a new tab of the same profile."""
    other = page.context.new_page()
    other.goto(f"{gateway.base}/#/")
    expect(other.get_by_role("heading", level=1)).not_to_have_text("Pipeline Gateway")
    expect(other.locator("main form, main section")).not_to_have_count(0)
    text = other.get_by_role("heading", level=1).inner_text()
    other.close()
    return text


def test_a_token_that_may_only_read_is_refused_readably(guarded: tuple[Gateway, Guarded], pages: Pages) -> None:
    pages.expected += [REFUSED.format(401), REFUSED.format(403)]
    gateway, made = guarded
    headers = {"X-AUTH-TOKEN": made.tokens["admin"]}
    answer = gateway.call("POST", JOBS_API, {"pipeline": "ingester"}, headers)
    job = answer.json["jobId"]
    refused = re.compile(r"read.*scope|scope.*read")
    page = open_page(pages, gateway)
    sign_in(page, made.tokens["read"])
    page.get_by_role("button", name=f"Cancel {job}").click()
    button(page, "Cancel the job").click()
    expect(page.get_by_role("alert")).to_have_text(refused)
    page.goto(f"{gateway.base}/#/jobs/{job}")
    button(page, "Cancel").click()
    button(page, "Cancel the job").click()
    expect(page.get_by_role("alert")).to_have_text(refused)
    page.goto(f"{gateway.base}/#/trigger/small/ingester")
    curl = section(page, "The same by hand").get_by_role("region", name="curl line")
    expect(curl).to_contain_text('-H "X-AUTH-TOKEN: $PIPELINE_GATEWAY_TOKEN"')
    button(page, "Start").click()
    expect(page.get_by_role("alert")).to_have_text(refused)
    button(page, "Pause").click()
    button(page, "Pause it").click()
    expect(page.get_by_role("alert")).to_have_text(re.compile("admin"))
    (made.folder / "go").touch()
    page.goto(f"{gateway.base}/#/jobs/{job}")
    expect_state(page, "Succeeded: ingester", "--succeeded")
    button(page, "Run again").click()
    button(page.get_by_role("dialog"), "Run again").click()
    expect(page.get_by_role("alert")).to_have_text(refused)
