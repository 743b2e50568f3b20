"""`pipeline-gateway check`: what would go wrong, found without serving."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gateway.cli import dbt_findings, permissions
from gateway.cli.dbt_findings import Finding
from gateway.errors import ConfigError, RequestError
from gateway.fabrics import step_services
from gateway.fabrics.checkouts import Checkout, Checkouts
from gateway.fabrics.compose import ComposeFabric
from gateway.fabrics.local import LocalFabric
from gateway.fabrics.registry import must_have_lasting_databases
from gateway.model.plan import PlannedStep, StepName
from gateway.model.request import is_fabric_number
from gateway.notify import variables
from gateway.settings import tokens
from gateway.settings.fabric import RunnerName
from gateway.settings.settings import Settings
from gateway.web.server import listener
from runners.containers.compose_project import ComposeService
from runners.containers.docker import EngineUnreachableError
from runners.containers.docker_errors import explain
from runners.masker import SHORTEST_SECRET


async def find(
    settings: Settings, environment: Mapping[str, str], user: str | None, files: Sequence[Path], *, run_dbt: bool
) -> list[Finding]:
    """Everything that a trigger needs, in the order in which it needs it. Raises ConfigError for an unknown user.

    user: also find out what this user may do. files: the files that the settings come from. run_dbt: have dbt look at
    the projects.
    """
    account = None if user is None else permissions.find_user(user)
    found = [
        Finding(True, "configuration"),
        *_secrets(settings, environment),
        *_triggers(settings),
        *_fabric_ids(settings),
    ]
    found += [*_tokens(settings, environment), *_state(settings), *_notify(settings, environment)]
    in_place: list[LocalFabric] = []
    local: list[LocalFabric] = []
    with tempfile.TemporaryDirectory(prefix="pipeline-gateway-check-") as scratch:
        # Checkouts are made outside of the state directory, which a running gateway may be using.
        checkouts = Checkouts(settings.model_copy(update={"state_directory": Path(scratch)}), environment)
        for fabric_id, chosen in settings.fabrics.items():
            compose, usable = None, True
            if chosen.runner is RunnerName.COMPOSE:
                services = step_services.compose_services(settings, fabric_id, environment, instance="")
                compose = ComposeFabric(settings, fabric_id, settings.default_project, environment, services)
                of_fabric = await _compose_fabric(compose, settings, fabric_id, Path(scratch), run_dbt=run_dbt)
                usable = all(finding.good for finding in of_fabric)
                found += of_fabric
            for project in settings.projects:
                if fabric_id not in settings.fabrics_of(project):
                    continue
                where = f"{project} on {fabric_id}"
                checkout, of_source = await _checkout(checkouts, fabric_id, project, where)
                found += of_source
                if not usable or not all(finding.good for finding in of_source):
                    continue
                if compose is None:
                    fabric = LocalFabric(settings, fabric_id, project, environment, checkout)
                    in_place += [] if checkout else [fabric]
                    local.append(fabric)
                    found += await dbt_findings.find(fabric, where, Path(scratch), run_dbt=run_dbt)
                    found += await _parameters(fabric, settings, [project], where)
                elif checkout is not None:  # else it is what the image has, which is of the fabric
                    mounted = ComposeFabric(settings, fabric_id, project, environment, compose.services, checkout)
                    found += await dbt_findings.find_in_containers(mounted, where, Path(scratch), run_dbt=run_dbt)
        found += [*dbt_findings.shared_databases(settings, local), *_start(settings, environment)]
    if account is not None:
        found += [
            Finding(granted, f"{account.pw_name} {'can' if granted else 'can not'} {verb} {path}")
            for verb, path, granted in permissions.check(settings, in_place, account, files)
        ]
    return found


def _secrets(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    mask = settings.mask(environment)
    variables = {name: value for given in settings.environments(environment) for name, value in given.items()}
    for name, value in sorted(variables.items()):
        if mask.is_secret(name) and 0 < len(value.strip()) < SHORTEST_SECRET:
            advice = f"give it {SHORTEST_SECRET} characters, or take its name off `secrets` if it is not secret"
            yield Finding(True, f"the secret {name} is too short to be masked in output: {advice}", warns=True)


def _triggers(settings: Settings) -> Iterator[Finding]:
    yield Finding(True, "triggers are on" if settings.enabled else "triggers are off: set PIPELINE_ENABLED=true")


def _fabric_ids(settings: Settings) -> Iterator[Finding]:
    """Warnings of pipelines that are on a fabric where the trigger pipeline API can't run them."""
    for name, project in settings.projects.items():
        for fabric in settings.fabrics_of(name) if project.pipelines else ():
            if not is_fabric_number(fabric):
                why = "the trigger pipeline API can't run its pipelines there, since the fabric's id is no number"
                yield Finding(True, f"{name} on {fabric}: {why}: call the fabric `1`, for instance", warns=True)


def _tokens(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        known = tokens.load(settings.tokens_file, environment)
        listener.must_have_tokens([], settings.host, has_tokens=known is not None)
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
    valid = [token.name for token in known.tokens if not token.is_expired(now)]
    yield Finding(True, f"tokens in {known.source}: {', '.join(valid) or 'none is valid, so every request is refused'}")
    for token in known.tokens:
        if token.is_expired(now):
            yield Finding(True, f"the token {token.name} has expired: revoke it, and make another", warns=True)


def _notify(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        variables.must_be_right(settings, environment)
    except ConfigError as error:
        yield from (Finding(False, line) for line in str(error).splitlines())
        return
    for one in settings.notify:
        if one.command and shutil.which(one.command[0], path=environment.get("PATH")) is None:
            yield Finding(False, f"{one.to}: the program {one.command[0]} is missing or can't be executed: install it")
            continue
        advice = f"try it with `pipeline-gateway notify test {one.to}`"
        yield Finding(True, f"{one.to} is told of {', '.join(one.outcomes)}: {advice}")


def _start(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What `serve` refuses besides."""
    try:
        must_have_lasting_databases(settings, environment)
    except ConfigError as error:
        yield Finding(False, str(error))


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_directory
    existing = permissions.nearest_existing(folder)
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield Finding(writable, f"state directory {folder}" + ("" if writable else f": {existing} is not writable"))
    free = shutil.disk_usage(existing).free
    enough = free >= settings.free_disk_floor
    wanted = "" if enough else f", under free_disk_floor ({settings.free_disk_floor // 2**20} MiB)"
    yield Finding(enough, f"free disk: {free // 2**20:,} MiB{wanted}")


async def _checkout(
    checkouts: Checkouts, fabric: str, project: str, where: str
) -> tuple[Checkout | None, list[Finding]]:
    """The checkout of a project, and whether it could be made; None for a project that runs in its own directory."""
    try:
        source = await checkouts.resolve(project, None, None)
    except RequestError as error:
        return None, [Finding(False, f"{where}: {error}")]
    if source is None:
        return None, []
    checkout = checkouts.checkout(fabric, source)
    problem = await checkout.prepare("check")
    ref = f"version {source.version}" if source.version else f"branch {source.branch}"
    return checkout, [Finding(problem is None, f"{where}: {problem or f'{ref} is the commit {source.commit[:12]}'}")]


async def _compose_fabric(
    fabric: ComposeFabric, settings: Settings, where: str, scratch: Path, *, run_dbt: bool
) -> list[Finding]:
    """Engine, Compose, services, dbt: each needs the one before, so the first that is wrong ends the look."""
    found = [await _engine(fabric), await _compose(fabric)]
    found = [replace(finding, text=f"{where}: {finding.text}") for finding in found]
    if not all(finding.good for finding in found):
        return found
    for step in (StepName.INGESTER, StepName.BUILD):
        found += await _service(fabric, step, where)
    if all(finding.good for finding in found):
        found += await _parameters(fabric, settings, settings.projects, where)
        projects = [one for name, one in settings.projects.items() if where in settings.fabrics_of(name)]
        from_image = any(project.branch is None and project.version is None for project in projects)
        found += await dbt_findings.find_in_containers(fabric, where, scratch, run_dbt=run_dbt and from_image)
    return found


async def _parameters(
    fabric: LocalFabric | ComposeFabric, settings: Settings, projects: Iterable[str], where: str
) -> list[Finding]:
    """Pipelines whose parameters would not reach the ingester."""
    options = (pipeline.options() for project in projects for pipeline in settings.projects[project].pipelines.values())
    steps = (PlannedStep(StepName.INGESTER, arguments=tuple(chosen.values())) for chosen in options)
    lost = [problem for step in steps if (problem := await fabric.lost_arguments(step)) is not None]
    return [Finding(False, f"{where}: {problem}") for problem in dict.fromkeys(lost)]


async def _service(fabric: ComposeFabric, step: StepName, where: str) -> list[Finding]:
    try:
        service = await fabric.service(step)
    except EngineUnreachableError as error:
        service = explain(str(error), "the engine doesn't answer")
    if isinstance(service, str):
        return [Finding(False, f"{where}: {service}")]
    entrypoint = " ".join(service.entrypoint or ()) or "none"
    found = Finding(True, f"{where}: service {service.name}: image {service.image}, entrypoint {entrypoint}")
    return [found, *await _logging(fabric, service, where)]


async def _engine(fabric: ComposeFabric) -> Finding:
    answer = await fabric.docker.run("version", "--format={{.Client.Version}} {{.Server.Version}}")
    versions = answer.output.decode(errors="replace").split()
    if answer.code != 0 or len(versions) != 2:
        return Finding(False, explain(answer.error, "the container engine can't be used"))
    return Finding(True, f"Docker Engine {versions[1]}, docker command line {versions[0]}")


async def _compose(fabric: ComposeFabric) -> Finding:
    """Whether Compose is v2: v1 and podman take other options under the same name."""
    program = await fabric.docker.run("--version")
    if b"podman" in program.output.lower():
        return Finding(False, "the command `docker` is podman here: install Docker's own and its Compose v2 plugin")
    answer = await fabric.docker.run("compose", "version", "--short")
    version = answer.output.decode(errors="replace").strip().removeprefix("v")
    major = version.partition(".")[0]
    if answer.code != 0 or not major.isdecimal():
        return Finding(False, explain(answer.error, "Compose v2 can't be used"))
    if int(major) < 2:
        return Finding(False, f"Compose {version} is out of support: install the Compose v2 plugin")
    try:
        project = await fabric.services.project()
    except EngineUnreachableError as error:
        project = explain(str(error), "Compose does not answer")
    if isinstance(project, str):
        return Finding(False, project)
    services = ", ".join(sorted(project.services)) or "none"
    folder = fabric.compose.directory
    return Finding(True, f"Compose {version}: project {project.name} in {folder}, services: {services}")


async def _logging(fabric: ComposeFabric, service: ComposeService, where: str) -> list[Finding]:
    """A warning where the engine does not keep a container's whole log.

    After a restart, the gateway resumes a log by the count of the bytes that it has read.
    """
    answer = await fabric.docker.run("info", "--format={{.LoggingDriver}}")
    driver = service.log_driver or answer.output.decode(errors="replace").strip()
    if driver == "json-file" and not service.log_rotates:
        return []
    what = f"the logging driver {driver}" if driver != "json-file" else "a json-file log with max-size"
    advice = "use json-file without max-size, or its output may have gaps after a restart of the gateway"
    return [Finding(True, f"{where}: service {service.name} has {what}: {advice}", warns=True)]
