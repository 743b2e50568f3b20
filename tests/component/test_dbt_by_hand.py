"""dbt means in a run what it means by hand: the same files, variables and databases. With the real dbt and dbt-ol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api
from tests.support.bakehouse import PATH
from tests.support.projects import write

RUN = {"pipeline": "dbt", "command": "run", "enableOpenlineage": False}
PIPELINES = {"numbers": {"dbt": {"command": "run"}}}


def project(folder: Path, environment: dict[str, str], **more: Any) -> Path:
    """A small project whose dbt has these variables."""
    fabrics = {"7": {"environment": environment, **more}}
    small = {"dbt": "transform", "pipelines": PIPELINES}
    return projects.make(folder, settings={"fabrics": fabrics, "projects": {"small": small}})


def profiles(folder: Path, profile: dict[str, Any], name: str = "small") -> None:
    """Write a profiles.yml."""
    write(folder / "profiles.yml", yaml.safe_dump({name: profile}))


def database(name: str) -> dict[str, Any]:
    """A target on a database in the project's folder."""
    return {"type": "duckdb", "path": f"../{name}.duckdb"}


def rows(file: Path) -> int:
    """How many rows the model has in a database."""
    with duckdb.connect(str(file), read_only=True) as connection:
        [(found,)] = connection.execute("select count(*) from numbers").fetchall()
    return int(found)


async def succeeds(api: Api, **fields: Any) -> str:
    """The id of a run that must succeed."""
    record = await api.run(**{**RUN, **fields})
    output = (await api.poll(record["jobId"]))["output"]
    assert (record["status"], record["exitCode"]) == ("completed", 0), (record, output)
    return str(record["jobId"])


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


async def test_a_run_up_to_a_model_fills_it_whatever_dbts_variables_say(tmp_path: Path, make_api: MakeApi) -> None:
    folder = project(tmp_path / "project", {"DBT_ENGINE_EMPTY": "1"})
    api = await make_api(folder)
    asked = {"fabricId": 7, "projectId": "small", "pipelineName": "numbers", "processName": "numbers"}
    answer = await api.call("POST", PATH, asked)
    assert answer.status == 200, answer
    assert (await api.finished(answer.json["runId"]))["exitCode"] == 0
    assert rows(folder / "warehouse.duckdb") == 10
