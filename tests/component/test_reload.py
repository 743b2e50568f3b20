"""SIGHUP: a real gateway takes up another configuration while it serves, or stays as it was."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.app import Server
from gateway.fabrics.checkouts import Checkouts
from gateway.model.job import SourceCommit
from gateway.settings import settings as config
from gateway.settings import tokens
from gateway.settings.changes import changed_keys
from gateway.settings.settings import Settings
from gateway.web import SERVICE
from tests.conftest import MakeGateway
from tests.support import access, projects
from tests.support.events import events
from tests.support.gateway import COMMAND, DEADLINE, PATH, Gateway, wait_for

JOBS = "/api/v1/jobs"
SECRET = "correct-horse-battery"
# prints what it was told and then waits for the file `go`
WAITS = 'echo "$0"; until [ -e go ]; do sleep 0.02; done; echo done'


def ingester(word: str) -> dict[str, Any]:
    return {"ingester": {"command": ["sh", "-c", WAITS, word]}}


def configure(folder: Path, **changes: Any) -> None:
    """Change settings of a project's gateway.yaml."""
    file = folder / "gateway.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))


def hang_up(gateway: Gateway, event: str) -> dict[str, Any]:
    """Send SIGHUP; the line of the log that says what came of it."""
    assert gateway.process is not None
    gateway._begin_log()
    gateway.process.send_signal(signal.SIGHUP)
    said: dict[str, Any] = wait_for(lambda: gateway.event(event), f"{event}:\n{gateway.logged()}")
    return said


def made(folder: Path, **settings: Any) -> Path:
    return projects.make(folder, settings={"projects": {"shop": ingester("old")}, **settings})


def test_jobs_and_followers_go_on_and_new_jobs_are_as_configured(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(made(tmp_path / "project"))
    queue = {"pipeline": "ingester", "onConflict": "queue"}
    running, queued = (gateway.call("POST", JOBS, queue).json["jobId"] for _ in range(2))
    with ThreadPoolExecutor() as pool:
        following = pool.submit(lambda: [event for event in events(gateway, running) if event.kind == "log"])
        wait_for(lambda: "old" in gateway.poll(running)["output"], "the output of the first job")
        shop = {**ingester("new"), "pipelines": {"load": {"ingester": True}}}
        configure(gateway.folder, projects={"shop": shop, "other": {}}, default_project="shop", trigger_burst=7)
        line = hang_up(gateway, "configuration reloaded")
        assert {"projects.shop.pipelines.load", "projects.shop.ingester.command", "trigger_burst"} < set(
            line["changed"]
        )
        listed = gateway.call("GET", "/api/v1/pipelines").json["pipelines"]
        assert {("shop", "load"), ("other", "dbt")} < {(one["projectId"], one["name"]) for one in listed}
        later = gateway.call("POST", JOBS, {**queue, "pipeline": "load"}).json["jobId"]
        (gateway.folder / "go").touch()
        outputs = [gateway.finished(job)["output"] for job in (running, queued, later)]
        assert outputs == ["old\ndone\n", "old\ndone\n", "new\ndone\n"]
        text = "".join(event.data["text"] for event in following.result(DEADLINE))
    assert text.endswith("old\ndone\n")


def test_tokens_are_read_again(tmp_path: Path, make_gateway: MakeGateway) -> None:
    project = access.project(tmp_path / "project")
    gateway = make_gateway(project.folder)
    file = project.folder / "tokens"
    tokens.revoke(file, "run")
    made = tokens.create(file, "fresh", tokens.Scope.READ, datetime.now(UTC), None)
    assert get(gateway, project.tokens["run"]) == 200
    line = hang_up(gateway, "configuration reloaded")
    assert sorted(line["changed"]) == ["tokens.fresh", "tokens.run"]
    assert [get(gateway, token) for token in (project.tokens["run"], made, project.tokens["read"])] == [401, 200, 200]
    assert made not in gateway.log.read_text()


def get(gateway: Gateway, token: str) -> int:
    return gateway.call("GET", PATH, headers={"X-AUTH-TOKEN": token}).status


def test_tokens_of_a_drop_ins_credential_are_said_to_need_a_restart(tmp_path: Path, make_gateway: MakeGateway) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    tokens.create(credentials / "tokens", "ops", tokens.Scope.READ, datetime.now(UTC), None)
    gateway = make_gateway(made(tmp_path / "project"), {"CREDENTIALS_DIRECTORY": str(credentials)})
    assert "at the start" in hang_up(gateway, "tokens need a restart")["kept"]


def test_a_wrong_configuration_changes_nothing(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """The log says what is wrong, as a start would."""
    project = access.project(tmp_path / "project")
    gateway = make_gateway(project.folder)
    file = project.folder / "gateway.yaml"
    right = file.read_text()
    tokens.revoke(project.folder / "tokens", "run")
    for wrong, said in (
        ({"enabled": False, "trigger_rate": "fast"}, "trigger_rate"),
        ({"enabled": False, "nonsense": 1}, "nonsense"),
        ({"enabled": False, "tokens_file": "none"}, "no such tokens file"),
        ({"enabled": False, "default_fabric": "none"}, "default_fabric"),
    ):
        configure(project.folder, **wrong)
        line = hang_up(gateway, "reload refused")
        assert said in line["error"]
        assert get(gateway, project.tokens["run"]) == 200  # also the tokens are those from before
        file.write_text(right)
    assert gateway.call("POST", PATH, {"pipeline": "dbt"}, {"X-AUTH-TOKEN": project.tokens["run"]}).status == 202
    hang_up(gateway, "configuration reloaded")
    assert get(gateway, project.tokens["run"]) == 401


def test_tokens_may_go_on_loopback_alone(tmp_path: Path, make_gateway: MakeGateway) -> None:
    project = access.project(tmp_path / "project", {"host": "0.0.0.0"})
    gateway = make_gateway(project.folder)
    configure(project.folder, tokens_file=None, host="localhost")
    assert "0.0.0.0" in hang_up(gateway, "reload refused")["error"]
    assert gateway.call("GET", PATH).status == 401


def test_what_a_start_binds_is_named_and_stays(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(made(tmp_path / "project"))
    configure(gateway.folder, enabled=False, state_directory="another", host="::1")
    # the test's own environment has the port
    line = hang_up(gateway, "settings need a restart")
    assert line["settings"] == ["host", "state_directory"]
    assert gateway.event("configuration reloaded")["changed"] == []  # type: ignore[index]  # it is there
    assert not (gateway.folder / "another").exists()


def test_the_environment_file_is_read_again(tmp_path: Path) -> None:
    project = projects.make(
        tmp_path / "project",
        settings={"projects": {"shop": {"ingester": {"command": ["sh", "-c", 'echo "$WORD/$API_TOKEN"']}}}},
    )
    (project / "env").write_text("WORD=old\nAPI_TOKEN=none\n")
    gateway = Gateway(project)
    try:
        gateway._run("gateway.cli.main", "serve", "--env-file", "env")
        gateway.serves()
        assert gateway.run(pipeline="ingester")["output"] == "old/none\n"
        (project / "env").write_text(f"WORD=new\nAPI_TOKEN={SECRET}\n")
        line = hang_up(gateway, "configuration reloaded")
        assert line["changed"] == ["environment.WORD", "environment.API_TOKEN"]
        assert gateway.run(pipeline="ingester")["output"] == "new/***\n"
    finally:
        gateway.stop()
    assert SECRET not in gateway.log.read_text()


async def test_a_request_is_planned_by_one_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a reload leaves the service as it was."""
    folder = made(tmp_path / "project", port=0, fabrics={"one": {"resources": {"ingester": "old"}}})
    (folder / "go").touch()
    asked, answer, bugs = asyncio.Event(), asyncio.Event(), [RuntimeError("a bug")]

    async def slow(*_: object) -> None:
        asked.set()
        await answer.wait()

    def load() -> tuple[config.Settings, dict[str, str]]:
        if bugs:
            raise bugs.pop()
        return config.load(folder / "gateway.yaml", {}), dict(os.environ)

    monkeypatch.setattr(Checkouts, "resolve", slow)
    server = Server(config.load(folder / "gateway.yaml", {}), dict(os.environ), load)
    try:
        await server.start()
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(
                session.post(f"http://127.0.0.1:{server.port}{JOBS}", json={"pipeline": "ingester"}).__aenter__()
            )
            await asked.wait()
            configure(folder, projects={"shop": ingester("new")}, fabrics={"one": {"resources": {"ingester": "new"}}})
            with pytest.raises(RuntimeError):
                await server._reload()
            await server._reload()
            answer.set()
            job_id = (await (await request).json())["jobId"]
            service = server._app[SERVICE]
            job = (await service.wait(job_id, lambda now: now.job.state.kind == "ended", DEADLINE)).job
            assert (job.plan.resources, await service.output.tail(job, 100)) == (("old",), "old\ndone\n")
            async with session.post(f"http://127.0.0.1:{server.port}{JOBS}", json={"pipeline": "ingester"}) as second:
                job = (await service.get((await second.json())["jobId"])).job
            assert job.plan.resources == ("new",)
    finally:
        await server.close()


def test_in_a_terminal_a_hangup_ends_the_gateway(tmp_path: Path) -> None:
    """As it ends every program of a terminal that is closed."""
    project = made(tmp_path / "project")
    terminal, given = pty.openpty()
    with (project / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, "serve"], cwd=project, stdin=given, stderr=log, env={**os.environ, "PORT": "0"}
        )
    try:
        wait_for(lambda: '"serving"' in (project / "gateway.log").read_text(), "the gateway")
        process.send_signal(signal.SIGHUP)
        assert process.wait(DEADLINE) == -signal.SIGHUP
    finally:
        process.kill()
        for descriptor in (terminal, given):
            os.close(descriptor)


def test_a_checkout_is_in_use_also_for_the_configuration_after(tmp_path: Path) -> None:
    """Else a job of the same commit would restore the files under one that runs."""
    settings, source = Settings(state_directory=tmp_path), SourceCommit("0" * 40, None, None, ".", str(tmp_path))
    earlier = Checkouts(settings, {})
    running = earlier.checkout("local", source)
    running.add_user("dbt-1-abc")
    later = Checkouts(settings, {}, earlier=earlier).checkout("local", source)
    assert not later.is_free
    running.remove_user("dbt-1-abc")
    assert later.is_free


def test_changed_keys_are_named_without_their_values() -> None:
    before = {"enabled": True, "fabrics": {"a": {"x": 1}, "b": {"x": SECRET}}, "hosts": ("a", "b")}
    after = {"enabled": True, "fabrics": {"b": {"x": 3}, "c": {}}, "hosts": ("a",)}
    assert changed_keys(before, after) == ["fabrics.a", "fabrics.b.x", "fabrics.c", "hosts"]
    assert changed_keys(json.loads(json.dumps(after)), json.loads(json.dumps(after))) == []
