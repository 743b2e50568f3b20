"""Followers of a job through a gateway that is killed, stopped and started again, and many of them at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.output import OutputRing
from tests.conftest import MakeGateway
from tests.support import projects
from tests.support.events import Event, Follower, parse
from tests.support.gateway import DEADLINE, Gateway, wait_for

FOLLOWERS, WAITERS = 64, 400
TALKING = """
    import itertools, pathlib, time
    for number in itertools.count():
        print("line", number, "é" * (number % 50), flush=True)
        if number % 100 == 99:
            print("x" * 300_000, flush=True)
        if pathlib.Path("stop").exists():
            break
        time.sleep(0.003)
    print("the end", end="", flush=True)
"""


@pytest.fixture
def gateway(tmp_path: Path, make_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway whose ingester talks until it is told to stop."""
    folder = projects.make(tmp_path / "project", ingester=TALKING)
    yield make_gateway(folder)
    (folder / "stop").touch()


def output(gateway: Gateway, job: str) -> str:
    """The whole output of a job as it is stored, with the line that names its step."""
    return "==> ingester <==\n" + OutputRing(gateway.state / "jobs" / job).read(0, 1 << 30).data.decode()


def in_background(follower: Follower) -> threading.Thread:
    thread = threading.Thread(target=follower.to_the_end, daemon=True)
    thread.start()
    return thread


def further(follower: Follower) -> None:
    """Wait until a follower has got more of the output."""
    before = len(follower.logs)
    wait_for(lambda: len(follower.logs) > before + 3, "more output")


def test_a_follower_gets_every_byte_once_though_the_gateway_is_killed(gateway: Gateway) -> None:
    job = gateway.trigger(pipeline="ingester")
    follower = Follower(gateway, job)
    thread = in_background(follower)
    for _ in range(3):
        further(follower)
        gateway.kill()
        gateway.start()
    further(follower)
    (gateway.folder / "stop").touch()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert follower.connections > 3
    assert follower.text == output(gateway, job)
    assert follower.text.endswith("the end")
    follower.must_have_every_byte_once(gateway.poll(job)["outputBytes"])
    assert [state["phase"] for state in follower.states][-1] == "ended"


def test_a_follower_goes_on_after_lost_connections_and_the_jobs_end(gateway: Gateway) -> None:
    job = gateway.trigger(pipeline="ingester")
    follower = Follower(gateway, job)
    for _ in range(5):
        for event in follower.follow():
            if event.kind == "log":
                break  # the connection is dropped after one part
    (gateway.folder / "stop").touch()
    gateway.finished(job)
    gateway.kill()
    gateway.start()
    follower.to_the_end()
    assert follower.text == output(gateway, job)
    follower.must_have_every_byte_once(gateway.poll(job)["outputBytes"])
    assert gateway.call("GET", f"/api/v1/jobs/{job}/log").body.decode() == follower.text


def test_a_gateway_that_stops_ends_its_streams_and_the_next_goes_on(gateway: Gateway) -> None:
    job = gateway.trigger(pipeline="ingester")
    follower = Follower(gateway, job)
    thread = in_background(follower)
    further(follower)
    assert gateway.stop() == 0
    assert "follower cut off" not in gateway.logged()
    gateway.start()
    further(follower)
    (gateway.folder / "stop").touch()
    thread.join(DEADLINE)
    assert follower.text == output(gateway, job)


async def request(port: int, path: str) -> bytes:
    """The whole answer to a GET on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())  # without chunks
        return await reader.read()
    finally:
        writer.close()


def events_in(answer: bytes) -> list[Event]:
    head, _, stream = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    return list(parse(iter(stream.splitlines(keepends=True))))


def record_in(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], head
    record: dict[str, object] = json.loads(body)
    return record


async def test_64_followers_and_400_waiters_of_one_job_are_all_served(gateway: Gateway) -> None:
    """Meanwhile a poll is answered, and the job is not slowed."""
    job = await asyncio.to_thread(gateway.trigger, pipeline="ingester")
    path, port = f"/api/v1/jobs/{job}", gateway.port
    async with asyncio.timeout(DEADLINE):
        followers = [asyncio.create_task(request(port, f"{path}/events")) for _ in range(FOLLOWERS)]
        waiters = [asyncio.create_task(request(port, f"{path}?wait=60&until=ended")) for _ in range(WAITERS)]
        before = (await asyncio.to_thread(gateway.poll, job))["outputBytes"]
        began = time.monotonic()
        while (await asyncio.to_thread(gateway.poll, job))["outputBytes"] < before + 2**20:
            assert time.monotonic() - began < DEADLINE
        (gateway.folder / "stop").touch()
        answers, records = await asyncio.gather(*followers), await asyncio.gather(*waiters)
    expected = output(gateway, job)
    for answer in answers:
        events = events_in(answer)
        assert "".join(event.data["text"] for event in events if event.kind == "log") == expected
        assert [event for event in events if event.kind == "state"][-1].data["phase"] == "ended"
    assert {str(record_in(answer)["phase"]) for answer in records} == {"ended"}
