"""A gateway that dies where it is told to, the next one that doesn't, and what must then be true of every job."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from runners.output import OutputRing
from tests.support import process_facts, projects
from tests.support.dying_gateway import NEVER
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for
from tests.support.kill_loop_gateway import SUBMIT

JOBS_API = "/api/v1/jobs"
# Counts its runs in a file named by its folder, prints on both streams, waits as long as there is a file `hold`, and
# leaves a file that is kept.
STEP = """
    import os, pathlib, sys, time
    job, step = os.environ["PIPELINE_GATEWAY_STEP"].rsplit("/", 2)[1:]
    with open(f"runs/{job}.{step}", "a") as runs:
        runs.write("run\\n")
    for number in range(50):
        os.write(1 + number % 2, f"{step} line {number}\\n".encode())
    while pathlib.Path("hold").exists():
        time.sleep(0.01)
    os.write(1, f"{step} done\\n".encode())
    pathlib.Path(os.environ["PIPELINE_GATEWAY_STEP"], "lineage.ndjson").write_text(f"{step} left\\n" * 100_000)
    sys.exit((0, 7)[int(step.partition("-")[0]) - 1])
"""
STEPS = ("1-ingester", "2-ingester")
_TEMPORARY = re.compile(r"\.pipeline-gateway-partial$")


def output_of(step: str) -> str:
    """What a step prints, by the name of its folder."""
    return "".join(f"{step} line {number}\n" for number in range(50)) + f"{step} done\n"


class DyingGateway(Gateway):
    """Gateways on one folder, the ordinary one and those that die; its jobs have two steps and leave with 7."""

    def __init__(self, folder: Path) -> None:
        projects.make(folder, ingester=STEP, settings=_settings())
        (folder / "runs").mkdir()
        super().__init__(folder)
        self.jobs = self.state / "jobs"
        self._point, self._mark = "", folder / "died"

    def launch_until(self, point: str) -> None:
        """Start one that dies at this point, perhaps before it serves."""
        self._point = point
        self._mark.unlink(missing_ok=True)
        self._run("tests.support.dying_gateway", point, str(self._mark))

    def serve(self, point: str = NEVER) -> None:
        """Start one that takes jobs of two steps and dies at this point, and wait until it serves."""
        self.launch_until(point)
        self.serves()

    def start_elsewhere(self, **variables: str) -> None:
        """Start one on a host whose clock or boot is another, and wait until it serves: see other_host.py."""
        self._run("tests.support.other_host", **variables)
        self.serves()

    def died(self) -> None:
        """See it dead, where it was told to and by its own hand."""
        assert self.process is not None
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the point {self._point!r} was not reached:\n{self.logged()[-10_000:]}") from None
        self.process = None
        assert code == -signal.SIGKILL, self.logged()[-10_000:]
        assert self._mark.read_text() == self._point

    def supervisor_died(self) -> None:
        """See a step's supervisor dead, where it was told to."""
        wait_for(self._mark.exists, f"the point {self._point!r}")
        wait_for(lambda: self._mark.read_text() == self._point, f"the point {self._point!r}")

    def submit(self, **fields: Any) -> str | None:
        """Trigger a job of two steps; its id, none where the gateway dies over it."""
        body = {"label": "two", "project": "small", "resources": ["warehouse"], "steps": 2, **fields}
        return self._asked("POST", SUBMIT, body)

    def cancel(self, job: str) -> str | None:
        """Ask for a job's end; its id, none where the gateway dies over it."""
        return self._asked("POST", f"{JOBS_API}/{job}/cancel", None)

    def hold(self) -> None:
        """Let steps wait."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        """Let those that wait end."""
        (self.folder / "hold").unlink(missing_ok=True)

    def runs(self, job: str) -> list[int]:
        """How often each of the two steps of a job ran."""
        files = [self.folder / "runs" / f"{job}.{step}" for step in STEPS]
        return [file.read_text().count("run\n") if file.exists() else 0 for file in files]

    def output(self, job: str) -> str:
        """All that is kept of a job's output."""
        return OutputRing(self.jobs / job).read(0, 1 << 30).data.decode()

    def listed(self) -> dict[str, dict[str, Any]]:
        """The jobs of the list by id."""
        return {job["jobId"]: job for job in self.call("GET", PATH).json["jobs"]}

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None) -> str | None:
        try:
            answer = self.call(method, path, body)
        except (OSError, http.client.HTTPException):
            return None
        assert answer.status in (200, 202), answer  # 200: it has ended, as one that waited does at once
        return str(answer.json["jobId"])


def submitted(gateway: DyingGateway) -> str:
    """A job of two steps whose first one runs, and goes on as long as steps are held."""
    job = gateway.submit()
    assert job is not None
    wait_for(lambda: gateway.runs(job)[0], "the first step")
    return job


def ran_in_turn(gateway: DyingGateway, *jobs: str | None) -> None:
    """These jobs end as if no gateway had died, each begun after the end of the one before."""
    ended = ""
    for job in jobs:
        assert job is not None
        ran_undisturbed(gateway, job)
        record = gateway.poll(job)
        assert record["startedAt"] > ended, record
        ended = record["finishedAt"]


def killed(gateway: DyingGateway) -> tuple[list[str], str]:
    """Two jobs that have ended and one that runs, of a gateway that was killed."""
    gateway.serve()
    old = []
    for _ in range(2):
        job = gateway.submit()
        assert job is not None
        ran_undisturbed(gateway, job)
        old.append(job)
    gateway.hold()
    active = submitted(gateway)
    gateway.kill()
    return old, active


def ran_undisturbed(gateway: DyingGateway, job: str) -> None:
    """A job ends as if no gateway had died: each step once, its exit code, its whole output."""
    record = gateway.finished(job)
    assert _end(record) == ("completed", True, 7, None), record
    steps = [(step["name"], step["status"], step["exitCode"]) for step in record["steps"]]
    assert steps == [("ingester", "completed", 0), ("ingester", "completed", 7)], record
    assert gateway.runs(job) == [1, 1], gateway.runs(job)
    assert gateway.output(job) == "".join(map(output_of, STEPS)) == record["output"], record["output"]
    for step in STEPS:
        kept = gateway.jobs / job / step / "artifacts"
        assert sorted(file.name for file in kept.iterdir()) == ["command.json", "lineage.ndjson"]
        is_whole = (kept / "lineage.ndjson").read_text() == f"{step} left\n" * 100_000
        assert is_whole
        assert json.loads((kept / "command.json").read_bytes())["argvs"][0][-1] == "ingest.py"


def was_cancelled(gateway: DyingGateway, job: str) -> None:
    """A job ends as cancelled in its first step, which ran once; the second never began."""
    record = gateway.finished(job)
    assert _end(record) == ("failed", False, -1, "cancelled"), record
    assert [step["status"] for step in record["steps"]] == ["failed", "skipped"], record
    assert gateway.runs(job) == [1, 0], gateway.runs(job)
    assert output_of(STEPS[0]).startswith(gateway.output(job)), gateway.output(job)


def _end(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(record[name] for name in ("status", "success", "exitCode")), record.get("reason"))


def all_is_well(gateway: DyingGateway) -> None:
    """Nothing of an ended job is alive or held or in the way, the database is whole, and no temporary file is left."""
    assert all(job["phase"] == "ended" for job in gateway.listed().values())
    wait_for(lambda: not process_facts.of_steps(gateway.state), "the end of all processes")
    assert gateway.run(pipeline="ingester")["exitCode"] == 0  # needs the same resource
    assert gateway.stop() == 0
    with closing(sqlite3.connect(gateway.state / "gateway.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        held = connection.execute("SELECT * FROM claim WHERE phase <> 'over'").fetchall()
        assert not held, held
    left = [str(file) for file in gateway.state.rglob("*") if _TEMPORARY.search(file.name)]
    assert not left, left


def _settings() -> dict[str, Any]:
    command = [sys.executable, "-I", "-S", "ingest.py"]
    return {"projects": {"small": {"dbt": "transform", "ingester": {"command": command, "grace": 5}}}}
