"""`dbt retry`: another attempt of a dbt step runs only what had failed, and its result is that of the whole step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api
from tests.support.quick_dbt import QUICK_DBT

BROKEN = "select no_such_column as n from {{ ref('numbers') }}\n"
GOOD = "select n from {{ ref('numbers') }} where n % 2 = 0\n"
NOTE = "The step build runs only what had failed or was skipped, by `dbt retry`."
PLAIN = {"command": "build", "enableOpenlineage": False}


def broken(folder: Path, **retries: Any) -> Path:
    """A project whose second model fails, so that its test is skipped."""
    dbt = {"executable": str(QUICK_DBT.program), "retries": retries or None}
    fabric = {"resources": {"ingester": "warehouse", "dbt": "warehouse"}, "dbt": dbt}
    made = projects.make(folder, settings={"fabrics": {"local": fabric}})
    projects.write(made / "transform/models/evens.sql", BROKEN)
    return made


def artifact(api: Api, job: str, step: str, name: str) -> Any:
    return json.loads((api.folder / ".pipeline-gateway/jobs" / job / step / "artifacts" / name).read_text())


def nodes(api: Api, job: str, step: str) -> set[str]:
    """The models that a step ran, by its own results."""
    found = (result["unique_id"] for result in artifact(api, job, step, "run_results.json")["results"])
    return {node.rpartition(".")[2] for node in found if node.startswith("model.")}


async def test_a_retry_of_a_job_runs_only_what_failed_and_counts_everything(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(broken(tmp_path / "project"))
    failed = await api.run(pipeline="dbt", **PLAIN)
    assert (failed["exitCode"], nodes(api, failed["jobId"], "1-build")) == (1, {"numbers", "evens"})
    projects.write(api.folder / "transform/models/evens.sql", GOOD)
    answer = await api.call("POST", f"/api/v1/jobs/{failed['jobId']}/retry")
    record = await api.finished(answer.json["jobId"])
    job, progress = record["jobId"], record["steps"][0]["progress"]
    assert (record["outcome"], nodes(api, job, "1-build")) == ("succeeded", {"evens"})
    assert (progress["done"], progress["total"], progress["pass"], progress["error"]) == (5, 5, 5, 0)
    assert NOTE in record["notes"]
    [argv] = artifact(api, job, "1-build", "command.json")["argvs"]
    assert argv[1] == "retry"
    found = (await api.get(f"/api/v1/jobs/{job}/nodes"))["nodes"]
    assert len(found) == 5
    assert {node["status"] for node in found} == {"success", "pass"}
    before = next(node["uniqueId"] for node in found if node["name"] == "numbers")
    assert (await api.get(f"/api/v1/jobs/{job}/nodes/{before}/sql"))["compiledSql"]


async def test_a_further_attempt_is_dbt_retry_and_what_still_fails_counts(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(broken(tmp_path / "project", attempts=3, wait=0, errors=["any"]))
    record = await api.run(pipeline="dbt", **PLAIN)
    [step] = record["steps"]
    assert [attempt["exitCode"] for attempt in step["attempts"]] == [1, 1, 1]
    for again in ("1-build.2", "1-build.3"):
        assert nodes(api, record["jobId"], again) == {"evens"}
    progress = step["progress"]
    assert (progress["total"], progress["pass"], progress["error"], progress["skip"]) == (5, 3, 1, 1)
    assert record["firstFailure"]["node"] == "model.small.evens"
    assert record["notes"].count(NOTE) == 1
