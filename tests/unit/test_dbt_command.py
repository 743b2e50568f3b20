"""The command lines of dbt steps, with every option."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.dbt import command as dbt
from runners.dbt.command import RESERVED_ARGUMENTS, DbtConfig, DbtStep
from runners.mask import Mask
from runners.outcome import Command

FOLDER = Path("/state/jobs/full-1/3-build")
CACHE = Path("/state/parse/none.msgpack")
PLAIN = DbtConfig(project=Path("/srv/shop/transform"))
WHOLE = DbtConfig(
    project=Path("/srv/shop/transform"),
    executable="/venv/bin/dbt",
    lineage_executable="/venv/bin/dbt-ol",
    edr="/venv/bin/edr",
    profiles=Path("/etc/dbt"),
    target="prod",
    threads=4,
    arguments=("--full-refresh", "--vars={a: 1}"),
)
BUILD = DbtStep("build", without_elementary=True)
ELEMENTARY = DbtStep("run", elementary=True, report=True)
LOGS = [
    "--log-format=json",
    "--log-level=info",
    "--no-quiet",
    "--no-use-colors",
    "--log-format-file=debug",
    "--log-level-file=debug",
]


MASK = Mask(("TOKEN",))


def command_of(
    dbt_: DbtConfig,
    step: DbtStep,
    folder: Path = FOLDER,
    cache: Path = CACHE,
    environment: Mapping[str, str] | None = None,
) -> Command:
    whole = dbt.environment(environment or {}, step, folder)
    paths = dbt.paths(dbt_, folder, cache, environment or {})
    return dbt.command(dbt_, step, paths, whole, grace=10, time_limit=100, mask=MASK)


def test_a_build_with_nothing_configured_gets_the_default_options() -> None:
    command = command_of(PLAIN, DbtStep("build"))
    assert command.argvs == (
        (
            "dbt",
            "build",
            "--project-dir=/srv/shop/transform",
            "--log-path=/state/jobs/full-1/3-build/logs",
            *LOGS,
            "--target-path=/state/jobs/full-1/3-build/target",
            "--write-json",
        ),
    )
    assert (command.cwd, command.grace, command.time_limit) == ("/srv/shop/transform", 10, 100)


def test_a_build_with_everything_configured_gets_every_option() -> None:
    assert command_of(WHOLE, BUILD).argvs == (
        (
            "/venv/bin/dbt",
            "build",
            "--project-dir=/srv/shop/transform",
            "--profiles-dir=/etc/dbt",
            "--target=prod",
            "--log-path=/state/jobs/full-1/3-build/logs",
            *LOGS,
            "--target-path=/state/jobs/full-1/3-build/target",
            "--write-json",
            "--threads=4",
            "--exclude=elementary",
            "--full-refresh",
            "--vars={a: 1}",
        ),
    )


def test_deps_gets_only_the_options_it_knows() -> None:
    assert command_of(WHOLE, DbtStep("deps")).argvs == (
        (
            "/venv/bin/dbt",
            "deps",
            "--project-dir=/srv/shop/transform",
            "--profiles-dir=/etc/dbt",
            "--target=prod",
            "--log-path=/state/jobs/full-1/3-build/logs",
            *LOGS,
        ),
    )


def test_elementary_runs_its_models_and_then_makes_its_report() -> None:
    """Neither command has the arguments that the fabric adds to dbt."""
    run, report = command_of(WHOLE, ELEMENTARY).argvs
    assert run[:2] == ("/venv/bin/dbt", "run")
    assert run[-2:] == ("--threads=4", "--select=elementary")
    assert report == (
        "/venv/bin/edr",
        "report",
        "--project-dir=/srv/shop/transform",
        "--profiles-dir=/etc/dbt",
        "--profile-target=prod",
        "--target-path=/state/jobs/full-1/3-build/edr",
        "--file-path=/state/jobs/full-1/3-build/elementary_report.html",
    )
    assert len(command_of(replace(WHOLE, edr=None), ELEMENTARY).argvs) == 1
    assert len(command_of(WHOLE, replace(ELEMENTARY, report=False)).argvs) == 1


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (DbtStep("build", ("--exclude=a", "--vars={}")), ("--exclude=a", "--vars={}")),
        (
            DbtStep("build", ("--exclude=a", "--vars={}"), without_elementary=True),
            ("--exclude=elementary", "--exclude=a", "--vars={}"),
        ),
        (DbtStep("run", ("--vars={}",), elementary=True), ("--select=elementary", "--vars={}")),
    ],
)
def test_elementarys_selection_comes_before_the_steps_arguments(step: DbtStep, expected: tuple[str, ...]) -> None:
    assert command_of(PLAIN, step).argvs[0][-len(expected) :] == expected
    assert dbt.list_command(PLAIN, step, dbt.paths(PLAIN, FOLDER, CACHE, {}))[-len(expected) :] == expected


@pytest.mark.parametrize(
    ("arguments", "configured", "expected"),
    [
        (("--vars={}",), (), ("--vars={}",)),
        (("--select=a", "--exclude=b"), (), ("--select=elementary", "--select=a", "--exclude=b")),
        ((), ("-s", "a"), ("--select=elementary", "-s", "a")),
    ],
    ids=["everything is selected", "a selection of the step", "a configured selection"],
)
def test_a_step_with_elementary_runs_it_whatever_else_it_selects(
    arguments: tuple[str, ...], configured: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    step = DbtStep("build", arguments, with_elementary=True)
    argv = command_of(replace(PLAIN, arguments=configured), step).argvs[0]
    assert argv[argv.index("--write-json") + 1 :] == expected


def test_a_text_is_rendered_with_the_variables_of_the_step() -> None:
    config = replace(PLAIN, arguments=("--full-refresh", "--vars", "{a: 1}", "--vars"))
    step = DbtStep("build", ("--select=a", "--vars={}"), without_elementary=True)
    argv = dbt.render_command(config, step, dbt.paths(config, FOLDER, CACHE, {}), "{{ 1 }}")
    assert argv[:2] == ("dbt", "compile")
    assert argv[-3:] == ("--vars={}", "--vars={a: 1}", "--inline={{ 1 }}")


@pytest.mark.parametrize("verb", ["build", "run", "test"])
def test_with_lineage_dbt_ol_runs_with_the_same_options(verb: str) -> None:
    plain, lineage = command_of(WHOLE, DbtStep(verb)).argvs[0], command_of(WHOLE, DbtStep(verb, lineage=True)).argvs[0]
    assert (plain[0], lineage[0]) == ("/venv/bin/dbt", "/venv/bin/dbt-ol")
    assert plain[1:] == lineage[1:]
    assert not [option for option in lineage if option.startswith("--consume-structured-logs")]


@pytest.mark.parametrize("step", [BUILD, DbtStep("deps"), ELEMENTARY, DbtStep("test", lineage=True)])
def test_each_option_is_one_word_with_its_value_and_paths_are_absolute(step: DbtStep) -> None:
    for argv in command_of(WHOLE, step).argvs:
        given = [option for option in argv[2:] if option not in WHOLE.arguments]
        assert all(option.startswith("--") for option in given)
        paths = [option.partition("=")[2] for option in given if "-dir=" in option or "-path=" in option]
        assert len(paths) >= 3
        assert all(path.startswith("/") for path in paths)


@pytest.mark.parametrize("step", [BUILD, DbtStep("deps"), ELEMENTARY])
def test_the_interrupt_of_dbt_is_sigint(step: DbtStep) -> None:
    """It is the only signal on which dbt cancels its queries."""
    assert command_of(WHOLE, step).interrupt is signal.SIGINT


def test_options_that_the_gateway_sets_are_reserved() -> None:
    commands = [command_of(WHOLE, step) for step in (BUILD, DbtStep("test", lineage=True))]
    options = {option.partition("=")[0] for command in commands for option in command.argvs[0][2:]}
    free = {"--exclude", "--full-refresh", "--vars", "--no-quiet", "--no-use-colors", "--write-json"}
    assert options - free <= RESERVED_ARGUMENTS


def test_the_shared_parse_is_used_only_if_it_exists(tmp_path: Path) -> None:
    cache = tmp_path / "parse" / "x.msgpack"
    option = f"--partial-parse-file-path={cache}"
    assert option not in command_of(PLAIN, BUILD, cache=cache).argvs[0]
    dbt.update_parse_cache(tmp_path, cache)  # the step wrote no parse
    assert not cache.exists()
    fresh = dbt.target_folder(tmp_path) / "partial_parse.msgpack"
    for content in (b"first", b"second"):
        fresh.parent.mkdir(exist_ok=True)
        fresh.write_bytes(content)
        dbt.update_parse_cache(tmp_path, cache)
        assert cache.read_bytes() == content
    assert option in command_of(PLAIN, BUILD, cache=cache).argvs[0]
    assert option not in command_of(PLAIN, DbtStep("deps"), cache=cache).argvs[0]


CHANGES: list[dict[str, Any]] = [
    {"project": Path("/srv/other")},
    {"profiles": Path("/etc/other")},
    {"target": "dev"},
    {"executable": "/venv2/bin/dbt"},
    {"arguments": ("--vars={a: 2}",)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_parse_is_not_shared_if_the_configuration_differs(tmp_path: Path, change: dict[str, Any]) -> None:
    assert dbt.parse_cache(tmp_path, WHOLE, BUILD, {}) == dbt.parse_cache(tmp_path, replace(WHOLE), BUILD, {})
    assert dbt.parse_cache(tmp_path, WHOLE, BUILD, {}) != dbt.parse_cache(tmp_path, replace(WHOLE, **change), BUILD, {})
    assert dbt.parse_cache(tmp_path, replace(WHOLE, **change), BUILD, {}).parent == tmp_path


def test_elementary_shares_no_parse_with_steps_that_have_arguments(tmp_path: Path) -> None:
    elementary = DbtStep("run", elementary=True)
    assert dbt.parse_cache(tmp_path, WHOLE, elementary, {}) != dbt.parse_cache(tmp_path, WHOLE, BUILD, {})
    bare = replace(WHOLE, arguments=())
    assert dbt.parse_cache(tmp_path, bare, elementary, {}) == dbt.parse_cache(tmp_path, bare, BUILD, {})


@pytest.mark.parametrize("name", ["DBT_TARGET", "DBT_ENGINE_TARGET", "DBT_PROFILE", "DBT_PROFILES_DIR"])
def test_a_parse_is_not_shared_under_other_variables_of_dbt(tmp_path: Path, name: str) -> None:
    one, other = (dbt.parse_cache(tmp_path, PLAIN, BUILD, {name: value}) for value in ("one", "other"))
    assert one != other


PROFILE_VARIABLES = {"DBT_PROFILES_DIR": "conf", "DBT_TARGET": "prod", "DBT_PROFILE": "shop"}


def test_what_dbt_finds_by_itself_is_no_option_but_for_edr(tmp_path: Path) -> None:
    """edr calls dbt in a folder of its own."""
    (tmp_path / "profiles.yml").touch()
    step = replace(ELEMENTARY, report=True)
    for environment, folder in (({}, tmp_path), (PROFILE_VARIABLES, tmp_path / "conf")):
        config = DbtConfig(tmp_path, edr="edr")
        run, report = command_of(config, step, environment=environment).argvs
        assert not [word for word in run if word.startswith(("--profile", "--target="))]
        assert f"--profiles-dir={folder}" in report


def test_profile_and_target_of_dbts_variables_become_options() -> None:
    def options(config: DbtConfig, **environment: str) -> set[str]:
        argv = command_of(config.with_choices(environment), DbtStep("build", lineage=True)).argvs[0]
        return {word for word in argv if word.startswith(("--profile=", "--target="))}

    assert options(PLAIN) == set()
    assert options(PLAIN, DBT_PROFILE="shop", DBT_TARGET="prod") == {"--profile=shop", "--target=prod"}
    assert options(PLAIN, DBT_ENGINE_TARGET="prod", DBT_TARGET="dev") == {"--target=prod"}
    assert options(PLAIN, DBT_ENGINE_TARGET="", DBT_TARGET="dev") == {"--target=dev"}
    assert options(WHOLE, DBT_ENGINE_TARGET="dev") == {"--target=prod"}


HOST_ENVIRONMENT = {
    "PATH": "/bin",
    "OPENLINEAGE_URL": "http://marquez:5000",
    "OPENLINEAGE_DISABLED": "true",
    "OPENLINEAGE__TRANSPORT": '{"type": "http"}',
    "OPENLINEAGE__TRANSPORT__TYPE": "console",
    "OPENLINEAGE_CONFIG": "/etc/openlineage.yml",
    "OPENLINEAGE_NAMESPACE": "shop",
}


def test_lineage_goes_to_the_steps_file_despite_the_hosts_variables(tmp_path: Path) -> None:
    step = DbtStep("build", lineage=True)
    folder = tmp_path / "3-build 'of\" a: job"
    dbt.prepare(step, folder)
    environment = command_of(PLAIN, step, folder, environment=HOST_ENVIRONMENT).environment
    assert environment == {
        "PATH": "/bin",
        "OPENLINEAGE_NAMESPACE": "shop",
        "OPENLINEAGE_CONFIG": str(folder / "openlineage.yml"),
        "DO_NOT_TRACK": "1",
        "EDR_REPORT_OPEN_BROWSER": "false",
        "TQDM_DISABLE": "1",
    }
    written = yaml.safe_load((folder / "openlineage.yml").read_text())
    assert written == {"transport": {"type": "file", "log_file_path": str(folder / "lineage.ndjson"), "append": True}}
    assert json.loads((folder / "openlineage.yml").read_text()) == written


def test_a_step_without_lineage_has_no_lineage_file(tmp_path: Path) -> None:
    dbt.prepare(BUILD, tmp_path / "deep" / "folder")
    assert list((tmp_path / "deep" / "folder").iterdir()) == []
    environment = command_of(PLAIN, BUILD, environment=HOST_ENVIRONMENT).environment
    assert not {"OPENLINEAGE_URL", "OPENLINEAGE__TRANSPORT", "TQDM_DISABLE"} & set(environment)


def test_the_users_variables_for_tracking_and_browser_take_precedence() -> None:
    given = {"DO_NOT_TRACK": "0", "EDR_REPORT_OPEN_BROWSER": "true"}
    assert command_of(PLAIN, BUILD, environment=given).environment == given
