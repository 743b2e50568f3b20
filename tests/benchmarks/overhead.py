"""What the gateway adds to a run: the same dbt build by hand and through a trigger, in turns, on this machine.

    python -m tests.benchmarks.overhead [ROUNDS]

Prints medians in seconds and their ratio; the next run on another machine prints others.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.support import projects
from tests.support.gateway import Gateway

DBT = Path(sys.executable).with_name("dbt")


def main(rounds: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        project = projects.make(Path(folder) / "project", settings={"enable_openlineage": False})
        gateway = Gateway(project).start()
        try:
            _report(project, gateway, rounds)
        finally:
            gateway.stop()


def _report(project: Path, gateway: Gateway, rounds: int) -> None:
    by_hand: list[float] = []
    triggered: list[float] = []
    for _ in range(rounds + 1):  # the first of each parses anew and does not count
        by_hand.append(_seconds(lambda: _build_by_hand(project)))
        triggered.append(_seconds(lambda: _build_through(gateway)))
    hand, gate = statistics.median(by_hand[1:]), statistics.median(triggered[1:])
    _say(f"dbt build by hand      {hand:.2f} s")
    _say(f"dbt build triggered    {gate:.2f} s, {gate / hand:.2f} times that, {gate - hand:+.2f} s")
    job = gateway.trigger(pipeline="ingester")
    gateway.finished(job)
    health = statistics.median(_seconds(lambda: gateway.call("GET", "/healthz")) for _ in range(200))
    poll = statistics.median(_seconds(lambda: gateway.poll(job)) for _ in range(200))
    _say(f"GET /healthz           {health * 1000:.2f} ms")
    _say(f"poll of an ended job   {poll * 1000:.2f} ms, {poll / health:.1f} times that")


def _build_by_hand(project: Path) -> None:
    folder = project / "transform"
    argv = [str(DBT), "build", f"--project-dir={folder}", f"--profiles-dir={folder}", f"--log-path={project / 'logs'}"]
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DO_NOT_TRACK": "1"})


def _build_through(gateway: Gateway) -> None:
    record = gateway.run(pipeline="dbt", command="build")
    if record["exitCode"] != 0:
        raise SystemExit(f"the build failed: {record}")


def _seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
