"""A real gateway under a mixed load for as long as asked, killed and started again; or a great many jobs at once.

    python -m tests.benchmarks.soak [--minutes 5] [--restart-every 60]
    python -m tests.benchmarks.soak --jobs 10000

The first prints the slopes of memory and descriptors, the second what is left behind; both fail at a job that ended
otherwise than it had to. Another machine prints other figures.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.benchmarks.timing import say, seconds
from tests.support import process_facts, projects
from tests.support.gateway import PATH, Gateway, wait_for
from tests.support.quick_jobs import JOBS_API, at_rest, ended, pid, quick_project, run_quick, settled, warm_up

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SAMPLED_EVERY = 2.0
LAST = 400_000  # line of a chatty job, which so writes 2.7 MB

# What a job does is told by a file, since one trigger is like another. Each counts that it ran.
INGESTER = f"""
    echo run >> runs
    case $(cat mood) in
        short) echo done;;
        failing) echo sorry; exit 3;;
        chatty) seq 1 {LAST};;
        cancelled) echo waiting; until [ -e go ]; do sleep 0.05; done;;
    esac
"""
# (status, exitCode, reason, the last line)
ENDINGS = {
    "short": ("completed", 0, None, "done"),
    "failing": ("completed", 3, None, "sorry"),
    "chatty": ("completed", 0, None, str(LAST)),
    "cancelled": ("failed", -1, "cancelled", "waiting"),
}
# What others ask meanwhile, and the status that it must be answered with; {job} is the job that runs, or ran last.
ASKED = (
    ("GET", f"{PATH}?jobId={{job}}", None, 200),
    ("GET", PATH, None, 200),
    ("POST", PATH, b"{}", 400),
    ("POST", PATH, b'{"pipeline": "nonsense"}', 400),
    ("POST", PATH, b'{"pipeline": ', 400),
    ("GET", f"{JOBS_API}/{{job}}?wait=1", None, 200),
    ("GET", f"{PATH}?jobId=nobody-1-abcdef", None, 404),
    ("GET", "/nowhere", None, 404),
    ("GET", "/healthz", None, 200),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the mixed load goes on")
    parser.add_argument("--restart-every", type=float, default=MINUTE, metavar="SECONDS", help="SIGTERM and SIGKILL")
    parser.add_argument("--jobs", type=int, help="this many quick jobs on two resources instead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.jobs is not None:
            _count(Path(name), given.jobs)
        else:
            _soak(Path(name), given.minutes * MINUTE, given.restart_every)


def _count(folder: Path, jobs: int) -> None:
    with _running(quick_project(folder / "project")) as gateway:
        before, taken = warm_up(gateway), process_facts.memory(pid(gateway)).heap
        elapsed = seconds(lambda: run_quick(gateway, jobs))
        after = settled(gateway, before)
        say(f"{jobs:,} jobs in {elapsed:.0f} s, {elapsed / jobs * 1000:.1f} ms each; every one ended as it must")
        say(f"memory                 {taken:.1f} MB before, {process_facts.memory(pid(gateway)).heap:.1f} MB after")
        _say_left("before", before, [])
        _say_left("after", after, process_facts.of_steps(gateway.state))
        gateway.kill()
        say(f"SIGKILL, to serving    {seconds(gateway.start) * 1000:.0f} ms")


@dataclass(frozen=True)
class Sample:
    """The gateway at a moment. life: which process it was, by its number."""

    at: float
    life: int
    rss: float
    heap: float
    descriptors: int


class Bystanders:
    """Two threads beside the load: one that asks, and one that takes samples; both to be ended."""

    def __init__(self, gateway: Gateway) -> None:
        self.job = ""  # the one that runs, or ran last
        self.answers: Counter[int] = Counter()
        self.broken = 0  # requests, by a restart
        self.wrong: list[str] = []
        self.samples: list[Sample] = []
        self._gateway = gateway
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._sample)]

    def start(self) -> None:
        """Begin, once there is a job."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End both, at once or a request later."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        number = 0
        while not self._over.wait(0.02):
            method, path, body, expected = ASKED[number % len(ASKED)]
            number += 1
            try:
                answer = self._gateway.call(method, path.format(job=self.job), body)
            except (OSError, HTTPException):
                self.broken += 1
                continue
            self.answers[answer.status] += 1
            if answer.status != expected:
                self.wrong.append(f"{method} {path} for {self.job}: {answer.status}, {answer.body[:300]!r}")

    def _sample(self) -> None:
        while not self._over.wait(SAMPLED_EVERY):
            process = self._gateway.process
            if process is None:
                continue  # it is being started again
            try:
                taken, descriptors = process_facts.memory(process.pid), process_facts.descriptors(process.pid)
            except (OSError, KeyError):  # it was ended this very moment
                continue
            self.samples.append(Sample(time.monotonic(), process.pid, taken.rss, taken.heap, descriptors))


def _soak(folder: Path, duration: float, restart_every: float) -> None:
    with _running(_mixed_project(folder / "project")) as gateway:
        bystanders = Bystanders(gateway)
        ran: Counter[str] = Counter()
        restarts: Counter[str] = Counter()
        end, restart = time.monotonic() + duration, time.monotonic() + restart_every
        try:
            while time.monotonic() < end:
                mood = _mood(ran.total())
                job = bystanders.job = _trigger(gateway, mood)
                if ran.total() == 0:
                    bystanders.start()
                if time.monotonic() >= restart:
                    restarts[_restart(gateway, restarts.total())] += 1
                    restart = time.monotonic() + restart_every
                _see_to_its_end(gateway, job, mood)
                ran[mood] += 1
        finally:
            if ran or bystanders.job:
                bystanders.end()
        _report(gateway, bystanders, ran, restarts, duration)


def _mixed_project(folder: Path) -> Path:
    """Records leave the list and then the disk within minutes, so that the soak soon has all that it will ever have."""
    made = projects.make(
        folder,
        settings={
            "trigger_rate": 1000,
            "job_ttl": MINUTE,
            "record_days": 2 * MINUTE / DAY,
            "projects": {"small": {"dbt": "transform", "ingester": {"command": ["sh", "ingest.sh"]}}},
        },
    )
    projects.write(made / "ingest.sh", INGESTER)
    return made


def _mood(number: int) -> str:
    if number % 50 == 25:
        return "chatty"
    if number % 20 == 10:
        return "cancelled"
    return "failing" if number % 10 == 5 else "short"


def _trigger(gateway: Gateway, mood: str) -> str:
    (gateway.folder / "mood").write_text(mood, encoding="utf-8")
    return gateway.trigger(pipeline="ingester")


def _restart(gateway: Gateway, number: int) -> str:
    if number % 2:
        gateway.kill()
    else:
        code = gateway.stop()
        assert code == 0, f"SIGTERM ended it with code {code}"
    gateway.start()
    return "SIGKILL" if number % 2 else "SIGTERM"


def _see_to_its_end(gateway: Gateway, job: str, mood: str) -> None:
    if mood == "cancelled":
        wait_for(lambda: "waiting" in gateway.poll(job)["output"], f"the output of {job}")
        refused = gateway.call("POST", PATH, {"pipeline": "ingester"})
        assert (refused.status, refused.json["conflict"]["jobId"]) == (409, job), refused
        assert gateway.call("POST", f"{JOBS_API}/{job}/cancel").status in (200, 202)
    ended(gateway, job)
    record = gateway.poll(job)
    last = record["output"].rstrip("\n").rpartition("\n")[2]
    ending = record["status"], record["exitCode"], record.get("reason"), last
    assert ending == ENDINGS[mood], f"a {mood} job ended as {ending}: {record}"


def _report(
    gateway: Gateway, bystanders: Bystanders, ran: Counter[str], restarts: Counter[str], duration: float
) -> None:
    runs = len((gateway.folder / "runs").read_text().splitlines())
    assert runs == ran.total(), f"{ran.total()} jobs, and {runs} runs of their steps"
    assert not bystanders.wrong, bystanders.wrong
    active = [job["jobId"] for job in gateway.call("GET", PATH).json["jobs"] if job["phase"] != "ended"]
    assert not active, active
    say(f"jobs in {duration / MINUTE:g} min{ran.total():12,}: {_counted(ran)}; every one ran once and ended right")
    say(f"restarts               {restarts.total()} ({_counted(restarts)})")
    say(f"answers to others      {_counted(bystanders.answers)}; broken by a restart: {bystanders.broken}")
    samples = bystanders.samples
    for what, unit in (("rss", " MB"), ("heap", " MB"), ("descriptors", "")):
        say(f"{what:22} {_slopes(what, unit, samples)}")
    _say_left("at the end", at_rest(gateway), process_facts.of_steps(gateway.state))


def _slopes(what: str, unit: str, samples: Sequence[Sample]) -> str:
    """The least squares of a figure over the whole time, and over the second halves of all lifetimes together."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.life, []).append(sample)
    late = [life[len(life) // 2 :] for life in lives.values()]  # a young process still grows
    points = [[(sample.at, float(getattr(sample, what))) for sample in life] for life in late]
    if not any(len(life) > 1 for life in points):
        return "too few samples"
    overall = _slope([point for life in points for point in life])
    within = _slope([point for life in points for point in _centred(life)])
    ends = ", ".join(f"{getattr(life[-1], what):.0f}" for life in list(lives.values())[-12:])
    return f"{overall:+.2f}{unit}/h, within a lifetime {within:+.2f}{unit}/h; the last of each lifetime: {ends}{unit}"


def _slope(points: Sequence[tuple[float, float]]) -> float:
    return statistics.linear_regression([at for at, _ in points], [figure for _, figure in points]).slope * HOUR


def _centred(points: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    at = statistics.fmean(moment for moment, _ in points)
    middle = statistics.fmean(figure for _, figure in points)
    return ((moment - at, figure - middle) for moment, figure in points)


@contextmanager
def _running(folder: Path) -> Iterator[Gateway]:
    gateway = Gateway(folder)
    try:
        yield gateway.start()
    finally:
        (folder / "go").touch()  # whatever happened, no step stays behind
        wait_for(lambda: not process_facts.of_steps(gateway.state), "the end of all steps")
        gateway.stop()


def _say_left(when: str, held: process_facts.Facts, alive: Sequence[str]) -> None:
    say(
        f"{when:22} {held.threads} threads, {len(held.descriptors)} descriptors, {held.zombies} zombies, "
        f"{len(alive)} processes of steps"
    )


def _counted(counter: Counter[Any]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in sorted(counter.items(), key=str)) or "none"


if __name__ == "__main__":
    main()
