"""The command lines that run a step in a service of a compose project."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.fabrics.compose_services import compose_cli
from gateway.settings.fabric import ComposeSettings, FabricSettings, RunnerName
from runners.containers.compose_project import ComposeCli, ComposeService, Mount, run_command
from runners.containers.identity import container_name
from runners.outcome import Command

FOLDER = Path("/state/jobs/full-1-abc/2-build")
NAME = "pipeline-gateway-full-1-abc-2-build"
PROJECT = ComposeCli(directory="/srv/shop", instance="feed", entrypoint_program="dbt")


def service(*entrypoint: str) -> ComposeService:
    return ComposeService("dbt", "shop-dbt", entrypoint, {}, log_driver=None, log_rotates=False)


def step_command(*argvs: tuple[str, ...], cwd: str = "") -> Command:
    return Command(argvs, cwd, {"HOME": "/root", "TOKEN": "secret"}, grace=3, time_limit=5)


def words_after_name(argv: tuple[str, ...], *entrypoint: str) -> list[str]:
    """The words of the command line after the container's name."""
    [line] = run_command(PROJECT, service(*entrypoint), step_command(argv), (), FOLDER).argvs
    return list(line[line.index(f"--name={NAME}") + 1 :])


def test_a_container_is_created_detached_with_its_name_and_labels() -> None:
    """No other service is started."""
    [line] = run_command(PROJECT, service(), step_command(("dbt", "build")), (), FOLDER).argvs
    assert line == (
        "docker",
        "compose",
        "--progress=quiet",
        "run",
        "--detach",
        "--no-TTY",
        "--interactive=false",
        "--no-deps",
        "--label=pipeline-gateway.instance=feed",
        "--label=pipeline-gateway.job=full-1-abc",
        "--label=pipeline-gateway.step=2-build",
        f"--name={NAME}",
        "--",
        "dbt",
        "dbt",
        "build",
    )


def test_the_command_runs_in_the_projects_folder_with_its_own_limits() -> None:
    command = run_command(PROJECT, service(), step_command(("dbt",)), (), FOLDER)
    assert (command.cwd, command.docker, command.grace, command.time_limit) == ("/srv/shop", ("docker",), 3, 5)


def test_variables_are_passed_by_name_and_values_are_in_no_command() -> None:
    command = run_command(PROJECT, service(), step_command(("dbt",)), ["TOKEN"], FOLDER)
    assert "--env=TOKEN" in command.argvs[0]
    assert "secret" not in str(command.argvs)
    assert command.environment["TOKEN"] == "secret"


def test_without_a_command_the_service_runs_its_own() -> None:
    assert words_after_name(()) == ["--", "dbt"]


@pytest.mark.parametrize("entrypoint", [(), ("/entrypoint.sh",), ("tini", "--"), ("sh", "-c")])
def test_an_image_with_another_entrypoint_gets_the_whole_command(entrypoint: tuple[str, ...]) -> None:
    assert words_after_name(("dbt", "build", "--no-quiet"), *entrypoint) == ["--", "dbt", "dbt", "build", "--no-quiet"]


@pytest.mark.parametrize("entrypoint", [("dbt",), ("/usr/local/bin/dbt",), ("tini", "--", "dbt")])
def test_an_image_with_dbt_as_its_entrypoint_gets_the_arguments_only(entrypoint: tuple[str, ...]) -> None:
    assert words_after_name(("dbt", "build"), *entrypoint) == ["--", "dbt", "build"]


@pytest.mark.parametrize(
    ("entrypoint", "overridden"),
    [
        (("dbt",), "--entrypoint=dbt-ol"),
        (("tini", "--", "dbt"), "--entrypoint=tini -- dbt-ol"),
        (("a b", "dbt"), "--entrypoint='a b' dbt-ol"),
    ],
)
def test_another_program_replaces_dbt_in_the_entrypoint(entrypoint: tuple[str, ...], overridden: str) -> None:
    assert words_after_name(("dbt-ol", "build"), *entrypoint) == [overridden, "--", "dbt", "build"]


def test_without_an_entrypoint_program_the_whole_command_is_passed() -> None:
    project = ComposeCli(directory="/srv/shop")
    [line] = run_command(project, service("dbt"), step_command(("dbt", "build")), (), FOLDER).argvs
    assert line[-4:] == ("--", "dbt", "dbt", "build")


def test_a_compose_fabric_has_dbt_as_its_entrypoint_program() -> None:
    assert compose_cli(FabricSettings(runner="compose"), "feed").entrypoint_program == "dbt"


def test_each_command_of_a_step_has_its_own_container() -> None:
    command = run_command(PROJECT, service("dbt"), step_command(("dbt", "run"), ("edr", "report")), (), FOLDER)
    names = [[word for word in line if word.startswith("--name=")] for line in command.argvs]
    assert names == [[f"--name={NAME}"], [f"--name={NAME}-2"]]
    assert [container_name(FOLDER, number) for number in range(2)] == [NAME, f"{NAME}-2"]


def test_working_folder_and_dependencies_are_as_configured() -> None:
    project = ComposeCli(directory="/srv/shop", dependencies=True)
    [line] = run_command(project, service(), step_command(("dbt",), cwd="/transform"), (), FOLDER).argvs
    assert "--workdir=/transform" in line
    assert "--no-deps" not in line


def test_each_configured_value_is_one_word_with_its_option() -> None:
    chosen = ComposeSettings(
        directory=Path("/srv"),
        files=(Path("/srv/a.yaml"), Path("/srv/b.yaml")),
        env_files=(Path("/srv/prod.env"),),
        project_name="shop",
        profiles=("lakehouse",),
        context="remote",
        environment=("TOKEN",),
    )
    made = compose_cli(FabricSettings(runner=RunnerName.COMPOSE, compose=chosen), "feed")
    assert made.command == (
        "docker",
        "--context=remote",
        "compose",
        "--project-name=shop",
        "--file=/srv/a.yaml",
        "--file=/srv/b.yaml",
        "--env-file=/srv/prod.env",
        "--profile=lakehouse",
    )
    assert (made.directory, made.variables, made.instance) == ("/srv", ("TOKEN",), "feed")


def test_without_configuration_docker_compose_gets_no_options() -> None:
    assert compose_cli(FabricSettings(runner=RunnerName.COMPOSE), "feed").command == ("docker", "compose")


def test_a_mount_is_one_word_of_every_command() -> None:
    command = run_command(
        PROJECT, service(), step_command(("dbt",), ("edr",)), (), FOLDER, [Mount('/state/$HOME, "x"', "/transform")]
    )
    for line in command.argvs:
        assert [word for word in line if word.startswith("--volume")] == ['--volume=/state/$HOME, "x":/transform']


def test_two_mounts_are_two_words_and_one_may_be_read_only() -> None:
    mounts = [Mount("/checkout", "/transform"), Mount("/state", "/there", read_only=True)]
    [line] = run_command(PROJECT, service(), step_command(("dbt",)), (), FOLDER, mounts).argvs
    assert [word for word in line if word.startswith("--volume")] == [
        "--volume=/checkout:/transform",
        "--volume=/state:/there:ro",
    ]
