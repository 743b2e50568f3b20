"""Access from other hosts through nginx, configured as the manual shows."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeGateway, need
from tests.support import access, manual
from tests.support.gateway import PATH, Gateway, wait_for
from tests.support.ports import free_port

NAME = "pipelines.example.com"


class Proxy:
    """An nginx with the manual's server, on free ports and with a certificate of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.certificate = folder / "pipelines.pem"
        names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
        files = ["-keyout", str(folder / "pipelines.key"), "-out", str(self.certificate)]
        command = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *files]
        subprocess.run(command, check=True, capture_output=True)

    def start(self, gateway: Gateway) -> subprocess.Popen[bytes]:
        """Serve in front of a gateway."""
        server = manual.block("security.md", "Other hosts", "nginx")
        for theirs, ours in (
            ("listen 443", f"listen 127.0.0.1:{self.port}"),
            ("127.0.0.1:3000", f"127.0.0.1:{gateway.port}"),
            ("/etc/ssl/pipelines.pem", str(self.certificate)),
            ("/etc/ssl/private/pipelines.key", str(self.folder / "pipelines.key")),
        ):
            assert theirs in server
            server = server.replace(theirs, ours)
        log, file = self.folder / "nginx.log", self.folder / "nginx.conf"
        http = f"http {{ access_log off; client_body_temp_path {self.folder}; {server} }}"
        file.write_text(f"daemon off; pid {self.folder}/pid; error_log {log}; events {{}} {http}\n")
        return subprocess.Popen([need("nginx"), "-p", str(self.folder), "-e", str(log), "-c", str(file)])

    def call(self, path: str, *options: str) -> tuple[int, dict[str, Any]]:
        """The status and the body of the answer to a client on another host."""
        to = ["--noproxy", "*", "--resolve", f"{NAME}:{self.port}:127.0.0.1", "--cacert", str(self.certificate)]
        command = ["curl", "-sS", *to, *options, "-w", "\n%{http_code}", f"https://{NAME}:{self.port}{path}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        body, _, status = said.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else {}

    def listens(self) -> bool:
        """Whether it accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def proxy(tmp_path: Path) -> Proxy:
    return Proxy(tmp_path)


@pytest.fixture
def guarded(tmp_path: Path) -> access.Guarded:
    return access.project(tmp_path / "project", {"allowed_hosts": [NAME]})


@pytest.fixture
def served(proxy: Proxy, guarded: access.Guarded, make_gateway: MakeGateway) -> Iterator[Proxy]:
    with proxy.start(make_gateway(guarded.folder)) as nginx:
        try:
            wait_for(proxy.listens, "nginx")
            yield proxy
        finally:
            nginx.terminate()


def test_a_client_on_another_host_triggers_and_polls_with_a_token(served: Proxy, guarded: access.Guarded) -> None:
    token = ("-H", f"X-AUTH-TOKEN: {guarded.tokens['run']}")
    assert served.call(PATH)[0] == 401
    assert served.call("/healthz") == (200, {"status": "ok"})
    status, body = served.call(PATH, *token, "--json", '{"pipeline": "ingester"}')
    assert status == 202, body
    status, record = served.call(f"/api/v1/jobs/{body['jobId']}?wait=60", *token)
    while record["phase"] != "ended":
        status, record = served.call(f"/api/v1/jobs/{body['jobId']}?wait=60", *token)
    assert (status, record["status"], record["exitCode"]) == (200, "completed", 0)
    assert record["audit"][0] | {"at": ""} == {"action": "triggered", "token": "run", "address": "127.0.0.1", "at": ""}


def test_a_page_behind_the_proxy_is_same_origin_and_others_are_refused(served: Proxy, guarded: access.Guarded) -> None:
    token = ("-H", f"X-AUTH-TOKEN: {guarded.tokens['read']}")
    assert served.call(PATH, *token, "-H", f"Origin: https://{NAME}")[0] == 200
    assert served.call(PATH, *token, "-H", "Origin: https://page.example")[0] == 403


def test_a_host_name_that_is_not_allowed_is_refused(
    proxy: Proxy, guarded: access.Guarded, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(guarded.folder, {"GATEWAY_ALLOWED_HOSTS": "[]"})
    with proxy.start(gateway) as nginx:
        try:
            wait_for(proxy.listens, "nginx")
            status, body = proxy.call("/healthz")
            assert (status, body["code"]) == (421, "misdirected")
            assert "allowed_hosts" in body["error"]
        finally:
            nginx.terminate()
