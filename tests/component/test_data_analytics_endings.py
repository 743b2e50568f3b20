"""How jobs end, in both APIs: real processes under the real service; dbt only where a test is about it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api, until
from tests.support.gateway import PATH

WAREHOUSE = {"ingester": "warehouse", "dbt": "warehouse"}
WAITING = """
    import pathlib, time
    print("ready", flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""
LEAVES_A_MARK = """
    import pathlib
    pathlib.Path("ran").touch()
"""
# A grandchild in its own session that ignores SIGTERM and lives until there is a file `go`.
FAMILY = """
    import pathlib, signal, subprocess, sys
    subprocess.Popen([sys.executable, "deaf.py"], start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("parent_gone").touch(), sys.exit(0)))
    signal.pause()
"""
DEAF = """
    import os, pathlib, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path("grandchild").write_text(str(os.getpid()))
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


def fabric(**more: Any) -> dict[str, Any]:
    return {"fabrics": {"local": {"resources": WAREHOUSE, **more}}}


def project_settings(**more: Any) -> dict[str, Any]:
    ingester = {"command": [sys.executable, "ingest.py"]}
    return {"projects": {"small": {"dbt": "transform", "ingester": ingester, **more}}}


async def test_the_log_says_how_each_job_ended(tmp_path: Path, make_api: MakeApi) -> None:
    ingester = """
        import pathlib, sys
        sys.exit(int(pathlib.Path("code").read_text()))
    """
    folder = projects.make(tmp_path / "project", ingester=ingester, settings=fabric(dbt={"executable": "/no/dbt"}))
    api = await make_api(folder)
    with capture_logs() as logged:
        for code in ("0", "3"):
            (folder / "code").write_text(code)
            await api.run(pipeline="ingester")
        record = await api.run(pipeline="dbt", command="deps")
    lines = [line for line in logged if line["event"] == "job ended"]
    assert [(line["outcome"], line.get("exit_code"), line.get("reason")) for line in lines] == [
        ("succeeded", 0, None),
        ("errors", 3, None),
        ("failed", None, "not_started"),
    ]
    assert (record["outcome"], record["error"]) == ("failed", lines[-1]["error"])


async def failed(api: Api, job: str, reason: str) -> dict[str, Any]:
    """The record of a job that must have failed for this reason; both APIs say the same."""
    whole, polled = await api.finished(job), await api.poll(job)
    for record in (whole, polled):
        assert (record["status"], record["success"], record["exitCode"]) == ("failed", False, -1), record
        assert (record["reason"], record["phase"]) == (reason, "ended")
        assert record["error"].endswith((".", "…"))
        assert "\n" not in record["error"]
        assert "firstFailure" not in record
    assert whole["error"] == polled["error"]
    return whole


async def test_an_ingester_that_exits_0_completes_the_job_with_its_progress(project: Path, make_api: MakeApi) -> None:
    api = await make_api(project)
    record = await api.poll((await api.run(pipeline="ingester"))["jobId"])
    assert (record["status"], record["success"], record["exitCode"], record["phase"]) == ("completed", True, 0, "ended")
    assert record["progress"] == {
        "done": 3, "total": 3, "pass": 3, "warn": 0, "error": 0, "skip": 0, "noop": 0, "current": "table_3",
    }  # fmt: skip
    assert not {"error", "reason", "firstFailure"} & set(record)
    [step] = record["steps"]
    assert (step["name"], step["status"], step["exitCode"], step["note"]) == ("ingester", "completed", 0, None)
    assert record["createdAt"] <= step["startedAt"] <= step["finishedAt"] <= record["finishedAt"]


async def test_an_ingester_that_exits_7_completes_the_job_with_exit_code_7(tmp_path: Path, make_api: MakeApi) -> None:
    """The first failure quotes its last line, and the steps after it are skipped."""
    ingester = """
        import sys
        print("connecting")
        print("source is down", file=sys.stderr)
        sys.exit(7)
    """
    api = await make_api(projects.make(tmp_path / "project", ingester=ingester))
    record = await api.run(pipeline="full")
    assert (record["status"], record["success"], record["exitCode"]) == ("completed", True, 7)
    assert record["firstFailure"] == {"node": "ingester", "message": "source is down", "more": 0}
    assert not {"error", "reason"} & set(record)
    assert [(step["status"], step["note"]) for step in record["steps"]] == [
        ("completed", None),
        ("skipped", "earlier step failed: ingester"),
        ("skipped", "earlier step failed: ingester"),
    ]


async def test_ingester_failure_continue_runs_the_steps_after_a_failure(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "p", ingester="raise SystemExit(3)", settings={"ingester_failure": "continue"})
    record = await (await make_api(folder)).run(pipeline="full", command="deps")
    assert [(step["name"], step["status"], step["exitCode"]) for step in record["steps"]] == [
        ("ingester", "completed", 3),
        ("deps", "completed", 0),
    ]
    assert (record["status"], record["exitCode"]) == ("completed", 3)


async def test_an_ingester_killed_from_outside_fails_the_job_as_killed(tmp_path: Path, make_api: MakeApi) -> None:
    killed = "import os; os.kill(os.getpid(), 9)"
    api = await make_api(projects.make(tmp_path / "project", ingester=killed))
    record = await failed(api, await api.trigger(pipeline="ingester"), "killed")
    assert "signal 9" in record["error"]
    assert (record["steps"][0]["status"], record["steps"][0]["exitCode"]) == ("failed", 128 + signal.SIGKILL)


async def test_a_step_over_its_time_limit_is_stopped_and_fails_the_job(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "project", ingester=WAITING, settings=fabric(time_limit=0.5))
    api = await make_api(folder)
    record = await failed(api, await api.trigger(pipeline="full"), "timed_out")
    assert "time_limit" in record["error"]
    assert [step["status"] for step in record["steps"]] == ["failed", "skipped", "skipped"]
    stopped = (await api.get(f"/api/v1/jobs/{record['jobId']}"))["stopped"]
    assert (stopped["signals"], stopped["processes"]) == (["SIGTERM"], 1)


async def test_a_cancel_gets_202_and_200_once_the_job_has_ended(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester=WAITING))
    job = await api.trigger(pipeline="full")
    cancel = f"/api/v1/jobs/{job}/cancel"
    answer = await api.call("POST", cancel)
    assert (answer.status, answer.json["jobId"]) == (202, job)
    record = await failed(api, job, "cancelled")
    again = await api.call("POST", cancel)
    assert (again.status, again.json) == (200, record)
    assert (await api.call("POST", "/api/v1/jobs/dbt-1-abcdef/cancel")).status == 404


async def test_a_cancelled_job_ends_only_with_its_whole_process_tree(tmp_path: Path, make_api: MakeApi) -> None:
    folder = projects.make(tmp_path / "project", ingester=FAMILY)
    projects.write(folder / "deaf.py", DEAF)
    api = await make_api(folder)
    job = await api.trigger(pipeline="ingester")

    async def pid() -> int:
        file = folder / "grandchild"
        return int(file.read_text() or 0) if file.exists() else 0

    async def parent_is_gone() -> bool:
        return (folder / "parent_gone").exists()

    grandchild = await until(pid, "the grandchild")
    assert (await api.call("POST", f"/api/v1/jobs/{job}/cancel")).status == 202
    await until(parent_is_gone, "the end of the ingester itself")
    os.kill(grandchild, 0)  # it is alive
    record = await api.poll(job)
    assert (record["status"], record["phase"]) == ("running", "cancelling")
    assert (await api.call("POST", PATH, {"pipeline": "ingester"})).status == 409
    (folder / "go").touch()
    await failed(api, job, "cancelled")
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)
    whole = await api.get(f"/api/v1/jobs/{job}")
    assert (whole["stopped"]["signals"], whole["stopped"]["processes"]) == (["SIGTERM"], 2)
    assert 0 < whole["stopped"]["seconds"] <= whole["durationSeconds"]
    assert (await api.call("POST", f"/api/v1/jobs/{job}/cancel")).status == 200
    assert await api.get(f"/api/v1/jobs/{job}") == whole


@pytest.mark.parametrize(
    ("request_", "settings", "mentions"),
    [
        ("ingester", project_settings(ingester={"command": ["/no/loader", "x"]}), ["/no/loader", "`projects.small"]),
        ("ingester", project_settings(ingester={"command": ["python3"], "directory": "gone"}), ["gone", "directory"]),
        ("ingester", {"projects": {"small": {"dbt": "transform"}}}, ["small has no ingester", "gateway.yaml"]),
        ("full", project_settings(dbt="elsewhere"), ["elsewhere/dbt_project.yml", "set `dbt`"]),
        ("full", fabric(dbt={"executable": "/no/dbt"}), ["/no/dbt", "`fabrics.local.dbt.executable`"]),
        ("full", fabric(dbt={"profiles_directory": "."}), ["profiles.yml", "profiles_directory"]),
        ("full", fabric(dbt={"target": "prod"}), ["no target 'prod'", "it has dev"]),
        ("full", fabric(dbt={"openlineage_executable": "/no/dbt-ol"}) | {"enable_openlineage": True}, ["/no/dbt-ol"]),
        ("full", {"enable_elementary": True}, ["Elementary", "packages.yml"]),
    ],
)
async def test_a_missing_prerequisite_fails_the_job_before_its_first_step(
    tmp_path: Path, make_api: MakeApi, request_: str, settings: dict[str, Any], mentions: list[str]
) -> None:
    folder = projects.make(tmp_path / "project", ingester=LEAVES_A_MARK, settings=settings)
    api = await make_api(folder)
    record = await failed(api, await api.trigger(pipeline=request_), "not_started")
    for word in mentions:
        assert word in record["error"]
    assert not (folder / "ran").exists(), "the ingester ran though a later step could not"
    assert not [step for step in record["steps"] if step["startedAt"]]


@pytest.mark.parametrize(
    ("fields", "mentions"),
    [
        ({"enableElementary": True}, ["add elementary-data/elementary to packages.yml"]),
        ({"enableOpenlineage": True}, ["/no/dbt-ol", "install openlineage-dbt"]),
    ],
)
async def test_a_toggle_without_its_package_fails_before_the_first_step(
    tmp_path: Path, make_api: MakeApi, fields: dict[str, bool], mentions: list[str]
) -> None:
    settings = fabric(dbt={"openlineage_executable": "/no/dbt-ol"})
    folder = projects.make(tmp_path / "project", ingester=LEAVES_A_MARK, settings=settings)
    api = await make_api(folder)
    record = await failed(api, await api.trigger(pipeline="full", **fields), "not_started")
    for word in mentions:
        assert word in record["error"]
    assert not (folder / "ran").exists()


async def test_an_ended_job_never_changes_again(tmp_path: Path, make_api: MakeApi) -> None:
    api = await make_api(projects.make(tmp_path / "project", ingester="raise SystemExit(5)"))
    record = await api.run(pipeline="ingester")
    path = f"/api/v1/jobs/{record['jobId']}"
    assert (await api.call("POST", f"{path}/cancel")).status == 200
    assert await api.get(path) == record
