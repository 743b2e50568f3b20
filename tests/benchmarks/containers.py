"""What the gateway adds to a container: the same `docker compose run` by hand and through a trigger, in turns.

    python -m tests.benchmarks.containers [ROUNDS]

Needs what the engine tests need. Prints medians in seconds and their ratio; another machine prints others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.timing import compare, seconds
from tests.support.docker import BUSYBOX_IMAGE, Engine, missing
from tests.support.gateway import Gateway
from tests.support.projects import write

# A second of work: until then a gateway that looks for an end now and then would not be found out.
WORK = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $$i; sleep 0.1; done"]


def main(rounds: int) -> None:
    """Measure and print."""
    obstacle = missing()
    if obstacle is not None:
        raise SystemExit(obstacle)
    with tempfile.TemporaryDirectory() as name:
        folder, engine = Path(name), Engine().start()
        service = {"image": BUSYBOX_IMAGE, "network_mode": "none", "command": WORK}
        write(folder / "compose.yaml", json.dumps({"services": {"ingester": service}}))
        gateway = Gateway(folder, engine.environment).start()
        try:
            _report(folder, engine, gateway, rounds)
        finally:
            gateway.stop()
            engine.close()


def _report(folder: Path, engine: Engine, gateway: Gateway, rounds: int) -> None:
    by_hand: list[float] = []
    triggered: list[float] = []
    for _ in range(rounds + 1):  # the first of each does not count
        by_hand.append(seconds(lambda: _by_hand(folder, engine)))
        triggered.append(seconds(lambda: _triggered(gateway)))
    compare("docker compose run", by_hand[1:], triggered[1:])


def _by_hand(folder: Path, engine: Engine) -> None:
    argv = ["docker", "compose", "--progress=quiet", "run", "--rm", "--no-TTY", "--no-deps", "ingester"]
    environment = {**os.environ, **engine.environment}
    subprocess.run(argv, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)


def _triggered(gateway: Gateway) -> None:
    record = gateway.run(pipeline="ingester")
    if record["exitCode"] != 0:
        raise SystemExit(f"the step failed: {record}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
