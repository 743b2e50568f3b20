"""The state directory beside other people's files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import MakeApi, need
from tests.support import manual, projects
from tests.support.api import until

STATE = ".pipeline-gateway"
WAITING = """
    import pathlib, time
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


def call(folder: Path, *command: str) -> str:
    """What a command prints that must succeed."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


async def test_git_does_not_see_the_state_directory(project: Path, make_api: MakeApi) -> None:
    call(project, need("git"), "init", "-q")
    await make_api(project)
    assert (project / STATE / "gateway.db").exists()
    seen = call(project, "git", "status", "--porcelain")
    assert "gateway.yaml" in seen
    assert STATE not in seen


async def test_a_gitignore_of_somebody_else_stays(project: Path, make_api: MakeApi) -> None:
    (project / STATE).mkdir(mode=0o700)
    (project / STATE / ".gitignore").write_text("gateway.db\n")
    await make_api(project)
    assert (project / STATE / ".gitignore").read_text() == "gateway.db\n"


async def test_a_restored_backup_runs_nothing_where_the_manual_is_followed(tmp_path: Path, make_api: MakeApi) -> None:
    need("sqlite3")
    small = {
        "ingester": {"command": [sys.executable, "ingest.py"]},
        "pipelines": {"load": {"ingester": True}},
    }
    settings = {"fabrics": {"1": {}}, "projects": {"small": small}}
    folder = projects.make(tmp_path / "project", ingester=WAITING, settings=settings)
    api = await make_api(folder)
    run = {"fabricId": 1, "projectId": "small", "pipelineName": "load"}
    jobs = [(await api.call("POST", "/api/trigger/pipeline", run)).json["runId"] for _ in range(3)]

    async def began() -> bool:
        return bool((await api.poll(jobs[0]))["phase"] == "ingester")

    await until(began, "the first of them")
    restored = Path(shutil.copytree(folder, tmp_path / "restored", ignore=shutil.ignore_patterns("gateway.db*")))
    call(folder / STATE, "sqlite3", "gateway.db", f'.backup "{restored / STATE / "gateway.db"}"')
    commands = manual.block("service.md", "Jobs that had not ended")
    assert "/var/lib/pipeline-gateway" in commands
    commands = commands.replace("/var/lib/pipeline-gateway", str(restored / STATE))
    call(tmp_path, "sh", "-euc", commands)
    again = await make_api(restored)
    assert await again.jobs() == []
    (restored / "go").touch()
    (folder / "go").touch()
    answer = await again.call("POST", "/api/trigger/pipeline", run)
    assert (await again.finished(answer.json["runId"]))["exitCode"] == 0
    assert len(await again.jobs()) == 1
