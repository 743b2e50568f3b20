"""Tokens from the command that makes them to the service that reads them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.support import projects
from tests.support.command import CONFIGURATION, run, says
from tests.support.gateway import PATH, Gateway

HINT = "Reload the gateway"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    no_dbt = {"local": {"dbt": {"executable": "/no/dbt"}}}
    return projects.make(tmp_path / "project", settings={"fabrics": no_dbt, "tokens_file": "tokens"})


def create(folder: Path, *arguments: str) -> str:
    """A new token's text, which is the whole standard output."""
    done = run("token", "create", *arguments, cwd=folder)
    says(done, 0, HINT)
    assert re.fullmatch(r"pgw_[A-Za-z0-9_-]{43}\n", done.stdout)
    return done.stdout.strip()


def status(gateway: Gateway, method: str, token: str | None, path: str = PATH) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return gateway.call(method, path, {"pipeline": "dbt"} if method == "POST" else None, headers).status


def test_tokens_are_created_used_and_revoked(folder: Path, make_gateway: MakeGateway) -> None:
    reader, runner = create(folder, "page", "--scope", "read"), create(folder, "nightly", "--scope=run")
    gateway = make_gateway(folder)
    assert [status(gateway, "GET", token) for token in (None, reader, runner)] == [401, 200, 200]
    assert [status(gateway, "POST", token) for token in (None, reader, runner)] == [401, 403, 202]
    assert [status(gateway, "GET", None, path) for path in ("/healthz", "/readyz")] == [200, 503]
    says(run("token", "revoke", "nightly", cwd=folder), 0, HINT)
    assert status(gateway, "GET", runner) == 200  # until it is restarted, as the command says
    gateway.stop()
    gateway.start()
    assert [status(gateway, "GET", token) for token in (reader, runner)] == [200, 401]
    assert not re.search(rf"{reader}|{runner}", gateway.log.read_text())


def test_the_list_shows_names_scopes_and_expiry_and_no_token(folder: Path) -> None:
    text = create(folder, "page", "--scope", "read", "--expires", "90d")
    create(folder, "nightly", "--scope", "run")
    done = run("token", "list", cwd=folder)
    says(done, 0, "never expires")
    page, nightly = done.stdout.splitlines()
    assert re.match(r"page +read +created 20\S+, expires 20", page)
    assert nightly.startswith("nightly ")
    assert text[4:] not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["create", "x"], "--scope"),
        (["create", "x", "--scope", "root"], "'root'"),
        (["create", "x", "--scope", "run", "--expires", "soon"], "expected days or hours such as 90d"),
        (["create", "x", "--scope", "run", "--expires", "0d"], "expected days or hours"),
        (["create", "x", "--scope", "run", "--expires", "-1d"], "expected"),
        ([], "COMMAND"),
    ],
)
def test_an_invalid_argument_is_named(folder: Path, arguments: list[str], mentions: str) -> None:
    says(run("token", *arguments, cwd=folder), 2, mentions)
    assert not (folder / "tokens").exists()


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["create", "../x", "--scope", "run"], "The name '../x' is not allowed"),
        (["revoke", "unknown"], "There is no token named 'unknown'"),
    ],
)
def test_a_refused_change_is_explained_in_one_line(folder: Path, arguments: list[str], mentions: str) -> None:
    create(folder, "page", "--scope", "read")
    says(run("token", *arguments, cwd=folder), 1, mentions)


def test_without_a_tokens_file_the_command_says_what_to_set(project: Path) -> None:
    says(run("token", "create", "x", "--scope", "run", cwd=project), CONFIGURATION, "tokens_file", "--file")
    done = run("token", "create", "x", "--scope", "run", "--file", "elsewhere", cwd=project)
    says(done, 0, HINT)
    assert (project / "elsewhere").exists()


def test_a_missing_damaged_or_public_tokens_file_stops_the_start(folder: Path) -> None:
    says(run("serve", cwd=folder, PORT="0"), CONFIGURATION, "there is no such tokens file", "token create")
    create(folder, "page", "--scope", "read")
    (folder / "tokens").chmod(0o644)
    says(run("serve", cwd=folder, PORT="0"), CONFIGURATION, "other users of this host can read or change", "chmod")
    (folder / "tokens").chmod(0o600)
    (folder / "tokens").write_text("{}}")
    says(run("serve", cwd=folder, PORT="0"), CONFIGURATION, "is no tokens file")
    done = run("check", cwd=folder)
    assert "WRONG  " in done.stdout
    assert "is no tokens file" in done.stdout


def test_check_names_the_valid_tokens_and_warns_of_expired_ones(folder: Path) -> None:
    create(folder, "page", "--scope", "read")
    create(folder, "old", "--scope", "run", "--expires", "1h")
    file = folder / "tokens"
    content = json.loads(file.read_text())
    content["tokens"][1]["expires"] = "2026-01-01T00:00:00Z"
    file.write_text(json.dumps(content))
    said = run("check", cwd=folder).stdout
    assert f"tokens in {file}: page\n" in said
    assert "warn   the token old has expired" in said


def test_a_warning_names_a_host_that_is_allowed_without_tokens(tmp_path: Path, make_gateway: MakeGateway) -> None:
    project = projects.make(tmp_path / "open", settings={"allowed_hosts": ["pipelines.example.com"]})
    assert (
        "warn   the host pipelines.example.com is allowed, and there are no tokens" in run("check", cwd=project).stdout
    )
    assert "hosts are allowed without tokens" in make_gateway(project).log.read_text()


def test_with_tokens_other_hosts_are_served(folder: Path, make_gateway: MakeGateway) -> None:
    token = create(folder, "nightly", "--scope", "run")
    gateway = make_gateway(folder, {"HOST": "0.0.0.0"})
    address = outside_address()
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:{gateway.port}{PATH}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "401"
    header = folder / "header"
    header.write_text(f"X-AUTH-TOKEN: {token}\n")
    command += ["-H", f"@{header}"]  # as the manual shows: in no command line
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "200"


def test_the_log_says_which_tokens_grant_access(folder: Path, tmp_path: Path, make_gateway: MakeGateway) -> None:
    create(folder, "nightly", "--scope", "run")
    assert f'"lets_in": "tokens of {folder}/tokens: nightly"' in make_gateway(folder).log.read_text()
    open_to_all = make_gateway(projects.make(tmp_path / "open"))
    assert "every program of this host, since there are no tokens" in open_to_all.log.read_text()


def outside_address() -> str:
    """An address of this host that is not loopback, if it has one; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
