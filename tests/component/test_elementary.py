"""`daily` keeps all results for Elementary, whose package has a stand-in here. dbt is real unless a test says fake."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api, until
from tests.support.damage import STATE
from tests.support.quick_dbt import QUICK_DBT

# the steps of `daily`, as a person calls them who knows nothing of the gateway
BY_HAND = (["deps"], ["build"], ["run", "--select", "elementary"])
TABLES = ("dbt_run_results", "elementary_test_results")
MADE = "The step build makes Elementary's models too"
LEFT = "The step build leaves Elementary's models to the step elementary: the target has their tables."
FAKE = """
    #!/bin/sh
    case "$1" in
    deps) echo '{"info": {"name": "MainReportVersion", "msg": "Running", "invocation_id": "1"}}';;
    compile) {compile};;
    esac
"""


def project(folder: Path, compile_by_fake: str | None = None) -> Path:
    """A small project with the stand-in for Elementary. compile_by_fake: what `compile` of a fake dbt does."""
    settings = {"fabrics": {"local": {"dbt": {"executable": str(folder / "dbt")}}}}
    made = projects.make(folder, settings=None if compile_by_fake is None else settings)
    if compile_by_fake is not None:
        projects.write(made / "dbt", FAKE.replace("{compile}", compile_by_fake))
        (made / "dbt").chmod(0o755)
    projects.add_elementary(made / "transform")
    return made


def call_dbt(transform: Path) -> None:
    for words in BY_HAND:
        subprocess.run([QUICK_DBT.program, *words], cwd=transform, check=True)


def kept(folder: Path) -> list[Counter[str]]:
    """How many results of each node Elementary's tables have."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        found = [connection.execute(f"select unique_id from {table}").fetchall() for table in TABLES]
    return [Counter(node for (node,) in rows) for rows in found]


def drop_tables(folder: Path) -> None:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        for table in TABLES:
            connection.execute(f"drop table {table} cascade")


async def test_no_result_is_lost_where_elementarys_tables_are_missing(tmp_path: Path, make_api: MakeApi) -> None:
    hand = project(tmp_path / "hand")
    call_dbt(hand / "transform")
    [first_runs, first_tests] = by_hand = kept(hand)
    assert (first_runs.total(), first_tests.total()) == (2 + 3 + 3 + 3, 3)

    api = await make_api(project(tmp_path / "project"))

    async def notes_of_a_day() -> list[str]:
        record = await api.run(pipeline="dbt", command="daily", enableOpenlineage=False)
        assert (record["status"], record["exitCode"]) == ("completed", 0), record
        assert_each_step_has_its_results(api.folder / STATE / "jobs" / record["jobId"])
        return [str(note) for note in record["notes"]]

    missing = (
        f"{MADE}: without their tables its own results would be lost, and the target lacks dbt_run_results and 1 more."
    )
    notes = await notes_of_a_day()
    assert (kept(api.folder), notes) == (by_hand, [missing])

    notes = await notes_of_a_day()
    of_elementary = Counter({node: 1 for node in first_runs if node.startswith("model.elementary.")})
    # its models run once a day now, and all else as by hand
    assert (kept(api.folder), notes) == ([first_runs + first_runs - of_elementary, first_tests + first_tests], [LEFT])

    drop_tables(api.folder)
    notes = await notes_of_a_day()
    assert (kept(api.folder), notes) == (by_hand, [missing])


def assert_each_step_has_its_results(job: Path) -> None:
    """What the step elementary leaves replaces nothing of the build."""
    build, elementary = (
        {node["unique_id"] for node in json.loads((job / step / "artifacts/run_results.json").read_bytes())["results"]}
        for step in ("2-build", "3-elementary")
    )
    assert "model.small.numbers" in build
    assert "model.small.numbers" not in elementary
    assert "model.elementary.dbt_run_results" in elementary
    assert all((job / step / "artifacts/manifest.json").is_file() for step in ("2-build", "3-elementary"))
    assert [file.name for file in (job / "1-deps/artifacts").iterdir()] == ["command.json"]


async def daily_with_a_fake(api: Api) -> str:
    return await api.trigger(pipeline="dbt", enableOpenlineage=False, enableElementary=True)


async def test_a_fake_dbt_that_cannot_look_has_elementarys_models_made(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(project(tmp_path / "project", "echo 'Database Error: no route'; exit 2"))
    record = await api.finished(await daily_with_a_fake(api))
    why = "whether the target has their tables is not known: Database Error: no route"
    assert record["notes"] == [f"{MADE}: {why}"]


async def test_a_cancel_ends_a_fake_dbt_that_looks_for_tables(tmp_path: Path, make_api: MakeApi) -> None:
    asking = tmp_path / "asking"
    api = await make_api(project(tmp_path / "project", f"echo $$ > {asking}; exec sleep 600"))
    job = await daily_with_a_fake(api)

    async def asks() -> str:
        return asking.read_text() if asking.exists() else ""

    pid = (await until(asks, "dbt to look for the tables")).strip()
    await api.call("POST", f"/api/v1/jobs/{job}/cancel")
    record = await api.finished(job)
    assert (record["reason"], [step["status"] for step in record["steps"]]) == (
        "cancelled",
        ["completed", "skipped", "skipped"],
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
