"""The installed command, run to its end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.gateway import COMMAND, DEADLINE

Done = subprocess.CompletedProcess[str]
CONFIGURATION, STATE = 78, 73


def run(*arguments: str | Path, cwd: Path, **environment: str) -> Done:
    """Run the command in a folder."""
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def says(done: Done, code: int, *told: str) -> None:
    """It ended with this code and readable lines that say these things."""
    assert done.returncode == code, done
    for word in told:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
