"""`pipeline-gateway notify test`."""

from __future__ import annotations

from pathlib import Path

from tests.support import hooks
from tests.support.command import CONFIGURATION, run, says
from tests.support.hooks import Reply, signed

NOTIFY = """
public_url: https://pipelines.example
notify:
  - {name: chat, webhook: {url_variable: CHAT, preset: slack}}
  - {name: other, webhook: {url_variable: OTHER, secret_variable: KEY}}
  - {command: [./tell]}
"""


def test_notify_test_tries_each_receiver_without_a_gateway(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(NOTIFY)
    tell = tmp_path / "tell"
    tell.write_text("#!/bin/sh\ncat > told\n")
    tell.chmod(0o755)
    with hooks.serving() as chat, hooks.serving() as other:
        given = {"CHAT": chat.url, "OTHER": other.url, "KEY": "any secret"}
        done = run("notify", "test", cwd=tmp_path, **given)
        says(
            done, 0, "ok     chat: took the message", "ok     other: took the message", "ok     tell: took the message"
        )
        text = "*Pipeline Gateway: a test message*\nThis receiver gets the notifications of its pipelines.\n"
        assert chat.received[0].json["text"] == f"{text}<https://pipelines.example|Output>"
        assert signed(other.received[0], b"any secret")
        assert other.received[0].json["told"] == "test"
        assert '"told": "test"' in (tmp_path / "told").read_text()
        other.replies = [Reply(500, body=f"what is {other.url}".encode())]
        done = run("notify", "test", "other", cwd=tmp_path, **given)
        says(done, 1, "WRONG  other: it answered 500 Internal Server Error: what is ***")
        assert len(chat.received) == 1
    assert not (tmp_path / ".pipeline-gateway").exists()


def test_notify_test_says_what_is_wrong_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(NOTIFY)
    says(
        run("notify", "test", cwd=tmp_path, CHAT="http://localhost:1/"), CONFIGURATION, "the variable OTHER is not set"
    )
    given = {"CHAT": "http://localhost:1/", "OTHER": "http://localhost:1/", "KEY": "x"}
    done = run("notify", "test", "mail", cwd=tmp_path, **given)
    says(done, 2, "there is no receiver 'mail'; there are: chat, other, tell")
    (tmp_path / "gateway.yaml").write_text("enabled: true\n")
    says(run("notify", "test", cwd=tmp_path), CONFIGURATION, "There are no receivers: name some under `notify`")
