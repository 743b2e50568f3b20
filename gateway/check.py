"""`pipeline-gateway check`: what would go wrong, found without serving."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Settings
from gateway.errors import ConfigError
from gateway.jobs import catalog
from gateway.jobs.catalog import Pipeline, Trigger
from gateway.jobs.job import PlannedStep, StepName
from gateway.jobs.work import Work
from runners import dbt

_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    text: str


def findings(
    settings: Settings, environment: Mapping[str, str], user: str | None, sources: Sequence[Path]
) -> list[Finding]:
    """Everything that was looked at, in the order of a trigger's way. Raises ConfigError for an unknown user.

    sources: the files that the settings come from.
    """
    account = None if user is None else _account(user)
    found = [Finding(True, "configuration"), *_triggers(settings), *_state(settings)]
    works = {
        f"{project} on {fabric}": Work(settings, fabric, project, environment)
        for fabric in settings.fabrics
        for project in settings.projects
    }
    for where, work in works.items():
        found.extend(_work(work, where))
    if account is not None:
        found.extend(_user(settings, list(works.values()), account, sources))
    return found


def _triggers(settings: Settings) -> Iterator[Finding]:
    yield Finding(True, "triggers are on" if settings.enabled else "triggers are off: set PIPELINE_ENABLED=true")


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_directory
    existing = _existing(folder)
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield Finding(writable, f"state directory {folder}" + ("" if writable else f": {existing} is not writable"))
    free = shutil.disk_usage(existing).free
    enough = free >= settings.free_disk_floor
    wanted = "" if enough else f", under free_disk_floor ({settings.free_disk_floor // 2**20} MiB)"
    yield Finding(enough, f"free disk: {free // 2**20:,} MiB{wanted}")


def _work(work: Work, where: str) -> Iterator[Finding]:
    if work.has_ingester:
        problem = work.problem(PlannedStep(StepName.INGESTER))
        yield Finding(problem is None, f"{where}: {problem or 'ingester'}")
    else:
        yield Finding(True, f"{where}: no ingester: the pipelines `ingester` and `full` will fail")
    plan = catalog.plan(Trigger(Pipeline.DBT), work.installation())
    problems = dict.fromkeys(problem for step in plan.steps if (problem := work.problem(step)) is not None)
    for problem in problems:
        yield Finding(False, f"{where}: {problem}")
    if not problems:
        yield Finding(True, f"{where}: dbt project and profile")
    yield from _dbt_version(work, where)
    lineage = any(step.lineage for step in plan.steps)
    yield Finding(True, f"{where}: OpenLineage is {'on' if lineage else 'off'}")
    elementary = any(step.name is StepName.ELEMENTARY for step in plan.steps)
    yield Finding(True, f"{where}: Elementary is {'on' if elementary else 'off'}")


def _dbt_version(work: Work, where: str) -> Iterator[Finding]:
    program = shutil.which(work.dbt.executable, path=work.environment["PATH"])
    if program is None:
        return  # told already
    try:
        said = subprocess.run(
            [program, "--version"],
            env=dict(work.environment),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(False, f"{where}: {program} does not run: {error}")
        return
    version = re.search(r"installed: +(\S+)|^dbt \S*?(\d+\.\S+)", said.stdout, re.MULTILINE)
    number = (version[1] or version[2]) if version else "unknown"
    good = number.startswith("1.")
    yield Finding(good, f"{where}: {program} is dbt {number}" + ("" if good else ", but the gateway drives dbt 1.x"))


def _account(name: str) -> pwd.struct_passwd:
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user: there is no user {name!r} on this host") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"--user {name}: only root can find out what another user may do")
    return user


def _user(settings: Settings, works: list[Work], user: pwd.struct_passwd, sources: Sequence[Path]) -> list[Finding]:
    """What a user could not read, run or write, found by being that user for a moment."""
    files = [file for work in works for file in dbt.files(work.dbt, work.environment) if file.exists()]
    programs = [program for work in works for program in work.programs()]
    wanted = [
        *(("read", path, os.R_OK | os.X_OK) for path in _folders(settings)),
        *(("read", path, os.R_OK) for path in dict.fromkeys(str(file) for file in (*sources, *files))),
        *(("run", path, os.X_OK) for path in dict.fromkeys(programs)),
        *(("write", path, os.W_OK | os.X_OK) for path in _written(settings)),
    ]
    may = _as_user(user, [(path, mode) for _, path, mode in wanted])
    return [
        Finding(good, f"{user.pw_name} {'can' if good else 'can not'} {verb} {path}")
        for (verb, path, _), good in zip(wanted, may, strict=True)
    ]


def _folders(settings: Settings) -> Iterable[str]:
    folders: list[Path | None] = []
    for project in settings.projects.values():
        folders += [project.directory, project.dbt, project.ingester.directory if project.ingester else None]
    folders += [fabric.dbt.profiles_directory for fabric in settings.fabrics.values()]
    return dict.fromkeys(str(folder) for folder in folders if folder is not None)


def _written(settings: Settings) -> Iterable[str]:
    """The state directory, and the dbt projects, into which dbt installs packages."""
    folders = [_existing(settings.state_directory), *(project.dbt for project in settings.projects.values())]
    return dict.fromkeys(str(folder) for folder in folders)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _as_user(user: pwd.struct_passwd, wanted: Sequence[tuple[str, int]]) -> list[bool]:
    """Whether that user is granted each of these. A child changes its user: what it may do is the kernel's answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() != user.pw_uid:
                os.initgroups(user.pw_name, user.pw_gid)
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            os.write(writer, bytes(os.access(path, mode) for path, mode in wanted))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        granted = answers.read()
    os.waitpid(child, 0)
    return [bool(answer) for answer in granted]
