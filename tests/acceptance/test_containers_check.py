"""`pipeline-gateway check` finds what would fail a trigger in containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import compose
from tests.support.command import run
from tests.support.compose import service
from tests.support.docker import BUSYBOX_IMAGE, Engine


def check(folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    done = run("check", cwd=folder, **environment)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_complete_project_passes_check(tmp_path: Path, engine: Engine) -> None:
    folder = compose.write(tmp_path, ingester=service(), dbt=service(entrypoint=["env", "dbt"]))
    code, output = check(folder, engine.environment)
    assert code == 0, output
    assert f"service ingester: image {BUSYBOX_IMAGE}, entrypoint none" in output
    assert f"service dbt: image {BUSYBOX_IMAGE}, entrypoint env dbt" in output
    assert "WRONG" not in output
    assert "warn" not in output


@pytest.mark.parametrize(
    ("services", "parts"),
    [
        ({"ingester": service()}, ["has no service dbt; it has ingester"]),
        (
            {"ingester": service(), "dbt": {"image": "missing/image:1"}},
            ["The image missing/image:1 of the service dbt is not there", "docker compose build dbt"],
        ),
        ({"ingester": service(), "dbt": {"build": "."}}, ["-dbt of the service dbt is not there"]),
        ({"ingester": service(), "dbt": service(nonsense=1)}, ["The compose project in ", "nonsense"]),
    ],
)
def test_a_missing_service_or_image_is_named_with_what_to_do(
    tmp_path: Path, engine: Engine, services: dict[str, Any], parts: list[str]
) -> None:
    code, output = check(compose.write(tmp_path, **services), engine.environment)
    assert code == 1
    [wrong] = [line for line in output.splitlines() if line.startswith("WRONG")]
    assert [part for part in parts if part not in wrong] == []


def test_check_names_a_parameter_that_a_services_shell_would_drop(tmp_path: Path, engine: Engine) -> None:
    folder = compose.write(tmp_path, fabric={}, ingester=compose.shell("exit 0"), dbt=service())
    pipelines = {"load": {"ingester": True, "parameters": {"since": {"option": "--since"}}}}
    with (folder / "gateway.yaml").open("a", encoding="utf-8") as file:
        yaml.safe_dump({"projects": {"shop": {"pipelines": pipelines}}}, file)
    code, output = check(folder, engine.environment)
    assert code == 1
    assert "WRONG  containers: What the service ingester runs is a shell script" in output


@pytest.mark.parametrize(
    ("logging", "part"),
    [
        ({"driver": "local"}, "the logging driver local"),
        ({"driver": "json-file", "options": {"max-size": "1m"}}, "a json-file log with max-size"),
    ],
)
def test_check_warns_of_a_log_that_rotates(
    tmp_path: Path, engine: Engine, logging: Mapping[str, Any], part: str
) -> None:
    code, output = check(compose.write(tmp_path, ingester=service(logging=logging), dbt=service()), engine.environment)
    assert code == 0
    [warning] = [line for line in output.splitlines() if line.startswith("warn")]
    assert part in warning
    assert "service ingester" in warning


def test_check_names_an_engine_that_does_not_run(tmp_path: Path, engine: Engine) -> None:
    folder = compose.write(tmp_path, ingester=service(), dbt=service())
    code, output = check(folder, {**engine.environment, "DOCKER_HOST": f"unix://{tmp_path}/missing.sock"})
    assert code == 1
    assert "missing.sock" in output
    assert "start the Docker engine" in output


@pytest.mark.parametrize(
    ("answers", "part"),
    [
        ({"--version": "podman version 4.9.3"}, "the command `docker` is podman here"),
        ({"--version": "Docker version 28", "compose": "1.29.2"}, "Compose 1.29.2 is out of support"),
        ({"--version": "Docker version 28", "compose": ""}, "Compose v2 can't be used"),
    ],
)
def test_check_refuses_podman_and_old_compose_on_a_fake_docker_command(
    tmp_path: Path, answers: Mapping[str, str], part: str
) -> None:
    answers = {"version": "28.0.0 28.0.0", **answers}
    cases = "".join(f'{name}) echo "{answer}";;\n' for name, answer in answers.items())
    fake = tmp_path / "bin/docker"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}*) exit 1;;\nesac\n')
    fake.chmod(0o755)
    folder = compose.write(tmp_path / "project", ingester=service(), dbt=service())
    code, output = check(folder, {"PATH": f"{fake.parent}:/usr/bin:/bin"})
    assert code == 1
    assert part in output


def test_check_names_a_missing_docker_command(tmp_path: Path) -> None:
    folder = compose.write(tmp_path / "project", ingester=service(), dbt=service())
    code, output = check(folder, {"PATH": str(tmp_path)})
    assert code == 1
    assert "install the docker command line" in output
