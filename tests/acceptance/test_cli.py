"""The installed command, as a user or systemd runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import bakehouse, projects, repositories
from tests.support.command import CONFIGURATION, STATE, run, run_installed, says
from tests.support.gateway import COMMAND, DEADLINE, Gateway
from tests.support.quick_dbt import REAL_DBT


def fabric(**dbt: Any) -> dict[str, Any]:
    return {"fabrics": {"local": {"dbt": dbt}}}


def fake_dbt(folder: Path, script: str = "echo dbt 1.11.0") -> dict[str, str]:
    """Settings of a dbt that only tells its version, for which the real one takes seconds."""
    program = folder / "fake" / "dbt"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"executable": str(program)}


NO_DBT = fabric(executable="/no/dbt")  # for tests that need no dbt: asking for its version takes seconds


def test_version_is_the_installed_one(tmp_path: Path) -> None:
    done = run_installed("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"pipeline-gateway {metadata.version('pipeline-gateway')}\n")


def test_help_names_every_command_and_variable_and_exit_code(tmp_path: Path) -> None:
    names = ["serve", "demo", "init", "check", "PIPELINE_ENABLED", "ENABLE_OPENLINEAGE", "ENABLE_ELEMENTARY"]
    names += ["HOST", "PORT", "JOB_TTL", "STATE_DIRECTORY", "GATEWAY_", "70", "73", "75", "78"]
    says(run_installed("--help", cwd=tmp_path), 0, *names)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", ["--config", "--env-file"]),
        ("demo", ["--port", "--serve"]),
        ("init", ["DIR"]),
        ("check", ["--config", "--env-file", "--user", "--dbt"]),
    ],
)
def test_each_command_explains_its_options(tmp_path: Path, command: str, options: list[str]) -> None:
    says(run(command, "--help", cwd=tmp_path), 0, *options)


@pytest.mark.parametrize("arguments", [[], ["server"], ["serve", "--prot", "1"], ["init"]])
def test_an_invalid_command_line_exits_2_with_the_usage(tmp_path: Path, arguments: list[str]) -> None:
    says(run(*arguments, cwd=tmp_path), 2, "Usage: pipeline-gateway")


def test_a_closed_pipe_ends_the_command_with_1_and_silently(tmp_path: Path) -> None:
    """As `| head` closes it. Python's own flush at the exit would complain."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [COMMAND, "init", "mine"], cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", ["serve", "check"])
def test_every_mistake_in_the_configuration_is_one_readable_line(tmp_path: Path, command: str) -> None:
    projects.make(tmp_path, settings={"enabled": "perhaps", "job_ttl": -1, "colour": "blue", "default_project": "x"})
    done = run(command, cwd=tmp_path, PORT="70000")
    says(done, CONFIGURATION)
    lines = done.stderr.splitlines()
    for key, value in (("enabled", "'perhaps'"), ("job_ttl", "-1"), ("port", "'70000'"), ("colour", "no such setting")):
        [line] = [line for line in lines if re.search(rf"\b{key}: ", line)]
        assert value in line
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("enabled: [", "is not YAML"),
        ("- enabled", "found list"),
        ("projects: {a: {}, b: {}}", "default_project"),
        ("fabrics: {local: {dbt: {arguments: [--target=prod]}}}", "--target=prod is set by the gateway itself"),
        ("fabrics: {local: {runner: cloud}}", "'cloud'"),
    ],
)
def test_an_invalid_file_exits_78_and_is_named(tmp_path: Path, text: str, mentions: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    says(run("serve", cwd=tmp_path), CONFIGURATION, "gateway.yaml", mentions)


def test_a_missing_configuration_exits_78(tmp_path: Path) -> None:
    says(run("serve", "--config", "other.yaml", cwd=tmp_path), CONFIGURATION, "other.yaml", "No such file")
    says(run("serve", "--config", tmp_path, cwd=tmp_path), CONFIGURATION, str(tmp_path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_tokens_only_loopback_is_served(project: Path, host: str) -> None:
    says(run("serve", cwd=project, HOST=host, PORT="0"), CONFIGURATION, "HOST", host, "loopback")


def test_a_taken_port_is_named(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        says(run("serve", cwd=project, PORT=port), STATE, port, "in use")


def test_an_impossible_state_directory_is_named(project: Path) -> None:
    (project / "file").touch()
    for state in ("file", "file/below"):
        says(run("serve", cwd=project, PORT="0", STATE_DIRECTORY=state), STATE, str(project / state))


@pytest.mark.installed
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_with_0_at_a_signal(gateway: Gateway, number: signal.Signals) -> None:
    process, gateway.process = gateway.process, None
    assert process is not None
    process.send_signal(number)
    assert process.wait(DEADLINE) == 0
    assert '"event": "stopped"' in gateway.log.read_text()


def test_the_environment_takes_precedence_over_an_env_file(tmp_path: Path) -> None:
    project = projects.make(tmp_path / "project", settings=NO_DBT)
    (project / "gateway.env").write_text("# ours\nexport PIPELINE_ENABLED=false\nENABLE_ELEMENTARY='false'\n\n")
    given = ("check", "--env-file", "gateway.env")
    says(run(*given, cwd=project), 1, "triggers are off", "Elementary is off")
    says(run(*given, cwd=project, PIPELINE_ENABLED="true"), 1, "triggers are on")
    (project / "gateway.env").write_text("PIPELINE_ENABLED=true\nnot a variable\n")
    says(run(*given, cwd=project), CONFIGURATION, "gateway.env, line 2", "expected NAME=VALUE")
    (project / "gateway.env").unlink()
    says(run(*given, cwd=project), CONFIGURATION, "gateway.env")


def test_check_warns_of_a_pipeline_on_a_fabric_without_a_number(tmp_path: Path) -> None:
    loader = {"ingester": {"command": ["true"]}, "pipelines": {"load": {"ingester": True}}}
    settings = {"fabrics": {"local": {}, "7": {}}, "default_fabric": "7", "projects": {"small": loader}}
    done = run("check", cwd=projects.make(tmp_path / "project", settings=settings))
    warned = [line for line in done.stdout.splitlines() if "the fabric's id is no number" in line]
    assert len(warned) == 1
    assert "small on local" in warned[0]


def test_init_makes_a_starter_that_passes_check(tmp_path: Path) -> None:
    says(run_installed("init", "mine", cwd=tmp_path), 0, "mine", "pipeline-gateway serve")
    done = run_installed("check", cwd=tmp_path / "mine")
    says(done, 0, "triggers are on", "is dbt 1.", "OpenLineage is on")
    assert "WRONG" not in done.stdout
    assert {"gateway.yaml", "README.md", "ingester", "transform"} <= {
        file.name for file in (tmp_path / "mine").iterdir()
    }


def test_schema_prints_the_json_schema_of_the_configuration(tmp_path: Path) -> None:
    done = run("schema", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "enable_openlineage" in json.loads(done.stdout)["properties"]


def test_init_uses_an_empty_folder_and_refuses_one_with_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    says(run("init", "empty", cwd=tmp_path), 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    says(run("init", "full", cwd=tmp_path), 1, "full", "not an empty folder")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]
    says(run("init", "full/mine.txt", cwd=tmp_path), 1, "mine.txt")


@pytest.mark.parametrize("command", ["init", "demo"])
def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    says(run(command, "file/below", cwd=tmp_path), 1, "file/below")


DROPS = {"command": ["sh", "-c", "exit 0"]}  # whatever parameters it is given
LOADS = {"load": {"ingester": True, "parameters": {"since": {"option": "--since"}}}}


@pytest.mark.parametrize(
    ("settings", "mentions"),
    [
        (fabric(executable="/no/dbt"), "/no/dbt was not found"),
        (fabric(target="prod"), "no target 'prod'"),
        (fabric(profiles_directory="elsewhere"), "elsewhere/profiles.yml"),
        ({"projects": {"p": {"dbt": "gone"}}, "default_project": "p"}, "gone/dbt_project.yml"),
        (NO_DBT | {"projects": {"p": {"ingester": {"command": ["/no/loader"]}}}, "default_project": "p"}, "/no/loader"),
        (NO_DBT | {"projects": {"p": {"ingester": DROPS, "pipelines": LOADS}}, "default_project": "p"}, '"$@'),
        ({"enable_elementary": True}, "packages.yml"),
        (fabric(openlineage_executable="/no/dbt-ol") | {"enable_openlineage": True}, "/no/dbt-ol was not found"),
        (NO_DBT | {"state_directory": "gateway.yaml/state"}, "gateway.yaml is not writable"),
        (NO_DBT | {"free_disk_floor": "1EB"}, "free_disk_floor"),
        (NO_DBT | {"host": "0.0.0.0"}, "Other hosts may reach 0.0.0.0, but there are no tokens"),
        (NO_DBT | {"projects": {"p": {"directory": "gone"}}, "default_project": "p"}, "set `projects.p.directory`"),
        (fabric(openlineage_executable="/no/dbt-ol"), "/no/dbt-ol was not found"),
        (fabric(edr="/no/edr"), "/no/edr was not found"),
    ],
)
def test_check_on_a_fake_dbt_names_what_is_wrong_and_exits_1(
    tmp_path: Path, settings: dict[str, Any], mentions: str
) -> None:
    chosen = settings.get("fabrics", fabric()["fabrics"])["local"]["dbt"]
    made = {**settings, **fabric(**{**fake_dbt(tmp_path), **chosen})}
    done = run("check", cwd=projects.make(tmp_path / "project", settings=made))
    says(done, 1)
    assert [line for line in done.stdout.splitlines() if line.startswith("WRONG") and mentions in line], done.stdout


def test_check_names_what_dbt_would_refuse_in_its_files(tmp_path: Path) -> None:
    project = projects.make(tmp_path / "project", settings=NO_DBT)
    (project / "transform/dbt_project.yml").write_text("name: small\nversion: '1'\nprofile: small\n")
    projects.write(
        project / "transform/profiles.yml",
        """
        small:
          target: dev
          outputs:
            dev: {type: postgres, host: "{{ env_var('DB_HOST') }}", port: "{{ env_var('DB_PORT', '5432') | int }}"}
            prod: {type: postgres, host: "{{ env_var('PROD_HOST') }}"}
        """,
    )
    done = run("check", cwd=project)
    says(done, 1, "`fabrics.local.environment: {DB_HOST: …}`", "write `version: '1.0.0'`")
    assert "DB_PORT" not in done.stdout
    assert "PROD_HOST" not in done.stdout
    assert "which is not set" not in run("check", cwd=project, DB_HOST="localhost").stdout


def test_check_names_the_command_that_installs_a_missing_adapter(tmp_path: Path) -> None:
    project = projects.make(tmp_path / "project", dbt=REAL_DBT)
    profile = "small: {target: dev, outputs: {dev: {type: postgres, host: localhost}}}\n"
    (project / "transform/profiles.yml").write_text(profile)
    python = Path(sys.executable).with_name("python")
    says(run("check", cwd=project), 1, "no adapter postgres, only duckdb", f"{python} -m pip install dbt-postgres")


def test_check_has_dbt_look_at_the_project_where_asked(tmp_path: Path) -> None:
    project = projects.make(tmp_path / "project")
    says(run("check", "--dbt", cwd=project), 0, "small on local: dbt parse\n", "small on local: dbt debug\n")
    (project / "transform/models/evens.sql").write_text("select n from {{ ref('odds') }}\n")
    done = run("check", "--dbt", cwd=project)
    says(done, 1, "WRONG  small on local: dbt parse: ", "depends on a node named 'odds'", f"{project}/transform")
    assert not (project / "transform/target").exists()


def test_check_names_a_line_for_a_person_where_a_commit_is_wrong(tmp_path: Path) -> None:
    """The checkout that was checked is gone by then."""
    fails = {"dbt": fake_dbt(tmp_path, 'test "$1" = --version && echo dbt 1.11.0 && exit; echo "ERROR: no"; exit 2')}
    project = projects.make(tmp_path / "project", settings={"fabrics": {"local": fails}})
    repositories.repository(
        project / "shop",
        {"dbt_project.yml": "profile: shop\n", "profiles.yml": "shop: {outputs: {default: {type: x}}}"},
    )
    for source, folder in (({"directory": "shop"}, project / "shop"), ({"repository": "shop", "dbt": "."}, ".")):
        made = {"fabrics": {"local": fails}, "projects": {"small": {**source, "branch": "main"}}}
        (project / "gateway.yaml").write_text(yaml.safe_dump(made))
        told = f"dbt debug: ERROR: no; mend that, then see that this exits 0: cd {folder} && {tmp_path}/fake/dbt debug"
        says(run("check", "--dbt", cwd=project), 1, f"WRONG  small on local: {told}")


def test_check_warns_of_two_writers_of_a_file_that_takes_one(tmp_path: Path) -> None:
    warning = f"warn   {tmp_path / 'project/warehouse.duckdb'} takes one writer"
    settings = {"fabrics": {"a": {"dbt": NO_DBT["fabrics"]["local"]["dbt"]}}}
    project = projects.make(tmp_path / "project", settings=settings)
    says(run("check", cwd=project), 1, warning, "dbt on a (a.dbt) and the ingester on a (a.ingester)")
    one = {"ingester": "warehouse", "dbt": "warehouse"}
    settings = {"fabrics": {name: {**NO_DBT["fabrics"]["local"], "resources": one} for name in ("a", "b")}}
    projects.make(tmp_path / "project", settings={**settings, "default_fabric": "a"})
    assert "takes one writer" not in run("check", cwd=project).stdout
    settings["fabrics"]["b"]["resources"] = {"ingester": "other", "dbt": "other"}
    projects.make(tmp_path / "project", settings={**settings, "default_fabric": "a"})
    says(run("check", cwd=project), 1, warning, "dbt on a (warehouse) and dbt on b (other)")


def test_check_says_that_lineage_is_sent_nowhere(tmp_path: Path) -> None:
    project = projects.make(tmp_path / "project", settings=fabric(**fake_dbt(tmp_path)))
    done = run("check", cwd=project, OPENLINEAGE_URL="http://localhost:5000")
    says(done, 0, "warn   small on local: OpenLineage events are kept", "OPENLINEAGE_URL has no effect yet")
    projects.write(project / "transform/openlineage.yml", "transport: {type: http, url: 'http://localhost:5000'}\n")
    says(run("check", cwd=project), 0, f"{project}/transform/openlineage.yml has no effect yet")


def test_a_database_in_a_checkout_is_refused(tmp_path: Path) -> None:
    """`check` looks at the commit, the start at the files in the project's directory."""
    project = projects.make(tmp_path / "project", settings={**NO_DBT, "projects": {"small": {"dbt": "transform"}}})
    repositories.repository(project, {".gitignore": "gateway.yaml\n.pipeline-gateway\n"})
    assert "relative path" not in run("check", cwd=project).stdout
    settings = {**NO_DBT, "projects": {"small": {"dbt": "transform", "branch": "main"}}}
    (project / "gateway.yaml").write_text(yaml.safe_dump(settings))
    wrong = "The database ../warehouse.duckdb of the target dev in", "such as `path: /srv/small/warehouse.duckdb`"
    says(run("check", cwd=project), 1, "WRONG  small on local: ", *wrong)
    says(run("serve", cwd=project, PORT="0"), CONFIGURATION, "projects.small on fabrics.local: ", *wrong)
    profile = project / "transform/profiles.yml"
    profile.write_text(profile.read_text().replace("../warehouse.duckdb", "\"{{ env_var('DB', ':memory:') }}\""))
    says(run("serve", cwd=project, PORT="0", DB="w.duckdb"), CONFIGURATION, "The database w.duckdb")
    says(run("check", cwd=project, DB="w.duckdb"), 1, "WRONG  projects.small on fabrics.local: The database w.duckdb")
    repositories.commit(project, {})
    assert "relative path" not in run("check", cwd=project).stdout


def test_check_on_a_fake_dbt_examines_the_commit_and_leaves_no_files(tmp_path: Path) -> None:
    folder = bakehouse.make(
        tmp_path / "bakery",
        project={"repository": "bakehouse", "directory": ".", "branch": "dev"},
        fabric={"dbt": fake_dbt(tmp_path)},
    )
    (folder / "bakehouse/transform/dbt_project.yml").unlink()  # the commit still has it
    commit = repositories.git(folder / "bakehouse", "rev-parse", "dev")
    done = run("check", cwd=folder)
    says(done, 0, f"33290: branch dev is the commit {commit[:12]}\n", "41459 on 33290: dbt project and profile")
    assert sorted(path.name for path in folder.iterdir()) == ["bakehouse", "gateway.yaml", "home"]


def test_check_names_a_missing_branch(tmp_path: Path) -> None:
    folder = bakehouse.make(tmp_path / "bakery", project={"branch": "prod"})
    says(run("check", cwd=folder), 1, "WRONG  41459 on 33290: The repository", "has no branch 'prod'")


def test_check_on_a_fake_dbt_accepts_a_project_without_an_ingester(tmp_path: Path) -> None:
    settings = {"projects": {"p": {"dbt": "transform"}}, "default_project": "p", **fabric(**fake_dbt(tmp_path))}
    done = run("check", cwd=projects.make(tmp_path / "project", settings=settings), ENABLE_OPENLINEAGE="false")
    says(done, 0)
    assert "no ingester: the pipelines `ingester` and `full` will fail" in done.stdout


@pytest.mark.parametrize(
    ("script", "mentions"),
    [
        ("echo dbt 2.0.9", "dbt 2.0.9, but the gateway drives dbt 1.x"),
        ("echo dbt-fusion 2.0.0-preview.9", "drives dbt 1.x"),
        ("exit 3", "dbt unknown"),
    ],
)
def test_check_refuses_a_fake_dbt_of_another_major_version_than_1(tmp_path: Path, script: str, mentions: str) -> None:
    settings = fabric(**fake_dbt(tmp_path, script))
    done = run("check", cwd=projects.make(tmp_path / "project", settings=settings))
    says(done, 1, mentions)


@pytest.fixture
def public() -> Iterator[Path]:
    """A project in a folder that all users may enter, unlike pytest's own. It has no dbt, which saves time."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield projects.make(folder / "project", settings=NO_DBT)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can find out what another user may do")
def test_check_as_another_user_shows_what_that_user_may_read_and_write(public: Path) -> None:
    transform = public / "transform"
    transform.chmod(0o700)
    says(
        run("check", "--user", "nobody", cwd=public),
        1,
        f"ok     nobody can read {public}\n",
        f"WRONG  nobody can not read {transform}\n",
        f"WRONG  nobody can not write {public}\n",
        f"WRONG  nobody can not write {transform}\n",
    )
    for folder in (public, transform):
        folder.chmod(0o777)
    done = run("check", "--user", "nobody", cwd=public)
    says(done, 1, f"ok     nobody can read {transform}\n", f"ok     nobody can write {transform}\n")


def test_check_for_an_unknown_user_exits_78(tmp_path: Path) -> None:
    project = projects.make(tmp_path / "project", settings=NO_DBT)
    says(run("check", "--user", "nobody-of-that-name", cwd=project), CONFIGURATION, "nobody-of-that-name")
