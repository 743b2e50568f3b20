"""`pipeline-gateway check` finds what would fail a trigger in containers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import MakeGateway
from tests.support import compose, projects, repositories
from tests.support.command import run, says
from tests.support.compose import service
from tests.support.docker import BUSYBOX_IMAGE, Engine


def check(folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    done = run("check", cwd=folder, **environment)
    assert done.stderr == ""
    return done.returncode, done.stdout


def dbt_service(folder: Path, script: str = "true", **keys: Any) -> dict[str, Any]:
    """A service that has a shell script as its dbt; its folder is /shared in there."""
    program = folder / "bin/dbt"
    projects.write(program, f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return service(working_dir="/shared", environment={"PATH": "/shared/bin:/bin"}, **keys)


def test_a_complete_project_passes_check(tmp_path: Path, engine: Engine) -> None:
    folder = compose.write(tmp_path, ingester=service(), dbt=dbt_service(tmp_path, entrypoint=["env", "dbt"]))
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
    code, output = check(
        compose.write(tmp_path, ingester=service(logging=logging), dbt=dbt_service(tmp_path)), engine.environment
    )
    assert code == 0
    [warning] = [line for line in output.splitlines() if line.startswith("warn")]
    assert part in warning
    assert "service ingester" in warning


def test_check_names_the_programs_that_the_image_lacks(tmp_path: Path, engine: Engine) -> None:
    fabric = {"dbt": {"edr": "edr", "openlineage_executable": "/opt/dbt-ol"}}
    code, output = check(compose.write(tmp_path, ingester=service(), dbt=service(), fabric=fabric), engine.environment)
    assert code == 1
    wrong = [line for line in output.splitlines() if line.startswith("WRONG")]
    assert [line.partition(" was not found or is not executable in the service dbt")[0] for line in wrong] == [
        f"WRONG  containers: The program {name}" for name in ("dbt", "/opt/dbt-ol", "edr")
    ]
    assert "install elementary-data in its image, or set `fabrics.containers.dbt.edr`" in wrong[2]


def test_check_has_dbt_look_at_the_project_in_its_service(tmp_path: Path, engine: Engine) -> None:
    script = '[ "$1" = debug ] && exit\necho "12:00:00  Running"\necho "12:00:01  Encountered an error: $TOKEN"\nexit 2'
    fabric = {"dbt": {"target": "prod"}, "compose": {"environment": ["TOKEN"]}}
    dbt = dbt_service(tmp_path, script, entrypoint=["dbt"])
    folder = compose.write(tmp_path, ingester=service(), dbt=dbt, fabric=fabric)
    environment = {**engine.environment, "TOKEN": "s3cret-42"}
    done = run("check", "--dbt", cwd=folder, **environment)
    says(done, 1, "ok     containers: dbt debug\n")
    assert "s3cret-42" not in done.stdout
    [wrong] = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    told = "WRONG  containers: dbt parse: Encountered an error: ***; mend that, then see that this exits 0: "
    assert wrong.startswith(told)
    line = wrong.removeprefix(told)
    assert "--target=prod" in line
    by_hand = subprocess.run(["sh", "-c", line], env={**os.environ, **environment}, capture_output=True, check=False)
    assert (by_hand.returncode, b"Encountered an error: s3cret-42" in by_hand.stdout) == (2, True), by_hand
    assert engine.containers() == []


def test_a_database_in_a_mounted_checkout_is_wrong_and_noted(
    tmp_path: Path, engine: Engine, make_gateway: MakeGateway
) -> None:
    folder, shop = tmp_path / "gateway", tmp_path / "shop"
    fabric = {"compose": {"dbt": {"project": "/app", "working_directory": "/app"}}}
    compose.write(folder, ingester=service(), dbt=dbt_service(folder), fabric=fabric)
    profiles = "shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb, password: s3cret-42}}}\n"
    repositories.repository(shop, {"dbt_project.yml": "name: shop\nprofile: shop\n", "profiles.yml": profiles})
    with (folder / "gateway.yaml").open("a", encoding="utf-8") as file:
        yaml.safe_dump({"enabled": True, "projects": {"shop": {"directory": str(shop), "branch": "main"}}}, file)
    lost = "The database shop.duckdb of the target dev in /app/profiles.yml is a file of the checkout, which is mounted"
    code, output = check(folder, engine.environment)
    assert code == 1
    assert f"WRONG  shop on containers: {lost} at /app" in output
    gateway = make_gateway(folder, engine.environment)
    record = gateway.run(pipeline="dbt", command="build", enableOpenlineage=False)
    whole = gateway.call("GET", f"/api/v1/jobs/{record['jobId']}").json
    assert [note.startswith(lost) for note in whole["notes"]] == [True], whole
    kept = [file for file in folder.rglob("*") if file.is_file() and "checkouts" not in file.parts]
    assert gateway.state / "jobs" / record["jobId"] / "1-build/container.json" in kept
    assert [file for file in kept if b"s3cret-42" in file.read_bytes()] == []


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
