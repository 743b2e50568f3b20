"""Notifications of a running service, to real receivers that take, refuse, drop and hang."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.errors import ConfigError
from gateway.model.job import Completed
from gateway.model.request import TriggerRequest
from gateway.notify import command, delivery, webhook
from gateway.notify.receiver import Message
from gateway.storage.store import Store
from gateway.web import SERVICE
from tests.conftest import MakeApi
from tests.support import hooks, projects
from tests.support.api import Api, app, until
from tests.support.hooks import DROP, HANG, Hooks, Reply, signed
from tests.support.jobs import ended as ended_job
from tests.support.jobs import make_job
from tests.support.ports import free_port

JOBS = "/api/v1/jobs"
# exits with what is in the file `code`, 0 without one
INGESTER = """
    import pathlib, sys
    code = pathlib.Path("code")
    sys.exit(int(code.read_text()) if code.exists() else 0)
"""
SECRET = base64.b64encode(b"the signing key").decode()


@pytest.fixture
def hook() -> Iterator[Hooks]:
    with hooks.serving() as serving:
        yield serving


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that tests need not wait for."""
    monkeypatch.setattr(delivery, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE", 0.1)


def project(folder: Path, *notify: dict[str, Any], **settings: Any) -> Path:
    made = projects.make(folder / "project", ingester=INGESTER, settings={"notify": list(notify), **settings})
    (made / "code").write_text("3")
    return made


def to_hook(**given: Any) -> dict[str, Any]:
    return {"name": "hook", "webhook": {"url_variable": "HOOK", **given}}


def to_command(*argv: str) -> dict[str, Any]:
    return {"name": "tell", "command": list(argv)}


async def notification(api: Api, job: str, state: str = "delivered", attempts: int = 1) -> dict[str, Any]:
    """The only notification of a job, once it is in this state and was tried as often at least."""

    async def settled() -> dict[str, Any] | None:
        found = (await api.get(f"{JOBS}/{job}"))["notifications"]
        return next((one for one in found if one["state"] == state and one["attempts"] >= attempts), None)

    found = await until(settled, f"{job} to be {state}")
    assert found is not None
    return found


async def ended(api: Api) -> str:
    return str((await api.run(pipeline="ingester"))["jobId"])


async def test_a_status_line_that_is_no_unicode_is_a_failed_attempt(
    tmp_path: Path, make_api: MakeApi, hook: Hooks
) -> None:
    """It ended the service, and the next one at its start."""
    hook.replies = [Reply(503, reason="nicht verf\xfcgbar"), Reply(503, reason="nicht verf\xfcgbar")]
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": hook.url})
    assert (await notification(api, await ended(api), attempts=3))["state"] == "delivered"
    assert len(hook.received) == 3


async def test_a_webhook_gets_the_whole_record_signed(tmp_path: Path, make_api: MakeApi, hook: Hooks) -> None:
    folder = project(tmp_path, to_hook(secret_variable="KEY"), public_url="https://pipelines.example")
    api = await make_api(folder, {"HOOK": hook.url, "KEY": f"whsec_{SECRET}"})
    job = await ended(api)
    assert await notification(api, job) == {
        "to": "hook",
        "outcome": "errors",
        "state": "delivered",
        "attempts": 1,
        "error": None,
    }
    [received] = hook.received
    assert received.path == "/hook/key-of-the-hook"
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["User-Agent"] == "pipeline-gateway"
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 60
    assert signed(received, b"the signing key")
    assert not signed(received, b"another key")
    record = await api.get(f"{JOBS}/{job}")
    assert record.pop("notifications")
    told = received.json
    assert told.pop("notifications") == [
        {"to": "hook", "outcome": "errors", "state": "waiting", "attempts": 0, "error": None}
    ]
    assert told.pop("told") == "errors"
    assert told.pop("logUrl") == f"https://pipelines.example{JOBS}/{job}/log"
    assert {**told, "logUrl": record["logUrl"]} == record


@pytest.mark.parametrize(("preset", "key"), [("slack", "text"), ("teams", "attachments"), ("discord", "embeds")])
async def test_a_preset_gets_its_own_body(
    tmp_path: Path, make_api: MakeApi, hook: Hooks, preset: str, key: str
) -> None:
    api = await make_api(project(tmp_path, to_hook(preset=preset)), {"HOOK": f"{hook.url}?wait=true"})
    await notification(api, await ended(api))
    [received] = hook.received
    assert received.path == "/hook/key-of-the-hook?wait=true"
    assert key in received.json
    assert "small/ingester ended with errors" in str(received.json)


async def test_ntfy_gets_the_topic_in_the_body(tmp_path: Path, make_api: MakeApi, hook: Hooks) -> None:
    url = f"http://127.0.0.1:{hook.port}/pipelines?auth=QmFzaWM"
    api = await make_api(project(tmp_path, to_hook(preset="ntfy")), {"HOOK": url})
    await notification(api, await ended(api))
    [received] = hook.received
    assert (received.path, received.json["topic"]) == ("/?auth=QmFzaWM", "pipelines")


async def test_only_what_was_asked_for_is_told(tmp_path: Path, make_api: MakeApi, hook: Hooks) -> None:
    folder = project(tmp_path, {**to_hook(), "outcomes": ["recovered"], "pipelines": ["ingester"]})
    api = await make_api(folder, {"HOOK": hook.url})
    jobs = []
    for code in ("0", "3", "0", "0"):
        (folder / "code").write_text(code)
        jobs.append(await ended(api))
    told = await notification(api, jobs[2])
    assert told["outcome"] == "recovered"
    assert [(await api.get(f"{JOBS}/{job}"))["notifications"] for job in jobs if job != jobs[2]] == [[], [], []]
    assert [one.json["told"] for one in hook.received] == ["recovered"]


async def test_a_late_pipeline_is_told_by_a_running_service(tmp_path: Path, make_api: MakeApi, hook: Hooks) -> None:
    wanted = {"outcomes": ["late"], "late_after": 60, "pipelines": ["full"]}
    folder = project(tmp_path, {**to_hook(preset="slack"), **wanted}, record_days=36500, projects={"default": {}})
    (folder / ".pipeline-gateway").mkdir()
    store = await Store.open(folder / ".pipeline-gateway/gateway.db")
    await store.insert(ended_job(make_job("full-1"), Completed(1, None)))
    await store.close()
    api = await make_api(folder, {"HOOK": hook.url})
    assert (await notification(api, "full-1"))["outcome"] == "late"
    [received] = hook.received
    assert received.json["text"].startswith("*default/full is late*\nIts last job, full-1, ended at 2026-11-21T12:00")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(500), "it answered 500 Internal Server Error"),
        (Reply(404, body=b"no such hook\n"), "it answered 404 Not Found: no such hook"),
        (Reply(302, (("Location", "/other"),)), "it answered 302 Found, and redirects are not followed"),
        (Reply(400, (("Content-Encoding", "gzip"),), b"no gzip"), "it answered 400 Bad Request: no gzip"),
        (Reply(503, body=b"x" * 100_000), "it answered 503 Service Unavailable: xxx"),
        (Reply(429, (("Retry-After", "0"),)), "it answered 429 Too Many Requests"),
        (Reply(DROP), "Server disconnected"),
        (Reply(HANG), "it did not answer within"),
    ],
)
async def test_a_receiver_that_fails_gets_the_same_message_again(
    tmp_path: Path, make_api: MakeApi, hook: Hooks, monkeypatch: pytest.MonkeyPatch, reply: Reply, error: str
) -> None:
    monkeypatch.setattr(webhook, "_LIMIT", 0.5)
    hook.replies = [reply] * 1000
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": hook.url})
    job = await ended(api)
    found = await notification(api, job, "waiting", attempts=2)
    assert found["error"].startswith(error)
    assert len(found["error"]) <= 300
    hook.replies.clear()
    assert (await notification(api, job))["error"] is None
    assert {one.headers["webhook-id"] for one in hook.received} == {hook.received[0].headers["webhook-id"]}
    assert {one.path for one in hook.received} == {"/hook/key-of-the-hook"}


async def test_a_receiver_that_refuses_connections_gets_it_when_it_is_back(tmp_path: Path, make_api: MakeApi) -> None:
    port = free_port()
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": f"http://localhost:{port}/"})
    job = await ended(api)
    found = await notification(api, job, "waiting", attempts=2)
    assert f"Cannot connect to host localhost:{port}" in found["error"]
    before = await api.call("GET", f"{JOBS}/{job}")
    with hooks.serving(port) as back:
        await notification(api, job)
        assert [one.json["jobId"] for one in back.received] == [job]
    after = await api.call("GET", f"{JOBS}/{job}", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status == 200  # the tag changes with the notifications


async def test_a_host_without_an_address_is_said(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": "http://no-such-host.invalid/x"})
    found = await notification(api, await ended(api), "waiting", attempts=2)
    assert "Cannot connect to host no-such-host.invalid:80" in found["error"]


async def test_a_name_server_that_hangs_delays_neither_jobs_nor_the_stop(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lookup has one thread, whose end nothing waits for."""
    answered, real = threading.Event(), socket.getaddrinfo

    def hanging(host: Any, *args: Any, **given: Any) -> Any:
        if host == "hook.example":
            answered.wait()
        return real(host, *args, **given)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setattr(webhook, "_LIMIT", 0.2)
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": "http://hook.example/"})
    try:
        found = await notification(api, await ended(api), "waiting", attempts=3)
        assert found["error"] == "it did not answer within 0 s"
        [lookup] = [thread for thread in threading.enumerate() if thread.name == "notify-resolver"]
        assert lookup.daemon
    finally:
        answered.set()


async def test_a_receiver_that_is_gone_is_not_tried_again(tmp_path: Path, make_api: MakeApi, hook: Hooks) -> None:
    hook.replies = [Reply(410)]
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": hook.url})
    first, second = await ended(api), await ended(api)
    found = await notification(api, first, "given_up")
    assert (found["attempts"], found["error"]) == (1, "it answered 410 Gone")
    await notification(api, second)
    assert len(hook.received) == 2


@pytest.mark.parametrize(("asked", "longest"), [("1", 3600.0), ("99999", 1.0)])
async def test_the_pause_that_a_receiver_asks_for_is_kept(
    tmp_path: Path, make_api: MakeApi, hook: Hooks, monkeypatch: pytest.MonkeyPatch, asked: str, longest: float
) -> None:
    monkeypatch.setattr(webhook, "_LONGEST_WAIT", longest)
    hook.replies = [Reply(429, (("Retry-After", asked),))]
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": hook.url})
    await notification(api, await ended(api))
    first, second = (int(one.headers["webhook-timestamp"]) for one in hook.received)
    assert second > first


async def test_a_message_that_is_never_taken_holds_up_no_other(tmp_path: Path, make_api: MakeApi, hook: Hooks) -> None:
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": hook.url})
    hook.refused_job = first = await api.trigger(pipeline="ingester")
    await api.finished(first)
    await notification(api, first, "waiting", attempts=2)
    await notification(api, await ended(api))
    assert (await notification(api, first, "waiting", attempts=3))["error"] == "it answered 400 Bad Request"


async def test_a_dead_receiver_delays_neither_jobs_nor_other_receivers(
    tmp_path: Path, make_api: MakeApi, hook: Hooks
) -> None:
    with hooks.serving() as dead:
        dead.replies = [Reply(HANG)] * 1000
        folder = project(tmp_path, to_hook(), {"name": "dead", "webhook": {"url_variable": "DEAD"}})
        api = await make_api(folder, {"HOOK": hook.url, "DEAD": dead.url})
        began = time.monotonic()
        jobs = [await ended(api) for _ in range(5)]

        async def all_told() -> bool:
            return [one.json["jobId"] for one in hook.received] == jobs

        await until(all_told, "the notifications of all jobs, in order")
        assert time.monotonic() - began < webhook._LIMIT
        assert len(dead.received) == 1  # which still waits for its answer


async def test_the_service_stops_at_once_while_receivers_hang(tmp_path: Path, hook: Hooks) -> None:
    hook.replies = [Reply(HANG)]
    stubborn = f"trap '' TERM INT; echo $$ > {tmp_path}/project/pid; sleep 600"
    folder = project(tmp_path, to_hook(), to_command("sh", "-c", stubborn))
    runner = web.AppRunner(app(folder, {"HOOK": hook.url}))
    await runner.setup()
    await runner.app[SERVICE].submit(TriggerRequest("ingester"))

    async def both_hang() -> str:
        return (folder / "pid").read_text() if hook.received and (folder / "pid").exists() else ""

    leader = int(await until(both_hang, "both receivers"))
    began = time.monotonic()
    await runner.cleanup()
    assert time.monotonic() - began < 5
    assert _alive(leader) == []


async def test_a_command_gets_the_record_and_the_environment(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ)], open('told', 'w'))"
    folder = project(tmp_path, to_command(sys.executable, "-c", script))
    monkeypatch.chdir(folder)
    systemds = {"NOTIFY_SOCKET": "/run/x", "CREDENTIALS_DIRECTORY": "", "CALLERS_FILE": ""}
    api = await make_api(folder, {"MAIL_TO": "on-call", **systemds})
    job = await ended(api)
    await notification(api, job)
    record, environment = json.loads((folder / "told").read_text())
    assert (record["jobId"], record["told"], record["outcome"]) == (job, "errors", "errors")
    assert environment["MAIL_TO"] == "on-call"
    assert not set(systemds) & set(environment)


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["sh", "-c", "echo first; echo no mailbox >&2; echo; exit 3"], "exit code 3: no mailbox"),
        (["sh", "-c", "exit 1"], "exit code 1"),
        (["sh", "-c", "kill -9 $$"], "signal 9"),
        (["no-such-program"], "no-such-program does not run: "),
        (["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exit 1"], "exit code 1: end"),
        (["sh", "-c", "trap '' TERM INT; sleep 600 & sleep 600"], "it did not end within"),
    ],
)
async def test_a_command_that_fails_is_run_again_and_its_last_line_kept(
    tmp_path: Path, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, argv: list[str], error: str
) -> None:
    monkeypatch.setattr(command, "_LIMIT", 1.0)
    api = await make_api(project(tmp_path, to_command(*argv)))
    found = await notification(api, await ended(api), "waiting", attempts=2)
    assert found["error"].startswith(error)


async def test_what_a_command_leaves_in_the_background_is_let_alone(tmp_path: Path, make_api: MakeApi) -> None:
    """As a mail program does that sends the mail after it has ended."""
    mark = tmp_path / "sent"
    api = await make_api(project(tmp_path, to_command("sh", "-c", f"(sleep 1; touch {mark}) & exit 0")))
    await notification(api, await ended(api))

    async def sent() -> bool:
        return mark.exists()

    await until(sent, "what goes on in the background")


async def test_a_bug_in_a_receiver_ends_neither_service_nor_delivery(
    tmp_path: Path, make_api: MakeApi, hook: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = iter((True,))

    def summary_of(message: Message) -> dict[str, Any]:
        if next(broken, False):
            raise KeyError("bug")
        return dict(message.body)

    monkeypatch.setitem(webhook._PRESETS, "slack", summary_of)
    api = await make_api(project(tmp_path, to_hook(preset="slack")), {"HOOK": hook.url})
    found = await notification(api, await ended(api), attempts=2)
    assert found["attempts"] == 2


async def test_the_events_and_a_cancel_tell_the_notifications_too(
    tmp_path: Path, make_api: MakeApi, hook: Hooks
) -> None:
    api = await make_api(project(tmp_path, to_hook()), {"HOOK": hook.url})
    job = await ended(api)
    await notification(api, job)
    events = await api.call("GET", f"{JOBS}/{job}/events")
    assert b'"state": "delivered"' in events.body
    cancelled = await api.call("POST", f"{JOBS}/{job}/cancel")
    assert cancelled.json["notifications"][0]["state"] == "delivered"


async def test_no_error_of_a_receiver_has_a_secret_in_it(
    tmp_path: Path, make_api: MakeApi, hook: Hooks, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where it quotes the address or the secret in its answer, or a command prints them."""
    answer = b"no /hook/key-of-the-hook here, nor key-of-the-hook, and not the-signing-secret"
    hook.replies = [Reply(404, body=answer)] * 1000
    tell = to_command("sh", "-c", 'echo "$HOOK" "$KEY"; exit 1')
    api = await make_api(project(tmp_path, to_hook(secret_variable="KEY"), tell), _secret(hook))
    job = await ended(api)

    async def both_tried() -> list[str]:
        found = (await api.get(f"{JOBS}/{job}"))["notifications"]
        return [one["error"] for one in found] if all(one["attempts"] for one in found) else []

    errors = await until(both_tried, "an attempt of each")
    assert "***" in errors[0]
    assert errors[1] == "exit code 1: *** ***"
    told = "".join((*errors, *capfd.readouterr()))
    assert not re.search(r"key-of-the-hook|signing-secret", told)


def _secret(hook: Hooks) -> Mapping[str, str]:
    return {"HOOK": hook.url, "KEY": "the-signing-secret"}


def _alive(group: int) -> list[str]:
    """The processes of a group, without those that have ended and were not collected by their parent yet."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, own = process.joinpath("stat").read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state != "Z":
                found.append(process.joinpath("cmdline").read_text())
    return found


def test_a_start_without_a_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the variable HOOK is not set"):
        app(project(tmp_path, to_hook()))
