"""Branches and tags, checked against the real git: an accepted name is a ref and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runners.git.refs import branch_ref, tag_ref
from runners.parameters import UNPRINTABLE, WordError
from tests.conftest import need
from tests.support.injections import CANARY, WORDS, refusal

# Names that git accepts, and that a shell, a template or a person could misread.
HOSTILE = [
    f"$(touch${{IFS}}{CANARY})",
    f"`touch${{IFS}}{CANARY}`",
    f"a;touch${{IFS}}{CANARY}",
    "a|b",
    "+main",
    "{{1}}",
    "%2e%2e",
]
LETTERS = st.sampled_from("ab@{}-./~^:?*[\\ \x7f\x01\n+%$;\"'é\x85")


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("git")
    return tmp_path_factory.mktemp("git")


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """A repository with a commit, and a branch and a tag of each hostile name."""
    made = folder / "repository"
    made.mkdir()
    (made / "a").touch()
    assert git(made, "init", "--quiet", "--initial-branch=main").returncode == 0
    assert git(made, "add", "a").returncode == 0
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    assert git(made, *who, "commit", "--quiet", "--message=one").returncode == 0
    for name in HOSTILE:
        for full in (branch_ref(name), tag_ref(name)):
            assert git(made, "update-ref", full, "HEAD").returncode == 0, full
    return made


def is_accepted(name: str) -> bool:
    return refusal(branch_ref, name) is None


@given(
    st.text(LETTERS, max_size=8) | st.text(max_size=20) | st.sampled_from([word for word in WORDS if len(word) < 300])
)
@example("@")
@example("HEAD")
@example("head")
@example("-a")
@example("a/-b")
@example("@{-1}")
@example("a.lock/b")
@example("a.lockb")
@example("refs/heads/main")
def test_a_branch_is_accepted_exactly_if_git_accepts_it(repository: Path, name: str) -> None:
    if UNPRINTABLE.search(name) or len(name.encode()) > 250:  # refused by the gateway even if git accepts it
        assert not is_accepted(name)
        return
    full = git(repository, "check-ref-format", f"refs/heads/{name}").returncode == 0
    short = git(repository, "check-ref-format", "--branch", name).returncode == 0
    assert is_accepted(name) == (full and short)


@given(st.text())
def test_a_ref_begins_no_option_and_a_refusal_says_what_is_allowed(name: str) -> None:
    for what, make in (("branch", branch_ref), ("tag", tag_ref)):
        message = refusal(make, name)
        if message is None:
            assert make(name).startswith("refs/")
        else:
            assert message.startswith(f"The {what} {ascii(name)[:90]}")
            assert "a name that git allows" in message


@pytest.mark.parametrize("name", ["a" * 251, "é" * 126, "a\ud800", "a\x85b", "a\u2028b"])
def test_a_name_that_is_too_long_or_not_printable_is_refused(name: str) -> None:
    assert not is_accepted(name)
    assert is_accepted("a" * 250)


def test_an_accepted_name_does_nothing_in_git_but_name_a_ref(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    assert git(clone, "init", "--quiet").returncode == 0
    accepted = [word for word in (*WORDS, *HOSTILE) if is_accepted(word)]
    assert len(accepted) > 40
    for word in accepted:
        exists = word in HOSTILE
        listed = git(clone, "ls-remote", "--", str(repository), branch_ref(word))
        assert (listed.returncode, listed.stdout.endswith(f"\t{branch_ref(word)}\n")) == (0, exists), word
        fetched = git(clone, "fetch", "--quiet", "--", str(repository), tag_ref(word))
        assert (fetched.returncode == 0) == exists, word
    assert not list(tmp_path.rglob(CANARY)) + list(repository.rglob(CANARY))
    assert git(clone, "for-each-ref").stdout == ""  # the fetches made no ref


def test_an_option_that_would_run_a_program_in_git_is_refused(repository: Path, tmp_path: Path) -> None:
    raw = f"--upload-pack=touch {CANARY};"
    git(tmp_path, "ls-remote", raw, str(repository))
    assert (tmp_path / CANARY).exists()
    (tmp_path / CANARY).unlink()
    for make in (branch_ref, tag_ref):
        with pytest.raises(WordError):
            make(raw)
    # `--` alone prevents it too
    git(tmp_path, "ls-remote", "--", str(repository), raw)
    assert not (tmp_path / CANARY).exists()
