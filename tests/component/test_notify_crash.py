"""Notifications of a gateway that is killed: each is delivered all the same, by the next one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway
from tests.support import hooks, projects
from tests.support.canaries import Canaries
from tests.support.gateway import Gateway, wait_for
from tests.support.hooks import HANG, Hooks, Reply
from tests.support.ports import free_port

JOBS = "/api/v1/jobs"
NOTIFY = [{"name": "hook", "webhook": {"url_variable": "HOOK", "secret_variable": "KEY"}}]


@pytest.fixture
def hook() -> Iterator[Hooks]:
    with hooks.serving() as serving:
        yield serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return projects.make(tmp_path / "project", ingester="import sys; sys.exit(3)", settings={"notify": NOTIFY})


def notification(gateway: Gateway, job: str) -> dict[str, Any]:
    [found] = gateway.call("GET", f"{JOBS}/{job}").json["notifications"]
    return dict(found)


def delivered(gateway: Gateway, job: str) -> dict[str, Any]:
    wait_for(lambda: notification(gateway, job)["state"] == "delivered", f"the notification of {job}")
    return notification(gateway, job)


def test_a_gateway_killed_after_the_end_of_a_job_tells_it_later(folder: Path, make_gateway: MakeGateway) -> None:
    port = free_port()
    gateway = make_gateway(folder, {"HOOK": f"http://127.0.0.1:{port}/", "KEY": "any secret"})
    job = gateway.run(pipeline="ingester")["jobId"]
    gateway.kill()
    with hooks.serving(port) as hook:
        gateway.start()
        delivered(gateway, job)
        assert [one.json["jobId"] for one in hook.received] == [job]
        gateway.kill()
        gateway.start()
        later = gateway.run(pipeline="ingester")["jobId"]
        delivered(gateway, later)
        assert [one.json["jobId"] for one in hook.received] == [job, later]  # the first one once only


def test_a_gateway_killed_during_a_delivery_sends_the_same_id_again(
    folder: Path, make_gateway: MakeGateway, hook: Hooks
) -> None:
    hook.replies = [Reply(HANG)]
    gateway = make_gateway(folder, {"HOOK": hook.url, "KEY": "any secret"})
    job = gateway.run(pipeline="ingester")["jobId"]
    wait_for(lambda: hook.received, "the first attempt")
    gateway.kill()
    gateway.start()
    assert delivered(gateway, job)["attempts"] == 1
    first, second = hook.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.json["jobId"] == second.json["jobId"] == job


def test_a_job_that_ends_while_the_gateway_is_dead_is_told(
    tmp_path: Path, make_gateway: MakeGateway, hook: Hooks
) -> None:
    waits = "import pathlib, sys, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nsys.exit(3)"
    made = projects.make(tmp_path / "waiting", ingester=waits, settings={"notify": NOTIFY})
    gateway = make_gateway(made, {"HOOK": hook.url, "KEY": "any secret"})
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: gateway.poll(job)["phase"] == "ingester", "the step")
    gateway.kill()
    (made / "go").touch()
    gateway.start()
    gateway.finished(job)
    delivered(gateway, job)
    [received] = hook.received
    assert (received.json["jobId"], received.json["outcome"]) == (job, "errors")


def test_neither_address_nor_secret_is_told_anywhere(folder: Path, make_gateway: MakeGateway, hook: Hooks) -> None:
    """In answers, log, files and command lines, with a receiver that quotes them."""
    canaries = Canaries()
    key, path = canaries.environment["WAREHOUSE_PIN"], canaries.environment["DBT_ENV_SECRET_GIT"]
    hook.replies = [Reply(404, body=f"no {path} nor {key}".encode())]
    (folder / "ingest.py").write_text("import os, sys\nprint(os.environ['HOOK'], os.environ['KEY'])\nsys.exit(3)\n")
    gateway = make_gateway(folder, {"HOOK": f"http://127.0.0.1:{hook.port}/{path}", "KEY": key})
    job = gateway.run(pipeline="ingester")["jobId"]
    wait_for(lambda: notification(gateway, job)["attempts"], "an attempt")
    wait_for(lambda: "notification not delivered" in gateway.logged(), "the line of the log")
    assert canaries.everywhere(gateway, job) == {}
    delivered(gateway, job)
    assert canaries.everywhere(gateway, job) == {}
