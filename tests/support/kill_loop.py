"""The kill loop: clients that trigger jobs while their gateway is killed and started again, and what they saw."""

from __future__ import annotations

import http.client
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import projects
from tests.support.gateway import DEADLINE, PATH, Answer, Gateway
from tests.support.kill_loop_gateway import SUBMIT

CLIENTS = 4
_RESOURCES = (*(f"own-{number}" for number in range(5)), "shared")  # a client has its own ones to itself
_MAY_WAIT = 0.12  # of the submitted jobs: few enough that the queue does not grow
_PAUSE = 0.03  # seconds at most that a client waits between two requests
_PATIENCE = 30.0  # seconds a client gives an answer; a killed gateway's connections end at once
_AFTER_SERVING = 0.4  # seconds at most until a gateway that serves is killed
_AFTER_EVENT = 0.03  # the same from a line of its log on that is waited for
_LOOK = 0.002
_INSTANTS = ("starting", "recovering", "accepting", *["serving"] * 3)

# Counts its runs in a file named by its folder, prints numbered lines on both streams, leaves with its turn's code.
STEP = """
    import os, sys, time
    job, step = os.environ["PIPELINE_GATEWAY_STEP"].rsplit("/", 2)[1:]
    with open(f"runs/{job}.{step}", "a") as runs:
        runs.write("run\\n")
    lines, pause, *codes = sys.argv[1:]
    for number in range(int(lines)):
        os.write(1 + number % 2, f"{job}.{step} line {number} of {lines} {'.' * (number % 80)}\\n".encode())
        time.sleep(float(pause))
    sys.exit(int(codes[int(step.partition("-")[0]) - 1]))
"""


@dataclass(frozen=True)
class Program:
    """How a step behaves: how much it prints, how slowly, and what the first, second and third step leave with."""

    lines: int
    pause: float
    codes: tuple[int, int, int]

    def output(self, name: str) -> str:
        """What a step prints, by the name of its file of runs."""
        return "".join(f"{name} line {n} of {self.lines} {'.' * (n % 80)}\n" for n in range(self.lines))


PROGRAMS = {
    "quick": Program(20, 0.001, (0, 0, 0)),
    "long": Program(160, 0.004, (0, 0, 0)),  # more than the APIs' output shows
    "first": Program(30, 0.003, (7, 0, 0)),
    "second": Program(60, 0.002, (0, 3, 0)),
    "third": Program(30, 0.005, (0, 0, 255)),
    "slow": Program(80, 0.04, (0, 0, 0)),  # outlives a start
}
DEFAULT = "quick"


@dataclass(frozen=True)
class Wanted:
    """What a client asked for."""

    project: str
    steps: int
    resources: tuple[str, ...]


@dataclass
class Ledger:
    """What all clients did and saw. Each entry is one operation on a dictionary, set or list, so no lock is needed."""

    wanted: dict[str, Wanted] = field(default_factory=lambda: {"ingester": Wanted(DEFAULT, 1, ("warehouse",))})
    accepted: set[str] = field(default_factory=set)  # ids answered 202
    queued: set[str] = field(default_factory=set)  # those of them that had to wait for their turn
    conflicts: list[str] = field(default_factory=list)  # ids of those that were in the way
    cancelled: set[str] = field(default_factory=set)  # jobs whose cancel was requested, answered or not
    cut: set[str] = field(default_factory=set)  # a cancel was answered when at least two steps had not begun
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)  # records that were shown as ended
    surprises: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """Triggers, polls, cancels and lists until it is told to stop, whether or not anybody answers."""

    def __init__(self, name: str, gateway: Gateway, ledger: Ledger, stop: threading.Event, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self._gateway = gateway
        self._ledger = ledger
        self._stopped = stop
        self._random = random.Random(f"{seed}-{name}")
        self._mine: list[str] = []
        self._count = 0

    def run(self) -> None:
        """Act at random."""
        actions: tuple[Callable[[], None], ...] = (self._submit, self._trigger, self._poll, self._cancel, self._list)
        try:
            while not self._stopped.wait(self._random.uniform(0, _PAUSE)):
                [action] = self._random.choices(actions, weights=(24, 4, 6, 2, 1))
                with suppress(ConnectionRefusedError):  # no gateway listens, so no request was made
                    action()
        except Exception:  # noqa: BLE001, whatever it is: the audit tells of it
            self._ledger.surprises.append(f"{self.name} broke: {traceback.format_exc()}")

    def _submit(self) -> None:
        self._count += 1
        label = f"{self.name}-{self._count}"
        resources = self._random.sample(_RESOURCES, self._random.choice((1, 1, 1, 2)))
        resources = [f"{self.name}-{name}" if name.startswith("own") else name for name in resources]
        wanted = Wanted(self._random.choice(list(PROGRAMS)), self._random.randint(1, 3), tuple(resources))
        self._ledger.wanted[label] = wanted
        body = {"label": label, "project": wanted.project, "steps": wanted.steps, "resources": resources}
        body["wait"] = self._random.random() < _MAY_WAIT
        self._accept(self._call("POST", SUBMIT, 202, 409, body=body))

    def _trigger(self) -> None:
        self._accept(self._call("POST", PATH, 202, 409, body={"pipeline": "ingester"}))

    def _accept(self, answer: Answer | None) -> None:
        if answer is not None and answer.status == 409:
            self._ledger.conflicts.append(answer.json["conflict"]["jobId"])
        elif answer is not None and answer.status == 202:
            self._ledger.accepted.add(answer.json["jobId"])
            self._mine.append(answer.json["jobId"])
            if answer.json.get("state") == "queued":
                self._ledger.queued.add(answer.json["jobId"])

    def _poll(self) -> None:
        if not self._mine:
            return
        job = self._random.choice(self._mine[-50:])
        answer = self._call("GET", f"{PATH}?jobId={job}", 200)
        if answer is not None and answer.json["phase"] == "ended":
            self._ledger.ended[job] = answer.json

    def _cancel(self) -> None:
        if not self._mine:
            return
        job = self._random.choice(self._mine[-3:])
        answer = self._call("POST", f"/api/v1/jobs/{job}/cancel", 200, 202)
        self._ledger.cancelled.add(job)
        if answer is None or answer.status != 202:
            return
        # one pending step may have been on its way to its runner and is stopped; those after it never begin
        if [step["status"] for step in answer.json["steps"]].count("pending") >= 2:
            self._ledger.cut.add(job)

    def _list(self) -> None:
        self._call("GET", PATH, 200)

    def _call(self, method: str, path: str, *expected: int, body: Any = None) -> Answer | None:
        """The answer; none from a gateway that dies. Raises ConnectionRefusedError where none is."""
        try:
            answer = self._gateway.call(method, path, body, timeout=_PATIENCE)
        except TimeoutError:
            self._ledger.surprises.append(f"{method} {path}: no answer within {_PATIENCE:.0f} s")
            return None
        except ConnectionRefusedError:
            raise
        except (OSError, http.client.HTTPException):
            return None
        if answer.status in expected:
            return answer
        self._ledger.surprises.append(f"{method} {path}: {answer}")
        return None


class KilledGateway(Gateway):
    """A gateway that takes any plan, and whose start can be watched."""

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self._run("tests.support.kill_loop_gateway")

    def says(self, event: str) -> bool:
        """Whether it has logged this since it was launched; fails if it has ended by itself."""
        said = self.event(event)
        if said is not None and event == "serving":
            self.port = int(said["port"])
        return said is not None

    def answers(self) -> bool:
        """Whether it serves."""
        return self.says("serving") and self.call("GET", "/healthz").status == 200


@dataclass(frozen=True)
class Gap:
    """From a kill to when the next gateway was seen serving, epoch seconds."""

    down: float
    up: float


class KillLoop:
    """Four clients, and one gateway after the other."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = projects.make(folder, ingester=STEP, settings=_settings())
        (folder / "runs").mkdir()
        self.gateway = KilledGateway(folder, {"JOB_TTL": "86400"})
        self.ledger = Ledger()
        self.to_serving: list[float] = []  # seconds from a SIGKILL to the first answer of the next gateway
        self.gaps: list[Gap] = []
        self.instants = dict.fromkeys(_INSTANTS, 0)
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._clients = [
            Client(f"client-{number}", self.gateway, self.ledger, self._stop, seed) for number in range(CLIENTS)
        ]
        self._killed = self._down = 0.0

    def run(self, kills: int) -> None:
        """Kill so many gateways; the last one stays."""
        self.gateway.launch()
        took = self._served()
        for client in self._clients:
            client.start()
        try:
            # on a slow machine clients get little done between two kills, and no job would have to wait
            _watch(lambda: bool(self.ledger.queued), "a job that waits for its turn")
            for number in range(kills):
                self._await_instant("serving" if number == 0 else self._random.choice(_INSTANTS), took)
                self._kill()
            self._served()
        finally:
            self._stop.set()
        for client in self._clients:
            client.join(_PATIENCE)
            assert not client.is_alive(), f"{client.name} hangs"

    def _await_instant(self, instant: str, start_takes: float) -> None:
        self.instants[instant] += 1
        if instant == "starting":
            time.sleep(self._random.uniform(0, 1.2 * start_takes))
        elif instant == "recovering":
            _watch(lambda: self.gateway.says("job recovered") or self.gateway.says("serving"), "a recovery")
            time.sleep(self._random.uniform(0, _AFTER_EVENT))
        elif instant == "accepting":
            self._served()
            _watch(lambda: self.gateway.says("job accepted"), "an accepted job")
            time.sleep(self._random.uniform(0, _AFTER_EVENT))
        else:
            self._served()
            time.sleep(self._random.uniform(0, _AFTER_SERVING))

    def _served(self) -> float:
        """Wait until it serves; how long it took since the last kill, or since now."""
        began = self._killed or time.monotonic()
        _watch(self.gateway.answers, "a gateway that serves")
        took = time.monotonic() - began
        if self._killed:
            self.to_serving.append(took)
            self.gaps.append(Gap(self._down, time.time()))
        self._killed = self._down = 0.0
        return took

    def _kill(self) -> None:
        assert self.gateway.process is not None
        assert self.gateway.process.poll() is None, (
            f"the gateway ended by itself: {self.gateway.log.read_text()[-5000:]}"
        )
        self._killed, self._down = time.monotonic(), self._down or time.time()
        self.gateway.kill()
        self.gateway.launch()


def _settings() -> dict[str, Any]:
    command = [sys.executable, "-I", "-S", "ingest.py"]
    programs = {
        name: [*command, *map(str, (program.lines, program.pause, *program.codes))]
        for name, program in PROGRAMS.items()
    }
    return {
        "projects": {name: {"ingester": {"command": argv}} for name, argv in programs.items()},
        "default_project": DEFAULT,
        "trigger_rate": 1000,
    }


def _watch(condition: Callable[[], bool], what: str) -> None:
    """Like `wait_for`, but it looks more often, since what is waited for is measured."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s for {what}"
        time.sleep(_LOOK)
