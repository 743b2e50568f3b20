"""Many quick jobs through a real gateway, and what it holds before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.support import process_facts, projects
from tests.support.gateway import DEADLINE, PATH, Gateway, wait_for
from tests.support.process_facts import Facts

JOBS_API = "/api/v1/jobs"

T = TypeVar("T")


def quick_project(folder: Path) -> Path:
    """A project for many quick jobs: its ingester is `true`, and so, by mistake, is its dbt."""
    return projects.make(
        folder,
        settings={
            "trigger_rate": 1000,
            "fabrics": {"local": {"dbt": {"executable": "true"}}},  # each of the two has a resource of its own
            "projects": {"small": {"dbt": "transform", "ingester": {"command": ["true"]}}},
        },
    )


def run_quick(gateway: Gateway, jobs: int) -> None:
    """Run as many jobs, half of them on each resource; every one ends as it must."""

    def lane(fields: dict[str, str], number: int, *expected: Any) -> None:
        for _ in range(number):
            record = ended(gateway, gateway.trigger(**fields))
            assert (record["status"], record["exitCode"], record.get("reason")) == expected, record

    with ThreadPoolExecutor(2) as pool:
        lanes = [
            pool.submit(lane, {"pipeline": "ingester"}, jobs - jobs // 2, "completed", 0, None),
            # a dbt that exits 0 and says nothing did not run
            pool.submit(lane, {"pipeline": "dbt", "command": "deps"}, jobs // 2, "failed", -1, "not_started"),
        ]
        for one in lanes:
            one.result()


def warm_up(gateway: Gateway) -> Facts:
    """Have the gateway make all threads of its pool, by asking much at once until no more come; what it then holds."""
    job = gateway.trigger(pipeline="ingester")
    ended(gateway, job)
    with ThreadPoolExecutor(32) as pool:

        def ask(_: int) -> None:
            gateway.poll(job)
            gateway.call(
                "POST", PATH, {"pipeline": "dbt", "command": "build"}
            )  # its plan takes a thread, accepted or not

        def asked_much() -> int:
            list(pool.map(ask, range(64)))
            return _held(gateway).threads

        _calm(asked_much)
    wait_for(
        lambda: all(job["phase"] == "ended" for job in gateway.call("GET", PATH).json["jobs"]), "the end of all jobs"
    )
    run_quick(gateway, 20)
    return at_rest(gateway)


def _all_have_ended(gateway: Gateway) -> bool:
    return all(job["phase"] == "ended" for job in gateway.call("GET", PATH).json["jobs"])


def at_rest(gateway: Gateway) -> Facts:
    """What a gateway holds once that stays the same: connections of the last requests are being closed."""

    def a_little_later() -> Facts:
        time.sleep(0.1)
        return _held(gateway)

    return _calm(a_little_later)


def _calm(look: Callable[[], T]) -> T:
    """What a look finds ten times in a row."""
    found, times = look(), 1
    end = time.monotonic() + DEADLINE
    while times < 10:
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s for calm: {found}"
        before, found = found, look()
        times = times + 1 if found == before else 1
    return found


def settled(gateway: Gateway, before: Facts) -> Facts:
    """What the gateway holds once it is what it held before, or as it is after a while."""
    end = time.monotonic() + 10
    while (held := _held(gateway)) != before and time.monotonic() < end:
        time.sleep(0.1)  # connections of the last requests are being closed
    return held


def _held(gateway: Gateway) -> Facts:
    return process_facts.facts(pid(gateway))


def ended(gateway: Gateway, job: str) -> dict[str, Any]:
    """The record of a job once it has ended."""
    end = time.monotonic() + DEADLINE
    while (record := gateway.call("GET", f"{JOBS_API}/{job}?wait=20").json).get("phase") != "ended":
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s for the end of {job}: {record}"
    return record


def pid(gateway: Gateway) -> int:
    """Of the process that serves now."""
    assert gateway.process is not None
    return gateway.process.pid
