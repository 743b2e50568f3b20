"""Processes that are forks of a server which has imported the gateway: see fork_server.py."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.source import ROOT


class Process(Protocol):
    """What tests use of a process; subprocess.Popen is one."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...


class Fork:
    """A forked process. It is a grandchild of the tests, and the server reports how it ended."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._code: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it is alive."""
        if self._code is None:
            self._code = self._server.ask({"reap": self.pid})
            if self._code is not None:
                os.close(self._descriptor)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code once it has ended. Raises subprocess.TimeoutExpired."""
        if self._code is None and not select.select([self._descriptor], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it is known to have ended."""
        if self._code is None:
            os.kill(self.pid, sig)


class ForkServer:
    """The server, started with the first process that is wanted of it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def fork(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        stderr: Path,
        stdout: Path | None = None,
    ) -> Fork:
        """Run `main(arguments)` of a module in a process of its own. What it prints is appended to the files."""
        return self._start(folder, environment, stderr, stdout or stderr, module=module, arguments=arguments)

    def execute(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Fork:
        """Run a program in the same way. It is no child of the tests, but ends with them if it asks for that."""
        return self._start(folder, environment, log, log, command=command)

    def _start(
        self, folder: Path, environment: Mapping[str, str], stderr: Path, stdout: Path, **what: str | Sequence[str]
    ) -> Fork:
        where = {"folder": str(folder), "stdout": str(stdout), "stderr": str(stderr)}
        pid = self.ask({**where, "environment": dict(environment), **what})
        assert pid is not None
        return Fork(self, pid)

    def ask(self, request: Mapping[str, Any]) -> int | None:
        """The server's answer."""
        with self._lock:
            if self._process is None:
                command = [sys.executable, "-m", "tests.support.fork_server"]
                self._process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                self._process.wait()  # it goes on without its first process
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(f"{json.dumps(request)}\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
            return answer

    def close(self) -> None:
        """End the server; what it forked goes on."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


SERVER = ForkServer()
