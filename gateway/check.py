"""`pipeline-gateway check`: what would go wrong, found without serving."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Settings
from gateway.errors import ConfigError
from gateway.jobs.job import PlannedStep, StepName
from gateway.jobs.work import Work

_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    text: str


def findings(settings: Settings, environment: Mapping[str, str], user: str | None) -> list[Finding]:
    """Everything that was looked at, in the order of a trigger's way. Raises ConfigError for an unknown user."""
    found = [Finding(True, "configuration"), *_triggers(settings), *_state(settings)]
    for fabric in settings.fabrics:
        for project in settings.projects:
            found.extend(_work(Work(settings, fabric, project, environment), f"{project} on {fabric}"))
    if user is not None:
        found.extend(_user(settings, user))
    return found


def _triggers(settings: Settings) -> Iterator[Finding]:
    yield Finding(True, "triggers are on" if settings.enabled else "triggers are off: set PIPELINE_ENABLED=true")


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_directory
    existing = folder
    while not existing.exists():
        existing = existing.parent
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield Finding(writable, f"state directory {folder}" + ("" if writable else f": {existing} is not writable"))
    free = shutil.disk_usage(existing).free
    enough = free >= settings.free_disk_floor
    wanted = "" if enough else f", under free_disk_floor ({settings.free_disk_floor // 2**20} MiB)"
    yield Finding(enough, f"free disk: {free // 2**20:,} MiB{wanted}")


def _work(work: Work, where: str) -> Iterator[Finding]:
    problem = work.problem(PlannedStep(StepName.INGESTER))
    yield Finding(problem is None, f"{where}: {problem or 'ingester'}")
    problem = work.problem(PlannedStep(StepName.BUILD))
    yield Finding(problem is None, f"{where}: {problem or 'dbt project and profile'}")
    yield from _dbt_version(work, where)
    installation = work.installation()
    lineage = work.problem(PlannedStep(StepName.BUILD, lineage=True))
    if installation.openlineage or (installation.openlineage is None and installation.has_openlineage):
        yield Finding(lineage is None or lineage == problem, f"{where}: {lineage or 'OpenLineage is on'}")
    else:
        yield Finding(True, f"{where}: OpenLineage is off")
    if installation.elementary and not installation.has_elementary:
        yield Finding(False, f"{where}: {work.problem(PlannedStep(StepName.ELEMENTARY))}")
    else:
        state = installation.has_elementary if installation.elementary is None else installation.elementary
        yield Finding(True, f"{where}: Elementary is {'on' if state else 'off'}")


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


def _user(settings: Settings, name: str) -> list[Finding]:
    """What a user could not read or write, found by being that user for a moment."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user: there is no user {name!r} on this host") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"--user {name}: only root can find out what another user may do")
    wanted = [(str(path), os.R_OK | os.X_OK) for path in _read_folders(settings)]
    wanted += [(str(path), os.W_OK | os.X_OK) for path in _written_folders(settings)]
    denied = _as_user(user, wanted)
    found = []
    for path, mode in wanted:
        can = "write" if mode & os.W_OK else "read"
        good = [path, mode] not in denied
        found.append(Finding(good, f"{name} {'can' if good else 'can not'} {can} {path}"))
    return found


def _read_folders(settings: Settings) -> list[Path]:
    folders = [project.dbt for project in settings.projects.values()]
    for project in settings.projects.values():
        folders.append(project.directory)
        if project.ingester is not None and project.ingester.directory is not None:
            folders.append(project.ingester.directory)
    folders += [fabric.dbt.profiles_directory for fabric in settings.fabrics.values() if fabric.dbt.profiles_directory]
    return list(dict.fromkeys(folders))


def _written_folders(settings: Settings) -> list[Path]:
    state = settings.state_directory
    while not state.exists():
        state = state.parent
    return [state, *dict.fromkeys(project.dbt for project in settings.projects.values())]


def _as_user(user: pwd.struct_passwd, wanted: list[tuple[str, int]]) -> list[list[object]]:
    """Which of these paths that user is denied. A child changes its user: what it may do is the kernel's answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() != user.pw_uid:
                os.initgroups(user.pw_name, user.pw_gid)
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            denied = [(path, mode) for path, mode in wanted if not os.access(path, mode)]
            os.write(writer, json.dumps(denied).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    denied_paths: list[list[object]] = json.loads(answer)
    return denied_paths
