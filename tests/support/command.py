"""The command, run to its end: as a fork, or as it is installed where that matters."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.support.forks import SERVER
from tests.support.gateway import COMMAND, DEADLINE

Done = subprocess.CompletedProcess[str]
CONFIGURATION, STATE = 78, 73


def run(*arguments: str | Path, cwd: Path, **environment: str) -> Done:
    """Run the command in a folder: see fork_server.py."""
    given = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = (Path(folder) / name for name in ("stdout", "stderr"))
        process = SERVER.fork("gateway.cli.main", given, cwd, {**os.environ, **environment}, stderr, stdout)
        code = process.wait(DEADLINE)
        return subprocess.CompletedProcess(given, code, stdout.read_text("utf-8"), stderr.read_text("utf-8"))


def run_installed(*arguments: str | Path, cwd: Path) -> Done:
    """Run the installed command, as a new process."""
    return subprocess.run([COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=DEADLINE, check=False)


def says(done: Done, code: int, *told: str) -> None:
    """It ended with this code and readable lines that say these things."""
    assert done.returncode == code, done
    for word in told:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
