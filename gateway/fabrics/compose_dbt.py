"""dbt in a container: where it writes, and how its files are copied out."""

from __future__ import annotations

import asyncio
import io
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway.settings.fabric import DbtServiceSettings
from runners.containers.docker import ContainerState, Docker
from runners.containers.identity import container_name
from runners.dbt import artifacts
from runners.dbt import command as dbt
from runners.dbt import output as dbt_output
from runners.dbt import variables as dbt_variables
from runners.dbt.command import DbtPaths, DbtStep
from runners.mask import Mask

# a service that sets one of these decides itself where its lineage goes
LINEAGE_VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT", "OPENLINEAGE_DISABLED")

# Paths in the container, which the gateway copies out; each step has a container of its own.
_LINEAGE = "/tmp/pipeline-gateway-lineage.ndjson"  # noqa: S108, no file of this host
_REPORT = "/tmp/pipeline-gateway-report.html"  # noqa: S108, no file of this host
_EDR = "/tmp/pipeline-gateway-edr"  # noqa: S108, no folder of this host
_TARGET = "/tmp/pipeline-gateway-target"  # noqa: S108, no folder of this host
_LOGS = "/tmp/pipeline-gateway-logs"  # noqa: S108, no folder of this host


def paths(chosen: DbtServiceSettings, project: str | None, *, separate: bool = False) -> DbtPaths:
    """The paths of a step, as its container sees them.

    project: where the checkout is mounted, None without one. With one, dbt writes its target and logs into the
    container and not into the checkout: the container's user may be root, whose folders the gateway could not remove,
    and jobs that share the checkout share no target.
    separate: for `dbt ls`, which must not write into the service's own folders, since a job may be running there.
    """
    separate = separate or (project is not None and chosen.target_path is None)
    return DbtPaths(
        cwd=chosen.working_directory or "",
        project=project,  # an option, so that it wins over variables of the service
        profiles=chosen.profiles_directory,
        target=_TARGET if separate else chosen.target_path,
        logs=_LOGS if separate else None,
        partial_parse=None,
        report=_REPORT,
        edr=_EDR,
        edr_profiles=chosen.profiles_directory,
    )


def lineage_paths(paths: DbtPaths, environment: Mapping[str, str]) -> DbtPaths:
    """The paths for dbt-ol, which doesn't read all variables that dbt does. environment: of the container."""
    project, target = (dbt_variables.value(environment, name) for name in ("PROJECT_DIR", "TARGET_PATH"))
    return replace(paths, project=paths.project or project, target=paths.target or target)


def variables(*, lineage: bool) -> Mapping[str, str]:
    """The variables of a step that neither the configuration nor its service sets."""
    return {**dbt.DEFAULT_VARIABLES, **({"TQDM_DISABLE": "1", **dbt.lineage_variables(_LINEAGE)} if lineage else {})}


async def fetch(
    docker: Docker,
    state: ContainerState,
    target: str,
    step: DbtStep,
    reader: dbt_output.DbtReader,
    folder: Path,
    mask: Mask,
) -> None:
    """Copy what the step has left out of its ended container, unless it is from an earlier run.

    target: dbt's target folder, relative to the container's working directory or absolute. folder: of the step.
    mask: of what is copied. One file is in memory at a time. Raises OSError, EngineUnreachableError.
    """
    target, to = posixpath.join(state.working_directory, target), artifacts.files(folder)
    for name, file in artifacts.in_target(step.verb).items():
        content = await docker.read_file(state.id, posixpath.join(target, file))
        if content is not None and artifacts.is_from_run(content, reader.invocation_id):
            await asyncio.to_thread(_write, to[name], content, mask)
    if step.lineage and (content := await docker.read_file(state.id, _LINEAGE)) is not None:
        await asyncio.to_thread(_write, dbt.lineage_file(folder), content, mask)
    if step.report and (content := await docker.read_file(container_name(folder, 1), _REPORT)) is not None:
        await asyncio.to_thread(_write, dbt.report_file(folder), content, mask)


def target(chosen: DbtServiceSettings, project: str | None) -> str:
    """A step's target folder, absolute or from the container's working directory on; project: as in `paths`."""
    if project is None:
        return chosen.target_path or "target"
    return posixpath.join(project, chosen.target_path or _TARGET)


def _write(file: Path, content: bytes, mask: Mask) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        mask.copy(io.BytesIO(content), opened)
