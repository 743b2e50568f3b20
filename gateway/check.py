"""`pipeline-gateway check`: what would go wrong, found without serving."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gateway import tokens
from gateway.config import Settings
from gateway.errors import ConfigError
from gateway.jobs import catalog, compose_places
from gateway.jobs.catalog import Pipeline, Trigger
from gateway.jobs.compose_work import ComposeWork
from gateway.jobs.job import Plan, PlannedStep, RunnerName, StepName
from gateway.jobs.local_work import LocalWork
from runners import dbt_project
from runners.compose_project import Service
from runners.docker import EngineSilentError
from runners.docker_words import explain
from runners.shim import SHORTEST_SECRET

_TIMEOUT = 60
_DAILY = Trigger(Pipeline.DBT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. warns: it works, but not as well as it could."""

    good: bool
    text: str
    warns: bool = False


async def findings(
    settings: Settings, environment: Mapping[str, str], user: str | None, sources: Sequence[Path]
) -> list[Finding]:
    """Everything that was looked at, in the order of a trigger's way. Raises ConfigError for an unknown user.

    sources: the files that the settings come from.
    """
    account = None if user is None else _account(user)
    found = [Finding(True, "configuration"), *_secrets(settings, environment), *_triggers(settings)]
    found += [*_tokens(settings, environment), *_state(settings)]
    works: list[LocalWork] = []
    for fabric, chosen in settings.fabrics.items():
        if RunnerName(chosen.runner) is RunnerName.COMPOSE:
            services = compose_places.services(settings, fabric, environment, instance="")
            work = ComposeWork(settings, fabric, settings.default_project, environment, services)
            found.extend(await _containers(work, fabric))
            continue
        for project in settings.projects:
            works.append(LocalWork(settings, fabric, project, environment))
            found.extend(await _work(works[-1], f"{project} on {fabric}"))
    if account is not None:
        found.extend(_user(settings, works, account, sources))
    return found


def _secrets(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    mask = settings.mask(environment)
    variables = {name: value for given in settings.environments(environment) for name, value in given.items()}
    for name, value in sorted(variables.items()):
        if mask.is_secret(name) and 0 < len(value.strip()) < SHORTEST_SECRET:
            advice = f"give it {SHORTEST_SECRET} characters, or take its name off `secrets` if it is none"
            yield Finding(True, f"the secret {name} is too short to be masked in output: {advice}", warns=True)


def _triggers(settings: Settings) -> Iterator[Finding]:
    yield Finding(True, "triggers are on" if settings.enabled else "triggers are off: set PIPELINE_ENABLED=true")


def _tokens(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        known = tokens.load(settings.tokens_file, environment)
    except ConfigError as error:
        yield Finding(False, str(error))
        return
    if known is None:
        yield Finding(True, "no tokens: every program of this host may trigger pipelines")
        for host in settings.allowed_hosts:
            advice = "if a proxy serves it to others, make tokens first"
            yield Finding(True, f"the host {host} is allowed, and there are no tokens: {advice}", warns=True)
        return
    now = datetime.now(UTC)
    good = [token.name for token in known.tokens if not token.is_expired(now)]
    yield Finding(True, f"tokens in {known.source}: {', '.join(good) or 'none that is good, so nobody gets in'}")
    for token in known.tokens:
        if token.is_expired(now):
            yield Finding(True, f"the token {token.name} has expired: revoke it, and make another", warns=True)


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_directory
    existing = _existing(folder)
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield Finding(writable, f"state directory {folder}" + ("" if writable else f": {existing} is not writable"))
    free = shutil.disk_usage(existing).free
    enough = free >= settings.free_disk_floor
    wanted = "" if enough else f", under free_disk_floor ({settings.free_disk_floor // 2**20} MiB)"
    yield Finding(enough, f"free disk: {free // 2**20:,} MiB{wanted}")


async def _work(work: LocalWork, where: str) -> list[Finding]:
    found = []
    if work.has_ingester:
        problem = await work.problem(PlannedStep(StepName.INGESTER))
        found.append(Finding(problem is None, f"{where}: {problem or 'ingester'}"))
    else:
        found.append(Finding(True, f"{where}: no ingester: the pipelines `ingester` and `full` will fail"))
    plan = catalog.plan(_DAILY, await work.installation(_DAILY))
    problems = [problem for step in plan.steps if (problem := await work.problem(step)) is not None]
    found.extend(Finding(False, f"{where}: {problem}") for problem in dict.fromkeys(problems))
    if not problems:
        found.append(Finding(True, f"{where}: dbt project and profile"))
    return [*found, *_dbt_version(work, where), *_toggles(plan, where)]


async def _containers(work: ComposeWork, where: str) -> list[Finding]:
    """A fabric of a compose project: one thing after the other, since each needs the one before."""
    found = [await _engine(work), await _compose(work)]
    found = [replace(finding, text=f"{where}: {finding.text}") for finding in found]
    if not all(finding.good for finding in found):
        return found
    usable = True
    for step in (StepName.INGESTER, StepName.BUILD):
        try:
            service = await work.service(step)
        except EngineSilentError as silence:
            service = explain(str(silence), "the engine doesn't answer")
        if isinstance(service, str):
            usable = False
            found.append(Finding(False, f"{where}: {service}"))
            continue
        entrypoint = " ".join(service.entrypoint or ()) or "none"
        found.append(Finding(True, f"{where}: service {service.name}: image {service.image}, entrypoint {entrypoint}"))
        found.extend(await _logging(work, service, where))
    if usable:
        plan = catalog.plan(_DAILY, await work.installation(_DAILY))
        problems = [problem for step in plan.steps if (problem := await work.problem(step)) is not None]
        found.extend(Finding(False, f"{where}: {problem}") for problem in dict.fromkeys(problems))
        found.extend(_toggles(plan, where))
    return found


async def _engine(work: ComposeWork) -> Finding:
    said = await work.docker.call("version", "--format={{.Client.Version}} {{.Server.Version}}")
    versions = said.output.decode(errors="replace").split()
    if said.code != 0 or len(versions) != 2:
        return Finding(False, explain(said.error, "the container engine can't be used"))
    return Finding(True, f"Docker Engine {versions[1]}, docker command line {versions[0]}")


async def _compose(work: ComposeWork) -> Finding:
    """Compose as v2 has it; v1 and podman's speak another language under the same name."""
    program = await work.docker.call("--version")
    if b"podman" in program.output.lower():
        return Finding(False, "the command `docker` is podman here: install Docker's own and its Compose v2 plugin")
    said = await work.docker.call("compose", "version", "--short")
    version = said.output.decode(errors="replace").strip().removeprefix("v")
    major = version.partition(".")[0]
    if said.code != 0 or not major.isdecimal():
        return Finding(False, explain(said.error, "Compose v2 can't be used"))
    if int(major) < 2:
        return Finding(False, f"Compose {version} is out of support: install the Compose v2 plugin")
    try:
        project = await work.services.project()
    except EngineSilentError as silence:
        project = explain(str(silence), "Compose does not answer")
    if isinstance(project, str):
        return Finding(False, project)
    services = ", ".join(sorted(project.services)) or "none"
    return Finding(True, f"Compose {version}: project {project.name} in {work.compose.directory}, services: {services}")


async def _logging(work: ComposeWork, service: Service, where: str) -> list[Finding]:
    """A log that the engine keeps whole is what lets a follower go on where another was killed."""
    said = await work.docker.call("info", "--format={{.LoggingDriver}}")
    driver = service.log_driver or said.output.decode(errors="replace").strip()
    if driver == "json-file" and not service.log_rotates:
        return []
    what = f"the logging driver {driver}" if driver != "json-file" else "a json-file log with max-size"
    advice = "use json-file without max-size, or its output may have gaps after a restart of the gateway"
    return [Finding(True, f"{where}: service {service.name} has {what}: {advice}", warns=True)]


def _toggles(plan: Plan, where: str) -> Iterator[Finding]:
    lineage = any(step.lineage for step in plan.steps)
    yield Finding(True, f"{where}: OpenLineage is {'on' if lineage else 'off'}")
    elementary = any(step.name is StepName.ELEMENTARY for step in plan.steps)
    yield Finding(True, f"{where}: Elementary is {'on' if elementary else 'off'}")


def _dbt_version(work: LocalWork, where: str) -> Iterator[Finding]:
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


def _user(
    settings: Settings, works: list[LocalWork], user: pwd.struct_passwd, sources: Sequence[Path]
) -> list[Finding]:
    """What a user could not read, run or write, found by being that user for a moment."""
    files = [file for work in works for file in dbt_project.files(work.dbt, work.environment) if file.exists()]
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
