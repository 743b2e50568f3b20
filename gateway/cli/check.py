"""`pipeline-gateway check`: what would go wrong, found without serving."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.cli import permissions
from gateway.errors import ConfigError, RequestError
from gateway.fabrics import step_services
from gateway.fabrics.checkouts import Checkout, Checkouts
from gateway.fabrics.compose import ComposeFabric
from gateway.fabrics.local import LocalFabric
from gateway.model import catalog
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import BuiltinPipeline, TriggerRequest
from gateway.settings import tokens
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from runners.containers.compose_project import ComposeService
from runners.containers.docker import EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.shim import SHORTEST_SECRET

_TIMEOUT = 60
_DAILY = TriggerRequest(BuiltinPipeline.DBT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. warns: it works, but not as well as it could."""

    good: bool
    text: str
    warns: bool = False


async def findings(
    settings: Settings, environment: Mapping[str, str], user: str | None, files: Sequence[Path]
) -> list[Finding]:
    """Everything that was looked at, in the order of a trigger's way. Raises ConfigError for an unknown user.

    files: those that the settings come from.
    """
    account = None if user is None else permissions.account(user)
    found = [Finding(True, "configuration"), *_secrets(settings, environment), *_triggers(settings)]
    found += [*_tokens(settings, environment), *_state(settings)]
    works: list[LocalFabric] = []
    with tempfile.TemporaryDirectory(prefix="pipeline-gateway-check-") as scratch:
        # a gateway may be serving: what is checked out to be looked at is not in its state directory
        sources = Checkouts(settings.model_copy(update={"state_directory": Path(scratch)}), environment)
        for fabric, chosen in settings.fabrics.items():
            in_containers = RunnerName(chosen.runner) is RunnerName.COMPOSE
            if in_containers:
                services = step_services.compose_services(settings, fabric, environment, instance="")
                containers = ComposeFabric(settings, fabric, settings.default_project, environment, services)
                found.extend(await _containers(containers, fabric))
            for project in settings.projects:
                if fabric not in settings.fabrics_of(project):
                    continue
                where = f"{project} on {fabric}"
                checkout, told = await _source(sources, fabric, project, where)
                found.extend(told)
                if all(finding.good for finding in told) and not in_containers:
                    work = LocalFabric(settings, fabric, project, environment, checkout)
                    works.extend([] if checkout else [work])
                    found.extend(await _work(work, where))
    if account is not None:
        found.extend(
            Finding(good, f"{account.pw_name} {'can' if good else 'can not'} {verb} {path}")
            for verb, path, good in permissions.of(settings, works, account, files)
        )
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
    existing = permissions.existing(folder)
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield Finding(writable, f"state directory {folder}" + ("" if writable else f": {existing} is not writable"))
    free = shutil.disk_usage(existing).free
    enough = free >= settings.free_disk_floor
    wanted = "" if enough else f", under free_disk_floor ({settings.free_disk_floor // 2**20} MiB)"
    yield Finding(enough, f"free disk: {free // 2**20:,} MiB{wanted}")


async def _source(sources: Checkouts, fabric: str, project: str, where: str) -> tuple[Checkout | None, list[Finding]]:
    """Where the project is, if it is not in a directory that runs as it is."""
    try:
        source = await sources.resolve(project, None, None)
    except RequestError as error:
        return None, [Finding(False, f"{where}: {error}")]
    if source is None:
        return None, []
    checkout = sources.checkout(fabric, source)
    why = await checkout.prepare("check")
    named = f"version {source.version}" if source.version else f"branch {source.branch}"
    return checkout, [Finding(why is None, f"{where}: {why or f'{named} is the commit {source.commit[:12]}'}")]


async def _work(work: LocalFabric, where: str) -> list[Finding]:
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


async def _containers(work: ComposeFabric, where: str) -> list[Finding]:
    """A fabric of a compose project: one thing after the other, since each needs the one before."""
    found = [await _engine(work), await _compose(work)]
    found = [replace(finding, text=f"{where}: {finding.text}") for finding in found]
    if not all(finding.good for finding in found):
        return found
    usable = True
    for step in (StepName.INGESTER, StepName.BUILD):
        try:
            service = await work.service(step)
        except EngineUnreachableError as silence:
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


async def _engine(work: ComposeFabric) -> Finding:
    said = await work.docker.run("version", "--format={{.Client.Version}} {{.Server.Version}}")
    versions = said.output.decode(errors="replace").split()
    if said.code != 0 or len(versions) != 2:
        return Finding(False, explain(said.error, "the container engine can't be used"))
    return Finding(True, f"Docker Engine {versions[1]}, docker command line {versions[0]}")


async def _compose(work: ComposeFabric) -> Finding:
    """Compose as v2 has it; v1 and podman's speak another language under the same name."""
    program = await work.docker.run("--version")
    if b"podman" in program.output.lower():
        return Finding(False, "the command `docker` is podman here: install Docker's own and its Compose v2 plugin")
    said = await work.docker.run("compose", "version", "--short")
    version = said.output.decode(errors="replace").strip().removeprefix("v")
    major = version.partition(".")[0]
    if said.code != 0 or not major.isdecimal():
        return Finding(False, explain(said.error, "Compose v2 can't be used"))
    if int(major) < 2:
        return Finding(False, f"Compose {version} is out of support: install the Compose v2 plugin")
    try:
        project = await work.services.project()
    except EngineUnreachableError as silence:
        project = explain(str(silence), "Compose does not answer")
    if isinstance(project, str):
        return Finding(False, project)
    services = ", ".join(sorted(project.services)) or "none"
    return Finding(True, f"Compose {version}: project {project.name} in {work.compose.directory}, services: {services}")


async def _logging(work: ComposeFabric, service: ComposeService, where: str) -> list[Finding]:
    """A log that the engine keeps whole is what lets a follower go on where another was killed."""
    said = await work.docker.run("info", "--format={{.LoggingDriver}}")
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


def _dbt_version(work: LocalFabric, where: str) -> Iterator[Finding]:
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
