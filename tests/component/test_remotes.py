"""Repositories on other hosts, by https and ssh; hosts that hang, refuse access or ask for a password."""

from __future__ import annotations

import functools
import http.server
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runners.git import git
from runners.git.checkout import check_out, resolve_commit
from runners.git.git import UnavailableError
from runners.git.mirror import Mirror
from runners.mask import Mask
from tests.conftest import need
from tests.support import repositories
from tests.support.repositories import commit, head, tag

PASSWORD = "sesame-open-1234"


class GitFiles(http.server.SimpleHTTPRequestHandler):
    """Serves files unchanged, which is enough for git to fetch; a path below /private/ needs a password."""

    def do_GET(self) -> None:
        if self.path.startswith("/private/"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the base's own name
        """Log nothing."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return repositories.repository(tmp_path / "repository", {"a": "one\n"})


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names]
    subprocess.run([*command, "-keyout", f"{file}.key", "-out", str(file)], check=True, capture_output=True)
    return file


@pytest.fixture
def server(tmp_path: Path, certificate: Path) -> Iterator[str]:
    """The address of a TLS server of the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(GitFiles, directory=str(tmp_path / "served"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"https://localhost:{made.server_port}"
        made.shutdown()
        thread.join()


def serve(repository: Path, served: Path) -> None:
    """Update the served copy from the repository."""
    if not served.exists():
        repositories.git(repository, "clone", "--quiet", "--mirror", ".", str(served))
    repositories.git(served, "fetch", "--quiet", "--prune")
    repositories.git(served, "update-server-info")


def mirror_of(source: str, tmp_path: Path, environment: Mapping[str, str]) -> Mirror:
    """The mirror of a user without a git configuration."""
    own = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    return Mirror(source, tmp_path / "state" / "mirror", {**own, **environment}, Mask())


def canary_files(folder: Path) -> list[Path]:
    return list(folder.rglob("PWNED"))


async def refusal(mirror: Mirror) -> str:
    began = time.monotonic()
    with pytest.raises(UnavailableError) as error:
        await mirror.fetch()
    assert time.monotonic() - began < 30
    assert not mirror.folder.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


async def test_an_https_repository_is_read(repository: Path, tmp_path: Path, server: str, certificate: Path) -> None:
    served = tmp_path / "served" / "project.git"
    serve(repository, served)
    mirror = mirror_of(f"{server}/project.git", tmp_path, {"GIT_SSL_CAINFO": str(certificate)})
    await mirror.fetch()
    assert await resolve_commit(mirror, "main") == head(repository)
    after = commit(repository, {"a": "two\n"})
    tag(repository, "v1", annotated=True)
    serve(repository, served)
    await mirror.fetch()
    await check_out(mirror, await resolve_commit(mirror, "main", "1"), tmp_path / "checkout")
    assert await resolve_commit(mirror, "main") == after
    assert (tmp_path / "checkout" / "a").read_text() == "two\n"


async def test_the_users_git_configuration_is_used_to_reach_a_repository(
    repository: Path, tmp_path: Path, server: str, certificate: Path
) -> None:
    serve(repository, tmp_path / "served" / "project.git")
    (tmp_path / ".gitconfig").write_text(
        f'[http]\nsslCAInfo = {certificate}\n[url "{server}/"]\ninsteadOf = https://git.example.org/\n'
    )
    mirror = mirror_of("https://git.example.org/project.git", tmp_path, {})
    await mirror.fetch()
    assert await resolve_commit(mirror, "main") == head(repository)


async def test_an_untrusted_certificate_is_reported_with_the_remedy(tmp_path: Path, server: str) -> None:
    message = await refusal(mirror_of(f"{server}/project.git", tmp_path, {}))
    assert message.startswith(
        f"The repository {server}/project.git can't be read: unable to access '{server}/project.git"
    )
    assert message.endswith("; have git trust the host's certificate (http.sslCAInfo).")


@pytest.mark.parametrize("asked", ["GIT_ASKPASS", "SSH_ASKPASS"])
async def test_a_repository_with_a_password_is_refused_without_a_prompt(
    tmp_path: Path, server: str, certificate: Path, asked: str
) -> None:
    program = tmp_path / "ask"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nsleep 1000\n")
    program.chmod(0o755)
    environment = {"GIT_SSL_CAINFO": str(certificate), asked: str(program), "DISPLAY": ":0"}
    message = await refusal(mirror_of(f"{server}/private/project.git", tmp_path, environment))
    assert "could not read Username" in message
    assert message.endswith(
        "; give the gateway's user access, by git's credential.helper or an ssh key without a passphrase."
    )
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("who", [f"someone:{PASSWORD}", PASSWORD])
async def test_a_password_or_token_in_an_address_is_masked_in_the_error(
    tmp_path: Path, server: str, certificate: Path, who: str
) -> None:
    address = server.replace("https://", f"https://{who}@")
    for path in ("private", "nowhere"):
        message = await refusal(mirror_of(f"{address}/{path}/p.git", tmp_path, {"GIT_SSL_CAINFO": str(certificate)}))
        assert PASSWORD not in message
        assert "***@localhost" in message


async def test_a_missing_repository_is_named(tmp_path: Path, server: str, certificate: Path) -> None:
    message = await refusal(mirror_of(f"{server}/none.git", tmp_path, {"GIT_SSL_CAINFO": str(certificate)}))
    assert message == (
        f"The repository {server}/none.git can't be read: repository '{server}/none.git/' not found; set the project's "
        "repository to one that is there."
    )


@pytest.mark.parametrize("scheme", ["https://", "ssh://"])
async def test_a_fetch_from_a_host_that_never_answers_ends_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(git, "TIMEOUT", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}/p.git"
        message = await refusal(mirror_of(address, tmp_path, {}))
    assert message == (
        f"The repository {address} can't be read: it did not answer within 2 s; see that the host answers; clone what "
        "is too large here, and configure its path."
    )


@pytest.mark.parametrize(
    ("address", "words", "remedy"),
    [
        ("https://nowhere.invalid/p.git", "Could not resolve host: nowhere.invalid", "see that the host's name"),
        (
            "ssh://nowhere.invalid/p.git",
            "Could not resolve hostname nowhere.invalid",
            "see that the host's name",
        ),
        ("git@nowhere.invalid:p.git", "Could not resolve hostname nowhere.invalid", "see that the host's name"),
        ("https://127.0.0.1:1/p.git", "127.0.0.1 port 1", "see that the host can be reached"),
        ("ssh://127.0.0.1:1/p.git", "Connection refused", "see that the host can be reached"),
        ("http://127.0.0.1:1/p.git", "transport 'http' not allowed", "use an https:// or ssh:// address"),
        ("git://127.0.0.1:1/p.git", "transport 'git' not allowed", "use an https:// or ssh:// address"),
        ("file:///etc", "transport 'file' not allowed", "use an https:// or ssh:// address"),
        ("ext::sh -c touch% PWNED", "transport 'ext' not allowed", "use an https:// or ssh:// address"),
        ("ssh://-oProxyCommand=touch PWNED/p.git", "strange hostname", "solve that"),
        ("--upload-pack=touch PWNED", "strange pathname", "solve that"),
    ],
)
async def test_an_unreachable_or_refused_address_is_reported_in_one_sentence(
    tmp_path: Path, address: str, words: str, remedy: str
) -> None:
    message = await refusal(mirror_of(address, tmp_path, {}))
    assert message.startswith(f"The repository {address} can't be read: ")
    assert words in message
    assert remedy in message
    assert not canary_files(tmp_path)


async def test_an_ssh_repository_is_read_through_a_fake_ssh(repository: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake-ssh"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/told\nfor last; do :; done\nexec sh -c "$last"\n')
    fake.chmod(0o755)
    mirror = mirror_of(f"git@git.example.org:{repository}", tmp_path, {"GIT_SSH_COMMAND": f"{fake} -i key"})
    await mirror.fetch()
    assert await resolve_commit(mirror, "main") == head(repository)
    assert (tmp_path / "told").read_text().split("\n")[:2] == ["-i", "key"]
    assert f"git-upload-pack '{repository}'" in (tmp_path / "told").read_text()


async def test_a_fake_ssh_has_no_terminal_and_its_refusal_is_reported(tmp_path: Path) -> None:
    fake = tmp_path / "fake-ssh"
    fake.write_text(
        f"#!/bin/sh\n(: </dev/tty) 2>/dev/null && touch {tmp_path}/terminal\n"
        'echo "git@git.example.org: Permission denied (publickey)." >&2\nexit 255\n'
    )
    fake.chmod(0o755)
    message = await refusal(mirror_of("git@git.example.org:p.git", tmp_path, {"GIT_SSH_COMMAND": str(fake)}))
    assert "Permission denied (publickey); give the gateway's user access" in message
    assert not (tmp_path / "terminal").exists()
