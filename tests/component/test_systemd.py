"""The protocol with systemd over real sockets; tests/acceptance runs under systemd itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web

from gateway import systemd
from gateway.app import STORE
from tests.support import access, api, projects
from tests.support.api import until
from tests.support.gateway import COMMAND, DEADLINE, PATH, Gateway

# systemd passes descriptors from 3 on, and LISTEN_PID names the process that they are for
LAUNCHER = """
import os, sys
for number, given in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(given, number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
SHOWS_WHAT_IT_HAS = """
    import json, os, pathlib
    links = [os.readlink(link) for link in pathlib.Path("/proc/self/fd").iterdir() if link.exists()]
    print(json.dumps({"links": links, "names": sorted(os.environ)}))
"""


INTERVAL = 0.05  # seconds between two watchdog signals
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n"


class Activated(Gateway):
    """A gateway that gets its sockets passed."""

    def __init__(self, folder: Path, listeners: list[socket.socket], environment: Mapping[str, str]) -> None:
        super().__init__(folder, {"LISTEN_FDS": str(len(listeners)), **environment})
        self._listeners = listeners

    def launch(self) -> None:
        """Start it without waiting."""
        self._begin_log()
        given = [one.fileno() for one in self._listeners]
        numbers = ",".join(map(str, given))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, numbers, str(COMMAND), "serve"],
                cwd=self.folder,
                env=self.environment,
                stderr=log,
                pass_fds=given,
            )


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    """Both loopback addresses, on one port."""
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::1", four.getsockname()[1]))
        four.listen(1024)
        six.listen(1024)
        yield [four, six]


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.settimeout(DEADLINE)
        ear.bind(str(tmp_path / "notify"))
        yield ear


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_notify_reaches_both_kinds_of_sockets(tmp_path: Path, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0{name}" if abstract else name)
        systemd.notify({"NOTIFY_SOCKET": f"@{name}" if abstract else name}, "READY=1\nSTATUS=Serving")
        assert ear.recv(1024) == b"READY=1\nSTATUS=Serving"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nonexistent/notify"}])
def test_notify_without_a_listener_is_harmless(environment: dict[str, str]) -> None:
    systemd.notify(environment, "READY=1")


def test_notify_does_not_block_if_systemd_does_not_read(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf, socket.socket(deaf.family, deaf.type) as talker:
        deaf.bind(name)
        talker.connect(name)
        talker.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                talker.send(b"WATCHDOG=1")
        sending = threading.Thread(target=systemd.notify, args=({"NOTIFY_SOCKET": name}, "WATCHDOG=1"))
        sending.start()
        sending.join(DEADLINE / 10)
        waits = sending.is_alive()
        deaf.close()  # ends a blocked send
        sending.join()
        assert not waits


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_a_watchdog_counts_only_if_it_is_meant_for_this_process(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert systemd.watchdog(environment) == seconds


@pytest.mark.parametrize("environment", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}])
def test_sockets_passed_to_another_process_are_ignored(environment: dict[str, str]) -> None:
    assert systemd.sockets(environment) == []


def test_passed_sockets_are_not_inherited_by_programs_it_executes(listeners: list[socket.socket]) -> None:
    shows = "import os\nfrom gateway import systemd\nfound = systemd.sockets(os.environ)\n"
    shows += "print([(one.getsockname()[1], one.get_inheritable()) for one in found])"
    given = [one.fileno() for one in listeners]
    command = [sys.executable, "-c", LAUNCHER, ",".join(map(str, given)), sys.executable, "-c", shows]
    environment = {**os.environ, "LISTEN_FDS": "2"}
    done = subprocess.run(command, pass_fds=given, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([(listeners[0].getsockname()[1], False)] * 2)


def test_the_service_notifies_ready_watchdog_and_stopping(
    tmp_path: Path, listeners: list[socket.socket], notify_socket: socket.socket
) -> None:
    address = {"NOTIFY_SOCKET": notify_socket.getsockname(), "WATCHDOG_USEC": "200000"}
    gateway = Activated(projects.make(tmp_path / "project"), listeners, address).start()
    said = [notify_socket.recv(1024).decode() for _ in range(4)]  # the first watchdog signal may come before READY
    assert set(said) == {f"READY=1\nSTATUS=Serving on port {gateway.port}", "WATCHDOG=1"}
    assert gateway.stop() == 0
    while (last := notify_socket.recv(1024)) == b"WATCHDOG=1":
        pass
    assert last == b"STOPPING=1"


def test_systemd_hears_of_a_reload_when_it_begins_and_when_it_is_done(
    tmp_path: Path, listeners: list[socket.socket], notify_socket: socket.socket
) -> None:
    """Also of one that is refused: `systemctl reload` must not wait for ever. The sockets of systemd stay in use."""
    address = {"NOTIFY_SOCKET": notify_socket.getsockname()}
    gateway = Activated(projects.make(tmp_path / "project"), listeners, address).start()
    try:
        assert gateway.process is not None
        serving = f"READY=1\nSTATUS=Serving on port {gateway.port}"
        assert notify_socket.recv(1024).decode() == serving
        for text, said in (("enabled: true", serving), ("nonsense: 1", f"{serving}; the last reload was refused")):
            (gateway.folder / "gateway.yaml").write_text(text)
            gateway.process.send_signal(signal.SIGHUP)
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", notify_socket.recv(1024).decode())
            assert notify_socket.recv(1024).decode().startswith(said)
            assert gateway.call("GET", PATH).status == 200
    finally:
        gateway.stop()


async def test_no_watchdog_signal_is_sent_while_the_database_is_silent(
    tmp_path: Path, notify_socket: socket.socket
) -> None:
    address = {"NOTIFY_SOCKET": notify_socket.getsockname(), "WATCHDOG_USEC": str(int(2e6 * INTERVAL))}
    app = api.app(projects.make(tmp_path / "project"), address)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        assert await until(lambda: watchdog_signals(notify_socket), "a watchdog signal")
        reader = app[STORE]._reader
        asking = asyncio.create_task(reader.execute_fetchall(ENDLESS))
        # timers of one loop fire in order, so a signal that was due would be sent before this continues
        await asyncio.sleep(10 * INTERVAL)
        await watchdog_signals(notify_socket)
        await asyncio.sleep(10 * INTERVAL)
        assert not await watchdog_signals(notify_socket)
        await reader.interrupt()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await asking
        assert await until(lambda: watchdog_signals(notify_socket), "a watchdog signal")
    finally:
        await runner.cleanup()


async def watchdog_signals(ear: socket.socket) -> int:
    """The number of watchdog signals since the last call."""
    ear.setblocking(False)
    signs = 0
    with contextlib.suppress(BlockingIOError):
        while ear.recv(1024) == b"WATCHDOG=1":
            signs += 1
    return signs


def test_passed_sockets_take_precedence_over_the_configured_port(
    tmp_path: Path, listeners: list[socket.socket]
) -> None:
    gateway = Activated(projects.make(tmp_path / "project"), listeners, {"PORT": "1"}).start()
    assert gateway.port == listeners[0].getsockname()[1]
    assert gateway.call("GET", PATH).status == 200
    with socket.create_connection(("::1", gateway.port), timeout=DEADLINE) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.0 200 ")
    assert gateway.stop() == 0


def test_steps_inherit_neither_the_sockets_nor_systemds_variables(
    tmp_path: Path, listeners: list[socket.socket], notify_socket: socket.socket
) -> None:
    folder = projects.make(tmp_path / "project", ingester=SHOWS_WHAT_IT_HAS)
    said = {"NOTIFY_SOCKET": notify_socket.getsockname(), "WATCHDOG_USEC": "30000000"}
    gateway = Activated(folder, listeners, said).start()
    record = gateway.run(pipeline="ingester")
    assert record["exitCode"] == 0
    sockets = [f"socket:[{os.fstat(one.fileno()).st_ino}]" for one in listeners]
    assert '"links": [' in record["output"]
    assert [name for name in [*sockets, "LISTEN_", "NOTIFY_", "WATCHDOG_"] if name in record["output"]] == []
    assert gateway.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_connection_made_between_two_services_is_served_by_the_next(
    tmp_path: Path, listeners: list[socket.socket], number: signal.Signals
) -> None:
    gateway = Activated(projects.make(tmp_path / "project"), listeners, {}).start()
    assert gateway.process is not None
    gateway.process.send_signal(number)
    gateway.process.wait(DEADLINE)
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(gateway.call, "GET", PATH)
        gateway.start()
        assert early.result(DEADLINE).status == 200
    assert gateway.stop() == 0


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")])
def test_a_socket_that_other_hosts_can_reach_is_refused(
    tmp_path: Path, family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as open_to_all:
        open_to_all.bind((address, 0))
        open_to_all.listen()
        gateway = Activated(projects.make(tmp_path / "project"), [open_to_all], {})
        gateway.launch()
        assert gateway.process is not None
        assert gateway.process.wait(DEADLINE) == 78
        assert f"Other hosts may reach {address}" in gateway.log.read_text()


def test_with_tokens_a_socket_that_other_hosts_can_reach_is_served(tmp_path: Path) -> None:
    project = access.project(tmp_path / "project")
    with socket.socket() as open_to_all:
        open_to_all.bind(("0.0.0.0", 0))
        open_to_all.listen()
        gateway = Activated(project.folder, [open_to_all], {}).start()
        assert gateway.call("GET", PATH).status == 401
        assert gateway.call("GET", PATH, headers={"X-AUTH-TOKEN": project.tokens["read"]}).status == 200
        assert gateway.stop() == 0


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        gateway = Activated(projects.make(tmp_path / "project"), [listener], {}).start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(str(tmp_path / "socket"))
            connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.0 200 ")
        assert gateway.stop() == 0
