"""Secrets in the configuration: which are masked, and that no refusal shows one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import findings
from gateway.errors import StateError
from gateway.fabrics.fabric import masked
from gateway.model.job import Finished
from gateway.state import _create
from runners.containers.compose_runner import ComposeRunner
from runners.mask import Mask
from runners.outcome import Command, Lost, NotStarted
from runners.report import Failure
from tests.support.settings import load, refusal

SETTINGS = """
    fabrics: {local: {environment: {DB_PASSWORD: of-the-fabric}}}
    projects: {shop: {ingester: {command: [load], environment: {API_TOKEN: of-the-ingester}}}}
"""


def test_every_secret_of_configuration_and_environment_is_masked(tmp_path: Path) -> None:
    mask = load(tmp_path, SETTINGS).mask({"AWS_SECRET_ACCESS_KEY": "of-the-gateway", "HOME": "/home"})
    assert mask.text("of-the-fabric of-the-ingester of-the-gateway /home") == "*** *** *** /home"


def test_the_names_of_secret_variables_are_configurable(tmp_path: Path) -> None:
    mask = load(tmp_path, "secrets: [my_*]").mask({"MY_PIN": "123456", "PASSWORD": "of-the-gateway"})
    assert mask.text("123456 of-the-gateway") == "*** of-the-gateway"


@pytest.mark.parametrize("name", ["*", "", "A-B", "A?"])
def test_a_secret_name_that_matches_everything_or_nothing_is_refused(tmp_path: Path, name: str) -> None:
    assert "secrets.0" in refusal(tmp_path, f"secrets: ['{name}']")


@pytest.mark.parametrize(
    "text",
    [
        "fabrics: {a: {runner: compose, compose: {host: 'ssh://me:sesame@engine'}}}",
        "fabrics: {a: {runner: compose, compose: {ingester: {command: [load, 'pg://me:sesame@db']}}}}",
        "fabrics: {a: {dbt: {arguments: ['--vars={url: pg://me:sesame@db}']}}}",
        "projects: {a: {ingester: {command: [load, '--to=pg://me:sesame@db']}}}",
    ],
)
def test_a_password_in_a_command_line_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    sentence = refusal(tmp_path, text)
    assert "expected no password in it" in sentence
    assert "sesame" not in sentence


@pytest.mark.parametrize(
    "text",
    [
        "fabrics: {a: {environment: {DB_PASSWORD: [sesame]}}}",
        "fabrics: {a: {environment: {DB_PASSWORD: sesame}, compose: {}}}",
        "fabrics: {a: {runner: compose, compose: {environment: [DB_PASSWORD=sesame]}}}",
        "{secrets: [MY_PIN], fabrics: {a: {environment: {MY_PIN: sesame}, compose: {}}}}",
        "fabrics: {a: {environment: {DB_PASSWORD: 'sesame}}}",
    ],
)
def test_no_refusal_shows_a_secret(tmp_path: Path, text: str) -> None:
    assert "sesame" not in refusal(tmp_path, text)
    assert "sesame" not in refusal(tmp_path, "", {"GATEWAY_FABRICS": "{a: {environment: {DB_PASSWORD: 'sesame}}}"})


def test_check_warns_of_a_short_secret_by_its_name_only(tmp_path: Path) -> None:
    environment = {"DB_PASSWORD": "12345", "API_TOKEN": "123456", "EMPTY_TOKEN": "", "HOME": "/r"}
    [finding] = findings._secrets(load(tmp_path, ""), environment)
    assert (finding.good, finding.warns) == (True, True)
    assert "the secret DB_PASSWORD is too short" in finding.text
    assert "12345" not in finding.text


def test_a_state_directory_that_others_can_read_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in (tmp_path, tmp_path / "new"):
        _create(folder).close()
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_all_users_share_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StateError, match="is shared by all users"):
        _create(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


def test_a_state_directory_that_can_not_be_made_private_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_permitted(*_: object) -> None:
        raise PermissionError

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", not_permitted)
    with pytest.raises(StateError, match="can be read by other users"):
        _create(tmp_path)


async def test_an_engine_address_with_a_password_is_refused(tmp_path: Path) -> None:
    folder, runner = tmp_path / "job" / "1-ingester", ComposeRunner(1 << 20)
    await runner.start(folder, Command((("docker",),), "/", {"DOCKER_HOST": "tcp://me:sesame@engine:2375"}))
    outcome = await runner.wait(folder, lambda _: None)
    assert isinstance(outcome, NotStarted)
    assert "DOCKER_HOST has a password in it" in outcome.why


@pytest.mark.parametrize("outcome", [NotStarted("no sesame1"), Lost("no sesame1")])
def test_a_recorded_outcome_has_no_secret_in_it(outcome: NotStarted | Lost) -> None:
    finished = Finished(outcome, None, Failure("sesame1", "said sesame1", 2))
    hidden = masked(finished, Mask(("KEY",)).with_secrets_of({"KEY": "sesame1"}))
    assert hidden == Finished(type(outcome)("no ***"), None, Failure("***", "said ***", 2))
