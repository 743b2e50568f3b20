"""What a look into the service of dbt finds. The script is run by this host's shell, instead of one in a container."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.fabrics import compose_look
from gateway.fabrics.compose_look import Look
from gateway.fabrics.step_services import StepService
from runners.containers.compose_project import ComposeService, Mount
from runners.dbt import profile as dbt_profile
from runners.dbt.command import DbtConfig
from tests.support.projects import write

CONFIG = DbtConfig(Path())
SERVICE = ComposeService("dbt", "image", (), {}, None, log_rotates=False)
PROFILES = "shop: {outputs: {default: {type: duckdb, path: %s, password: s3cret}}}\n"


@dataclass
class Container:
    """The folder in which dbt is called, its programs, and how its service is."""

    folder: Path
    service: ComposeService = SERVICE
    variables: dict[str, str] = field(default_factory=dict)
    mount: Mount | None = None

    def look(self, config: DbtConfig = CONFIG, profiles: str | None = None) -> Look:
        environment = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": f"{self.folder}/home", **self.variables}
        script = compose_look.script(config, self.service, profiles, None if self.mount is None else self.mount.target)
        said = subprocess.run(["sh", "-c", script], cwd=self.folder, env=environment, capture_output=True, check=True)
        assert said.stderr == b""
        found = compose_look.read(said.stdout, "prod", StepService(self.service, self.mount), config, self.variables)
        assert found is not None
        return found


@pytest.fixture
def container(tmp_path: Path) -> Container:
    for name in ("dbt", "dbt-ol", "edr"):
        write(tmp_path / "bin" / name, "")
        (tmp_path / "bin" / name).chmod(0o755)
    write(tmp_path / "dbt_project.yml", "profile: shop\n")
    write(tmp_path / "profiles.yml", PROFILES % "shop.duckdb")
    return Container(tmp_path)


@pytest.mark.parametrize(
    ("config", "entrypoint", "settings"),
    [
        (CONFIG, (), []),
        (replace(CONFIG, edr="edr"), ("dbt",), []),
        (replace(CONFIG, executable="/no/dbt"), (), ["executable"]),
        (replace(CONFIG, lineage_executable="ol"), ("env", "dbt"), ["openlineage_executable"]),
        (replace(CONFIG, edr="/no/edr"), (), ["edr"]),
        (CONFIG, ("/no/dbt",), ["executable"]),
        (replace(CONFIG, executable="/no/dbt", edr="/no/edr"), ("poetry", "run"), []),
    ],
)
def test_each_program_that_the_image_lacks_is_named(
    container: Container, config: DbtConfig, entrypoint: tuple[str, ...], settings: list[str]
) -> None:
    """Not where a wrapper runs them, which may find them elsewhere."""
    container.service = replace(SERVICE, entrypoint=entrypoint)
    faults = list(container.look(config).faults(wants_lineage=True))
    assert [fault.partition("`")[2].partition("`")[0] for fault in faults] == [
        f"fabrics.prod.dbt.{s}" for s in settings
    ]
    assert all("was not found or is not executable in the service dbt: install " in fault for fault in faults)


def test_a_lineage_program_that_nobody_named_is_no_fault(container: Container) -> None:
    (container.folder / "bin/dbt-ol").unlink()
    assert list(container.look().faults(wants_lineage=False)) == []
    assert container.look().lineage_problem() == "dbt-ol was not found"


@pytest.mark.parametrize(
    ("variables", "configured", "where"),
    [
        ({}, None, "profiles.yml"),
        ({"DBT_PROFILES_DIR": "other"}, None, "other/profiles.yml"),
        ({"DBT_ENGINE_PROFILES_DIR": "other", "DBT_PROFILES_DIR": "/none"}, None, "other/profiles.yml"),
        ({"DBT_PROFILES_DIR": "/none"}, "other", "other/profiles.yml"),
        ({}, None, "home/.dbt/profiles.yml"),
        ({"DBT_PROJECT_DIR": "sub"}, None, "profiles.yml"),
    ],
)
def test_the_profile_is_the_one_that_dbt_would_read(
    container: Container, variables: dict[str, str], configured: str | None, where: str
) -> None:
    (container.folder / "profiles.yml").unlink()
    write(container.folder / where, PROFILES % "shop.duckdb")
    if "DBT_PROJECT_DIR" in variables:
        write(container.folder / "sub/dbt_project.yml", "profile: shop\n")
        (container.folder / "dbt_project.yml").unlink()
    container.variables = variables
    found = container.look(profiles=configured)
    assert dbt_profile.lineage_config(found.files, CONFIG, variables).target == "default"
    connection = dbt_profile.output(found.files, CONFIG, variables)
    assert connection is not None
    assert connection.file == str(container.folder / where)
    assert "s3cret" not in repr(found)


def test_a_profile_that_only_dbt_can_evaluate_is_a_problem(container: Container) -> None:
    write(container.folder / "profiles.yml", "shop: {target: \"{{ var('t') }}\"}\n")
    said = f"dbt-ol needs the profile's target in {container.folder}/profiles.yml, whose Jinja only dbt can evaluate"
    assert str(container.look().lineage_problem("install it")).startswith(said)
    container.variables = {"DBT_TARGET": "dev"}
    assert container.look().lineage_problem() is None


@pytest.mark.parametrize("text", ["shop: [", "- shop\n", "", "shop: {outputs: 5}\n"])
def test_nothing_is_said_of_a_profile_that_can_not_be_read(container: Container, text: str) -> None:
    container.mount = Mount("/source", str(container.folder))
    (container.folder / "profiles.yml").write_text(text)
    found = container.look()
    assert (found.lineage_problem(), found.throwaway_database()) == (None, None)


@pytest.mark.parametrize(
    ("path", "target", "volumes", "is_lost"),
    [
        ("shop.duckdb", ".", [], True),
        ("./data/../shop.duckdb", ".", ["data"], True),
        ("data/shop.duckdb", ".", ["data"], False),
        ("data/shop.duckdb", ".", [".", ".."], True),
        ("../shop.duckdb", ".", [".."], False),
        ("/srv/shop.duckdb", ".", [], False),
        ("{folder}/shop.duckdb", ".", [], True),
        ("shop.duckdb", "elsewhere", [], False),
        ("':memory:'", ".", [], False),
        ("\"{{ env_var('DB') }}\"", ".", [], True),
    ],
)
def test_a_database_inside_of_the_mounted_checkout_is_told(
    container: Container, path: str, target: str, volumes: Iterable[str], is_lost: bool
) -> None:
    """Whichever way its path leads there; not where it is on a volume inside of the checkout."""
    profile = PROFILES % path.replace("{folder}", str(container.folder))
    write(container.folder / "profiles.yml", profile)
    write(container.folder / "elsewhere/dbt_project.yml", "profile: shop\n")
    container.variables = {"DB": "shop.duckdb"}
    container.service = replace(SERVICE, volumes=tuple(str((container.folder / v).resolve()) for v in volumes))
    assert container.look().throwaway_database() is None
    container.mount = Mount("/source", str((container.folder / target).resolve()))
    said = container.look().throwaway_database()
    assert (said is not None) == is_lost
    if said is not None:
        assert f"is a file of the checkout, which is mounted at {container.mount.target}" in said
        assert "a volume of the service dbt, such as `path: /srv/shop.duckdb`" in said


@pytest.mark.parametrize("said", [b"", b"a banner\n", b"\0dbt\n\0/shop\0/shop/profiles.yml\0"])
def test_an_image_without_a_shell_tells_nothing(said: bytes) -> None:
    assert compose_look.read(said, "prod", StepService(SERVICE, None), CONFIG, {}) is None
