"""What the record of a job says about how its fabric runs it; no test here needs dbt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeApi
from tests.support import bakehouse, projects, repositories
from tests.support.bakehouse import FABRIC, PATH, PIPELINE, PROJECT


def program(file: Path) -> str:
    """A program that is found, and does nothing."""
    projects.write(file, "#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("variable", ["OPENLINEAGE_URL", "OPENLINEAGE__TRANSPORT__URL", None])
async def test_lineage_that_is_sent_nowhere_is_noted(tmp_path: Path, make_api: MakeApi, variable: str | None) -> None:
    dbt = {"executable": program(tmp_path / "dbt"), "openlineage_executable": program(tmp_path / "dbt-ol")}
    folder = projects.make(tmp_path / "project", settings={"fabrics": {"local": {"dbt": dbt}}})
    if variable is None:
        projects.write(folder / "transform/openlineage.yml", "transport: {type: console}\n")
    api = await make_api(folder, {} if variable is None else {variable: "http://localhost:5000"})
    [note] = (await api.run(pipeline="dbt", command="build"))["notes"]
    assert note.startswith("OpenLineage events are kept in the folder of each local step, in lineage.ndjson")
    assert f"{variable or folder / 'transform/openlineage.yml'} has no effect yet" in note
    assert (await api.run(pipeline="dbt", command="build", enableOpenlineage=False))["notes"] == []
    assert (await api.run(pipeline="ingester"))["notes"] == []


async def test_a_missing_edr_turns_elementary_off_with_a_note(tmp_path: Path, make_api: MakeApi) -> None:
    dbt = {"executable": program(tmp_path / "dbt"), "edr": "/no/edr"}
    folder = projects.make(tmp_path / "project", settings={"fabrics": {"local": {"dbt": dbt}}})
    projects.add_elementary(folder / "transform")
    api = await make_api(folder, {"ENABLE_OPENLINEAGE": "false"})
    record = await api.run(pipeline="dbt")
    assert record["notes"] == ["Elementary is off: /no/edr was not found."]
    assert [step["name"] for step in record["steps"]] == ["deps", "build"]


@pytest.mark.parametrize(("path", "is_noted"), [("w.duckdb", True), ("/srv/w.duckdb", False), (":memory:", False)])
async def test_a_database_that_goes_with_the_checkout_is_noted(
    tmp_path: Path, make_api: MakeApi, path: str, is_noted: bool
) -> None:
    fabric = {"environment": {"WAREHOUSE": path, "BAKEHOUSE": str(tmp_path)}, "dbt": {"executable": "/bin/false"}}
    api = await make_api(bakehouse.make(tmp_path / "bakery", fabric=fabric))
    run = {"fabricId": FABRIC, "projectId": PROJECT, "pipelineName": PIPELINE}

    async def notes(**fields: Any) -> list[str]:
        answer = await api.call("POST", PATH, {**run, **fields})
        assert answer.status == 200, answer
        record = await api.finished(answer.json["runId"])
        return [note for note in record["notes"] if "database" in note]

    noted = await notes(branch="main")
    assert len(noted) == is_noted
    assert all(f"The database {path} of the target dev in" in note for note in noted)
    assert await notes() == []


async def test_a_project_in_a_submodule_is_told(tmp_path: Path, make_api: MakeApi) -> None:
    repositories.repository(tmp_path / "models", {"name": "x"})
    projects.dbt_project(tmp_path / "models")
    repositories.commit(tmp_path / "models", {})
    folder = projects.make(tmp_path / "project", settings={"projects": {"small": {"dbt": "lake/dbt"}}})
    repositories.repository(folder, {".gitignore": "gateway.yaml\n.pipeline-gateway\n"})
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "models"), "lake/dbt")
    repositories.git(folder, *add)
    repositories.commit(folder, {})
    projects.make(folder, settings={"projects": {"small": {"dbt": "lake/dbt", "branch": "main"}}})
    api = await make_api(folder)
    error = (await api.run(pipeline="dbt", command="build"))["error"]
    assert "The folder lake/dbt is in the submodule lake/dbt, whose files a checkout does not have" in error
    assert f"such as `repository: {tmp_path / 'models'}`" in error
