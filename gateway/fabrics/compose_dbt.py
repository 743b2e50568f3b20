"""dbt in a container: what its image has, where it leaves things, and how they are fetched."""

from __future__ import annotations

import asyncio
import posixpath
import shlex
from collections.abc import Mapping
from pathlib import Path

from gateway.settings.fabric import DbtServiceSettings
from runners.containers.docker import ContainerState, Docker
from runners.containers.identity import container_name
from runners.dbt import command as dbt
from runners.dbt import output as dbt_output
from runners.dbt.command import DbtPaths, DbtStep
from runners.dbt.results import is_from_run

HAS_OPENLINEAGE, HAS_ELEMENTARY, LOOKED = "openlineage", "elementary", "looked"
# A service that sets one of these has said where its lineage goes.
LINEAGE_VARIABLES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT", "OPENLINEAGE_DISABLED")

# What a container has only for the gateway to fetch; each step has a container of its own.
_LINEAGE = "/tmp/pipeline-gateway-lineage.ndjson"  # noqa: S108, no file of this host
_REPORT = "/tmp/pipeline-gateway-report.html"  # noqa: S108, no file of this host
_EDR = "/tmp/pipeline-gateway-edr"  # noqa: S108, no folder of this host
_TARGET = "/tmp/pipeline-gateway-target"  # noqa: S108, no folder of this host
_LOGS = "/tmp/pipeline-gateway-logs"  # noqa: S108, no folder of this host
_ELEMENTARY_PACKAGE = (
    r"(package|git|tarball|local|name):.*[/ \"](elementary|dbt-data-reliability)(\.git)?/?\"?[[:space:]]*(#.*)?$"
)


def script(lineage_executable: str) -> str:
    """What a shell in the dbt project's folder says of what is there: HAS_ and LOOKED words."""
    return (
        f"command -v {shlex.quote(lineage_executable)} >/dev/null && echo {HAS_OPENLINEAGE}; "
        f"if [ -f dbt_packages/elementary/dbt_project.yml ] || "
        f"grep -Eqs '{_ELEMENTARY_PACKAGE}' packages.yml dependencies.yml; then echo {HAS_ELEMENTARY}; fi; "
        f"echo {LOOKED}"
    )


def paths(chosen: DbtServiceSettings, project: str | None, *, listing: bool = False) -> DbtPaths:
    """The paths of a step, as its container sees them. project: where a checkout's is mounted, None without one.

    What dbt writes besides packages it writes into the container then, not into the checkout: its user there may be
    root, whose folders a gateway that isn't could not remove, and jobs that share the checkout share no target.
    listing: nothing is to be left anywhere, for a job may just be running in the service's own folders.
    """
    ours = listing or (project is not None and chosen.target_path is None)
    return DbtPaths(
        cwd=chosen.working_directory or "",
        project=project,  # said, so that it is what runs, whatever variables the service sets
        profiles=chosen.profiles_directory,
        target=_TARGET if ours else chosen.target_path,
        logs=_LOGS if ours else None,
        partial_parse=None,
        report=_REPORT,
        edr=_EDR,
    )


def variables(*, lineage: bool) -> Mapping[str, str]:
    """What a step finds in its environment unless somebody sets it otherwise."""
    return {**dbt.DEFAULT_VARIABLES, **({"TQDM_DISABLE": "1", **dbt.lineage_variables(_LINEAGE)} if lineage else {})}


async def fetch(
    docker: Docker, state: ContainerState, target: str, step: DbtStep, reader: dbt_output.DbtReader, folder: Path
) -> None:
    """Take from the ended container what tells of the run, unless it is of an earlier one.

    target: dbt's target folder, from the container's working directory on. folder: the step's. Raises OSError,
    EngineSilentError.
    """
    target = posixpath.join(state.working_directory, target)
    results = await docker.file(state.id, posixpath.join(target, "run_results.json"))
    lineage = await docker.file(state.id, _LINEAGE) if step.lineage else None
    report = await docker.file(container_name(folder, 1), _REPORT) if step.report else None
    if results is not None and is_from_run(results, reader.invocation_id):
        await asyncio.to_thread(_write, dbt.target_folder(folder) / "run_results.json", results)
    for file, content in ((dbt.lineage_file(folder), lineage), (dbt.report_file(folder), report)):
        if content is not None:
            await asyncio.to_thread(_write, file, content)


def target(chosen: DbtServiceSettings, project: str | None) -> str:
    """Where the results of a step are, from the container's working directory on; project: as above."""
    if project is None:
        return chosen.target_path or "target"
    return posixpath.join(project, chosen.target_path or _TARGET)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
