"""Jobs in real containers of a service in this process: what its own names, clock and files must not change."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from gateway.app import BROKEN
from tests.conftest import MakeApi
from tests.support import compose
from tests.support.api import Api, app, until
from tests.support.damage import STATE, has
from tests.support.docker import BUSYBOX_IMAGE, Engine

Client = TestClient[web.Request, web.Application]

PROJECT = "shop"
LOAD = {"load": {"ingester": True}}
LIMIT = 3600 + round(time.clock_gettime(time.CLOCK_BOOTTIME))  # seconds; it has not passed since the boot
WAIT = "trap 'exit 9' TERM; echo run >> /shared/runs; until [ -e /shared/go ]; do sleep 0.05; done; exit 3"


def lake(folder: Path, *, fabrics: int = 1, pipelines: Mapping[str, Any] = LOAD, **services: Mapping[str, Any]) -> Path:
    """A compose project of these services, on so many fabrics, with a gateway.yaml that declares these pipelines."""
    compose.write(folder, **services)
    settings = {
        "enabled": True,
        "default_fabric": "1",
        "fabrics": {str(number + 1): {"runner": "compose", "time_limit": LIMIT} for number in range(fabrics)},
        "projects": {PROJECT: {"pipelines": dict(pipelines)}},
    }
    (folder / "gateway.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    return folder


async def trigger(api: Api, name: str, fabric: int = 1, **parameters: str) -> str:
    """The id of a run of a declared pipeline."""
    body = {"fabricId": fabric, "projectId": PROJECT, "pipelineName": name, "parameters": parameters}
    answer = await api.call("POST", "/api/trigger/pipeline", body)
    assert answer.status == 200, answer
    return str(answer.json["runId"])


class Service(Api):
    """A service that a test may close before its end. app: its application."""

    def __init__(self, client: Client, folder: Path) -> None:
        super().__init__(client.session, client.make_url("/"), folder)
        self.app = client.app
        self.close = client.close


async def serve(folder: Path, aiohttp_client: AiohttpClient, engine: Engine) -> Service:
    """Start a service on this folder."""
    return Service(await aiohttp_client(app(folder, engine.environment)), folder)


async def test_a_job_may_have_eof_in_its_id(tmp_path: Path, engine: Engine, make_api: MakeApi) -> None:
    folder = lake(tmp_path / "lake", pipelines={"geofence": {"ingester": True}}, ingester=compose.shell("exit 3"))
    api = await make_api(folder, engine.environment)
    assert (await api.finished(await trigger(api, "geofence")))["exitCode"] == 3


async def test_a_step_whose_maker_was_killed_never_runs_twice(
    tmp_path: Path, engine: Engine, aiohttp_client: AiohttpClient
) -> None:
    """Though its container was removed, and the engine has forgotten that: it remembers 256 events."""
    folder = lake(tmp_path / "lake", ingester=compose.shell(WAIT))
    api = await serve(folder, aiohttp_client, engine)
    job = await trigger(api, "load")
    step = folder / STATE / "jobs" / job / "1-ingester"
    await until(has(folder / "runs"), "the container")
    await until(has(step / "container-1/make-1/exit"), "the end of docker compose run")
    await api.close()
    (step / "container-1/make-1/exit").write_bytes(bytes(256))  # as a supervisor leaves it that is killed
    engine.docker("rm", "--force", compose.name_of(job))
    other = engine.docker("run", "--detach", "--network=none", BUSYBOX_IMAGE, "sleep", "1000").strip()
    engine.docker("kill", "--signal=CONT", *[other] * 300)
    engine.docker("rm", "--force", other)
    (folder / "go").touch()
    record = await (await serve(folder, aiohttp_client, engine)).finished(job)
    assert (record["status"], record["reason"]) == ("failed", "unknown"), record
    assert "docker compose run" in record["error"]
    assert (folder / "runs").read_text() == "run\n"


async def test_no_wall_clock_decides_that_a_time_limit_has_passed(
    tmp_path: Path, engine: Engine, aiohttp_client: AiohttpClient
) -> None:
    """A clock that was set forward while the gateway was down makes `since` look as early as it is made here."""
    changes: list[dict[str, Any]] = [
        {"since": -2 * LIMIT},
        {"since": 2 * LIMIT},
        {"uptime": -2 * LIMIT},
        {"boot": "another"},  # the host was rebooted, which a container of another host outlives
    ]
    folder = lake(tmp_path / "lake", fabrics=len(changes), ingester=compose.shell(WAIT))
    api = await serve(folder, aiohttp_client, engine)
    jobs = [await trigger(api, "load", fabric + 1) for fabric in range(len(changes))]
    specs = [folder / STATE / "jobs" / job / "1-ingester/container.json" for job in jobs]
    for spec in specs:
        await until(has(spec.with_name("container-1") / "begin"), f"the container of {spec}")
    await api.close()
    for spec, change in zip(specs, changes, strict=True):
        written = json.loads(spec.read_bytes())
        changed = {name: by if isinstance(by, str) else written[name] + by for name, by in change.items()}
        spec.write_text(json.dumps(written | changed))
    api = await serve(folder, aiohttp_client, engine)
    assert (await api.finished(jobs[2]))["reason"] == "timed_out"
    (folder / "go").touch()
    records = [await api.finished(job) for job in jobs]
    assert [record.get("reason") for record in records] == [None, None, "timed_out", None]
    assert [record["exitCode"] for record in records] == [3, 3, -1, 3]


async def test_an_image_that_is_there_needs_no_registry_but_where_asked(
    tmp_path: Path, engine: Engine, make_api: MakeApi
) -> None:
    """With `pull_policy: always` Compose asks the registry, as it does by hand; the error says what to set instead."""
    folder = lake(tmp_path / "lake", ingester=compose.shell("exit 3", pull_policy="always"))
    api = await make_api(folder, engine.environment)
    record = await api.run(pipeline="ingester")
    assert record["reason"] == "not_started"
    assert "`pull_policy: missing`" in record["error"]
    compose.write(api.folder, ingester=compose.shell("exit 3", pull_policy="missing"))
    assert (await api.run(pipeline="ingester"))["exitCode"] == 3


UNKNOWN, KNOWN = ("failed", -1, "unknown"), ("completed", 3, None)
# A file, its damaged content (None: a folder in its place), and how its job ends.
DAMAGES: list[tuple[str, bytes | None, tuple[str, int, str | None]]] = [
    ("container.json", b"", UNKNOWN),
    ("container.json", bytes(512), UNKNOWN),
    ("container.json", b"null", UNKNOWN),
    ("container.json", b'{"argvs": 5, "cwd": "/"}', UNKNOWN),
    ("container.json", None, UNKNOWN),
    ("ending", b"", UNKNOWN),
    ("ending", b'"else"', UNKNOWN),
    ("container-1/begin", b"[]", KNOWN),  # its output may be there twice
    ("container-1/logs-old", b"", KNOWN),
    ("container-1/make-old", b"", KNOWN),
]


async def test_damaged_files_of_steps_in_containers_end_their_jobs_only(
    tmp_path: Path, engine: Engine, aiohttp_client: AiohttpClient
) -> None:
    """Each job has a fabric of its own. What runs of a job whose file is damaged is stopped before the job ends."""
    folder = lake(tmp_path / "lake", fabrics=len(DAMAGES), ingester=compose.shell(WAIT))
    api = await serve(folder, aiohttp_client, engine)
    jobs = [await trigger(api, "load", fabric + 1) for fabric in range(len(DAMAGES))]
    steps = [folder / STATE / "jobs" / job / "1-ingester" for job in jobs]
    for step in steps:
        await until(has(step / "container-1/begin"), f"the container of {step}")
    await api.close()
    for step, (name, content, _) in zip(steps, DAMAGES, strict=True):
        (step / name).unlink(missing_ok=True)
        if content is None:
            (step / name).mkdir()
        else:
            (step / name).write_bytes(content)
    api = await serve(folder, aiohttp_client, engine)
    for job, (name, _, _) in zip(jobs, DAMAGES, strict=True):
        if name == "container.json":
            assert name in (await api.finished(job))["error"]
            assert compose.containers_of(engine, job, all=False) == []
    (folder / "go").touch()
    records = [await api.finished(job) for job in jobs]
    ends = [(record["status"], record["exitCode"], record.get("reason")) for record in records]
    assert ends == [end for _, _, end in DAMAGES]
    assert not api.app[BROKEN].done()
    assert (folder / "runs").read_text() == len(jobs) * "run\n"
    await until(none_left(engine), "the removal of all containers")


def none_left(engine: Engine) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return engine.containers() == []

    return look


FILES = ("compose.yaml", "gateway.yaml")
COMMAND, ENTRYPOINT = "fabrics.1.compose.ingester.command", "services.ingester.entrypoint"
LOADS = {"load": {"ingester": True, "parameters": {"since": {"option": "--since"}}}}


@pytest.mark.parametrize(
    ("keys", "right"),
    [
        (
            {"command": ["sh", "-c", "echo all"]},
            ("fabrics.1.compose.ingester.command", ["sh", "-c", 'echo all "$@"', "sh"]),
        ),
        (
            {"entrypoint": ["sh", "-c", "echo all"]},
            ("services.ingester.entrypoint", ["sh", "-c", 'echo all "$$@"', "sh"]),
        ),
        (
            {"entrypoint": ["sh", "-c"], "command": ["echo all"]},
            ("fabrics.1.compose.ingester.command", ['echo all "$@"', "sh"]),
        ),
    ],
)
async def test_a_parameter_that_a_services_shell_would_drop_is_refused(
    tmp_path: Path, engine: Engine, aiohttp_client: AiohttpClient, keys: dict[str, Any], right: tuple[str, list[str]]
) -> None:
    """The refusal shows the line that is right; with it the parameter arrives."""
    folder = lake(tmp_path / "lake", pipelines=LOADS, ingester=compose.service(**keys))
    api = await serve(folder, aiohttp_client, engine)
    body = {"fabricId": 1, "projectId": PROJECT, "pipelineName": "load", "parameters": {"since": "2026-01-31"}}
    refused = await api.call("POST", "/api/trigger/pipeline", body)
    assert refused.status == 400, refused
    key, line = right
    assert f"`{key}: {json.dumps(line)}`" in refused.json["msg"]
    assert (await api.finished(await trigger(api, "load")))["exitCode"] == 0  # nothing is lost without a parameter
    await api.close()
    compose_file, settings_file = (yaml.safe_load((folder / name).read_text()) for name in FILES)
    if key == ENTRYPOINT:
        compose_file["services"]["ingester"]["entrypoint"] = line
    else:
        settings_file["fabrics"]["1"]["compose"] = {"ingester": {"command": line}}
    for name, content in zip(FILES, (compose_file, settings_file), strict=True):
        (folder / name).write_text(yaml.safe_dump(content))
    api = await serve(folder, aiohttp_client, engine)
    job = await trigger(api, "load", since="2026-01-31")
    assert (await api.finished(job))["exitCode"] == 0
    assert (await api.poll(job))["output"] == "all --since=2026-01-31\n"
