"""Runs dbt in forks of a process that has imported it once: most of the CPU time of a short command goes there.

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
from contextlib import suppress
from functools import cache
from typing import Any

_IMPORTED = ("dbt.cli.main", "dbt.adapters.duckdb", "dbt.include.duckdb", "dbt.parser.sql", "dbt.task.build")
# classes whose JSON Schemas dbt makes once in each process, before it checks the first object of the class
_CHECKED = {
    "dbt.adapters.duckdb.credentials": ("DuckDBCredentials",),
    "dbt.artifacts.resources": ("ModelConfig", "TestConfig"),
    "dbt.contracts.graph.nodes": ("GenericTestNode", "ModelNode", "SingularTestNode"),
    "dbt.contracts.graph.unparsed": ("UnparsedModelUpdate",),
    "dbt.contracts.project": ("Configuration", "PackageConfig", "Project", "ProjectFlags"),
    "dbt.contracts.selection": ("SelectorFile",),
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
    """Do, once, what each process of dbt would do first."""
    for name in _IMPORTED:
        importlib.import_module(name)
    for name, classes in _CHECKED.items():
        for found in classes:
            getattr(importlib.import_module(name), found).json_schema()
    gc.freeze()


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
