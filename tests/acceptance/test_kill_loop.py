"""The kill loop: SIGKILL at random instants under four clients; no job is lost, repeated, wrong, unordered or stuck.

`--kills N` sets the number of kills, `KILL_LOOP_SEED` repeats the random choices of an earlier run.
"""

from __future__ import annotations

import os
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runners.detached.supervisor import MARKER
from runners.output import OutputRing
from tests.conftest import Tell
from tests.support.gateway import PATH, wait_for
from tests.support.kill_loop import CLIENTS, PROGRAMS, KillLoop, Wanted

GOAL = 0.3  # seconds from a kill to the next gateway's first answer, in the median
SHOWN = 10_240
_TOLD = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kills = int(metafunc.config.getoption("--kills"))
    limit = pytest.mark.timeout(600 + 10 * kills)
    metafunc.parametrize("kills", [pytest.param(kills, marks=limit)])


def test_kills_at_random_instants_lose_repeat_or_block_no_job(tmp_path: Path, kills: int, tell: Tell) -> None:
    seed = int(os.environ.get("KILL_LOOP_SEED", random.randrange(10**9)))
    loop = KillLoop(tmp_path / "project", seed)
    try:
        loop.run(kills)
        audit = Audit(loop)
        audit.run()
    except BaseException as error:
        error.add_note(f"KILL_LOOP_SEED={seed}")
        raise
    finally:
        loop.gateway.stop()
    tell(audit.tally(seed))
    assert not any(audit.faults.values()), audit.report(seed)
    assert audit.lived_through_a_kill, "no step was disturbed"
    assert loop.ledger.queued, "no job waited"
    assert min(loop.to_serving) < 10 * GOAL  # the run that a busy machine disturbed least


class Turn(NamedTuple):
    """When a job held a resource, in epoch seconds."""

    came: float
    began: float
    ended: float
    job: str


class Audit:
    """The outcome of every job, from the gateway's records and from the files that the steps left."""

    def __init__(self, loop: KillLoop) -> None:
        self.faults: dict[str, list[str]] = {"lost": [], "run twice": [], "wrong": [], "stuck": []}
        self._loop = loop
        self._gateway = loop.gateway
        self._ledger = loop.ledger
        self._runs: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._unanswered = 0
        self._lived: Counter[str] = Counter()
        self._turns: dict[str, list[Turn]] = {}

    def run(self) -> None:
        """Wait for the end of all jobs, then check each."""
        self._wait_for_all_ends()
        self._runs = Counter({file.name: file.read_text().count("run\n") for file in self._runs_folder.iterdir()})
        for job in sorted(self._known()):
            self._look_at(job)
        for label, jobs in self._labels.items():
            if jobs > 1 and label != "ingester":
                self._fault("run twice", label, f"one request made {jobs} jobs")
        for resource, turns in self._turns.items():
            for before, after in pairwise(sorted(turns)):
                if after.began < before.ended:
                    self._fault(
                        "wrong", after.job, f"began before {before.job} had ended, which came first to {resource}"
                    )
        self.faults["wrong"] += self._ledger.surprises

    def tally(self, seed: int) -> str:
        """The summary to print."""
        loop, lived = self._loop, self._lived
        instants = ", ".join(f"{number} while {instant}" for instant, number in loop.instants.items())
        faults = ", ".join(f"{len(report)} {kind}" for kind, report in self.faults.items())
        median, most = (1000 * seconds for seconds in (statistics.median(loop.to_serving), max(loop.to_serving)))
        return f"""\
kill loop: {sum(loop.instants.values())} kills ({instants}; KILL_LOOP_SEED={seed}) under {CLIENTS} clients
jobs: {len(self._ledger.accepted)} accepted, {len(self._ledger.queued)} of them queued, \
{self._unanswered} more whose answer was lost, \
{len(self._ledger.conflicts)} refused for conflicts, {len(self._ledger.cancelled)} cancelled
steps: {lived["run"]} run, {lived["re-attached"]} re-attached, {lived["ended"]} ended while no gateway was there, \
{lived["late"]} started by a later gateway
{faults}
kill to serving: median {median:.0f} ms, max {most:.0f} ms of {len(loop.to_serving)}"""

    def report(self, seed: int) -> str:
        """The tally and the first faults of each kind."""
        faults = (f"{kind}: {one}" for kind, report in self.faults.items() for one in report[:_TOLD])
        return "\n\n".join((self.tally(seed), *faults))

    @property
    def lived_through_a_kill(self) -> int:
        """Steps that were due or alive when a gateway was killed."""
        return self._lived["re-attached"] + self._lived["ended"] + self._lived["late"]

    @property
    def _jobs_folder(self) -> Path:
        return self._gateway.state / "jobs"

    @property
    def _runs_folder(self) -> Path:
        return self._loop.folder / "runs"

    def _fault(self, kind: str, job: str, what: str) -> None:
        self.faults[kind].append(f"{job}: {what}")

    def _listed(self) -> dict[str, dict[str, Any]]:
        return {job["jobId"]: job for job in self._gateway.call("GET", PATH).json["jobs"]}

    def _wait_for_all_ends(self) -> None:
        with suppress(AssertionError):  # stuck jobs are reported one by one
            wait_for(lambda: all(job["phase"] == "ended" for job in self._listed().values()), "the end of all jobs")
            wait_for(lambda: not alive(self._gateway.state), "the end of all that was started")
        self.faults["stuck"] += [f"{folder}: something of it is alive" for folder in alive(self._gateway.state)]

    def _known(self) -> set[str]:
        """All jobs that a client, the list, a conflict, the disk or a step that ran has named."""
        ran = {name.rpartition(".")[0] for name in self._runs}
        on_disk = {folder.name for folder in self._jobs_folder.iterdir()}
        known = {*self._listed(), *self._ledger.conflicts, *on_disk, *ran}
        self._unanswered = len(known - self._ledger.accepted)
        return known | self._ledger.accepted

    def _look_at(self, job: str) -> None:
        answer = self._gateway.call("GET", f"{PATH}?jobId={job}")
        if answer.status != 200:
            return self._fault("lost", job, str(answer))
        record = answer.json
        self._labels[record["pipeline"]] += 1
        if record["phase"] != "ended":
            return self._fault("stuck", job, str(outline(record)))
        for what in self._wrongs(job, record):
            self._fault("wrong", job, f"{what}; {outline(record)}")
        for name, runs in self._runs_of(job, record):
            if runs > 1:
                self._fault("run twice", job, f"{name} ran {runs} times")
        self._count_what_it_lived_through(record)
        if record["startedAt"] is not None and record["pipeline"] in self._ledger.wanted:
            came, began, ended = (seconds(record[name]) for name in ("createdAt", "startedAt", "finishedAt"))
            turn = Turn(came, began, ended, job)
            for resource in self._ledger.wanted[record["pipeline"]].resources:
                self._turns.setdefault(resource, []).append(turn)
        return None

    def _wrongs(self, job: str, record: dict[str, Any]) -> Iterator[str]:
        wanted = self._ledger.wanted.get(record["pipeline"])
        if wanted is None:
            yield "no client asked for it"
            return
        before = self._ledger.ended.get(job, record)
        if outline(before) != outline(record) or before["output"] != record["output"]:
            yield f"it had ended otherwise: {outline(before)}"
        if not self._ended_right(job, record, wanted):
            yield f"it should have ended otherwise, asked for {wanted}"
        statuses = [step["status"] for step in record["steps"]]
        for (name, runs), status in zip(self._runs_of(job, record), statuses, strict=True):
            if (status == "completed" and runs == 0) or (status in ("skipped", "pending") and runs != 0):
                yield f"{name} is {status} and ran {runs} times"
        yield from self._wrong_output(job, record, wanted)

    def _ended_right(self, job: str, record: dict[str, Any], wanted: Wanted) -> bool:
        """Whether it ended as undisturbed, or as cancelled if a client cancelled it."""
        undisturbed = steps_of(wanted)
        steps = [(step["status"], step["exitCode"]) for step in record["steps"]]
        if (record["status"], record["success"]) == ("completed", True):
            code = next((code for _, code in undisturbed if code), 0)
            cut = job in self._ledger.cut and steps[-1][0] == "completed"
            return steps == undisturbed and record["exitCode"] == code and not cut
        if (record["status"], record.get("reason"), record["exitCode"]) != ("failed", "cancelled", -1):
            return False
        done = [status for status, _ in steps].count("completed")
        rest = [status for status, _ in steps[done:]]
        stopped = rest[:1] == ["failed"]
        return (
            job in self._ledger.cancelled
            and len(steps) == wanted.steps
            and steps[:done] == undisturbed[:done]
            and rest[stopped:] == ["skipped"] * (len(rest) - stopped)
        )

    def _wrong_output(self, job: str, record: dict[str, Any], wanted: Wanted) -> Iterator[str]:
        whole = OutputRing(self._jobs_folder / job).read(0, 1 << 30).data.decode()
        if record["output"] != whole[-SHOWN:]:
            yield f"the output shown is not the tail of the whole: {record['output'][-200:]!r}"
        program = PROGRAMS[wanted.project]
        must = may = ""
        for n, step in enumerate(record["steps"], 1):
            text = program.output(f"{job}.{n}-{step['name']}")
            must += text if step["status"] == "completed" else ""
            may += text if step["status"] in ("completed", "failed") else ""
        # a stopped step printed only some of its lines
        if not (whole.startswith(must) and may.startswith(whole) and whole[-1:] in ("", "\n")):
            yield f"of {len(must)} to {len(may)} characters of output there are {len(whole)}: {whole[-200:]!r}"

    def _runs_of(self, job: str, record: dict[str, Any]) -> list[tuple[str, int]]:
        names = [f"{job}.{n}-{step['name']}" for n, step in enumerate(record["steps"], 1)]
        return [(name, self._runs[name]) for name in names]

    def _count_what_it_lived_through(self, record: dict[str, Any]) -> None:
        ready = seconds(record["createdAt"])
        for step in record["steps"]:
            if step["startedAt"] is None or step["finishedAt"] is None:
                continue
            began, ended = seconds(step["startedAt"]), seconds(step["finishedAt"])
            self._lived["run"] += 1
            gaps = self._loop.gaps
            self._lived["re-attached"] += any(began < gap.down and gap.up < ended for gap in gaps)
            self._lived["ended"] += any(began < gap.down < ended < gap.up for gap in gaps)
            self._lived["late"] += any(ready < gap.down < began for gap in gaps)
            ready = ended


def steps_of(wanted: Wanted) -> list[tuple[str, int | None]]:
    """Status and exit code of each step of an undisturbed job."""
    steps: list[tuple[str, int | None]] = []
    for code in PROGRAMS[wanted.project].codes[: wanted.steps]:
        failed = any(code for _, code in steps)
        steps.append(("skipped", None) if failed else ("completed", code))
    return steps


def outline(record: dict[str, Any]) -> dict[str, Any]:
    """How a job ended."""
    report = {name: record.get(name) for name in ("status", "success", "exitCode", "reason", "error", "finishedAt")}
    return report | {"steps": [(step["name"], step["status"], step["exitCode"]) for step in record["steps"]]}


def seconds(time: str) -> float:
    """An RFC 3339 time as epoch seconds."""
    return datetime.fromisoformat(time).timestamp()


def alive(state: Path) -> list[str]:
    """The folders of this state directory's steps that have a living process: a shim, or the step itself."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or is another user's
            variables = os.fsdecode((process / "environ").read_bytes()).split("\0")
            found += [value for name, _, value in (pair.partition("=") for pair in variables) if name == MARKER]
    return [folder for folder in found if folder.startswith(f"{state}/")]
