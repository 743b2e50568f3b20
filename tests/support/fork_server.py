"""Forks gateways from a process that has imported them once, so that a start costs no import; starts programs too.

It reads one JSON object per line from stdin and answers each with one on stdout; it ends with its stdin. See forks.py.
One thread and no event loop, so that a fork is as good as a new process. It reaps a child only when it is asked to, so
that the child's pid stays its own until then. It is no child of the tests, some of which look at their own children.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

_IMPORTED = ("gateway.cli.main", "tests.support.dying_gateway", "tests.support.other_host")


def main() -> int:
    """Serve requests. Returns at the end of stdin, and in each child with the child's exit code."""
    if os.fork() > 0:
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end this process
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "reap" in request:
            _answer(_reap(request["reap"]))
        elif (pid := os.fork()) > 0:
            _answer(pid)
        else:
            return _run(request)
    return 0


def _answer(value: int | None) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


def _reap(pid: int) -> int | None:
    """The exit code of a child as subprocess has it; None where it is alive."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _run(request: Mapping[str, Any]) -> int:
    """In the child: become what a new process of that command or module would be, and run it."""
    _redirect(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        _redirect(os.open(request[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "command" in request:
        os.execvp(request["command"][0], request["command"])
    sys.argv = [request["module"], *request["arguments"]]
    return int(importlib.import_module(request["module"]).main(request["arguments"]))


def _redirect(descriptor: int, to: int) -> None:
    os.dup2(descriptor, to)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
