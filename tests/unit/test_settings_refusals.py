"""Refused settings: one line for each mistake, with the key, what was expected and what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import settings as config
from runners.dbt.command import RESERVED_ARGUMENTS
from tests.support.settings import load, refusal

MISTAKES = [
    ("enabled: maybe", "PIPELINE_ENABLED", "enabled", "true or false", "'maybe'"),
    ("enable_openlineage: [1]", "ENABLE_OPENLINEAGE", "enable_openlineage", "true or false", "[1]"),
    ("enable_elementary: often", "ENABLE_ELEMENTARY", "enable_elementary", "true or false", "'often'"),
    ("host: example.com", "HOST", "host", "expected localhost or an address", "'example.com'"),
    ("host: 3000", "HOST", "host", "a text", "3000"),
    ("port: 65536", "PORT", "port", "a whole number from 0 to 65535", "65536"),
    ("port: -1", "PORT", "port", "a whole number from 0 to 65535", "-1"),
    ("port: http", "PORT", "port", "a whole number", "'http'"),
    ("job_ttl: 0", "JOB_TTL", "job_ttl", "a number above 0", "0"),
    ("job_ttl: .inf", "JOB_TTL", "job_ttl", "at most 31622400", "inf"),
    ("job_ttl: .nan", "JOB_TTL", "job_ttl", "at most 31622400", "nan"),
    ("state_directory: 1", "STATE_DIRECTORY", "state_directory", "a path", "1"),
    ("state_directory: ~", "STATE_DIRECTORY", "state_directory", "a path", "None"),
    ("record_days: never", "GATEWAY_RECORD_DAYS", "record_days", "a number", "'never'"),
    ("output_cap: 1KiB", "GATEWAY_OUTPUT_CAP", "output_cap", "a size of at least 64KiB", "'1KiB'"),
    ("state_cap: much", "GATEWAY_STATE_CAP", "state_cap", "a size", "'much'"),
    ("allowed_hosts: name", "GATEWAY_ALLOWED_HOSTS", "allowed_hosts", "expected a list", "'name'"),
    ("ingester_failure: retry", "GATEWAY_INGESTER_FAILURE", "ingester_failure", "'stop' or 'continue'", "'retry'"),
    ("public_url: a.example", "GATEWAY_PUBLIC_URL", "public_url", "begins with https://", "'a.example'"),
    ("public_url: 'https://a:b@c'", "GATEWAY_PUBLIC_URL", "public_url", "an address", "'https://a:***@c'"),
    ("public_url: 'https://c?d=e'", "GATEWAY_PUBLIC_URL", "public_url", "an address", "'https://c?d=e'"),
    ("fabrics: {}", "GATEWAY_FABRICS", "fabrics", "at least one", "{}"),
    ("fabrics: [local]", "GATEWAY_FABRICS", "fabrics", "expected keys with values under it", "['local']"),
    ("projects: {}", "GATEWAY_PROJECTS", "projects", "at least one", "{}"),
]
NESTED = [
    ("fabrics: {a: {runner: swarm}}", "fabrics.a.runner", "'local' or 'compose'", "'swarm'"),
    ("fabrics: {a: {time_limit: -5}}", "fabrics.a.time_limit", "a number above 0", "-5"),
    ("fabrics: {a: {environment: {A: 1}}}", "fabrics.a.environment.A", "a text", "1"),
    ("fabrics: {a: {environment: {A-B: x}}}", "fabrics.a.environment.A-B", "letters, digits and `_`", "'A-B'"),
    ("fabrics: {a: {resources: {dbt: a/b}}}", "fabrics.a.resources.dbt", "at most 64 letters", "'a/b'"),
    ("fabrics: {a: {dbt: {threads: 0}}}", "fabrics.a.dbt.threads", "a whole number from 1 to 1024", "0"),
    ("fabrics: {a: {dbt: {executable: ''}}}", "fabrics.a.dbt.executable", "a text, not empty", "''"),
    ('fabrics: {a: {dbt: {target: "de\\0v"}}}', "fabrics.a.dbt.target", "without NUL", r"'de\x00v'"),
    ("projects: {a: {ingester: {command: []}}}", "projects.a.ingester.command", "a list, at least one", "[]"),
    ("projects: {a: {ingester: {command: dlt}}}", "projects.a.ingester.command", "expected a list", "'dlt'"),
    ('projects: {a: {ingester: {command: [x, "a\\0"]}}}', "projects.a.ingester.command.1", "without NUL", r"'a\x00'"),
    ("projects: {a: {ingester: {}}}", "projects.a.ingester.command", "is missing: expected a list", "{}"),
    (
        "fabrics: {a: {runner: compose, compose: {dbt: {service: --entrypoint=sh}}}}",
        "fabrics.a.compose.dbt.service",
        "letters, digits",
        "'--entrypoint=sh'",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {ingester: {service: -T}}}}",
        "fabrics.a.compose.ingester.service",
        "letters, digits",
        "'-T'",
    ),
    (
        'fabrics: {a: {runner: compose, compose: {ingester: {service: "a b"}}}}',
        "fabrics.a.compose.ingester.service",
        "letters, digits",
        "'a b'",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {project_name: -p}}}",
        "fabrics.a.compose.project_name",
        "letters, digits",
        "'-p'",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {profiles: [--all]}}}",
        "fabrics.a.compose.profiles.0",
        "letters, digits",
        "'--all'",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {context: -c}}}",
        "fabrics.a.compose.context",
        "at most 64 letters",
        "'-c'",
    ),
    ("fabrics: {a: {runner: compose, compose: {host: -H}}}", "fabrics.a.compose.host", "the URL of an engine", "'-H'"),
    (
        "fabrics: {a: {runner: compose, compose: {host: example}}}",
        "fabrics.a.compose.host",
        "the URL of an engine",
        "'example'",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {environment: [A=b]}}}",
        "fabrics.a.compose.environment.0",
        "letters, digits",
        "'A=b'",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {environment: {A: b}}}}",
        "fabrics.a.compose.environment",
        "expected a list",
        "{'A': 'b'}",
    ),
    (
        "fabrics: {a: {runner: compose, compose: {files: compose.yaml}}}",
        "fabrics.a.compose.files",
        "expected a list",
        "'compose.yaml'",
    ),
    (
        'fabrics: {a: {runner: compose, compose: {context: one, host: "tcp://two"}}}',
        "fabrics.a.compose",
        "context and host both name an engine",
        "{'context': 'one', 'host': 'tcp://two'}",
    ),
    (
        "fabrics: {a: {runner: compose, dbt: {profiles_directory: /p}}}",
        "fabrics.a",
        "set compose.dbt.profiles_directory",
        "{'runner': 'compose', 'dbt': {'profiles_directory': '/p'}}",
    ),
    (
        "fabrics: {a: {runner: compose, environment: {DOCKER_HOST: x}}}",
        "fabrics.a",
        "DOCKER_HOST would be docker's own too",
        "{'runner': 'compose', 'environment': {'DOCKER_HOST': 'x'}}",
    ),
    (
        "fabrics: {a: {runner: compose, environment: {PATH: x}}}",
        "fabrics.a",
        "PATH would be docker's own too",
        "{'runner': 'compose', 'environment': {'PATH': 'x'}}",
    ),
    ("fabrics: {a: {compose: {}}}", "fabrics.a", "compose is only for `runner: compose`", "{'compose': {}}"),
]


# YAML of which no setting can be made: what is said of it, and in which line
UNUSABLE = {
    "an alias in its own mapping": ("projects: &all\n  a: *all\n", "the alias *all refers to what it is in", 2),
    "an alias in its own list": ("projects: {a: {branch: &b [*b]}}", "the alias *b refers to what it is in", 1),
    "deep mappings": ("{a: " * 5000 + "}" * 5000, "more than 50 levels are nested", 1),
    "deep lists": ("projects: " + "[" * 5000 + "]" * 5000, "more than 50 levels are nested", 1),
    "a key twice": ("projects: {}\nport: 1\nprojects: {}", "the key `projects` is there twice", 3),
    "an inner key twice": ("fabrics:\n  a: {time_limit: 1, time_limit: 2}", "the key `time_limit` is there twice", 2),
    "an id twice": ("fabrics:\n  7: {}\n  '7': {}", "the key `7` is there twice", 3),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_yaml_that_makes_no_settings_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    text, said, line = UNUSABLE[kind]
    sentence = refusal(tmp_path, text)
    assert sentence.startswith(f"{tmp_path / 'gateway.yaml'}: {said}")
    assert f" in line {line}, column " in sentence
    assert "\n" not in sentence


def test_an_alias_and_a_merge_of_yaml_are_taken(tmp_path: Path) -> None:
    text = """
        fabrics:
          a: &common {time_limit: 60}
          b: *common
          c: {<<: *common, time_limit: 70}
        default_fabric: a
    """
    fabrics = load(tmp_path, text).fabrics
    assert [fabrics[name].time_limit for name in "abc"] == [60, 60, 70]


@pytest.mark.parametrize(("text", "variable", "key", "expected", "found"), MISTAKES)
def test_a_refused_value_is_named_with_its_key_and_its_variable(
    tmp_path: Path, text: str, variable: str, key: str, expected: str, found: str
) -> None:
    """The line also says what was expected and what was found."""
    sentence = refusal(tmp_path, text)
    assert sentence.startswith(f"{tmp_path / 'gateway.yaml'} or {variable}: {key}: ")
    assert expected in sentence
    assert sentence.endswith(f"; found {found}")
    assert "\n" not in sentence


@pytest.mark.parametrize(("text", "key", "expected", "found"), NESTED)
def test_a_refused_value_in_a_fabric_or_project_is_named_by_its_full_key(
    tmp_path: Path, text: str, key: str, expected: str, found: str
) -> None:
    sentence = refusal(tmp_path, text)
    assert f": {key}" in sentence
    assert expected in sentence
    assert sentence.endswith(f"; found {found}")
    assert "\n" not in sentence


def test_the_named_variable_is_one_that_could_have_set_the_key(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, "fabrics: {a: {dbt: {threads: 0}}}")
    assert sentence.startswith(f"{tmp_path / 'gateway.yaml'} or GATEWAY_FABRICS: fabrics.a.dbt.threads: ")


@pytest.mark.parametrize(
    ("text", "key", "known"),
    [
        ("colour: red", "colour", "default_fabric, default_project"),
        ("Port: 3000", "Port", "default_fabric, default_project"),
        ("fabrics: {a: {colour: red}}", "fabrics.a.colour", "dbt, compose"),
        ("fabrics: {a: {dbt: {thread: 4}}}", "fabrics.a.dbt.thread", "grace, retries"),
        ("projects: {a: {ingester: {command: [a], cwd: b}}}", "projects.a.ingester.cwd", "grace, retries"),
    ],
)
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, text: str, key: str, known: str) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(f"{tmp_path / 'gateway.yaml'}: {key}: there is no such setting; there are: ")
    assert said.endswith(known)


def test_a_setting_with_its_own_variable_has_no_gateway_variable(tmp_path: Path) -> None:
    assert refusal(tmp_path, "", {"GATEWAY_PORT": "1"}) == "GATEWAY_PORT: this setting has a variable of its own, PORT"


def test_an_unknown_gateway_variable_is_refused_by_its_name(tmp_path: Path) -> None:
    assert "GATEWAY_COLOUR" in refusal(tmp_path, "", {"GATEWAY_COLOUR": "red"})


@pytest.mark.parametrize("name", ["a/b", "", ".hidden", "-x", "x y", "ä", "x" * 65])
@pytest.mark.parametrize("among", ["fabrics", "projects"])
def test_a_fabric_or_project_has_a_plain_name(tmp_path: Path, among: str, name: str) -> None:
    assert f"{among}." in refusal(tmp_path, f"{among}: {{{name!r}: {{}}}}")


def test_several_mistakes_are_several_lines(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "port: x\ncolour: red\njob_ttl: -1\n", {"HOST": "everywhere"}).splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == ["colour", "host", "job_ttl", "port"]


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, f"port: {'x' * 10_000}")) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("argument", sorted(RESERVED_ARGUMENTS))
@pytest.mark.parametrize("value", ["", "=x"])
def test_a_dbt_argument_that_the_gateway_sets_is_reserved(tmp_path: Path, argument: str, value: str) -> None:
    sentence = refusal(tmp_path, f"fabrics: {{a: {{dbt: {{arguments: [{argument + value!r}]}}}}}}")
    assert f"{argument}{value} is set by the gateway itself" in sentence


@pytest.mark.parametrize("argument", ["-tprod", "-qx"])
def test_a_reserved_short_option_joined_to_its_value_is_refused(tmp_path: Path, argument: str) -> None:
    assert "is set by the gateway itself" in refusal(tmp_path, f"fabrics: {{a: {{dbt: {{arguments: [{argument}]}}}}}}")


def test_other_arguments_of_dbt_are_accepted(tmp_path: Path) -> None:
    settings = load(tmp_path, "fabrics: {a: {dbt: {arguments: [--full-refresh, '--vars={a: 1}', -x]}}}")
    assert settings.fabrics["a"].dbt.arguments == ("--full-refresh", "--vars={a: 1}", "-x")


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: b: c",
        "a:\n\tb: 1",
        "port: *unknown",
        "a: !!python/object:os.x {}",
        "x\x00y: 1",
        "job_ttl: 2026-13-45",
    ],
)
def test_text_that_is_not_yaml_is_refused_in_one_line_naming_the_file(tmp_path: Path, text: str) -> None:
    sentence = refusal(tmp_path, text)
    assert sentence.startswith(f"{tmp_path / 'gateway.yaml'}: is not YAML: ")
    assert "\n" not in sentence


def test_bytes_that_are_not_text_are_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_bytes(b"port: \xff\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        config.load(tmp_path / "gateway.yaml", {})


@pytest.mark.parametrize("value", ["[", "2026-13-45"])
def test_a_variable_that_is_not_yaml_is_refused_with_its_name(tmp_path: Path, value: str) -> None:
    assert refusal(tmp_path, "", {"GATEWAY_RECORD_DAYS": value}).startswith("GATEWAY_RECORD_DAYS: is not YAML: ")


@pytest.mark.parametrize(("text", "found"), [("- port", "list"), ("3000", "int"), ("port", "str"), ("[]", "list")])
def test_settings_that_are_not_a_mapping_are_refused(tmp_path: Path, text: str, found: str) -> None:
    expected = f"{tmp_path / 'gateway.yaml'}: expected a YAML mapping, found {found}"
    assert refusal(tmp_path, text) == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}\n"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).port == 3000


def test_a_named_file_must_exist_and_be_readable(tmp_path: Path) -> None:
    for file in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError) as refused:
            config.load(file, {})
        assert str(refused.value).startswith(f"{file}: can't be read: ")


@pytest.mark.parametrize(
    "text",
    [
        'state_directory: "a\\0b"',
        'projects: {a: {directory: "a\\0b"}}',
        'fabrics: {a: {environment: {A: "b\\0"}}}',
        "state_directory: ~no-such-user/state",
    ],
)
def test_a_path_or_value_that_the_system_can_not_take_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith(f"{tmp_path / 'gateway.yaml'}")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("projects: {a: {ingester: {command: python ingest.py --all}}}", "command: [python, ingest.py, --all]"),
        ("projects: {a: {ingester: {command: \"sh -c 'a b; c'\"}}}", "command: [sh, -c, a b; c]"),
        ("projects: {a: {ingester: python ingest.py}}", "ingester: {command: [python, ingest.py]}"),
        ("projects: {a: {ingester: {}}}", "command: [python, ingest.py]"),
        ("projects: {a: {fabrics: b}}", "fabrics: [b]"),
        ("fabrics: {a: {resources: db}}", "resources: {ingester: db, dbt: db}"),
        ("fabrics: {a: {dbt: /opt/dbt/bin/dbt}}", "dbt: {executable: /opt/dbt/bin/dbt}"),
        ("fabrics: {a: {dbt: {target: 5}}}", "target: '5'"),
        ("fabrics: {a: {environment: [A=b]}}", "environment: {DATABASE_HOST: db.example}"),
        ("fabrics: [local]", "fabrics: {local: {runner: local}}"),
        ("allowed_hosts: pipelines.example", "allowed_hosts: [pipelines.example]"),
    ],
)
def test_a_refusal_shows_a_line_that_would_be_right(tmp_path: Path, text: str, right: str) -> None:
    said = refusal(tmp_path, text)
    assert f", such as `{right}`; found " in said
    assert "instance of" not in said


def test_a_refusal_of_a_secret_shows_nothing_of_it(tmp_path: Path) -> None:
    said = refusal(tmp_path, "fabrics: {a: {environment: {DB_PASSWORD: 123456789}}}")
    assert "***" in said
    assert "123456789" not in said


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_of_nearly_the_right_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gateway.yml").write_text("port: 3001")
    if beside:
        (tmp_path / "gateway.yaml").write_text("port: 3002")
    with pytest.raises(
        ConfigError, match=r"gateway\.yml: is not read: rename it to gateway\.yaml, or name it with --config"
    ):
        config.load(None, {})
    assert config.load(tmp_path / "gateway.yml", {}).port == 3001
