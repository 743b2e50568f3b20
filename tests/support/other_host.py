"""The gateway as `pipeline-gateway serve` runs it, on a host whose clock or boot is another, by variables.

TEST_CLOCK: a file with the seconds that the wall clock is wrong by; it is read at each look at the clock, also by the
supervisors, so the clock jumps when it is written. TEST_BOOT: the id of this boot; the uptime begins with the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from gateway import clock
from gateway.cli import main as cli
from runners.detached import shim_files
from runners.detached import supervisor as process
from tests.support.dying_gateway import PATCHED_SHIM


def _set_clock(file: Path) -> None:
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + float(file.read_text())
    time.time_ns = lambda: nanoseconds() + int(float(file.read_text()) * 1e9)
    process._SHIM = str(PATCHED_SHIM)


def _set_boot(boot: str) -> None:
    real, began = time.clock_gettime, time.clock_gettime(time.CLOCK_BOOTTIME)
    time.clock_gettime = lambda which: real(which) - (began if which == time.CLOCK_BOOTTIME else 0)
    clock._boot = lambda: boot  # type: ignore[assignment]  # the real one has a cache that the gateway never clears
    shim_files.boot = lambda: boot


def main(_: Sequence[str] = ()) -> int:
    """Serve until SIGTERM; the exit code."""
    if file := os.environ.get("TEST_CLOCK"):
        _set_clock(Path(file))
    if boot := os.environ.get("TEST_BOOT"):
        _set_boot(boot)
    return cli.main(["serve"])
