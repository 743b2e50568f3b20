"""The metrics, read as Prometheus reads them, and what the manual says of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.jobs.metrics import JobMetrics
from gateway.model.job import Completed
from gateway.output.parts import OutputSize
from tests.conftest import MakeApi, MakeGateway
from tests.support import access, manual, projects
from tests.support.api import Api, until
from tests.support.gateway import PATH, Gateway
from tests.support.jobs import ended, later, make_job
from tests.support.source import ROOT

PREFIX = "pipeline_gateway_"
JOBS = "/api/v1/jobs"
PAGE = ROOT / "gateway/docs/service.md"
SETTINGS: dict[str, Any] = {
    "projects": {
        "shop": {"dbt": "transform", "ingester": {"command": [sys.executable, "ingest.py"]}},
        "other": {"ingester": {"command": ["sh", "-c", "exit 3"]}},
    },
    "default_project": "shop",
    "output_cap": "64KiB",
    "notify": [{"name": "mail", "outcomes": ["errors"], "command": ["sh", "-c", "exit 1"]}],
}
PRINTING = """
    import pathlib, time
    print("x" * 99_999, flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    return await make_api(projects.make(tmp_path / "project", ingester=PRINTING, settings=SETTINGS))


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


async def scraped(api: Api) -> dict[str, Metric]:
    answer = await api.call("GET", "/metrics")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return families(answer.body.decode())


def value(found: Mapping[str, Metric], name: str, **labels: str) -> float | None:
    """The value of one sample, None where there is none."""
    samples = [sample for family in found.values() for sample in family.samples if sample.name == f"{PREFIX}{name}"]
    values = [sample.value for sample in samples if sample.labels == labels]
    assert len(values) <= 1
    return values[0] if values else None


def documented() -> Iterator[tuple[str, str, set[str]]]:
    """Name, type and labels of each metric in the manual's table."""
    rows = re.findall(rf"^\| `({PREFIX}\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text("utf-8"), re.MULTILINE)
    yield from ((name, kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows)


async def test_names_types_and_labels_are_those_of_the_manual(api: Api) -> None:
    (api.folder / "go").touch()
    await api.run(pipeline="ingester")

    async def measured() -> dict[str, Metric]:
        found = await scraped(api)
        return found if value(found, "state_size_bytes") is not None else {}

    found = await until(measured, "the size of the state directory")
    shown = {
        (name if family.type != "counter" else f"{name}_total", family.type, frozenset(sample.labels) - {"le"})
        for name, family in found.items()
        for sample in family.samples
    }
    assert shown == {(name, kind, frozenset(labels)) for name, kind, labels in documented()}
    assert all(family.documentation for family in found.values())


async def test_jobs_count_by_pipeline_and_outcome_at_their_end(api: Api) -> None:
    ingester, other = {"project": "shop", "pipeline": "ingester"}, {"project": "other", "pipeline": "ingester"}
    job = await api.trigger(pipeline="ingester")
    queued = await api.call("POST", JOBS, {"pipeline": "ingester", "onConflict": "queue"})
    bad = await api.call("POST", JOBS, {"pipeline": "ingester", "projectId": "other", "onConflict": "queue"})
    found = await scraped(api)
    assert (value(found, "jobs_active"), value(found, "jobs_queued")) == (3, 2)
    assert value(found, "jobs_total", **ingester, outcome="succeeded") == 0  # so that the first one is an increase
    (api.folder / "go").touch()
    last = [await api.finished(one) for one in (job, queued.json["jobId"], bad.json["jobId"])]
    found = await scraped(api)
    assert value(found, "jobs_active") == 0
    counted = [value(found, "jobs_total", **ingester, outcome=outcome) for outcome in ("succeeded", "errors")]
    assert counted == [2, 0]
    assert value(found, "jobs_total", **other, outcome="errors") == 1
    assert value(found, "job_duration_seconds_count", **ingester) == 2
    assert value(found, "job_duration_seconds_bucket", **ingester, le="+Inf") == 2
    seconds = value(found, "job_duration_seconds_sum", **ingester)
    assert seconds is not None
    assert 0 < seconds <= sum(one["durationSeconds"] for one in last)
    printed = sum(one["outputBytes"] + one["outputDroppedBytes"] for one in last)
    dropped = sum(one["outputDroppedBytes"] for one in last)
    assert (value(found, "output_bytes_total"), value(found, "output_dropped_bytes_total")) == (printed, dropped)
    assert dropped > 0


async def test_messages_count_until_their_receiver_has_them(api: Api) -> None:
    (api.folder / "go").touch()
    bad = await api.call("POST", JOBS, {"pipeline": "ingester", "projectId": "other"})
    await api.finished(bad.json["jobId"])

    async def tried() -> bool:
        return (value(await scraped(api), "notification_attempts_total", receiver="mail", result="failed") or 0) >= 1

    await until(tried, "an attempt")
    found = await scraped(api)
    assert value(found, "notifications_waiting", receiver="mail") == 1
    assert value(found, "notification_attempts_total", receiver="mail", result="delivered") == 0


async def test_requests_count_by_route_and_never_by_path(api: Api) -> None:
    for path in (f"{JOBS}/secret-1", f"{JOBS}/secret-2", "/secret", "/docs/secret.md", f"{PATH}?jobId=secret"):
        await api.call("GET", path)
    await api.call("DELETE", "/secret")
    await api.call("POST", JOBS, {"pipeline": "secret"})
    found = await scraped(api)
    get = {"method": "GET", "status": "4xx"}
    assert value(found, "requests_total", **get, route="/api/v1/jobs/{id}") == 2
    assert value(found, "requests_total", method="POST", status="4xx", route=JOBS) == 1
    assert value(found, "requests_total", method="other", status="4xx", route="other") == 2
    assert value(found, "refusals_total", code="unknown_job") == 3
    assert value(found, "refusals_total", code="unknown_pipeline") == 1
    assert value(found, "refusals_total", code="storage_unavailable") == 0
    labels = [label for family in found.values() for sample in family.samples for label in sample.labels.values()]
    assert [label for label in labels if "secret" in label] == []


async def test_metrics_need_a_token_with_the_scope_read(tmp_path: Path, make_api: MakeApi) -> None:
    project = access.project(tmp_path / "project")
    api = await make_api(project.folder)
    assert (await api.call("GET", "/metrics")).status == 401
    api.token = project.tokens["read"]
    await scraped(api)


async def test_followers_and_pauses_are_shown(api: Api) -> None:
    job = await api.trigger(pipeline="ingester")
    async with api._session.get(f"{api.base.origin()}{JOBS}/{job}/events"):
        assert value(await scraped(api), "followers") == 1
        await api.call("PUT", "/api/v1/pipelines/shop/dbt/paused", {"paused": True})
        found = await scraped(api)
    paused = [value(found, "pipeline_paused", project="shop", pipeline=name) for name in ("dbt", "full")]
    assert paused == [1, 0]


def test_the_last_success_is_known_after_a_kill_and_counters_begin_anew(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    settings = {"projects": {**SETTINGS["projects"], "shop": {"ingester": {"command": ["sh", "how"]}}}}
    gateway = make_gateway(projects.make(tmp_path / "project", settings={**SETTINGS, **settings}))
    shop, other = ({"project": project, "pipeline": "ingester"} for project in ("shop", "other"))
    (gateway.folder / "how").write_text("exit 0")
    gateway.run(pipeline="ingester")
    (gateway.folder / "how").write_text("exit 1")
    gateway.run(pipeline="ingester")
    gateway.finished(gateway.call("POST", JOBS, {"pipeline": "ingester", "projectId": "other"}).json["jobId"])
    before = success(gateway, **shop)
    assert before is not None
    gateway.kill()
    gateway.start()
    assert success(gateway, **shop) == before
    assert success(gateway, **other) is None
    found = families(gateway.call("GET", "/metrics").body.decode())
    assert value(found, "jobs_total", **shop, outcome="succeeded") == 0


def success(gateway: Gateway, **labels: str) -> float | None:
    found = families(gateway.call("GET", "/metrics").body.decode())
    return value(found, "last_success_timestamp_seconds", **labels)


def test_jobs_of_pipelines_that_are_not_configured_count_as_other() -> None:
    metrics = JobMetrics()
    metrics.know([("shop", "report")])
    for name in ("a", "b", "report"):
        job = make_job(f"{name}-1")
        metrics.ended(ended(job, Completed(0, None), later(60, job.created)), OutputSize(10, 5))
    assert set(metrics.pipelines) == {("shop", "report"), ("other", "other")}
    assert metrics.pipelines["other", "other"].outcomes.total() == 3
    assert (metrics.output_bytes, metrics.dropped_bytes) == (45, 15)


def test_every_metric_in_the_manuals_rules_and_dashboard_is_there() -> None:
    page = PAGE.read_text("utf-8")
    names = {name for name, _, _ in documented()}
    used = set(re.findall(rf"{PREFIX}\w+", page))
    assert {name.removesuffix("_bucket") for name in used} == names
    groups = [yaml.safe_load(block) for block in manual.blocks(page, "yml")]
    [rules] = [group["rules"] for block in groups for group in block.get("groups", ())]
    assert len([rule["expr"] for rule in rules]) == 4
    [dashboard] = [json.loads(block) for block in manual.blocks(page, "json")]
    assert all(panel["targets"] for panel in dashboard["panels"])
