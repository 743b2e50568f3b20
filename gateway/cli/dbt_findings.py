"""`pipeline-gateway check`: what is wrong with the projects of local fabrics, their dbt and its databases."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.fabrics.compose import ComposeFabric
from gateway.fabrics.local import NOT_SENT, LocalFabric
from gateway.model import catalog
from gateway.model.plan import Plan, PlannedStep, StepName
from gateway.model.request import BuiltinPipeline, TriggerRequest
from gateway.settings.settings import Settings
from runners import program
from runners.dbt import profile as dbt_profile
from runners.dbt import project as dbt_project
from runners.program import ProgramResult
from runners.report import one_line
from runners.yaml_file import read_mapping

DAILY = TriggerRequest(BuiltinPipeline.DBT)
_VERSION_TIMEOUT, _DBT_TIMEOUT = 60.0, 180.0  # seconds
_NO_VERSION = re.compile(r"[0-9]+")
_FAILURE = re.compile(r"Encountered an error|ERROR|failed for the following reason|Could not|not found")
_TIME = re.compile(r"^\d\d:\d\d:\d\d\s+")
_LONGEST_ANSWER = 400  # characters


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one look. warns: it works, but not as well as it could."""

    good: bool
    text: str
    warns: bool = False


async def find(fabric: LocalFabric, where: str, scratch: Path, *, run_dbt: bool) -> list[Finding]:
    """What is found about a project on a local fabric. scratch: a folder for the files of dbt."""
    found = []
    if fabric.has_ingester:
        problem = await fabric.problem(PlannedStep(StepName.INGESTER))
        found.append(Finding(problem is None, f"{where}: {problem or 'ingester'}"))
    else:
        found.append(Finding(True, f"{where}: no ingester: the pipelines `ingester` and `full` will fail"))
    plan = catalog.plan(DAILY, await fabric.installation(DAILY))
    wrong = [*await problems(fabric, plan, where), *_files(fabric, where)]
    missing = await asyncio.to_thread(fabric.missing_program)
    if missing is not None and not any(missing in finding.text for finding in (*found, *wrong)):
        wrong.append(Finding(False, f"{where}: {missing}"))
    found += wrong or [Finding(True, f"{where}: dbt project and profile")]
    found += [*await _dbt_version(fabric, where), *toggles(plan, where), *_lineage(fabric, plan, where)]
    if run_dbt and not wrong:
        found += await answers_of_dbt(fabric, where, scratch)
    return found


async def find_in_containers(fabric: ComposeFabric, where: str, scratch: Path, *, run_dbt: bool) -> list[Finding]:
    """What is found about a project in the service of dbt; without a checkout, about the one that its image has."""
    plan = catalog.plan(DAILY, await fabric.installation(DAILY))
    wrong = await problems(fabric, plan, where)
    said = [finding.text for finding in wrong]
    more = [f"{where}: {text}" for text in await fabric.faults()]
    wrong += [Finding(False, text) for text in more if text not in said]
    asked = await answers_of_dbt(fabric, where, scratch) if run_dbt and not wrong else []
    return [*wrong, *toggles(plan, where), *asked]


async def problems(fabric: LocalFabric | ComposeFabric, plan: Plan, where: str) -> list[Finding]:
    """What keeps the steps of a plan from running; a problem of several steps is said once."""
    said = [problem for step in plan.steps if (problem := await fabric.problem(step)) is not None]
    return [Finding(False, f"{where}: {problem}") for problem in dict.fromkeys(said)]


def toggles(plan: Plan, where: str) -> Iterator[Finding]:
    """Whether OpenLineage and Elementary are on."""
    lineage = any(step.lineage for step in plan.steps)
    yield Finding(True, f"{where}: OpenLineage is {'on' if lineage else 'off'}")
    elementary = any(step.name is StepName.ELEMENTARY for step in plan.steps)
    yield Finding(True, f"{where}: Elementary is {'on' if elementary else 'off'}")


def shared_databases(settings: Settings, fabrics: Sequence[LocalFabric]) -> Iterator[Finding]:
    """Databases that are files, which take one writer, and that jobs which don't take turns write to."""
    writers: dict[Path, dict[str, str]] = {}  # by file: the resources that its writers hold, and who holds them
    for fabric in fabrics:
        connection = fabric.connection()
        if connection is None:
            continue
        ingester, dbt = settings.resources(fabric.name)
        for path in connection.files(fabric.environment):
            held = writers.setdefault((fabric.dbt.project / path).resolve(), {})
            held[dbt] = f"dbt on {fabric.name}"
            if fabric.has_ingester:
                held.setdefault(ingester, f"the ingester on {fabric.name}")
    for file, held in writers.items():
        if len(held) > 1:
            who = " and ".join(f"{writer} ({resource})" for resource, writer in held.items())
            yield Finding(
                True,
                f"{file} takes one writer, and {who} hold different resources, so they may run at the same time: give "
                "both fabrics' steps one resource, such as `resources: {ingester: warehouse, dbt: warehouse}`",
                warns=True,
            )


def _files(fabric: LocalFabric, where: str) -> Iterator[Finding]:
    """What dbt would refuse, as far as its files tell."""
    lost = fabric.throwaway_database() if fabric.checkout is not None else None
    if lost is not None:
        yield Finding(False, f"{where}: {lost}")
    file = dbt_project.files(fabric.dbt, fabric.environment)[0]
    project = read_mapping(file)
    connection = fabric.connection()
    settings = {} if connection is None else connection.settings
    for name in dict.fromkeys(dbt_profile.unset_variables([settings, project], fabric.environment)):
        advice = f"set it where the gateway runs, or in `fabrics.{fabric.name}.environment: {{{name}: …}}`"
        yield Finding(False, f"{where}: dbt needs the variable {name}, which is not set: {advice}")
    version = None if isinstance(project, str) else project.get("version")
    if isinstance(version, str) and _NO_VERSION.fullmatch(version):
        yield Finding(False, f"{where}: {file}: version: dbt refuses {version!r}; write `version: '{version}.0.0'`")


def _lineage(fabric: LocalFabric, plan: Plan, where: str) -> Iterator[Finding]:
    dropped = fabric.dropped_receiver()
    if dropped is not None and any(step.lineage for step in plan.steps):
        yield Finding(True, f"{where}: {NOT_SENT.format(dropped)}", warns=True)


async def _dbt_version(fabric: LocalFabric, where: str) -> list[Finding]:
    """The version of dbt, and whether the adapter of the project's database is installed beside it."""
    found = shutil.which(fabric.dbt.executable, path=fabric.environment["PATH"])
    if found is None:
        return []  # among the problems of the plan
    answer = await program.run((found, "--version"), fabric.environment, within=_VERSION_TIMEOUT)
    text = answer.output.decode(errors="replace")
    if answer.code is None:
        return [Finding(False, f"{where}: {found} does not run: {answer.error}")]
    version = re.search(r"installed: +(\S+)|^dbt \S*?(\d+\.\S+)", text, re.MULTILINE)
    number = (version[1] or version[2]) if version else "unknown"
    if not number.startswith("1."):
        return [Finding(False, f"{where}: {found} is dbt {number}, but the gateway drives dbt 1.x")]
    findings = [Finding(True, f"{where}: {found} is dbt {number}")]
    connection = fabric.connection()
    adapter = None if connection is None else connection.adapter
    installed = re.findall(r"^ +- (\w+): ", text.partition("Plugins:")[2], re.MULTILINE)
    if adapter is not None and installed and adapter not in installed:
        advice = f"{_pip(found)} install dbt-{adapter}"
        findings.append(Finding(False, f"{where}: dbt has no adapter {adapter}, only {', '.join(installed)}: {advice}"))
    return findings


def _pip(dbt_program: str) -> str:
    """The command that installs into the environment of this dbt."""
    python = Path(dbt_program).resolve().with_name("python")
    return f"{python} -m pip" if python.exists() else f"in the environment of {dbt_program}, pip"


async def answers_of_dbt(fabric: LocalFabric | ComposeFabric, where: str, scratch: Path) -> list[Finding]:
    """What `dbt parse` and `dbt debug` say of a project."""
    found = []
    for verb in ("parse", "debug"):
        answer = await fabric.ask_dbt(verb, scratch, _DBT_TIMEOUT)
        if answer.result.code == 0:
            found.append(Finding(True, f"{where}: dbt {verb}"))
            continue
        why = fabric.mask.text(_why(answer.result))
        advice = f"mend that, then see that this exits 0: {answer.by_hand}"
        found.append(Finding(False, f"{where}: dbt {verb}: {why}; {advice}"))
    return found


def _why(answer: ProgramResult) -> str:
    """The part of dbt's output that says what is wrong."""
    if answer.code is None or not answer.output.strip():
        return one_line(answer.error, _LONGEST_ANSWER)
    lines = [_TIME.sub("", line).strip() for line in answer.output.decode(errors="replace").splitlines()]
    first = next((number for number, line in enumerate(lines) if _FAILURE.search(line)), 0)
    return one_line(" ".join(line for line in lines[first:] if line), _LONGEST_ANSWER)
