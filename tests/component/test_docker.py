"""Calls of the docker command line; an error never counts as a missing container unless docker says so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runners.containers import compose_project, one_off
from runners.containers.compose_project import ComposeCli, Mount
from runners.containers.docker import Docker, EngineUnreachableError, engine_variables, is_unreachable
from runners.mask import Mask
from tests.support import compose
from tests.support.docker import BUSYBOX_IMAGE, Engine
from tests.support.gateway import wait_for


def docker_of(engine: Engine) -> Docker:
    return Docker(("docker",), {**os.environ, **engine.environment}, Mask())


def fake_docker(folder: Path, script: str) -> Docker:
    """A docker command that is a shell script."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Docker((str(program),), os.environ, Mask())


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "words",
    [
        "failed to connect to the docker API at unix:///run/docker.sock: dial unix: no such file or directory",
        "Cannot connect to the Docker daemon at unix:///docker.sock. Is the docker daemon running?",
        "error during connect: Get http://host/containers: EOF",
        "context not found: open meta.json: no such file or directory",
        "permission denied while trying to connect to the Docker daemon socket",
        "",
    ],
)
async def test_with_a_fake_docker_other_errors_mean_an_unreachable_engine(tmp_path: Path, words: str) -> None:
    """They never mean that the container is missing."""
    with pytest.raises(EngineUnreachableError):
        await fake_docker(tmp_path, f"echo '{words}' >&2; exit 1").inspect("one")


@pytest.mark.parametrize("words", ["Error: No such container: one", "Error: No such object: one"])
async def test_with_a_fake_docker_a_container_is_missing_if_docker_says_so(tmp_path: Path, words: str) -> None:
    assert await fake_docker(tmp_path, f"echo '{words}' >&2; exit 1").inspect("one") is None


@pytest.mark.parametrize("answer", ["", "[]", "{}", "[{}]", "no json", '[{"State": {}, "Config": {}}]'])
async def test_with_a_fake_docker_an_invalid_answer_means_unreachable(tmp_path: Path, answer: str) -> None:
    with pytest.raises(EngineUnreachableError):
        await fake_docker(tmp_path, f"echo '{answer}'").inspect("one")


async def test_with_a_fake_docker_a_call_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    docker = fake_docker(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/child; wait")
    result = await docker.run("ps", within=0.5)
    assert (result.code, is_unreachable(result)) == (None, True)
    child = int((tmp_path / "child").read_text())
    await asyncio.to_thread(wait_for, lambda: not is_alive(child), "the end of docker's own child")


async def test_a_missing_program_or_folder_is_named(tmp_path: Path) -> None:
    assert "/nowhere/docker does not run" in (await Docker(("/nowhere/docker",), {}, Mask()).run("ps")).error
    gone = await fake_docker(tmp_path, "true").run("ps", directory=str(tmp_path / "gone"))
    assert gone.error == f"the folder {tmp_path / 'gone'} does not exist"


async def test_only_regular_files_are_read_from_an_ended_container(engine: Engine) -> None:
    script = "echo content >/tmp/file; ln -s /etc/passwd /tmp/link; mkdir /tmp/folder"
    engine.docker("run", "--name=files", "--network=none", BUSYBOX_IMAGE, "sh", "-c", script)
    try:
        assert await docker_of(engine).read_file("files", "/tmp/file") == b"content\n"
        for path in ("/tmp/link", "/tmp/folder", "/tmp/missing"):
            assert await docker_of(engine).read_file("files", path) is None
    finally:
        engine.docker("rm", "files")


async def test_a_name_with_eof_in_it_is_no_silent_engine(tmp_path: Path, engine: Engine) -> None:
    """Nor is any other name that docker repeats in its errors."""
    assert await docker_of(engine).inspect("geofence-eof") is None
    engine.docker("create", "--name=geofence-eof", "--network=none", BUSYBOX_IMAGE, "true")
    try:
        assert await docker_of(engine).read_file("geofence-eof", "/missing") is None
    finally:
        engine.docker("rm", "geofence-eof")
    folder = compose.write(tmp_path, dbt={**compose.service(), "image": "geofence:eof"})
    project = ComposeCli(str(folder), instance="feed")
    found = await compose_project.read_project(project, docker_of(engine))
    assert not isinstance(found, str)
    assert await one_off.run_shell(project, found.services["dbt"], "true", "", docker_of(engine)) == b""


async def test_a_one_off_shell_that_hangs_leaves_no_container_behind(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_off, "_SHELL_TIMEOUT", 5.0)
    project = ComposeCli(str(compose.write(tmp_path, dbt=compose.service())), instance="feed")
    found = await compose_project.read_project(project, docker_of(engine))
    assert not isinstance(found, str)
    with pytest.raises(EngineUnreachableError, match="a look into the service dbt"):
        await one_off.run_shell(project, found.services["dbt"], "sleep 1000", "", docker_of(engine))
    assert not [name for name in engine.containers() if name.startswith("pipeline-gateway-look")]


async def test_a_one_off_shell_returns_its_output(tmp_path: Path, engine: Engine) -> None:
    project = ComposeCli(str(compose.write(tmp_path, dbt=compose.service())), instance="feed")
    found = await compose_project.read_project(project, docker_of(engine))
    assert not isinstance(found, str)
    result = await one_off.run_shell(project, found.services["dbt"], "pwd; echo done", "/shared", docker_of(engine))
    assert result.split() == [b"/shared", b"done"]


@pytest.mark.parametrize(
    ("variables", "engine_of_it"),
    [({}, {}), ({"DOCKER_HOST": "unix:///one.sock", "HOME": "/root"}, {"DOCKER_HOST": "unix:///one.sock"})],
)
def test_only_variables_that_select_an_engine_are_engine_variables(
    variables: Mapping[str, str], engine_of_it: Mapping[str, str]
) -> None:
    assert {name: value for name, value in engine_variables(variables).items() if value} == engine_of_it


async def test_an_error_of_a_fake_docker_is_masked_before_it_is_cut(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nprintf '%0495d%s' 0 sesame-open >&2\nexit 1\n")
    program.chmod(0o755)
    docker = Docker((str(program),), os.environ, Mask(("KEY",)).with_secrets_of({"KEY": "sesame-open"}))
    with pytest.raises(EngineUnreachableError, match=r"^0{495}\*\*\*$"):
        await docker.inspect("one")


@pytest.mark.parametrize(
    ("keys", "entrypoint", "command"),
    [
        ({}, ("sh", "-c"), ("echo image",)),
        ({"command": ["echo $HOME $$", "x"]}, ("sh", "-c"), ("echo $HOME $$", "x")),
        ({"command": "echo 'two words'"}, ("sh", "-c"), ("echo", "two words")),
        ({"entrypoint": ["env"]}, ("env",), ()),  # this removes the image's command too
        ({"entrypoint": ["env"], "command": ["sh"]}, ("env",), ("sh",)),
        ({"entrypoint": []}, (), ()),
    ],
)
async def test_a_service_has_its_own_command_or_that_of_its_image(
    tmp_path: Path, engine: Engine, keys: dict[str, Any], entrypoint: tuple[str, ...], command: tuple[str, ...]
) -> None:
    changes = ('ENTRYPOINT ["sh", "-c"]', 'CMD ["echo image"]', "WORKDIR /opt")
    (tmp_path / "empty.tar").write_bytes(b"\0" * 10240)
    engine.docker("import", *(f"--change={change}" for change in changes), str(tmp_path / "empty.tar"), "tests-own:1")
    folder = compose.write(tmp_path, dbt={**compose.service(**keys), "image": "tests-own:1"})
    found = await compose_project.read_project(ComposeCli(str(folder)), docker_of(engine))
    assert not isinstance(found, str)
    service = await compose_project.find_service(found, "dbt", docker_of(engine))
    assert not isinstance(service, str)
    assert (service.entrypoint, service.command, service.working_directory) == (entrypoint, command, "/opt")


async def test_a_one_off_program_runs_like_a_step_and_its_stderr_is_separate(tmp_path: Path, engine: Engine) -> None:
    keys = compose.service(entrypoint=["env", "dbt"], working_dir="/shared")
    folder = compose.write(tmp_path, dbt=keys)
    project = ComposeCli(str(folder), instance="feed", entrypoint_program="dbt")
    found = await compose_project.read_project(project, docker_of(engine))
    assert not isinstance(found, str)
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/file").touch()
    docker = Docker(("docker",), {**os.environ, **engine.environment, "TOLD": "value"}, Mask())
    result = await one_off.run_program(
        project,
        found.services["dbt"],
        ("sh", "-c", "echo $TOLD; pwd; ls /there; echo aside >&2; exit 3"),
        "/tmp",
        docker,
        mount=Mount(str(tmp_path / "mounted"), "/there"),
        names=["TOLD"],
        within=30,
    )
    assert (result.code, result.output) == (3, b"value\n/tmp\nfile\n")
    assert "aside" in result.error
    assert engine.containers() == []
