"""The settings of notifications, and the variables that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.cli import findings
from gateway.errors import ConfigError
from gateway.notify import variables
from gateway.settings.settings import Settings
from tests.support.settings import load, refusal

WEBHOOK = "notify: [{webhook: {url_variable: HOOK, secret_variable: KEY}}]"
NTFY = "notify: [{webhook: {url_variable: HOOK, preset: ntfy}}]"
URL = "https://me:sesame-password@hooks.example/T0AAAAAA/sesame-key?auth=sesame-query"


def test_a_receiver_is_called_by_its_name_or_its_variable_or_its_program(tmp_path: Path) -> None:
    webhook = "{webhook: {url_variable: HOOK}}"
    settings = load(tmp_path, f"notify: [{{name: a, command: [x]}}, {webhook}, {{command: [/bin/mail, me]}}]")
    assert [one.to for one in settings.notify] == ["a", "HOOK", "mail"]


def test_a_program_with_a_path_begins_at_the_files_folder(tmp_path: Path) -> None:
    settings = load(tmp_path, "notify: [{command: [bin/tell, x/y]}, {command: [mail, ./me]}]")
    assert [one.command for one in settings.notify] == [(f"{tmp_path}/bin/tell", "x/y"), ("mail", "./me")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{}]", "notify.0: give it a `webhook` or a `command`, not both, such as"),
        ("[{command: [x], webhook: {url_variable: A}}]", "notify.0: give it a `webhook` or a `command`, not both"),
        ("[{command: [x], outcomes: [late]}]", "notify.0: `late` in `outcomes` and `late_after` belong together"),
        ("[{command: [x], late_after: 60}]", "notify.0: `late` in `outcomes` and `late_after` belong together"),
        ("[{command: [x], outcomes: [late], late_after: 60}]", "notify.0: late_after: give the `pipelines`"),
        ("[{command: [x]}, {command: [/bin/x]}]", "notify.0: another receiver is called x too; give each a `name`"),
        (
            "[{command: [x], pipelines: [gold]}]",
            "notify.0.pipelines: expected some of dbt, full, ingester, found 'gold'",
        ),
        ("[{webhook: {url_variable: 'https://x'}}]", "notify.0.webhook.url_variable: expected letters, digits and `_`"),
        ("[{command: ['mail://me:sesame@x']}]", "notify.0.command.0: expected no password in it"),
    ],
)
def test_a_wrong_receiver_is_refused(tmp_path: Path, text: str, said: str) -> None:
    sentence = refusal(tmp_path, f"notify: {text}")
    assert said in sentence
    assert "sesame" not in sentence


def test_a_receiver_may_name_declared_pipelines_and_the_built_in_ones(tmp_path: Path) -> None:
    projects = "projects: {shop: {pipelines: {gold: {dbt: {}}}}}"
    load(tmp_path, f"{projects}\nnotify: [{{command: [x], pipelines: [gold, dbt, full, ingester]}}]")


def problems(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    try:
        variables.must_be_right(settings, environment)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_a_variable_that_is_not_set_is_named_with_a_right_line(tmp_path: Path) -> None:
    settings = load(tmp_path, WEBHOOK)
    url, key = problems(settings, {"HOOK": " "})
    assert url.startswith("notify.0.webhook.url_variable: the variable HOOK is not set: put `HOOK=https://")
    assert key.startswith("notify.0.webhook.secret_variable: the variable KEY is not set: put `KEY=whsec_")
    assert problems(settings, {"HOOK": URL, "KEY": "whsec_c2VzYW1l"}) == []
    found = [finding.text for finding in findings._notify(settings, {"KEY": "any text"}) if not finding.good]
    assert found == [url]


@pytest.mark.parametrize("text", [WEBHOOK, NTFY])
@pytest.mark.parametrize(
    "url", ["sesame", "ftp://sesame.example/x", "https:///sesame", "http://[sesame", "mailto:sesame"]
)
def test_an_address_that_is_none_is_refused_and_not_repeated(tmp_path: Path, text: str, url: str) -> None:
    [said] = problems(load(tmp_path, text), {"HOOK": url, "KEY": "x"})
    assert said.startswith("notify.0.webhook.url_variable: the value of HOOK is wrong: expected an address")
    assert "sesame" not in said


def test_an_address_of_ntfy_without_a_topic_is_refused(tmp_path: Path) -> None:
    assert "expected the address of a topic" in problems(load(tmp_path, NTFY), {"HOOK": "https://ntfy.sh/"})[0]


def test_a_secret_that_is_no_base64_is_refused_and_not_repeated(tmp_path: Path) -> None:
    [said] = problems(load(tmp_path, WEBHOOK), {"HOOK": URL, "KEY": "whsec_sesame!"})
    assert "the value of KEY is wrong: expected base64 after whsec_" in said
    assert "sesame" not in said


def test_address_and_secret_are_masked_by_any_name_of_variable(tmp_path: Path) -> None:
    settings, given = load(tmp_path, WEBHOOK), {"HOOK": URL, "KEY": "sesame-signing"}
    assert settings.mask(given).text(f"a {URL} b sesame-signing c") == "a *** b *** c"
    mask = variables.mask(settings, given)
    for told in (
        "/T0AAAAAA/sesame-key",
        "no sesame-key here",
        "auth sesame-query",
        "sesame-password",
        "sesame-signing",
    ):
        assert "sesame" not in mask.text(told)


def test_check_finds_a_command_that_is_not_there(tmp_path: Path) -> None:
    settings = load(tmp_path, "notify: [{command: [no-such-program]}, {name: good, command: [sh]}]")
    bad, good = findings._notify(settings, {"PATH": "/usr/bin:/bin"})
    assert not bad.good
    assert "the program no-such-program is missing" in bad.text
    assert good.good
    assert "good is told of errors, failed" in good.text
