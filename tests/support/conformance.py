"""Has schemathesis try a running gateway by its own /openapi.json. More requests than the suite makes, by hand:

    python -m tests.support.conformance REQUESTS [SEED]

What the requests are made of is told in schemathesis.toml.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.settings import tokens
from gateway.settings.tokens import Scope
from tests.support import openapi, projects
from tests.support.gateway import Gateway
from tests.support.source import ROOT

SEED = 20260131  # the program prints it
_PROGRAM = Path(sys.executable).with_name("schemathesis")
_FEW = 2  # operations that take nothing, of which there are few different requests
_FAST = {"trigger_rate": 100_000, "trigger_burst": 100_000}  # which nothing here is about


@dataclass(frozen=True)
class Tried:
    """How many requests were sent, and what the program printed; its exit code is not 0 where one failed."""

    requests: int
    exit_code: int
    text: str


def project(folder: Path) -> tuple[Path, str]:
    """A project whose only pipeline is an instant command, and a token for it."""
    settings = {
        **_FAST,
        "tokens_file": "tokens",
        "fabrics": {"1": {}},
        "projects": {"1": {"ingester": {"command": ["true"]}, "pipelines": {"nightly": {"ingester": True}}}},
    }
    made = projects.make(folder, settings=settings)
    return made, tokens.create(made / "tokens", "schemathesis", Scope.ADMIN, datetime.now(UTC), None)


def attempt(gateway: Gateway, token: str, requests: int, seed: int = SEED) -> Tried:
    """At least so many requests from a seed."""
    headers = {"X-AUTH-TOKEN": token}
    job = gateway.call("POST", "/api/v1/jobs", {"pipeline": "nightly"}, headers).json["jobId"]
    assert gateway.call("GET", f"/api/v1/jobs/{job}?wait=60&until=ended", headers=headers).json["exitCode"] == 0
    document, report = gateway.folder / "openapi.json", gateway.folder / "report.json"
    described = openapi.strict(gateway.call("GET", "/openapi.json", headers=headers).json)
    document.write_text(json.dumps(described), "utf-8")
    options = {
        "--phases": "examples,coverage,fuzzing",
        "--max-examples": str(1 + requests // (len(openapi.operations(described)) - _FEW)),
        "--seed": str(seed),
        "--generation-database": "none",
        "--report-json-path": str(report),
    }
    done = subprocess.run(
        [
            *(_PROGRAM, "--no-color", "--config-file", ROOT / "tests/support/schemathesis.toml"),
            *("run", str(document), "--url", gateway.base),
            *(word for option in options.items() for word in option),
        ],
        cwd=gateway.folder,
        env={**os.environ, "TOKEN": token, "JOB": job},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done
    return Tried(json.loads(report.read_text("utf-8"))["test_cases"]["generated"], done.returncode, done.stdout)


def main() -> int:
    """Try as many requests as the first argument says, from the seed of the second."""
    requests, *seed = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        made, token = project(Path(folder) / "project")
        gateway = Gateway(made, installed=True).start()
        try:
            tried = attempt(gateway, token, requests, *seed)
        finally:
            gateway.stop()
    sys.stdout.write(tried.text)
    return tried.exit_code


if __name__ == "__main__":
    sys.exit(main())
