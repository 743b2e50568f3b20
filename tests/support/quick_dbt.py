"""The installed dbt, run in forks of a process that has imported it, which saves most of the CPU time of a command.

The program `dbt` in a folder of its own has a command run in such a fork; see dbt_server.py. It passes on its
arguments, folder, environment and streams, the signals that it gets, and the exit code; when it is killed, the fork is
killed. Where the variables that Python reads at its start are not the server's, it becomes the installed program.
Tests whose claim is about the program itself, or need its pace, use REAL_DBT; so do containers and the booted machine.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.support import dbt_server

REAL_DBT = Path(sys.executable).with_name("dbt")
_SERVER = Path(dbt_server.__file__)
_OF_PYTHON = ("PYTHON", "LANG", "LC_")  # names begin so of variables that Python reads at its start
_PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys

environment = dict(os.environ)
of_python = {{name: value for name, value in environment.items() if name.startswith({names!r})}}
if of_python != {variables!r}:
    os.execv({real!r}, [{real!r}, *sys.argv[1:]])
passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
umask = os.umask(0o077)
request = {{"argv": sys.argv, "folder": os.getcwd(), "environment": environment, "umask": umask}}
content = json.dumps(request).encode()
connection = socket.socket(socket.AF_UNIX)
connection.connect({socket!r})
socket.send_fds(connection, [b"%08d" % len(content)], [0, 1, 2])
connection.sendall(content)
answers = connection.makefile("r")
pid = int(answers.readline())
for number in passed_on:
    signal.signal(number, lambda number, _: os.kill(pid, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class QuickDbt:
    """The program and its server, made when the program is first wanted."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> Path:
        """The path of the program."""
        if self._folder is None:
            # not in TMPDIR: the path of a Unix socket is at most 107 bytes
            self._folder = Path(tempfile.mkdtemp(prefix="quick-dbt-", dir="/tmp"))
            self._folder.chmod(0o755)
            self._start(self._folder / "socket")
            program = self._folder / "dbt"
            variables = {name: value for name, value in os.environ.items() if name.startswith(_OF_PYTHON)}
            program.write_text(
                _PROGRAM.format(
                    python=sys.executable,
                    names=_OF_PYTHON,
                    variables=variables,
                    real=str(REAL_DBT),
                    socket=str(self._folder / "socket"),
                ),
                encoding="utf-8",
            )
            program.chmod(0o755)
        return self._folder / "dbt"

    def _start(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            listening.set_inheritable(True)
            self._server = subprocess.Popen(
                [sys.executable, "-P", _SERVER, str(listening.fileno())],  # no module, or dbt would call itself so
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
            )

    def close(self) -> None:
        """End the server; commands that still run are killed."""
        if self._server is not None and self._folder is not None:
            self._server.communicate()
            shutil.rmtree(self._folder)
            self._server = self._folder = None


QUICK_DBT = QuickDbt()


def use_in(file: Path) -> None:
    """Name it in the settings of the demo's fabric."""
    settings = yaml.safe_load(file.read_text("utf-8"))
    settings["fabrics"][1]["dbt"] = {"executable": str(QUICK_DBT.program)}
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
