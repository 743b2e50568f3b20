"""What dbt-ol is told of a project's profile and target, and what it can't be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.dbt import profile as dbt_profile
from runners.dbt.command import DbtConfig
from runners.dbt.profile import ProfileFiles
from runners.yaml_file import load

DBT = DbtConfig(Path("/shop"))


def files(target: str = "", output: str = "{}", profile: str = "shop") -> ProfileFiles:
    profiles = load(f"shop: {{{target and f'target: {target}, '} outputs: {{dev: {output}, default: {output}}}}}")
    return ProfileFiles({"profile": profile}, profiles, "/shop/profiles.yml")


@pytest.mark.parametrize(
    ("found", "environment", "target"),
    [
        (files(), {}, "default"),
        (files(), {"DBT_TARGET": "dev"}, "dev"),
        (files("dev"), {}, None),
        (files("dev"), {"DBT_ENGINE_TARGET": "prod"}, "prod"),
        (files("\"{{ env_var('T', 'dev') }}\""), {}, None),
        (files(profile="{{ env_var('P') }}"), {"P": "shop"}, "default"),
        (files(profile="other"), {}, None),
        (None, {}, None),
    ],
)
def test_dbt_ol_gets_a_target_only_where_the_profile_has_none(
    found: ProfileFiles | None, environment: dict[str, str], target: str | None
) -> None:
    assert dbt_profile.lineage_config(found, DBT, environment).target == target


@pytest.mark.parametrize(
    ("found", "environment", "problem"),
    [
        (files("\"{{ env_var('T', 'dev') | as_text }}\""), {}, "the profile's target in /shop/profiles.yml"),
        (files("\"{{ var('t', 'dev') }}\""), {}, "set `target` of the fabric's dbt, as `target: dev`"),
        (files("\"{{ var('t', 'dev') }}\""), {"DBT_TARGET": "dev"}, None),
        (files('"{% if flags.DEBUG %}a{% else %}b{% endif %}"'), {}, "the profile's target"),
        (files("\"{{ env_var('T', 'dev') | lower }}\""), {}, None),
        (files("\"{{ env_var('var', 'print') }}\""), {}, None),
        (files("dev", "{host: \"{{ env_var('H') | as_text }}\"}"), {}, "`host` of the target in /shop/profiles.yml"),
        (files("dev", "{password: \"{{ env_var('H') | as_text }}\"}"), {}, None),
        (files("dev", "{port: \"{{ env_var('P') | as_number }}\"}"), {}, None),
        (files(profile="{{ var('p') }}"), {}, "the name of the profile in dbt_project.yml"),
        (files(profile="{{ var('p') }}"), {"DBT_PROFILE": "shop"}, None),
        (None, {}, None),
    ],
)
def test_what_only_dbt_knows_of_a_profile_keeps_dbt_ol_from_running(
    found: ProfileFiles | None, environment: dict[str, str], problem: str | None
) -> None:
    said = dbt_profile.lineage_problem(found, DBT, environment)
    assert said is None if problem is None else problem in str(said)


def test_a_variable_that_is_set_to_nothing_is_set() -> None:
    """As in dbt, whose default is for unset ones."""
    path = files("dev", "{path: \"{{ env_var('DIR', '/srv/') }}w.duckdb\"}")
    for environment, found in (({"DIR": ""}, "w.duckdb"), ({}, "/srv/w.duckdb")):
        connection = dbt_profile.output(path, DBT, environment)
        assert connection is not None
        assert list(connection.files(environment)) == [found]


def test_what_a_profile_says_is_in_no_representation_of_it() -> None:
    secret = files("dev", "{password: s3cret}")
    assert "s3cret" not in f"{secret!r} {dbt_profile.output(secret, DBT, {})!r}"
