"""The settings: their sources, their precedence and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.settings import env_file
from gateway.settings import settings as config
from tests.support.settings import load, refusal

VARIABLES = [
    ("PIPELINE_ENABLED", "true", "enabled", True),
    ("ENABLE_OPENLINEAGE", "false", "enable_openlineage", False),
    ("ENABLE_ELEMENTARY", "true", "enable_elementary", True),
    ("HOST", "127.0.0.1", "host", "127.0.0.1"),
    ("PORT", "8080", "port", 8080),
    ("JOB_TTL", "60", "job_ttl", 60),
    ("STATE_DIRECTORY", "/var/lib/pipeline-gateway", "state_directory", Path("/var/lib/pipeline-gateway")),
    ("STATE_DIRECTORY", "/var/lib/one:/var/lib/two", "state_directory", Path("/var/lib/one")),
    ("GATEWAY_RECORD_DAYS", "7", "record_days", 7),
    ("GATEWAY_OUTPUT_CAP", "1MiB", "output_cap", 2**20),
    ("GATEWAY_STATE_CAP", "8GiB", "state_cap", 8 * 2**30),
    ("GATEWAY_FREE_DISK_FLOOR", "0", "free_disk_floor", 0),
    (
        "GATEWAY_ALLOWED_HOSTS",
        "[gateway.example, other.example]",
        "allowed_hosts",
        ("gateway.example", "other.example"),
    ),
    ("GATEWAY_INGESTER_FAILURE", "continue", "ingester_failure", "continue"),
    ("GATEWAY_DEFAULT_FABRIC", "local", "default_fabric", "local"),
]
FILE = """
enabled: false
enable_openlineage: true
enable_elementary: false
host: "::1"
port: 3001
job_ttl: 30
state_directory: elsewhere
record_days: 1
output_cap: 100KiB
state_cap: 1MiB
free_disk_floor: 1MiB
allowed_hosts: [from-the-file]
ingester_failure: stop
default_fabric: local
"""


def test_without_a_file_and_variables_the_defaults_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config.load(None, {"HOME": "/root", "PATH": "/bin"})
    assert (settings.enabled, settings.host, settings.port) == (False, "localhost", 3000)
    assert (settings.enable_openlineage, settings.enable_elementary) == (None, None)
    assert (settings.job_ttl, settings.record_days) == (3600, 30)
    assert (settings.output_cap, settings.state_cap) == (64 * 2**20, 4 * 2**30)
    assert settings.fabrics["local"].time_limit == 6 * 3600
    assert (settings.default_fabric, settings.default_project) == ("local", "default")
    assert settings.state_directory == tmp_path / ".pipeline-gateway"
    assert settings.projects["default"].dbt == tmp_path


def test_gateway_yaml_of_the_working_directory_is_read_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gateway.yaml").write_text("port: 3001\n")
    assert config.load(None, {}).port == 3001


@pytest.mark.parametrize(("variable", "value", "key", "meant"), VARIABLES)
def test_a_variable_sets_its_setting_and_overrides_the_file(
    tmp_path: Path, variable: str, value: str, key: str, meant: object
) -> None:
    for text in ("", FILE):
        assert getattr(load(tmp_path, text, {variable: value}), key) == meant


@pytest.mark.parametrize("variable", [variable for variable, *_ in VARIABLES])
def test_an_empty_variable_counts_as_unset(tmp_path: Path, variable: str) -> None:
    assert load(tmp_path, FILE, {variable: ""}) == load(tmp_path, FILE)


def test_variables_of_other_programs_are_ignored(tmp_path: Path) -> None:
    others = {"PORTS": "x", "ENABLED": "x", "enabled": "x", "HOSTNAME": "x", "DBT_TARGET": "x", "GATEWAYS": "x"}
    assert load(tmp_path, "", others) == load(tmp_path, "")


@pytest.mark.parametrize(
    ("text", "meant"), [("1", True), ("true", True), ("on", True), ("yes", True), ("0", False), ("FALSE", False)]
)
def test_a_boolean_accepts_the_usual_words(tmp_path: Path, text: str, meant: bool) -> None:
    assert load(tmp_path, "", {"PIPELINE_ENABLED": text}).enabled is meant


def test_relative_paths_start_at_the_file_that_has_them(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        state_directory: state
        fabrics:
          local: {dbt: {executable: venv/bin/dbt, openlineage_executable: dbt-ol, edr: ./edr, profiles_directory: p}}
        projects:
          p: {directory: shop, dbt: transform, ingester: {command: [bin/ingest, x], directory: in}}
          q: {directory: /srv/q, dbt: ../r, ingester: {command: [python3]}}
        default_project: p
        """,
    )
    assert settings.state_directory == tmp_path / "state"
    dbt = settings.fabrics["local"].dbt
    assert (dbt.executable, dbt.edr) == (str(tmp_path / "venv/bin/dbt"), str(tmp_path / "edr"))
    assert dbt.openlineage_executable == "dbt-ol"  # a name is looked up on PATH
    assert dbt.profiles_directory == tmp_path / "p"
    project, other = settings.projects["p"], settings.projects["q"]
    assert (project.directory, project.dbt) == (tmp_path / "shop", tmp_path / "shop/transform")
    assert project.ingester is not None
    assert project.ingester.directory == tmp_path / "shop/in"
    assert project.ingester.command == ("bin/ingest", "x")
    assert (other.directory, other.dbt) == (Path("/srv/q"), Path("/srv/r"))
    assert other.ingester is not None
    assert other.ingester.directory == Path("/srv/q")


def test_a_tilde_is_expanded_to_the_home_directory(tmp_path: Path) -> None:
    assert load(tmp_path, "state_directory: ~/state\n").state_directory == Path("~/state").expanduser()


@pytest.mark.parametrize(
    ("text", "fabric", "project"),
    [
        ("", "local", "default"),
        ("fabrics: {prod: {}}\nprojects: {shop: {}}\n", "prod", "shop"),
        ("fabrics: {a: {}, b: {}}\ndefault_fabric: b\n", "b", "default"),
        ("projects: {a: {}, b: {}}\ndefault_project: a\n", "local", "a"),
        ("fabrics: {2290: {}}\nprojects: {17: {}}\n", "2290", "17"),
    ],
)
def test_a_single_fabric_and_a_single_project_are_the_default(
    tmp_path: Path, text: str, fabric: str, project: str
) -> None:
    settings = load(tmp_path, text)
    assert (settings.default_fabric, settings.default_project) == (fabric, project)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fabrics: {a: {}, b: {}}\n", "default_fabric: expected one of a, b, found ''"),
        ("projects: {a: {}, b: {}}\n", "default_project: expected one of a, b, found ''"),
        ("fabrics: {a: {}}\ndefault_fabric: c\n", "default_fabric: expected one of a, found 'c'"),
    ],
)
def test_of_several_the_default_must_be_named_and_exist(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == f"{tmp_path / 'gateway.yaml'}: {sentence}"


def test_each_fabric_has_its_own_resources_unless_they_are_named(tmp_path: Path) -> None:
    settings = load(tmp_path, "fabrics: {a: {}, b: {resources: {ingester: duck, dbt: duck}}}\ndefault_fabric: a\n")
    assert settings.resources("a") == ("a.ingester", "a.dbt")
    assert settings.resources("b") == ("duck", "duck")


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    for model in (settings, settings.fabrics["local"], settings.fabrics["local"].dbt, settings.projects["default"]):
        for key in type(model).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(model, key, None)


ENV_FILE = r"""
# a comment
PLAIN=value
export EXPORTED=value

  INDENTED = spaced out
QUOTED="with # and spaces "
SINGLE='it"s'
EMPTY=
EQUALS=a=b=c
UMLAUT=für
#OUT=commented
PORT=3001 # comment
ONLY_A_COMMENT= # comment
HASH=#1
ANCHOR=page#part
QUOTED_AND_COMMENTED='a # b' # comment
DOLLAR=$PLAIN ${PLAIN}
LITERAL='a\nb'
ESCAPED="a\nb \"c\""
BACKSLASH=C:\new
KEY="first
second"
"""


def test_an_env_file_has_comments_blank_lines_export_and_quotes(tmp_path: Path) -> None:
    file = tmp_path / "gateway.env"
    file.write_text(ENV_FILE, encoding="utf-8")
    assert env_file.read(file) == {
        "PLAIN": "value",
        "EXPORTED": "value",
        "INDENTED": "spaced out",
        "QUOTED": "with # and spaces ",
        "SINGLE": 'it"s',
        "EMPTY": "",
        "EQUALS": "a=b=c",
        "UMLAUT": "für",
        "PORT": "3001",
        "ONLY_A_COMMENT": "",
        "HASH": "#1",
        "ANCHOR": "page#part",
        "QUOTED_AND_COMMENTED": "a # b",
        "DOLLAR": "$PLAIN ${PLAIN}",
        "LITERAL": "a\\nb",
        "ESCAPED": 'a\nb "c"',
        "BACKSLASH": "C:\\new",
        "KEY": "first\nsecond",
    }


@pytest.mark.parametrize(
    "line",
    ["no equals sign", "NAME", "=value", "1ST=x", "A-B=x", "two words=x", 'A="', "A='x' y", 'A="sesame\nB="x"'],
)
@pytest.mark.parametrize("before", ["A=1\n\n", "A=1\r\n  \r\n", "A='1\n1'\n"])
def test_a_wrong_line_of_an_env_file_is_named(tmp_path: Path, before: str, line: str) -> None:
    file = tmp_path / "gateway.env"
    file.write_text(f"{before}{line}\n", newline="")
    with pytest.raises(ConfigError) as refused:
        env_file.read(file)
    expected = "expected NAME=VALUE, where a value that begins with a quote ends with it"
    assert str(refused.value) == f"{file}, line 3: {expected}"


def test_an_env_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary"):
        with pytest.raises(ConfigError, match=f"{name}: can't be read"):
            env_file.read(tmp_path / name)


def test_a_setting_in_yaml_may_be_any_mapping_of_strings(tmp_path: Path) -> None:
    given: Mapping[str, str] = {"GATEWAY_FABRICS": "{2290: {environment: {A: b}}}"}
    assert load(tmp_path, "", given).fabrics["2290"].environment == {"A": "b"}


@pytest.mark.parametrize("name", ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"])
def test_without_gateway_yaml_a_compose_file_makes_a_compose_fabric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    settings = config.load(None, {})
    assert {key: fabric.runner for key, fabric in settings.fabrics.items()} == {"compose": "compose"}
    assert settings.default_fabric == "compose"
    assert settings.fabrics["compose"].compose.directory == tmp_path


@pytest.mark.parametrize("dotenv", ["COMPOSE_FILE=prod.yaml", "A=1\nexport COMPOSE_FILE = a.yaml:b.yaml\n"])
def test_compose_file_is_read_from_the_environment_or_dot_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dotenv: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load(None, {"COMPOSE_FILE": "prod.yaml"}).default_fabric == "compose"
    (tmp_path / ".env").write_text(dotenv)
    assert config.load(None, {}).default_fabric == "compose"


@pytest.mark.parametrize("dotenv", ["", "COMPOSE_FILE=\n", "# COMPOSE_FILE=a.yaml", "MY_COMPOSE_FILE=a.yaml"])
def test_without_a_compose_file_the_default_fabric_is_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dotenv: str
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    monkeypatch.chdir(tmp_path)
    assert config.load(None, {}).default_fabric == "local"


def test_with_gateway_yaml_a_compose_file_does_not_make_a_fabric(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").touch()
    assert load(tmp_path, "enabled: true").default_fabric == "local"


def test_paths_of_a_compose_project_start_at_the_file(tmp_path: Path) -> None:
    """Those of its dbt are paths in the container, which stay as they are."""
    chosen = "{directory: shop, files: [a.yaml, /b.yaml], env_files: [prod.env], dbt: {target_path: ~/target}}"
    dbt = "{executable: bin/dbt}"
    settings = load(tmp_path, f"fabrics: {{a: {{runner: compose, compose: {chosen}, dbt: {dbt}}}}}")
    fabric = settings.fabrics["a"]
    assert fabric.compose.directory == tmp_path / "shop"
    assert fabric.compose.files == (tmp_path / "a.yaml", Path("/b.yaml"))
    assert fabric.compose.env_files == (tmp_path / "prod.env",)
    assert (fabric.compose.dbt.target_path, fabric.dbt.executable) == ("~/target", "bin/dbt")
