"""The tokens file: what it stores, its permissions, and concurrent changes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import ConfigError, TokenError
from gateway.settings import tokens
from gateway.settings.tokens import Scope
from tests.support.pydantic_words import STOCK_PHRASES

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OPEN = (0o644, 0o604, 0o664, 0o666, 0o602, 0o601)


def make(file: Path, name: str = "nightly", scope: Scope = Scope.RUN, expires: datetime | None = None) -> str:
    return tokens.create(file, name, scope, NOW, expires)


def test_only_the_hash_of_a_token_is_stored(tmp_path: Path) -> None:
    text = make(tmp_path / "tokens")
    content = (tmp_path / "tokens").read_text()
    assert text not in content
    assert hashlib.sha256(text.encode()).hexdigest() in content
    assert text.startswith("pgw_")
    assert len(text) == len("pgw_") + 43  # 256 bits


def test_no_two_tokens_are_equal(tmp_path: Path) -> None:
    assert len({make(tmp_path / "tokens", f"token-{number}") for number in range(20)}) == 20


def test_a_token_is_found_by_its_whole_text_only(tmp_path: Path) -> None:
    text = make(tmp_path / "tokens")
    known = tokens.read(tmp_path / "tokens")
    found = known.find(text, NOW)
    assert found is not None
    assert (found.name, found.scope) == ("nightly", Scope.RUN)
    digest = hashlib.sha256(text.encode()).hexdigest()
    for other in ("", text[:-1], text + "x", text.upper(), f" {text}", digest, "é", "\udcff"):
        assert known.find(other, NOW) is None, other


def test_a_token_is_valid_until_it_expires(tmp_path: Path) -> None:
    text = make(tmp_path / "tokens", expires=NOW + timedelta(days=90))
    known = tokens.read(tmp_path / "tokens")
    assert known.find(text, NOW + timedelta(days=90, seconds=-1)) is not None
    assert known.find(text, NOW + timedelta(days=90)) is None


@pytest.mark.parametrize(
    ("scope", "allowed"), [(Scope.READ, "read"), (Scope.RUN, "read run"), (Scope.ADMIN, "read run admin")]
)
def test_each_scope_includes_the_lower_ones(scope: Scope, allowed: str) -> None:
    assert [str(other) for other in Scope if scope.includes(other)] == allowed.split()


def test_a_revoked_token_is_not_found_and_the_others_are(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    gone, kept = make(file, "gone"), make(file, "kept")
    tokens.revoke(file, "gone")
    assert tokens.read(file).find(gone, NOW) is None
    assert tokens.read(file).find(kept, NOW) is not None


def test_revoking_the_last_token_still_requires_one(tmp_path: Path) -> None:
    make(tmp_path / "tokens")
    tokens.revoke(tmp_path / "tokens", "nightly")
    known = tokens.load(tmp_path / "tokens", {})
    assert known is not None
    assert known.tokens == ()


def test_a_token_name_is_used_only_once(tmp_path: Path) -> None:
    make(tmp_path / "tokens")
    before = (tmp_path / "tokens").read_bytes()
    with pytest.raises(TokenError, match="There is a token named nightly"):
        make(tmp_path / "tokens", scope=Scope.ADMIN)
    assert (tmp_path / "tokens").read_bytes() == before


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\n", "é", "x" * 65, "../x", "a\x00"])
def test_an_ambiguous_token_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TokenError, match="is not allowed"):
        make(tmp_path / "tokens", name)
    assert not (tmp_path / "tokens").exists()


def test_revoking_an_unknown_token_names_the_existing_ones(tmp_path: Path) -> None:
    make(tmp_path / "tokens")
    with pytest.raises(TokenError, match=r"no token named 'daily'.*there are: nightly"):
        tokens.revoke(tmp_path / "tokens", "daily")


def test_the_file_is_private_and_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    before = os.umask(0o022)
    try:
        make(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    before_it = file.stat()
    make(file, "another")
    assert (file.stat().st_mode, file.stat().st_uid, file.stat().st_gid) == (
        before_it.st_mode,
        before_it.st_uid,
        before_it.st_gid,
    )


@pytest.mark.parametrize("mode", OPEN)
def test_a_file_that_all_users_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    make(tmp_path / "tokens")
    (tmp_path / "tokens").chmod(mode)
    with pytest.raises(ConfigError, match="other users of this host can read or change the tokens file"):
        tokens.load(tmp_path / "tokens", {})


TOKEN = '{"tokens": [{"name": "%s", "scope": "%s", "sha256": "%s", "created": "%s"}]}'
DIGEST, MOMENT = "0" * 64, "2026-11-22T12:00:00Z"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "it is not the JSON that `pipeline-gateway token create` writes"),
        ("{", "it is not the JSON"),
        ("[]", "it is not the JSON"),
        ('{"tokens": {}}', "tokens: expected a list, such as"),
        ('{"tokens": [{}]}', "tokens.0.name: is missing: expected at most 64 letters"),
        ('{"tokens": [], "more": 1}', "more: there is no such setting; there are: tokens"),
        (TOKEN % ("a b", "run", DIGEST, MOMENT), "tokens.0.name: expected at most 64 letters"),
        (
            TOKEN % ("a", "root", DIGEST, MOMENT),
            "tokens.0.scope: expected 'read', 'run' or 'admin', such as `",
        ),
        (TOKEN % ("a", "run", "0123", MOMENT), "tokens.0.sha256: expected 64 hexadecimal digits"),
        (
            TOKEN % ("a", "run", DIGEST, "2026-11-22T12:00:00"),
            "tokens.0.created: expected a date and a time with",
        ),
        ("\udcff", "can't be read"),
    ],
)
def test_a_damaged_file_is_refused_and_named(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(content, errors="surrogateescape")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="tokens file") as refused:
        tokens.load(file, {})
    assert str(file) in str(refused.value)
    assert why in str(refused.value)
    assert "0123" not in str(refused.value)
    assert not STOCK_PHRASES.search(str(refused.value))


def test_a_configured_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such tokens file"):
        tokens.load(tmp_path / "tokens", {})


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_an_empty_credential_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens").write_text(content)
    (tmp_path / "tokens").chmod(0o400)
    with pytest.raises(ConfigError, match="is no tokens file"):
        tokens.load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_adding_a_token_makes_the_file_private(tmp_path: Path) -> None:
    (tmp_path / "tokens").touch(0o644)
    make(tmp_path / "tokens")
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o640


def test_a_symlink_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(TokenError, match="is a link"):
        tokens.revoke(tmp_path / "link", "old")
    with pytest.raises(TokenError, match="is a link"):
        make(tmp_path / "link")
    assert [token.name for token in tokens.read(tmp_path / "real").tokens] == ["old"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_link_swapped_in_by_the_folders_owner_is_not_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, victim = tmp_path / "tokens", tmp_path / "victim"
    make(file)
    os.chown(file, 1234, 1234)
    victim.touch(0o600)

    def swapped(_: Path) -> None:
        """As the folder's owner, put a link in place of the file as soon as it is renamed."""
        file.unlink()
        file.symlink_to(victim)

    monkeypatch.setattr("gateway.settings.tokens.durable.sync", swapped)
    make(file, "another")
    assert (victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)) == (0, 0o600)


def test_a_lock_on_the_folder_does_not_block_a_change(tmp_path: Path) -> None:
    make(tmp_path / "tokens")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens.revoke(tmp_path / "tokens", "nightly")
    finally:
        os.close(folder)


def test_a_credential_takes_precedence_over_the_file_unless_it_is_none(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    make(tmp_path / "tokens", "of-the-file")
    assert tokens.load(None, environment) is None
    (credentials / "tokens").write_text("none\n")
    (credentials / "tokens").chmod(0o400)
    assert tokens.load(None, environment) is None
    known = tokens.load(tmp_path / "tokens", environment)
    assert known is not None
    assert [token.name for token in known.tokens] == ["of-the-file"]
    (credentials / "tokens").unlink()
    make(credentials / "tokens", "of-the-credential")
    known = tokens.load(tmp_path / "tokens", environment)
    assert known is not None
    assert [token.name for token in known.tokens] == ["of-the-credential"]


def test_the_units_copy_counts_after_a_credential_and_before_the_file(tmp_path: Path) -> None:
    """Unless it is `none`."""
    copy, credentials = tmp_path / "copy", tmp_path / "credentials"
    credentials.mkdir()
    environment = {"CALLERS_FILE": str(copy), "CREDENTIALS_DIRECTORY": str(credentials)}
    copy.write_text("none\n")
    assert tokens.load(None, environment) is None
    make(tmp_path / "tokens", "of-the-file")
    assert names(tokens.load(tmp_path / "tokens", environment)) == ["of-the-file"]
    copy.unlink()
    make(copy, "of-the-copy")
    assert names(tokens.load(tmp_path / "tokens", environment)) == ["of-the-copy"]
    make(credentials / "tokens", "of-the-credential")
    assert names(tokens.load(tmp_path / "tokens", environment)) == ["of-the-credential"]


def names(known: tokens.Tokens | None) -> list[str]:
    return [] if known is None else [token.name for token in known.tokens]


def test_without_the_units_copy_no_caller_is_let_in(tmp_path: Path) -> None:
    make(tmp_path / "tokens")
    for file in (None, tmp_path / "tokens"):
        with pytest.raises(ConfigError, match=r"copy of the tokens file is missing.*`ExecStartPre=`"):
            tokens.load(file, {"CALLERS_FILE": str(tmp_path / "copy")})


def test_concurrent_changes_lose_no_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: make(tmp_path / "tokens", f"token-{number}"), range(40)))
    assert len(json.loads((tmp_path / "tokens").read_text())["tokens"]) == 40
