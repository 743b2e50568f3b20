"""SIGTERM drains: triggers are refused, polls are answered, jobs keep running, and the exit comes soon."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import MakeGateway, Tell
from tests.support import projects
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for

pytestmark = pytest.mark.installed  # how soon the real command ends

WAITING = """
    import pathlib, time
    print("waiting", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
TRIGGER = b'{"pipeline": "ingester"}'
LIMIT = 10.0  # seconds that `systemctl stop` may take


def begun(gateway: Gateway) -> socket.socket:
    """A trigger whose headers the gateway has read, and whose body is still to be sent."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    connection.sendall(f"{head}Content-Length: {len(TRIGGER)}\r\n\r\n".encode())
    assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
    return connection


def terminated(gateway: Gateway) -> None:
    """Send SIGTERM and wait until the gateway no longer listens."""
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not listens(gateway.port), "the end of listening")


def exit_code(gateway: Gateway) -> int:
    """The exit code after the SIGTERM."""
    assert gateway.process is not None
    process, gateway.process = gateway.process, None
    return process.wait(DEADLINE)


def listens(port: int) -> bool:
    """Whether the kernel has a listening socket on the port."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """The status and the headers of the answer."""
    received = b""
    with connection:
        while b"\r\n\r\n" not in received and (chunk := connection.recv(65536)):
            received += chunk
    status, *lines = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert status, "the connection was closed without an answer"
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines)


def test_a_trigger_that_arrives_while_draining_gets_503_and_retry_after(
    tmp_path: Path, make_gateway: MakeGateway, tell: Tell
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = gateway.trigger(pipeline="ingester")
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "the ingester")
    late = begun(gateway)
    since = time.monotonic()
    terminated(gateway)
    late.sendall(TRIGGER)
    status, headers = answer(late)
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert exit_code(gateway) == 0
    took = time.monotonic() - since
    tell(f"SIGTERM to exit, with a job running and a trigger half sent: {took:.2f} s")
    assert took < LIMIT
    gateway.start()
    assert [(one["jobId"], one["phase"]) for one in gateway.call("GET", PATH).json["jobs"]] == [(job, "ingester")]
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0


def test_a_waiting_poll_is_answered_while_draining_and_the_job_goes_on(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project", ingester=WAITING))
    job = gateway.trigger(pipeline="ingester")
    waiting = socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE)
    waiting.sendall(f"GET /api/v1/jobs/{job}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    # the answer to a later request shows that the loop has received the waiting one
    wait_for(lambda: "waiting" in gateway.poll(job)["output"], "the ingester")
    terminated(gateway)
    assert answer(waiting)[0] == 200
    assert exit_code(gateway) == 0
    gateway.start()
    (gateway.folder / "go").touch()
    assert gateway.finished(job)["exitCode"] == 0


def test_while_draining_open_connections_serve_polls_and_refuse_triggers(
    tmp_path: Path, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project"))
    job = gateway.run(pipeline="ingester")["jobId"]
    kept = [http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE) for _ in range(2)]
    for connection in kept:
        assert asked(connection, "GET", f"{PATH}?jobId={job}") == 200
    late = begun(gateway)  # the gateway drains until this request is complete
    terminated(gateway)
    assert asked(kept[0], "GET", f"{PATH}?jobId={job}") == 200
    assert asked(kept[1], "POST", PATH, TRIGGER) == 503
    late.sendall(TRIGGER)
    assert answer(late)[0] == 503
    assert exit_code(gateway) == 0
    for connection in kept:
        connection.close()


def asked(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> int:
    """The status of the answer to a request on an open connection."""
    connection.auto_open = 0
    if connection.sock is None:
        connection.connect()
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def test_an_unfinished_request_does_not_delay_a_stop(tmp_path: Path, make_gateway: MakeGateway, tell: Tell) -> None:
    gateway = make_gateway(projects.make(tmp_path / "project"))
    stuck = [begun(gateway) for _ in range(8)]
    since = time.monotonic()
    assert gateway.stop() == 0
    took = time.monotonic() - since
    tell(f"SIGTERM to exit, with eight clients that send no body: {took:.2f} s")
    assert took < LIMIT
    for connection in stuck:
        connection.close()
