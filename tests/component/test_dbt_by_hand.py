"""dbt means in a run what it means by hand: the same files, variables and databases. With the real dbt and dbt-ol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from runners.dbt import profile as dbt_profile
from tests.conftest import MakeApi
from tests.support import projects, repositories
from tests.support.api import Api
from tests.support.bakehouse import PATH
from tests.support.projects import write
from tests.support.quick_dbt import QUICK_DBT

RUN = {"pipeline": "dbt", "command": "run", "enableOpenlineage": False}
PIPELINES = {"numbers": {"dbt": {"command": "run"}}}


def project(folder: Path, environment: dict[str, str], **more: Any) -> Path:
    """A small project whose dbt has these variables."""
    fabrics = {"7": {"environment": environment, "dbt": {"executable": str(QUICK_DBT.program)}, **more}}
    small = {"dbt": "transform", "pipelines": PIPELINES}
    return projects.make(folder, settings={"fabrics": fabrics, "projects": {"small": small}})


def profiles(folder: Path, profile: dict[str, Any], name: str = "small") -> None:
    """Write a profiles.yml."""
    write(folder / "profiles.yml", yaml.safe_dump({name: profile}))


def database(name: str) -> dict[str, Any]:
    """A target on a database in the project's folder."""
    return {"type": "duckdb", "path": f"../{name}.duckdb"}


def rows(file: Path, model: str = "numbers") -> int:
    """How many rows a model has in a database."""
    with duckdb.connect(str(file), read_only=True) as connection:
        [(found,)] = connection.execute(f"select count(*) from {model}").fetchall()
    return int(found)


async def succeeds(api: Api, **fields: Any) -> str:
    """The id of a run that must succeed."""
    record = await api.run(**{**RUN, **fields})
    output = (await api.poll(record["jobId"]))["output"]
    assert (record["status"], record["exitCode"]) == ("completed", 0), (record, output)
    return str(record["jobId"])


async def stops_at(api: Api, process: str) -> dict[str, Any]:
    """The record of a run up to a model, which must succeed."""
    asked = {"fabricId": 7, "projectId": "small", "pipelineName": "numbers", "processName": process}
    answer = await api.call("POST", PATH, asked)
    assert answer.status == 200, answer
    record = await api.finished(answer.json["runId"])
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    return record


async def test_the_variable_for_profiles_wins_over_the_projects_file(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path / "project", {"DBT_PROFILES_DIR": "../elsewhere"})
    profiles(folder / "elsewhere", {"target": "dev", "outputs": {"dev": database("elsewhere")}})
    await succeeds(await make_api(folder))
    assert rows(folder / "elsewhere.duckdb") == 10
    assert not (folder / "warehouse.duckdb").exists()


async def test_a_database_in_dbts_target_folder_is_found(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path / "project", {})
    inside = {"type": "duckdb", "path": "target/dev.duckdb"}
    profiles(folder / "transform", {"target": "dev", "outputs": {"dev": inside}})
    await succeeds(await make_api(folder))
    assert rows(folder / "transform/target/dev.duckdb") == 10


ENGINE = {
    "DBT_ENGINE_PROFILES_DIR": "../elsewhere",
    "DBT_PROFILES_DIR": "/none",
    "DBT_ENGINE_TARGET": "prod",
    "DBT_TARGET": "nope",
    "DBT_PROFILE": "other",
}


@pytest.mark.parametrize(
    ("variables", "target", "chosen"),
    [
        ({"DBT_TARGET": "prod"}, {}, "prod"),
        (ENGINE, {"target": "{{ target_of_nobody }}"}, "prod"),
        ({}, {}, "default"),
    ],
    ids=["a variable", "variables since dbt 1.11", "no target anywhere"],
)
async def test_lineage_names_the_database_that_dbt_chooses(
    tmp_path: Path, make_api: MakeApi, variables: dict[str, str], target: dict[str, str], chosen: str
) -> None:
    folder = project(tmp_path / "project", variables)
    outputs = {name: database(name) for name in ("dev", chosen)}
    where, name = ("elsewhere", "other") if variables == ENGINE else ("transform", "small")
    profiles(folder / where, {"outputs": outputs, **target}, name)
    api = await make_api(folder)
    job = await succeeds(api, enableOpenlineage=True)
    assert rows(folder / f"{chosen}.duckdb") == 10
    events = (folder / f".pipeline-gateway/jobs/{job}/1-run/lineage.ndjson").read_text()
    assert f"{chosen}.duckdb" in events
    assert "dev.duckdb" not in events


async def test_a_target_that_only_dbt_can_evaluate_turns_lineage_off(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path / "project", {})
    target = "{{ env_var('WHERE', 'prod') | as_text }}"
    profiles(folder / "transform", {"target": target, "outputs": {"prod": database("prod")}})
    api = await make_api(folder)
    record = await api.run(pipeline="dbt", command="run")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert rows(folder / "prod.duckdb") == 10
    needed = f"dbt-ol needs the profile's target in {folder}/transform/profiles.yml, whose Jinja only dbt can evaluate"
    assert record["notes"][0].startswith(f"OpenLineage is off: {needed}: set `target` of the fabric's dbt")
    asked = await api.run(pipeline="dbt", command="run", enableOpenlineage=True)
    assert (asked["reason"], asked["error"].partition(":")[0]) == (
        "not_started",
        f"OpenLineage is wanted, but {needed}",
    )


def test_all_that_dbt_adds_to_jinja_is_known_as_its_own() -> None:
    """dbt-ol knows `env_var`; the others are words of Jinja too."""
    program = "from dbt.context.base import generate_base_context; print(*generate_base_context({}))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = set(said.stdout.split()) - {"env_var", "set", "context"}
    assert "var" in names
    assert [name for name in names if not dbt_profile.needs_dbt(f"{{{{ {name} }}}}")] == []


async def test_a_run_up_to_a_model_fills_it_whatever_dbts_variables_say(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path / "project", {"DBT_ENGINE_EMPTY": "1"})
    await stops_at(await make_api(folder), "evens")
    assert rows(folder / "warehouse.duckdb", "evens") == 5


def made(folder: Path) -> set[str]:
    """The models in the warehouse, each with its schema."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.execute("select schema_name || '.' || view_name from duckdb_views() where not internal")
        return {str(name) for (name,) in found.fetchall()}


async def test_a_run_stops_at_the_projects_model_and_not_at_a_packages(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path / "project", {})
    package = folder / "transform/dbt_packages/shared"
    write(package / "dbt_project.yml", "name: shared\nversion: '1.0'\nmodels: {+schema: shared}\n")
    write(package / "models/base.sql", "select 1 as n")
    write(package / "models/evens.sql", "select n from {{ ref('base') }}")
    await stops_at(await make_api(folder), "evens")
    assert made(folder) == {"main.numbers", "main.evens"}


async def test_a_dbt_of_another_name_turns_lineage_off_by_default(tmp_path: Path, make_api: MakeApi) -> None:
    """dbt-ol, which is beside the gateway, would call another dbt."""
    wrapper = tmp_path / "dbt.sh"
    write(wrapper, f'#!/bin/sh\nexec {QUICK_DBT.program} "$@"\n')
    wrapper.chmod(0o755)
    api = await make_api(project(tmp_path / "project", {}, dbt={"executable": str(wrapper)}))
    record = await api.run(pipeline="dbt", command="run")
    assert (record["status"], record["exitCode"]) == ("completed", 0), record
    assert "OpenLineage is off: dbt-ol calls the program `dbt` of PATH" in record["notes"][0]
    asked = await api.run(pipeline="dbt", command="run", enableOpenlineage=True)
    assert (asked["reason"], asked["error"][:23]) == ("not_started", "OpenLineage is wanted, ")


async def test_a_new_commit_gets_its_packages_whatever_the_command(tmp_path: Path, make_api: MakeApi) -> None:
    small = {"directory": "shop", "dbt": "transform", "branch": "main"}
    folder = projects.make(tmp_path / "project", settings={"projects": {"small": small}})
    shop = folder / "shop"
    projects.dbt_project(shop / "transform")
    write(shop / "package/dbt_project.yml", "name: shared\nversion: '1.0'\n")
    write(shop / "package/macros/most.sql", "{% macro most() %}5{% endmacro %}\n")
    write(shop / "transform/packages.yml", "packages: [{local: ../package}]\n")
    write(shop / "transform/models/best.sql", "select {{ shared.most() }} as stars\n")
    repositories.repository(shop, {".gitignore": "dbt_packages/\n"})
    api = await make_api(folder)
    first, second = [await api.run(**RUN) for _ in range(2)]
    assert [(step["name"], step["exitCode"]) for step in first["steps"]] == [("deps", 0), ("run", 0)]
    assert "The step deps comes first" in first["notes"][-1]
    assert [(step["name"], step["exitCode"]) for step in second["steps"]] == [("run", 0)]
