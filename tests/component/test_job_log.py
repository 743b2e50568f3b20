"""The log and the events of jobs, over real HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from gateway.web.jobs_api import events as served
from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api, until
from tests.support.events import Event, parse
from tests.support.gateway import DEADLINE

JOBS = "/api/v1/jobs"
TALKING = """
    import pathlib, time
    print("one", flush=True)
    print("tw", end="", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    print("o\\n" + "talk " * int(pathlib.Path("words").read_text() or 0))
"""


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    folder = projects.make(tmp_path / "project", ingester=TALKING)
    (folder / "words").write_text("")
    return await make_api(folder)


async def talking(api: Api) -> str:
    """A job that has printed a line and a half, and waits."""
    job = await api.trigger(pipeline="ingester")

    async def has_printed() -> bool:
        return bool((await api.poll(job))["output"] == "one\ntw")

    await until(has_printed, "the first lines")
    return job


def go(api: Api, words: int = 0) -> None:
    (api.folder / "words").write_text(str(words))
    (api.folder / "go").touch()


async def follow(api: Api, job: str, query: str = "", **headers: str) -> AsyncGenerator[Event]:
    address = f"{api.base.origin()}{JOBS}/{job}/events{query}"
    async with (
        asyncio.timeout(DEADLINE),
        aiohttp.ClientSession(read_bufsize=2**22) as session,
        session.get(address, headers=headers) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        block = b""
        async for line in response.content:
            block += line
            if line == b"\n":
                for event in parse(iter(block.splitlines(keepends=True))):
                    yield event
                block = b""


async def test_the_log_has_whole_lines_while_the_job_runs_and_all_at_its_end(api: Api) -> None:
    job = await talking(api)
    answer = await api.call("GET", f"{JOBS}/{job}/log")
    assert (answer.status, answer.body) == (200, b"==> ingester <==\none\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert [answer.headers[f"Log-{name}"] for name in ("Start", "Next", "Dropped")] == ["0", "4", "0"]
    go(api)
    await api.finished(job)
    rest = await api.call("GET", f"{JOBS}/{job}/log?offset=4&step=ingester&download")
    assert (rest.body, rest.headers["Log-Next"]) == (b"two\n\n", "9")
    assert rest.headers["Content-Disposition"] == f'attachment; filename="{job}.log"'
    assert (await api.call("GET", f"{JOBS}/{job}/log?tail=5")).body == b"two\n\n"
    head = await api.call("HEAD", f"{JOBS}/{job}/log")
    assert (head.status, head.headers["Log-Next"], head.body) == (200, "9", b"")


async def test_a_log_of_megabytes_is_served_whole(api: Api) -> None:
    job = await talking(api)
    go(api, words=1_000_000)
    await api.finished(job)
    answer = await api.call("GET", f"{JOBS}/{job}/log")
    assert answer.body == b"==> ingester <==\none\ntwo\n" + b"talk " * 1_000_000 + b"\n"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("offset=-1", 400, "invalid_field"),
        ("offset=x", 400, "invalid_field"),
        ("offset=1&tail=1", 400, "invalid_field"),
        ("lines=3", 400, "unknown_field"),
        ("step=build", 404, "unknown_step"),
    ],
)
async def test_a_wrong_query_of_the_log_is_refused(api: Api, query: str, status: int, code: str) -> None:
    job = await talking(api)
    answer = await api.call("GET", f"{JOBS}/{job}/log?{query}")
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_an_unknown_job_has_no_log_and_no_events(api: Api) -> None:
    for what in ("log", "events"):
        answer = await api.call("GET", f"{JOBS}/no-such/{what}")
        assert (answer.status, answer.json["code"]) == (404, "unknown_job")
    job = await talking(api)
    answer = await api.call("GET", f"{JOBS}/{job}/events", headers={"Last-Event-ID": "x"})
    assert answer.status == 400
    assert "Last-Event-ID" in answer.json["error"]


async def test_events_begin_with_the_record_and_end_with_the_job(api: Api) -> None:
    job = await talking(api)
    seen: list[Event] = []
    async for event in follow(api, job):
        seen.append(event)
        if event.kind == "log" and event.data["next"] == 4:
            go(api)
    assert (seen[0].kind, seen[0].data["phase"], seen[0].data["waitsFor"]) == ("state", "ingester", [])
    logs = [event for event in seen if event.kind == "log"]
    assert [(event.data["offset"], event.data["next"]) for event in logs] == [(0, 4), (4, 9)]
    assert "".join(event.data["text"] for event in logs) == "==> ingester <==\none\ntwo\n\n"
    assert [event.id for event in seen] == [str(event.data["next"]) if event in logs else None for event in seen]
    states = [event.data for event in seen if event.kind == "state"]
    assert states[-1]["phase"] == "ended"
    assert states[-1] == await api.get(f"{JOBS}/{job}") | {"logUrl": states[-1]["logUrl"]}


async def test_events_go_on_at_the_last_id_before_the_offset_of_the_query(api: Api) -> None:
    job = await talking(api)
    go(api)
    await api.finished(job)
    for given in ({"query": "?offset=4"}, {"query": "?offset=0", "Last-Event-ID": "4"}):
        state, log = [event async for event in follow(api, job, **given)]
        assert (state.kind, state.data["phase"]) == ("state", "ended")
        assert log.data == {"offset": 4, "next": 9, "text": "two\n\n", "dropped": 0}
    [state] = [event async for event in follow(api, job, "?offset=9")]
    assert state.data["phase"] == "ended"


async def test_output_that_the_ring_dropped_is_said(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester=TALKING, settings={"output_cap": "64KiB"}))
    (api.folder / "words").write_text("")
    job = await talking(api)
    go(api, words=100_000)
    record = await api.finished(job)
    assert record["outputBytes"] + record["outputDroppedBytes"] == 9 + 500_000
    assert record["outputDroppedBytes"] > 400_000
    log = (await api.call("GET", f"{JOBS}/{job}/log")).headers
    assert int(log["Log-Dropped"]) == int(log["Log-Start"]) >= record["outputDroppedBytes"]
    _, first, *_ = [event async for event in follow(api, job, "?offset=4")]
    assert first.data["dropped"] == first.data["offset"] - 4 >= record["outputDroppedBytes"] - 4


async def test_a_job_whose_files_were_removed_says_how_much_is_gone(api: Api) -> None:
    job = await talking(api)
    go(api)
    await api.finished(job)
    for file in (api.folder / ".pipeline-gateway/jobs" / job).iterdir():
        if file.name.startswith("output."):
            file.unlink()
    record = await api.get(f"{JOBS}/{job}")
    assert (record["outputBytes"], record["outputDroppedBytes"]) == (0, 9)
    _, log = [event async for event in follow(api, job)]
    assert log.data == {"offset": 9, "next": 9, "text": "", "dropped": 9}


async def test_a_follower_that_does_not_read_is_cut_off_and_slows_nobody(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "_UNREAD", 1.0)
    job = await talking(api)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", api.base.port))
        deaf.sendall(f"GET {JOBS}/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        go(api, words=4_000_000)
        reading = [event.data async for event in follow(api, job) if event.kind == "log"]
        assert reading[-1]["next"] == (await api.finished(job))["outputBytes"] == 9 + 20_000_000
        monkeypatch.setattr(served, "_MOST", 1)

        async def is_cut_off() -> bool:
            return (await api.call("GET", f"{JOBS}/{job}/events?offset={reading[-1]['next']}")).status == 200

        await until(is_cut_off, "the end of the follower that does not read")


async def test_there_are_at_most_so_many_followers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_MOST", 1)
    job = await talking(api)
    first = follow(api, job)
    assert (await anext(first)).kind == "state"
    refused = await api.call("GET", f"{JOBS}/{job}/events")
    assert (refused.status, refused.json["code"]) == (503, "overloaded")
    assert "Retry-After" in refused.headers
    await first.aclose()
    go(api)
    await api.finished(job)

    async def is_free() -> bool:
        return (await api.call("GET", f"{JOBS}/{job}/events")).status == 200

    await until(is_free, "the place of the follower that left")
