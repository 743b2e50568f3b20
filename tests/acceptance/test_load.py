"""Many connections, slow clients, and no free descriptors: polls are answered, and the gateway recovers."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import select
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway, Tell
from tests.support import parts, process_facts, projects
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for
from tests.support.quick_jobs import at_rest, pid, quick_project, settled, warm_up

pytestmark = pytest.mark.installed  # memory, descriptors and limits of the real command

WAITING = """
    import pathlib, time
    print("waiting", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
TALKATIVE = """
    print("word " * 4000)
"""
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
MOST = 1000
REFUSED = 200  # of MOST clients that wait for a change
ABOVE = 32  # connections that are being opened or closed at the time
NONE_FREE = 3  # a limit below which no file can be opened


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Allow enough descriptors for the clients of these tests and for the gateways, which inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4096
    if soft < enough:
        if hard != resource.RLIM_INFINITY and hard < enough:
            parts.missing(f"a process may open only {hard} files here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(gateway: Gateway, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE)
    connection.sendall(data)
    return connection


@contextlib.contextmanager
def many(gateway: Gateway, number: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open this many connections and send the same bytes on each."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(gateway, data)) for _ in range(number)]


def answered(connections: list[socket.socket], expected: int) -> list[bytes]:
    """The first `expected` answers on these connections; b"" for a closed one."""
    answers: list[bytes] = []
    end = time.monotonic() + DEADLINE
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while len(answers) < expected:
            assert time.monotonic() < end, f"{len(answers)} of {expected} answers"
            for key, _ in selector.select(1):
                selector.unregister(key.fileobj)
                answers.append(received(key.fileobj))
    return answers


def received(connection: Any) -> bytes:
    try:
        answer: bytes = connection.recv(65536)
    except ConnectionResetError:
        return b""
    return answer


def waiting(gateway: Gateway) -> str:
    """A job whose ingester runs until there is a file `go`."""
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "the ingester")
    return job


def logged(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log.read_text().splitlines()]


def most_of_a_kind_in_a_second(gateway: Gateway) -> int:
    """The largest number of log lines with one event within one second."""
    return max(Counter((line["event"], line["timestamp"][:19]) for line in logged(gateway)).values())


@contextlib.contextmanager
def open_files(limit: int, of: int) -> Iterator[None]:
    """Limit the open files of the process `of`; 0 is this one, with the processes that it starts meanwhile."""
    before = resource.prlimit(of, resource.RLIMIT_NOFILE)
    resource.prlimit(of, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(of, resource.RLIMIT_NOFILE, before)


def test_with_1500_idle_connections_a_poll_is_answered(tmp_path: Path, make_gateway: MakeGateway, tell: Tell) -> None:
    """Afterwards the gateway has the descriptors and the memory that it had before."""
    gateway = make_gateway(quick_project(tmp_path / "project"))
    before = warm_up(gateway)
    memory = process_facts.memory(pid(gateway)).heap
    job = gateway.trigger(pipeline="ingester")
    held, took = [], 0.0
    for _ in range(2):
        with many(gateway, 1500, HEAD[:20]) as idle:
            since = time.monotonic()
            assert gateway.poll(job)["jobId"] == job
            took = time.monotonic() - since
            held.append(process_facts.descriptors(pid(gateway)))
            assert set(answered(idle, 500)) == {b""}
    assert gateway.finished(job)["exitCode"] == 0
    tell(f"a poll beside 1,500 idle connections: {1000 * took:.0f} ms")
    assert max(held) <= len(before.descriptors) + MOST + ABOVE
    assert settled(gateway, before) == before
    grown = process_facts.memory(pid(gateway)).heap - memory
    tell(f"memory after 3,000 idle connections: {grown:+.0f} MB")
    assert grown < 50


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_after_a_thousand_dropped_waits_triggers_and_cancels_work(
    tmp_path: Path, make_gateway: MakeGateway, method: str
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = waiting(gateway)
    waits = f"{method} /api/v1/jobs/{job}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for _ in range(3):
        with many(gateway, MOST, waits):
            pass
        assert gateway.call("POST", PATH, {"pipeline": "ingester"}).status == 409
        assert gateway.call("POST", "/api/v1/jobs/unknown/cancel").status == 404
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0


def test_beside_a_thousand_waits_the_next_wait_gets_503(tmp_path: Path, make_gateway: MakeGateway) -> None:
    """It gets Retry-After; a poll is answered."""
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = waiting(gateway)
    waits = f"GET /api/v1/jobs/{job}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with many(gateway, MOST, waits) as clients:
        refused = answered(clients, REFUSED)
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in refused)
        assert all(b"Retry-After: " in answer and b'"overloaded"' in answer for answer in refused)
        assert gateway.poll(job)["status"] == "running"
        assert gateway.call("GET", f"/api/v1/jobs/{job}?wait=1").status == 503
        assert gateway.call("POST", PATH, {"pipeline": "ingester"}).status == 409
        (gateway.folder / "go").touch()
        reported = answered(clients, MOST)
        assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in reported) == MOST - REFUSED
    assert gateway.finished(job)["exitCode"] == 0


def test_beside_a_thousand_unsent_bodies_a_poll_is_answered(tmp_path: Path, make_gateway: MakeGateway) -> None:
    settings = {
        "trigger_rate": 100_000,
        "trigger_burst": 100_000,
    }  # else the rate limit refuses most before their body is read
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=TALKATIVE, settings=settings))
    job = gateway.run(pipeline="ingester")["jobId"]
    with many(gateway, MOST, POST + b"Content-Length: 100\r\n\r\n") as clients:
        refused = answered(clients, MOST // 10)
        assert gateway.poll(job)["status"] == "completed"
        statuses = Counter(answer[9:12] for answer in refused + answered(clients[: MOST // 2], MOST // 2))
    assert set(statuses) == {b"503", b"408"}


def test_waits_that_end_make_room_for_others(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = waiting(gateway)
    waits = f"GET /api/v1/jobs/{job}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for _ in range(3):
        with many(gateway, MOST, waits) as clients:
            answered(clients, REFUSED)
        assert gateway.poll(job)["status"] == "running"
    assert gateway.call("GET", f"/api/v1/jobs/{job}?wait=0.1").status == 200
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0


def dripping(connection: socket.socket, content: bytes) -> tuple[float, bytes]:
    """Send content repeatedly, byte by byte, until the connection ends; return the seconds and the answer."""
    since = time.monotonic()
    got = b""
    connection.settimeout(0.25)
    with connection:
        while True:
            position = int((time.monotonic() - since) * 4) % len(content)
            try:
                connection.sendall(content[position : position + 1])
                while chunk := connection.recv(65536):
                    got += chunk
            except TimeoutError:
                assert time.monotonic() - since < DEADLINE, got
                continue
            except OSError:
                pass
            return time.monotonic() - since, got


def never_reading(gateway: Gateway, poll: bytes) -> float:
    """Request much and read nothing of it; return the seconds until the connection was reset."""
    since = time.monotonic()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", gateway.port))
        connection.setblocking(False)
        while time.monotonic() - since < DEADLINE:
            try:
                connection.send(poll * 100)
            except BlockingIOError:
                select.select([], [connection], [], DEADLINE)  # until it can send more, or is closed
            except OSError:
                break
    return time.monotonic() - since


def test_clients_that_send_or_read_too_slowly_are_disconnected(
    tmp_path: Path, make_gateway: MakeGateway, tell: Tell
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=TALKATIVE))
    job = gateway.run(pipeline="ingester")["jobId"]
    before = at_rest(gateway)
    second = connected(gateway, HEAD + b"\r\n")
    assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
    second.sendall(HEAD)
    poll = f"GET {PATH}?jobId={job} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    cases: dict[str, Callable[[], tuple[float, bytes]]] = {
        "a head": lambda: dripping(connected(gateway, HEAD), b"X-Slow: 1\r\n"),
        "a head after an answer": lambda: dripping(second, b"X-Slow: 1\r\n"),
        "a body": lambda: dripping(connected(gateway, POST + b"Content-Length: 1000\r\n\r\n"), b" "),
        "a chunked body": lambda: dripping(
            connected(gateway, POST + b"Transfer-Encoding: chunked\r\n\r\n"), b"1\r\n \r\n"
        ),
        "a chunk's extension": lambda: dripping(
            connected(gateway, POST + b"Transfer-Encoding: chunked\r\n\r\n1;"), b"a"
        ),
        "an ignored body": lambda: dripping(
            connected(gateway, HEAD + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"), b" "
        ),
        "reading": lambda: (never_reading(gateway, poll), b""),
    }
    with ThreadPoolExecutor(len(cases)) as pool:
        running = {name: pool.submit(case) for name, case in cases.items()}
        assert gateway.poll(job)["status"] == "completed"
        ended = {name: one.result() for name, one in running.items()}
    tell(
        "slow clients are disconnected after: " + ", ".join(f"{name} {took:.0f} s" for name, (took, _) in ended.items())
    )
    assert {name: took for name, (took, _) in ended.items() if took > (45 if name == "reading" else 25)} == {}
    statuses = {name: got[9:12] for name, (_, got) in ended.items()}
    assert statuses == {
        "a head": b"",
        "a head after an answer": b"",
        "a body": b"408",
        "a chunked body": b"408",
        "a chunk's extension": b"408",
        "an ignored body": b"200",
        "reading": b"",
    }
    assert settled(gateway, before).descriptors == before.descriptors


def test_without_free_descriptors_every_answer_is_right(tmp_path: Path, make_gateway: MakeGateway, tell: Tell) -> None:
    """Nothing is lost, and the gateway recovers by itself."""
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = waiting(gateway)
    before = process_facts.facts(pid(gateway))

    def asked(path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        method = "GET" if body is None else "POST"
        kept.request(method, path, body, {"Content-Type": "application/json"})
        response = kept.getresponse()
        return response.status, json.loads(response.read())

    kept = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
    with contextlib.closing(kept), contextlib.ExitStack() as short:
        assert asked("/healthz")[0] == 200
        short.enter_context(open_files(NONE_FREE, of=pid(gateway)))
        clients = short.enter_context(many(gateway, 50, HEAD + b"\r\n"))
        end = time.monotonic() + 3  # long enough for a flood of the log
        (gateway.folder / "go").touch()
        while time.monotonic() < end:
            status, record = asked(f"{PATH}?jobId={job}")
            assert status == 200
            assert (record["status"], record["exitCode"]) in (("running", -1), ("completed", 0)), record
            status, answer = asked(PATH, b'{"pipeline": "dbt", "command": "deps"}')
            assert status in (409, 429, 503, 507), answer
            time.sleep(0.05)  # as a script that polls in a loop
        since = time.monotonic()
        resource.prlimit(pid(gateway), resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answered(clients, 50))
        took = time.monotonic() - since
    tell(f"descriptors free again to all clients answered: {took:.1f} s")
    assert took < 10
    assert gateway.finished(job)["exitCode"] == 0
    assert len(gateway.call("GET", PATH).json["jobs"]) == 1
    assert gateway.run(pipeline="ingester")["exitCode"] == 0
    attempts = [line for line in logged(gateway) if line["event"] == "no connection can be taken"]
    assert 0 < len(attempts) <= 2 * 10  # one a second for each address
    assert most_of_a_kind_in_a_second(gateway) <= 10
    gone = dict.fromkeys(before.descriptors)
    assert [one for one in settled(gateway, before).descriptors if one not in gone] == []


@pytest.mark.installed  # a fork has the limits of its server
def test_with_few_descriptors_it_serves_fewer_clients_and_runs_steps(tmp_path: Path, make_gateway: MakeGateway) -> None:
    folder = projects.make(tmp_path / "project")
    with open_files(256, of=0):
        gateway = make_gateway(folder)
    assert logged(gateway)[-1]["connections"] == 56
    with many(gateway, 500, HEAD):
        assert gateway.run(pipeline="ingester")["exitCode"] == 0
        assert process_facts.descriptors(pid(gateway)) < 256


def test_a_flood_of_malformed_requests_does_not_flood_the_log(tmp_path: Path, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project"))
    for _ in range(5):
        with many(gateway, 100, b"\x16\x03\x01\r\n\r\n") as clients:
            assert all(answer.startswith(b"HTTP/1.0 400 ") for answer in answered(clients, 100))

    def reported() -> bool:
        lines = logged(gateway)
        kept_back = [line["lines"] for line in lines if line["event"] == "lines kept back"]
        written = [line for line in lines if line["event"] == "request unreadable"]
        return bool(len(written) + sum(kept_back) == 500)

    wait_for(reported, "how many lines were kept back")
    assert most_of_a_kind_in_a_second(gateway) <= 20  # a second of the clock may overlap two windows of the limit
