"""The gateway as `pipeline-gateway serve` runs it, but for one call that kills it: right before it, or right after.

It is run as a fork with two arguments, POINT and MARK. MARK is a file that is written first, so that no other death is
taken for this one. The product knows nothing of it.
A point of the supervisor's kills that one instead, once, and the gateway lives on.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import pkgutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gateway.storage import job_file
from runners.detached import supervisor as process
from tests.support import kill_loop_gateway

NEVER = "never"  # no point at all
PATCHED_SHIM = Path(__file__).with_name("patched_shim.py")
SHIM_POINT, SHIM_MARK = "TEST_SHIM_POINT", "TEST_SHIM_MARK"

When = Callable[..., bool]


def _always(*_: Any) -> bool:
    return True


@dataclass(frozen=True)
class Call:
    """A call that kills: the one of `owner` called `name` for which `when`, given its arguments, is true."""

    owner: str
    name: str
    after: bool
    when: When = _always


def before(owner: str, name: str, when: When = _always) -> Call:
    """Die before that call does anything."""
    return Call(owner, name, after=False, when=when)


def after(owner: str, name: str, when: When = _always) -> Call:
    """Die once that call has done its work, before its caller knows."""
    return Call(owner, name, after=True, when=when)


def _nth(number: int, when: When = _always) -> When:
    """True for the nth call for which `when` is."""
    count = itertools.count(1)
    return lambda *args: when(*args) and next(count) == number


def _active(n: int) -> When:
    return lambda _, job: job.state.kind == "running" and job.steps[n].kind == "active"


def _begun(n: int) -> When:
    return lambda _, job: job.steps[n].kind == "active" and job.steps[n].begun


def _waits(n: int) -> When:
    return lambda _, job: job.steps[n].kind == "waiting"


def _again(n: int) -> When:
    return lambda _, job: job.steps[n].kind == "active" and len(job.steps[n].earlier) == 1


def _finished(n: int) -> When:
    rest = ("pending", "active")
    return lambda _, job: (
        job.state.kind == "running"
        and job.steps[n].kind == "finished"
        and not any(step.kind in rest for step in job.steps[:n])
        and all(step.kind == "pending" for step in job.steps[n + 1 :])
    )


def _state(kind: str) -> When:
    return lambda _, job: job.state.kind == kind


def _promoted(*args: Any) -> bool:
    """The record of a job that waited and begins."""
    job = args[1]
    return job.state.kind == "running" and job.revision == 1 and all(step.kind == "pending" for step in job.steps)


def _commit(statement: When) -> When:
    """True for the COMMIT of a transaction in which a statement was executed for which `statement` is true."""
    executed = False

    def when(_: Any, sql: str, values: Any = ()) -> bool:
        nonlocal executed
        executed = statement(sql, values) or (executed and not sql.startswith("BEGIN"))
        return executed and sql == "COMMIT"

    return when


def _inserts(kind: str) -> When:
    """The record of a new job in this state."""
    return lambda sql, values: _is_record(sql) and "ON CONFLICT" not in sql and values[1] == kind


def _saves(when: When = _always) -> When:
    """The record of a known job for which `when` is true."""
    return lambda sql, values: _is_record(sql) and "ON CONFLICT" in sql and when(None, job_file.load(values[5]))


def _is_record(sql: str) -> bool:
    return sql.lstrip().startswith("INSERT INTO job")


def _deletes(sql: str, _: Any) -> bool:
    return sql.startswith("DELETE FROM job")


def _step(name: str) -> When:
    return lambda folder, *_: folder.name == name


def _file(name: str, holding: str = "") -> When:
    """A temporary file that is about to take the name of this one, with this in it."""
    return lambda source, target: (
        Path(target).name == name and source.name != name and holding in source.read_text("utf-8")
    )


def _named(name: str) -> When:
    return lambda source, *_: source.name == name


def _job_folder(path: Any, *_: Any, **__: Any) -> bool:
    return Path(path).parent.name == "jobs"


_STORE, _FILE, _PATH = "gateway.storage.store:Store", "gateway.storage.job_file", "pathlib:Path"
_SQLITE, _SQL = "aiosqlite:Connection", "execute_fetchall"
_FABRIC, _RUNNER = "gateway.fabrics.local:LocalFabric", "runners.process.local_runner:LocalRunner"
_PROCESS, _RETENTION, _DATABASE = "runners.detached.supervisor", "gateway.jobs.retention", "gateway.storage.integrity"
_SERVICE = "gateway.jobs.service:JobService"

# A job of two steps, from its trigger on.
ACCEPTING = {
    "before insert": before(_STORE, "insert"),
    "in the transaction of insert": before(_SQLITE, _SQL, _commit(_inserts("running"))),
    "after the commit of insert": after(_SQLITE, _SQL, _commit(_inserts("running"))),
    "after insert": after(_STORE, "insert"),
    "after launch of the task": after(_SERVICE, "_launch"),
}
LIVING = {
    "before the first job.json": before(_FILE, "write", _nth(1)),
    "before the rename of the first job.json": before(_PATH, "replace", _file("job.json")),
    "after the first job.json": after(_FILE, "write", _nth(1)),
    "after the folder of 1": after("runners.durable", "make_directory", _step("1-ingester")),
    "before job.json of active 1": before(_FILE, "write", _active(0)),
    "before the rename of job.json of active 1": before(_PATH, "replace", _file("job.json", "active")),
    "after job.json of active 1": after(_FILE, "write", _active(0)),
    "before save of active 1": before(_STORE, "save", _active(0)),
    "in the transaction of active 1": before(_SQLITE, _SQL, _commit(_saves(_active(0)))),
    "after save of active 1": after(_STORE, "save", _active(0)),
    "before the rename of command.json": before(_PATH, "replace", _file("command.json")),
    "before spec.json of 1": before(_PROCESS, "_prepare", _step("1-ingester")),
    "before the rename of spec.json": before(_PATH, "replace", _file("spec.json")),
    "after spec.json of 1": after(_PROCESS, "_prepare", _step("1-ingester")),
    "after spawn of 1": after(_PROCESS, "_launch", _step("1-ingester")),
    "after start of 1": after(_RUNNER, "start", lambda _, folder, *__: folder.name == "1-ingester"),
    "before job.json of begun 1": before(_FILE, "write", _begun(0)),
    "after job.json of begun 1": after(_FILE, "write", _begun(0)),
    "in the transaction of begun 1": before(_SQLITE, _SQL, _commit(_saves(_begun(0)))),
    "after save of begun 1": after(_STORE, "save", _begun(0)),
    "before conclude of 1": before(_FABRIC, "conclude"),
    "after conclude of 1": after(_FABRIC, "conclude"),
    "before the rename of an artifact of 1": before(_PATH, "replace", _file("lineage.ndjson")),
    "after the artifacts of 1": after("gateway.artifacts.keeping", "keep"),
    "before save of finished 1": before(_STORE, "save", _finished(0)),
    "after job.json of finished 1": after(_FILE, "write", _finished(0)),
    "after save of finished 1": after(_STORE, "save", _finished(0)),
    "before release of 1": before(_RUNNER, "release"),
    "after release of 1": after(_RUNNER, "release"),
    "after save of active 2": after(_STORE, "save", _active(1)),
    "after spec.json of 2": after(_PROCESS, "_prepare", _step("2-ingester")),
    "after spawn of 2": after(_PROCESS, "_launch", _step("2-ingester")),
    "before conclude of 2": before(_FABRIC, "conclude", _nth(2)),
    "after save of finished 2": after(_STORE, "save", _finished(1)),
    "before job.json of the last record": before(_FILE, "write", _state("ended")),
    "before the rename of the last job.json": before(_PATH, "replace", _file("job.json", "ended")),
    "after job.json of the last record": after(_FILE, "write", _state("ended")),
    "before save of ended": before(_STORE, "save", _state("ended")),
    "in the transaction of ended": before(_SQLITE, _SQL, _commit(_saves(_state("ended")))),
    "after save of ended": after(_STORE, "save", _state("ended")),
}
# The end of the second step's first attempt, and the second one.
RETRYING = {
    "before job.json of waiting 2": before(_FILE, "write", _waits(1)),
    "after job.json of waiting 2": after(_FILE, "write", _waits(1)),
    "after save of waiting 2": after(_STORE, "save", _waits(1)),
    "after the folder of 2 again": after("runners.durable", "make_directory", _step("2-ingester.2")),
    "after save of active 2 again": after(_STORE, "save", _again(1)),
    "after spawn of 2 again": after(_PROCESS, "_launch", _step("2-ingester.2")),
    "before conclude of 2 again": before(_FABRIC, "conclude", _nth(3)),
    "before save of finished 2": before(_STORE, "save", _finished(1)),
}
# Jobs that wait for the first one, which is in its first step: one such job, then two.
QUEUEING = {
    "before insert": before(_STORE, "insert", _nth(2)),
    "in the transaction of insert": before(_SQLITE, _SQL, _commit(_inserts("queued"))),
    "after the commit of insert": after(_SQLITE, _SQL, _commit(_inserts("queued"))),
    "after insert": after(_STORE, "insert", _nth(2)),
    "after launch of the task": after(_SERVICE, "_launch", _nth(2)),
    "before the first job.json": before(_FILE, "write", _state("queued")),
    "before the rename of the first job.json": before(_PATH, "replace", _file("job.json", "queued")),
    "after the first job.json": after(_FILE, "write", _state("queued")),
    "before it asks for its turn": before(_STORE, "holds_resources"),
    "after it asked for its turn": after(_STORE, "holds_resources"),
}
PROMOTING = {
    "before job.json of the first one's end": before(_FILE, "write", _state("ended")),
    "after job.json of the first one's end": after(_FILE, "write", _state("ended")),
    "in the transaction of the first one's end": before(_SQLITE, _SQL, _commit(_saves(_state("ended")))),
    "after the commit of the first one's end": after(_SQLITE, _SQL, _commit(_saves(_state("ended")))),
    "after save of the first one's end": after(_STORE, "save", _state("ended")),
    "before it is called": before(_SERVICE, "_notify_turn", lambda _, promoted: promoted),
    "after it is called": after(_SERVICE, "_notify_turn", lambda _, promoted: promoted),
    "before job.json of its beginning": before(_FILE, "write", _promoted),
    "after job.json of its beginning": after(_FILE, "write", _promoted),
    "before save of its beginning": before(_STORE, "save", _promoted),
    "in the transaction of its beginning": before(_SQLITE, _SQL, _commit(_saves(_promoted))),
    "after save of its beginning": after(_STORE, "save", _promoted),
}
# A cancel of a job that waits, as long as the record does not have it; and from then on.
NOT_GIVEN_UP = {
    "before job.json of its end": before(_FILE, "write", _state("ended")),
    "before the rename of job.json of its end": before(_PATH, "replace", _file("job.json", "ended")),
}
GIVEN_UP = {
    "after job.json of its end": after(_FILE, "write", _state("ended")),
    "in the transaction of its end": before(_SQLITE, _SQL, _commit(_saves(_state("ended")))),
    "after save of its end": after(_STORE, "save", _state("ended")),
}
# A cancel that the record does not have yet: it was never answered, and the job goes on.
NOT_CANCELLED = {
    "before job.json of cancelling": before(_FILE, "write", _state("cancelling")),
    "before the rename of job.json of cancelling": before(_PATH, "replace", _file("job.json", "cancelling")),
}
CANCELLED = {
    "after job.json of cancelling": after(_FILE, "write", _state("cancelling")),
    "after save of cancelling": after(_STORE, "save", _state("cancelling")),
    "before the first signal": before("runners.detached.pidfd", "send"),
    "after the first signal": after("runners.detached.pidfd", "send"),
    "before save of a cancelled job's end": before(_STORE, "save", _state("ended")),
}
# Records that are too old, and their files.
EXPIRING = {
    "after the first file": after(_RETENTION, "_delete", _nth(1)),
    "in the middle of a step's folder": before("os", "rmdir", _nth(1)),
    "after job.json and before its folder": before("os", "rmdir", _job_folder),
    "after the folder and before the record": before(_STORE, "delete"),
    "in the transaction of delete": before(_SQLITE, _SQL, _commit(_deletes)),
    "after the first of two records": after(_STORE, "delete"),
}
# Files of ended jobs that are together over their cap.
SHRINKING = {
    "after the first file": after(_RETENTION, "_delete", _nth(1)),
    "in the middle of a step's folder": before("os", "rmdir", _nth(1)),
    "after the first of two jobs": after(_RETENTION, "_remove", _nth(1)),
}
# A start.
RESTORING = {
    "before the first commit": before(_SQLITE, _SQL, _commit(_saves())),
    "after the first commit": after(_SQLITE, _SQL, _commit(_saves())),
    "before the claims": before(_STORE, "restore_claims"),
    "after the claims": after(_STORE, "restore_claims"),
    "after all": after("gateway.storage.restore", "restore"),
}
RECOVERING = {
    "before recover": before(_SERVICE, "recover"),
    "after launch of the first of two": after(_SERVICE, "_launch", _nth(1)),
    "after recover": after(_SERVICE, "recover"),
}
RESTORING_A_QUEUE = {
    **RESTORING,
    "after the claims of the first of three": after(_STORE, "restore_claims", _nth(1)),
    "before the promotion": before(_STORE, "promote_waiting"),
    "after the promotion": after(_STORE, "promote_waiting"),
    **RECOVERING,
}
MIGRATING = {
    "before the backup": before(_DATABASE, "_back_up"),
    "after the backup": after(_DATABASE, "_back_up"),
    "in the middle of the script": after(_DATABASE, "checksum", _nth(2)),
    "in the middle of the next script": after(_DATABASE, "checksum", _nth(5)),  # of three jobs
    "after the migration": after(_DATABASE, "_migrate"),
}
SETTING_ASIDE = {
    "before gateway.db": before(_PATH, "replace", _named("gateway.db")),
    "between gateway.db and its -wal": after(_PATH, "replace", _named("gateway.db")),
    "after its -wal": after(_PATH, "replace", _named("gateway.db-wal")),
    "after all": after(_DATABASE, "set_aside"),
}
FIRST_START = {
    "before the rename of instance": before(_PATH, "replace", _file("instance")),
    "after the rename of instance": after(_PATH, "replace", _file("instance")),
    "before the schema": before(_DATABASE, "_migrate"),
    "after the schema": after(_DATABASE, "_migrate"),
}
_GROUPS = {
    "accepting": ACCEPTING,
    "living": LIVING,
    "retrying": RETRYING,
    "queueing": QUEUEING,
    "promoting": PROMOTING,
    "not given up": NOT_GIVEN_UP,
    "given up": GIVEN_UP,
    "not cancelled": NOT_CANCELLED,
    "cancelled": CANCELLED,
    "expiring": EXPIRING,
    "shrinking": SHRINKING,
    "restoring": RESTORING,
    "restoring a queue": RESTORING_A_QUEUE,
    "recovering": RECOVERING,
    "migrating": MIGRATING,
    "setting aside": SETTING_ASIDE,
    "first start": FIRST_START,
}
POINTS = {f"{group}: {name}": call for group, calls in _GROUPS.items() for name, call in calls.items()}


def points(group: str) -> list[str]:
    """The names of a group's points."""
    return [f"{group}: {name}" for name in _GROUPS[group]]


def _die(point: str, mark: Path) -> NoReturn:
    mark.write_text(point)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL did not end this process")


def _deadly(real: Callable[..., Any], call: Call, die: Callable[[], NoReturn]) -> Callable[..., Any]:
    async def awaited(result: Awaitable[Any]) -> NoReturn:
        await result
        die()

    @functools.wraps(real)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        due = call.when(*args)
        if due and not call.after:
            die()
        result = real(*args, **kwargs)
        if not due:
            return result
        return awaited(result) if inspect.isawaitable(result) else die()

    return deadly


def main(arguments: Sequence[str]) -> int:
    """Serve until the point is reached. arguments: the point and the mark."""
    point, mark = arguments[0], Path(arguments[1])
    if point in POINTS:
        call = POINTS[point]
        owner = pkgutil.resolve_name(call.owner)
        setattr(owner, call.name, _deadly(getattr(owner, call.name), call, lambda: _die(point, mark)))
    elif point != NEVER:
        os.environ |= {SHIM_POINT: point, SHIM_MARK: str(mark)}
        process._SHIM = str(PATCHED_SHIM)
    return kill_loop_gateway.main()
