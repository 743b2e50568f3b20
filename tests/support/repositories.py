"""Small real git repositories."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import need

_WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A Person"), ("EMAIL", "person@example.org"), ("DATE", "2024-01-01T00:00:00Z"))
}
_OWN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command in a folder. It must succeed; no user's configuration is read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [need("git"), *arguments]
    done = subprocess.run(command, cwd=folder, env={**kept, **_WHO, **_OWN}, capture_output=True, check=False)
    assert done.returncode == 0, (command, done.stderr.decode(errors="replace"))
    return done.stdout.decode().removesuffix("\n")


def repository(folder: Path, files: Mapping[str, str]) -> Path:
    """A new repository with one commit of these files, by path, on its branch main."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, files)
    return folder


def commit(repository: Path, files: Mapping[str, str]) -> str:
    """The hash of a new commit on the current branch, with these files written and everything added."""
    write(repository, files)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=change")
    return head(repository)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write these files, by path."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def branch(repository: Path, name: str) -> None:
    """Make a branch of what is checked out, and go on there."""
    git(repository, "switch", "--quiet", "--create", name)


def switch(repository: Path, name: str) -> None:
    """Go on with a branch that there is."""
    git(repository, "switch", "--quiet", name)


def tag(repository: Path, name: str, *, annotated: bool = False) -> str:
    """The hash of the current commit, tagged."""
    git(repository, "tag", *(["--annotate", "--message=version"] if annotated else []), "--", name)
    return head(repository)


def head(repository: Path) -> str:
    """The hash of the current commit."""
    return git(repository, "rev-parse", "HEAD")
