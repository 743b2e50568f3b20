"""What a dbt project must have before one of its steps runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.dbt import project as dbt_project
from runners.dbt.command import DbtConfig
from tests.support.projects import write

PROJECT = "name: small\nprofile: small\n"
PROFILES = "config: {send_anonymous_usage_stats: false}\nsmall: {target: dev, outputs: {dev: {}, prod: {}}}\n"


def problem(
    folder: Path,
    project: str | None = PROJECT,
    profiles: str | None = PROFILES,
    environment: dict[str, str] | None = None,
    target: str | None = None,
) -> str | None:
    if project is not None:
        write(folder / "dbt_project.yml", project)
    if profiles is not None:
        write(folder / "profiles.yml", profiles)
    return dbt_project.problem(DbtConfig(folder, target=target), {"HOME": str(folder / "home"), **(environment or {})})


@pytest.mark.parametrize(
    ("project", "profiles", "environment", "target"),
    [
        (PROJECT, PROFILES, {}, None),
        (PROJECT, PROFILES, {}, "prod"),
        (PROJECT, PROFILES, {"DBT_TARGET": "prod"}, None),
        (PROJECT, PROFILES, {"DBT_TARGET": "nope"}, "prod"),
        (PROJECT, PROFILES, {"DBT_ENGINE_TARGET": "prod", "DBT_TARGET": "nope"}, None),
        (PROJECT, PROFILES, {"DBT_ENGINE_TARGET": "", "DBT_TARGET": "prod"}, None),
        ("name: small\nprofile: other\n", PROFILES, {"DBT_ENGINE_PROFILE": "small", "DBT_PROFILE": "x"}, None),
        ("name: small\n", PROFILES, {"DBT_PROFILE": "small"}, None),
        ("name: small\nprofile: other\n", PROFILES, {"DBT_PROFILE": "small"}, None),
        (PROJECT, "small: {outputs: {default: {}}}\n", {}, None),
        ("name: small\nprofile: \"{{ env_var('P') }}\"\n", PROFILES, {}, None),
        (PROJECT, "small: {target: \"{{ env_var('T') }}\", outputs: {dev: {}}}\n", {}, None),
        ("name: small\n", PROFILES, {}, None),
        (PROJECT, "small: {target: dev, outputs: '{{ jinja }}'}\n", {}, None),
    ],
)
def test_a_project_that_is_complete_or_needs_rendering_has_no_problem(
    tmp_path: Path, project: str, profiles: str, environment: dict[str, str], target: str | None
) -> None:
    assert problem(tmp_path, project, profiles, environment, target) is None


@pytest.mark.parametrize(
    ("project", "profiles", "environment", "target", "parts"),
    [
        (None, PROFILES, {}, None, ["dbt_project.yml: can't be read: No such file", "set `dbt` of the project"]),
        ("name: [", PROFILES, {}, None, ["dbt_project.yml: is not YAML", "set `dbt` of the project"]),
        ("- name\n", PROFILES, {}, None, ["dbt_project.yml: "]),
        ("", PROFILES, {}, None, ["dbt_project.yml: "]),
        ("when: 2026-13-45\n", PROFILES, {}, None, ["dbt_project.yml: is not YAML"]),
        (PROJECT, None, {}, None, ["home/.dbt/profiles.yml: can't be read: No such file", "set profiles_directory"]),
        (PROJECT, None, {"DBT_PROFILES_DIR": "/none"}, None, ["/none/profiles.yml: can't be read: No such file"]),
        (PROJECT, "small: [", {}, None, ["profiles.yml: is not YAML", "set profiles_directory"]),
        (PROJECT, "small\n", {}, None, ["profiles.yml: expected a YAML mapping, found str"]),
        (PROJECT, "config: {}\na: {}\nb: {}\n", {}, None, ["The profile 'small'", "is not in", "it has a, b."]),
        (PROJECT, "config: {}\n", {}, None, ["is not in", "it has none."]),
        (PROJECT, "small: dev\n", {}, None, ["The profile 'small'", "is not in"]),
        (PROJECT, PROFILES, {"DBT_PROFILE": "other"}, None, ["The profile 'other'", "it has small."]),
        (PROJECT, PROFILES, {}, "nope", ["The profile 'small'", "has no target 'nope'; it has dev, prod."]),
        (PROJECT, PROFILES, {"DBT_TARGET": "nope"}, None, ["has no target 'nope'"]),
        (PROJECT, "small: {target: nope, outputs: {dev: {}}}\n", {}, None, ["has no target 'nope'; it has dev."]),
        (PROJECT, "small: {outputs: {dev: {}}}\n", {}, None, ["has no target 'default'; it has dev."]),
        (PROJECT, "small: {target: dev, outputs: {}}\n", {}, None, ["has no target 'dev'; it has none."]),
    ],
)
def test_a_problem_is_one_sentence_with_the_cause_and_the_remedy(
    tmp_path: Path,
    project: str | None,
    profiles: str | None,
    environment: dict[str, str],
    target: str | None,
    parts: list[str],
) -> None:
    message = problem(tmp_path, project, profiles, environment, target)
    assert message is not None
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message
    assert message.endswith(".")


def test_a_project_file_that_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_bytes(b"name: \xff")
    assert "is not YAML" in str(problem(tmp_path, project=None))


def test_profiles_are_read_from_home_or_from_dbt_profiles_dir(tmp_path: Path) -> None:
    write(tmp_path / "home/.dbt/profiles.yml", PROFILES)
    assert problem(tmp_path, profiles=None) is None
    write(tmp_path / "elsewhere/profiles.yml", "other: {}\n")
    for variable in ("DBT_PROFILES_DIR", "DBT_ENGINE_PROFILES_DIR"):
        message = problem(tmp_path, environment={variable: "elsewhere"})
        assert str(tmp_path / "elsewhere/profiles.yml") in str(message)


@pytest.mark.parametrize(
    "entry",
    [
        "{package: elementary-data/elementary, version: 0.20.1}",
        "{git: 'https://github.com/elementary-data/dbt-data-reliability.git', revision: 0.20.1}",
        "{git: 'https://github.com/elementary-data/dbt-data-reliability', revision: 0.20.1}",
        "{git: 'git@host.example:forks/dbt-data-reliability.git/', revision: main}",
        "{tarball: 'https://host.example/x.tar.gz', name: elementary}",
        "{local: ../elementary_package}",
    ],
)
@pytest.mark.parametrize("file", ["packages.yml", "dependencies.yml"])
def test_elementary_is_found_among_declared_packages(tmp_path: Path, entry: str, file: str) -> None:
    write(tmp_path / "elementary_package/dbt_project.yml", "name: elementary\n")
    write(tmp_path / "project/dbt_project.yml", PROJECT)
    assert not dbt_project.has_elementary(tmp_path / "project")
    write(tmp_path / "project" / file, f"packages:\n  - {{package: dbt-labs/dbt_utils, version: 1.3.0}}\n  - {entry}\n")
    assert dbt_project.has_elementary(tmp_path / "project")


@pytest.mark.parametrize("setting", ["", "packages-install-path: dbt_packages\n", "packages-install-path: modules\n"])
def test_elementary_is_found_among_installed_packages(tmp_path: Path, setting: str) -> None:
    write(tmp_path / "dbt_project.yml", PROJECT + setting)
    assert not dbt_project.has_elementary(tmp_path)
    folder = "modules" if "modules" in setting else "dbt_packages"
    write(tmp_path / folder / "elementary/dbt_project.yml", "name: elementary\n")
    assert dbt_project.has_elementary(tmp_path)


@pytest.mark.parametrize(
    "packages",
    [
        "",
        "packages: [",
        "packages:\n",
        "packages: elementary\n",
        "packages: [elementary, 5, null]\n",
        "packages: [{package: dbt-labs/dbt_utils}, {package: somebody/not_elementary}]\n",
        "packages: [{local: ../nowhere}, {local: ../other}, {git: ''}, {}]\n",
        "- {package: elementary-data/elementary}\n",
        "projects: [{name: elementary}]\n",
        'packages: [{local: "a\\0b"}]\n',
        "packages: [{package: x, version: 2026-13-45}]\n",
    ],
)
def test_a_project_without_the_package_has_no_elementary(tmp_path: Path, packages: str) -> None:
    """Also if its packages.yml is invalid."""
    write(tmp_path / "other/dbt_project.yml", "name: other\n")
    write(tmp_path / "project/packages.yml", packages)
    assert not dbt_project.has_elementary(tmp_path / "project")


@pytest.mark.parametrize(
    ("settings", "environment", "folder"),
    [
        ("", {}, "target"),
        ("target-path: out/dbt\n", {}, "out/dbt"),
        ("target-path: out\n", {"DBT_TARGET_PATH": "other"}, "other"),
        ("", {"DBT_ENGINE_TARGET_PATH": "new", "DBT_TARGET_PATH": "old"}, "new"),
        ("target-path: \"{{ env_var('OUT') }}\"\n", {}, None),
    ],
)
def test_the_target_folder_of_the_project_is_made_where_dbt_would_make_it(
    tmp_path: Path, settings: str, environment: dict[str, str], folder: str | None
) -> None:
    write(tmp_path / "dbt_project.yml", PROJECT + settings)
    dbt_project.make_own_target(tmp_path, environment)
    made = [path for path in tmp_path.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert made == ([] if folder is None else [tmp_path / folder])


def test_a_target_folder_that_can_not_be_made_is_left_to_dbt(tmp_path: Path) -> None:
    write(tmp_path / "target", "a file")
    dbt_project.make_own_target(tmp_path, {})
    assert (tmp_path / "target").is_file()


@pytest.mark.parametrize(
    ("declared", "settings", "lacks"),
    [
        ({}, "", False),
        ({"packages.yml": "packages: []\n"}, "", False),
        ({"packages.yml": "packages: [{local: ../a}]\n"}, "", False),
        ({"packages.yml": "packages: [{local: ../a}, {local: ../b}]\n"}, "", True),
        ({"dependencies.yml": "packages: [{local: ../a}, {local: ../b}]\n"}, "", True),
        ({"dependencies.yml": "projects: [{name: a}, {name: b}]\n"}, "", False),
        ({"packages.yml": "packages: [{local: ../a}]\n"}, "packages-install-path: elsewhere\n", True),
        ({"packages.yml": "packages: {{ a }}\n"}, "", False),
        ({"packages.yml": "packages: {{ a }}\n"}, "packages-install-path: elsewhere\n", True),
    ],
)
def test_packages_are_lacking_where_fewer_are_installed_than_declared(
    tmp_path: Path, declared: dict[str, str], settings: str, lacks: bool
) -> None:
    """As dbt itself counts them. One package is installed."""
    for file, text in {"dbt_project.yml": PROJECT + settings, "dbt_packages/a/dbt_project.yml": "", **declared}.items():
        write(tmp_path / file, text)
    assert dbt_project.lacks_packages(tmp_path) == lacks
