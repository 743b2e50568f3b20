"""Runs dbt in forks of a process that has imported it and run a command once: most of the CPU time of one goes there.

A script of the standard library and dbt, started with the descriptor of a listening socket; it ends with its stdin. It
imports dbt when the first command comes. Each connection is one command, sent by the program of quick_dbt.py: a JSON
object with the arguments, the folder and the environment, and the three standard streams. The answers are the pid of
the fork, then its exit code, each on a line. When the connection is lost, the program was killed, and so is the fork.
One thread, so that a fork is as good as a new process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_IMPORTED = (
    *("dbt.cli.main", "dbt.task.build", "dbt.task.list", "dbt.task.retry", "dbt_common.clients.agate_helper"),
    *("dbt.adapters.duckdb.environments.local", "babel.dates", "multiprocessing.dummy"),
)
# a project with something of each kind that tests have
_PROJECT = {
    "dbt_project.yml": "name: first\nversion: '1.0'\nprofile: first\n",
    "profiles.yml": "first: {target: dev, outputs: {dev: {type: duckdb}}}\n",
    "packages.yml": "packages: []\n",
    "models/one.sql": "select 1 as n",
    "models/models.yml": "models: [{name: one, columns: [{name: n, data_tests: [unique, not_null]}]}]\n",
    "tests/none.sql": "select n from {{ ref('one') }} where n > 1",
}
_STREAMS = 3


class Server:
    """What waits for commands, and for the ends of those that run."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(listening, selectors.EVENT_READ)
        self._waiting.register(sys.stdin.buffer, selectors.EVENT_READ)
        self._forks: dict[int, tuple[int, socket.socket]] = {}  # by pidfd

    def serve(self) -> int:
        """Returns when stdin ends, and in each fork with dbt's exit code."""
        while True:
            for key, _ in self._waiting.select():
                if key.fileobj is sys.stdin.buffer:
                    return 0
                if key.fileobj is self._listening:
                    request = self._begin()
                    if request is not None:
                        return _run(request)
                elif key.data is None:
                    self._end(key.fd)
                else:
                    self._kill(key.data)

    def _begin(self) -> dict[str, Any] | None:
        """Take a command; in its fork, what it is."""
        connection, _ = self._listening.accept()
        head, streams, _, _ = socket.recv_fds(connection, 8, _STREAMS)
        with connection.makefile("rb") as stream:
            request: dict[str, Any] = json.loads(stream.read(int(head)))
        _prepare()
        pid = os.fork()
        if pid == 0:
            os.setsid()  # so that its children are killed with it
            self._waiting.close()
            self._listening.close()
            connection.close()
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
        for descriptor in streams:
            os.close(descriptor)
        if pid == 0:
            return request
        connection.sendall(f"{pid}\n".encode())
        ended = os.pidfd_open(pid)
        self._forks[ended] = (pid, connection)
        self._waiting.register(ended, selectors.EVENT_READ)
        self._waiting.register(connection, selectors.EVENT_READ, pid)
        return None

    def _end(self, ended: int) -> None:
        """Tell the program how its fork ended."""
        pid, connection = self._forks.pop(ended)
        self._waiting.unregister(ended)
        os.close(ended)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(KeyError):
            self._waiting.unregister(connection)
        with suppress(OSError), connection:
            connection.sendall(f"{code}\n".encode())

    def _kill(self, pid: int) -> None:
        """The program of a fork is gone: a connection sends nothing, so it can be read when it is closed only."""
        [connection] = [connection for forked, connection in self._forks.values() if forked == pid]
        self._waiting.unregister(connection)
        os.killpg(pid, signal.SIGKILL)


@cache
def _prepare() -> None:
    """Do, once, what each process of dbt would do first, which is most of the CPU time of a short command.

    That is to import dbt, and to parse the macros that come with it; dbt's own cache for tests keeps those.
    """
    for name in _IMPORTED:
        importlib.import_module(name)
    importlib.import_module("dbt_common.tests").enable_test_caching()
    with tempfile.TemporaryDirectory() as folder:
        _parse(Path(folder))
    # the semaphores of this command go, and with them what removes the semaphores of a process that was killed
    importlib.import_module("dbt.adapters.factory").reset_adapters()
    gc.collect()
    importlib.import_module("multiprocessing.resource_tracker")._resource_tracker._stop()
    threads = [thread.name for thread in Path("/proc/self/task").iterdir()]
    assert len(threads) == 1, f"a fork has one of these threads only, and would wait for the others: {threads}"
    gc.freeze()


def _parse(folder: Path) -> None:
    """Parse the project, without the static parser, which would leave threads."""
    for name, text in _PROJECT.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    options = [f"--{name}={folder}" for name in ("project-dir", "profiles-dir", "log-path", "target-path")]
    words = ("--quiet", "--no-send-anonymous-usage-stats", "--no-static-parser", "parse", *options)
    done = importlib.import_module("dbt.cli.main").dbtRunner().invoke(list(words))
    assert done.success, done.exception


def _run(request: dict[str, Any]) -> int:
    """In the fork: what the program `dbt` does."""
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["argv"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return int(importlib.import_module("dbt.cli.main").cli() or 0)


def main() -> int:
    """Serve on the socket whose descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end this process
    return Server(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    sys.exit(main())
