"""Where a checkout is mounted in a service, and why it can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.fabrics.checkouts import Checkout, CheckoutState
from gateway.fabrics.compose_services import ComposeServices
from gateway.fabrics.step_services import StepService, StepServices
from gateway.model.job import SourceCommit
from gateway.model.plan import StepName
from gateway.settings.fabric import ComposeSettings
from gateway.settings.project import ProjectSettings
from runners.containers.compose_project import ComposeCli, ComposeService, Mount
from runners.containers.docker import Docker
from runners.git.mirror import Mirror
from runners.mask import Mask

_HERE = "unix:///run/docker.sock"


def service(working_directory: str = "/app/transform") -> ComposeService:
    return ComposeService(
        "shop", "image", (), {}, None, log_rotates=False, command=(), working_directory=working_directory
    )


def fake_docker(folder: Path, host: str) -> Docker:
    """A program instead of docker that only answers which address its engine has."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "fake-docker"
    program.write_text(f"#!/bin/sh\ntest \"$1 $2\" = 'context inspect' && echo '{host}'\n", encoding="utf-8")
    program.chmod(0o755)
    return Docker((str(program),), {"PATH": "/usr/bin:/bin"}, Mask())


def step_services(folder: Path, compose: ComposeSettings, host: str = _HERE) -> StepServices:
    """The services for a project in the folder `code` of a checkout, with its dbt project in `code/transform`."""
    root = folder / "checkout"
    (root / "code/transform").mkdir(parents=True, exist_ok=True)
    (root / "code/transform/dbt_project.yml").touch()
    mirror = Mirror("/shop", folder / "shop.git", {}, Mask())

    async def remove(_: Path) -> bool:
        return False

    source = SourceCommit("0" * 40, "main", None, "code", "/shop")
    checkout = Checkout(mirror, source, root, CheckoutState(), remove)
    services = ComposeServices(ComposeCli("/"), fake_docker(folder / "bin", host))
    project = ProjectSettings(directory=Path("/shop/code"), dbt=Path("/shop/code/transform"))
    return StepServices(services, "prod", compose, {}, project, checkout)


@pytest.mark.parametrize(
    ("dbt", "where"),
    [
        ({}, "/app/transform"),
        ({"working_directory": "/srv/dbt/"}, "/srv/dbt"),
        ({"working_directory": "/srv/dbt", "project": "/projects/../shop/"}, "/shop"),
    ],
)
async def test_the_dbt_project_is_mounted_at_the_configured_path(
    tmp_path: Path, dbt: dict[str, str], where: str
) -> None:
    """The path is `project`, else the step's `working_directory`, else that of the service."""
    found = await step_services(tmp_path, ComposeSettings.model_validate({"dbt": dbt})).mounted(
        StepName.BUILD, service()
    )
    assert found == StepService(service(), Mount(str(tmp_path / "checkout/code/transform"), where))


async def test_the_ingester_gets_a_mount_only_if_one_is_configured(tmp_path: Path) -> None:
    assert await step_services(tmp_path, ComposeSettings()).mounted(StepName.INGESTER, service()) == StepService(
        service(), None
    )
    compose = ComposeSettings.model_validate({"ingester": {"project": "/code"}})
    found = await step_services(tmp_path, compose).mounted(StepName.INGESTER, service())
    assert found == StepService(service(), Mount(str(tmp_path / "checkout/code"), "/code"))


@pytest.mark.parametrize("host", ["tcp://10.0.0.7:2375", "ssh://deploy@far"])
async def test_an_engine_on_another_host_can_not_mount_a_checkout(tmp_path: Path, host: str) -> None:
    found = await step_services(tmp_path, ComposeSettings(), host).mounted(StepName.BUILD, service())
    assert isinstance(found, str)
    assert host in found
    assert "on another host" in found
    # an ingester that comes with its image needs no mount
    assert await step_services(tmp_path, ComposeSettings(), host).mounted(StepName.INGESTER, service()) == StepService(
        service(), None
    )


@pytest.mark.parametrize("where", ["/", "//", "transform", "/a:b"])
async def test_an_unmountable_working_directory_asks_for_the_setting(tmp_path: Path, where: str) -> None:
    found = await step_services(tmp_path, ComposeSettings()).mounted(StepName.BUILD, service(where))
    assert isinstance(found, str)
    assert "set `fabrics.prod.compose.dbt.project`" in found


async def test_a_symlink_in_a_commit_can_not_mount_another_folder_of_the_host(tmp_path: Path) -> None:
    outside = tmp_path / "secrets"
    outside.mkdir()
    (outside / "dbt_project.yml").touch()
    found = step_services(tmp_path, ComposeSettings())
    folder = tmp_path / "checkout/code/transform"
    folder.rename(tmp_path / "checkout/code/models")
    folder.symlink_to(outside)
    error = await found.mounted(StepName.BUILD, service())
    assert isinstance(error, str)
    assert "is a link out of it" in error
    folder.unlink()
    folder.symlink_to("models")
    there = Mount(str(tmp_path / "checkout/code/models"), "/app/transform")
    assert await found.mounted(StepName.BUILD, service()) == StepService(service(), there)


async def test_a_colon_in_the_path_of_a_checkout_is_refused(tmp_path: Path) -> None:
    found = await step_services(tmp_path / "a:b", ComposeSettings()).mounted(StepName.BUILD, service())
    assert isinstance(found, str)
    assert "a colon ends its path" in found


async def test_a_folder_missing_from_the_commit_is_named(tmp_path: Path) -> None:
    compose = ComposeSettings.model_validate({"ingester": {"project": "/code"}})
    found = step_services(tmp_path, compose)
    (tmp_path / "checkout/code").rename(tmp_path / "checkout/other")
    for step in (StepName.BUILD, StepName.INGESTER):
        error = await found.mounted(step, service())
        assert isinstance(error, str)
        assert str(tmp_path / "checkout/code") in error
    assert not (tmp_path / "checkout/code").exists()
