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
from pathlib import Path

from tests.benchmarks.timing import compare, say, seconds
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
        by_hand.append(seconds(lambda: _build_by_hand(project)))
        triggered.append(seconds(lambda: _build_through(gateway)))
    compare("dbt build", by_hand[1:], triggered[1:])
    job = gateway.trigger(pipeline="ingester")
    gateway.finished(job)
    health = statistics.median(seconds(lambda: gateway.call("GET", "/healthz")) for _ in range(200))
    poll = statistics.median(seconds(lambda: gateway.poll(job)) for _ in range(200))
    say(f"GET /healthz           {health * 1000:.2f} ms")
    say(f"poll of an ended job   {poll * 1000:.2f} ms, {poll / health:.1f} times that")


def _build_by_hand(project: Path) -> None:
    folder = project / "transform"
    argv = [str(DBT), "build", f"--project-dir={folder}", f"--profiles-dir={folder}", f"--log-path={project / 'logs'}"]
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DO_NOT_TRACK": "1"})


def _build_through(gateway: Gateway) -> None:
    record = gateway.run(pipeline="dbt", command="build")
    if record["exitCode"] != 0:
        raise SystemExit(f"the build failed: {record}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
