"""Calls git: it asks nobody anything, ends within a time, and what it says becomes a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from runners import program
from runners.mask import Mask
from runners.report import one_line

LIMIT = 60.0  # seconds that any call may take
_GRACE = 2.0  # seconds between the signals that end one which takes longer
# Without a lock as standard input git has none; with one, only `timeout` keeps it: what git starts may outlive it.
_WITHOUT_INPUT = 'exec "$@" </dev/null'
_NOT_FOUND = 127  # of a shell

# What the gateway's own environment may tell git. Anything else, such as GIT_DIR, would lead it elsewhere.
_TOLD = re.compile(
    r"GIT_(?:SSH|SSH_COMMAND|SSH_VARIANT|SSL_\w+|HTTP_\w+|EXEC_PATH"
    r"|CONFIG_(?:GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))"
)
_NEVER_ASKS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",  # the signs below are English
}
_NOBODYS_CONFIGURATION = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file"}
_USERS_CONFIGURATION = {"GIT_ALLOW_PROTOCOL": "https:ssh"}

# A sign in what was said, and what to do. The first that is found decides.
_REMEDIES = (
    (r"could not resolve host", "see that the host's name is right and that this host can resolve it"),
    (
        r"terminal prompts disabled|authentication failed|permission denied \(|returned error: 40[13]",
        "give the gateway's user access, by git's credential.helper or an ssh key without a passphrase",
    ),
    (r"host key verification failed", "add the host's key to known_hosts of the gateway's user"),
    (r"certificate|\bssl\b", "have git trust the host's certificate (http.sslCAInfo)"),
    (r"transport '.*' not allowed", "use an https:// or ssh:// address, or the absolute path of a local repository"),
    (r"did not answer|too slow", "see that the host answers; clone what is too large here, and configure its path"),
    (
        r"not a git repository|not appear to be a git|no such file|cannot change to|not found",
        "set the project's repository to one that is there",
    ),
    (r"no space left|disk quota", "free disk space"),
    (r"permission denied|insufficient permission", "let the gateway's user read and write there"),
    (r"unable to access|unable to connect|could not read from|connection|hung up", "see that the host can be reached"),
)
_OTHERWISE = "solve that, and try again"
_BEGINNING = re.compile(r"^(?:(?:fatal|error|warning|remote|ssh): )+", re.IGNORECASE)
_WENT_WRONG = re.compile(r"^(?:fatal|error):", re.IGNORECASE)


class RepositoryError(Exception):
    """A sentence about a repository: what, why, and what to do. Nothing secret is in it."""


class UnavailableError(RepositoryError):
    """It can't be reached or read now."""


class GitFailedError(UnavailableError):
    """Git itself said so; it was called and ended in time."""


class UnknownRefError(RepositoryError):
    """It has no such branch, version or commit, or more than one."""


@dataclass(frozen=True, slots=True)
class GitResult:
    """What git answered."""

    code: int
    output: str
    error: str


@dataclass(frozen=True, slots=True)
class Git:
    """A git command line. environment: the whole of it. mask: knows what is secret in what it says."""

    environment: Mapping[str, str] = field(repr=False)
    mask: Mask

    @classmethod
    def isolated(cls, environment: Mapping[str, str], mask: Mask) -> Git:
        """Reads nobody's configuration but the repository's, and reaches local repositories only."""
        kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
        return cls({**kept, **_NEVER_ASKS, **_NOBODYS_CONFIGURATION}, mask)

    @classmethod
    def with_user_configuration(cls, environment: Mapping[str, str], mask: Mask) -> Git:
        """Has the user's own configuration, credentials and keys, and reaches https and ssh only."""
        kept = {name: value for name, value in environment.items() if not name.startswith("GIT_") or _told(name)}
        return cls({**kept, **_NEVER_ASKS, **_USERS_CONFIGURATION}, mask)

    async def call(self, *arguments: str, lock: int = subprocess.DEVNULL, umask: int = -1) -> GitResult:
        """Run one git command to its end. Raises UnavailableError where it has none: not installed, too slow, killed.

        lock: a locked file which stays locked while it runs, also when this process dies meanwhile.
        """
        began = time.monotonic()
        # by `timeout`, which ends it and its helpers also where this process is gone
        limits = ("timeout", f"--kill-after={_GRACE}", str(LIMIT))
        said = await program.run(
            (*limits, "/bin/sh", "-c", _WITHOUT_INPUT, "sh", "git", *arguments),
            self.environment,
            within=LIMIT + 2 * _GRACE,
            stdin=lock,
            umask=umask,
        )
        if not said.was_run:
            why = self.mask.text(one_line(said.error))
            raise UnavailableError(f"git can't be run: {why}; install git and coreutils.")
        if said.code == _NOT_FOUND:
            raise UnavailableError("git is not installed, or not on the gateway's PATH: install it.")
        if time.monotonic() - began >= LIMIT:
            raise UnavailableError(self.explain(f"it did not answer within {LIMIT:.0f} s"))
        if said.code is None or said.code < 0:
            raise UnavailableError("git was killed, by somebody or for want of memory; free some, and try again.")
        return GitResult(said.code, said.output.decode(errors="surrogateescape"), said.error)

    def explain(self, said: str) -> str:
        """The end of a sentence: why, in git's own words, and what to do."""
        lines = [line for line in said.splitlines() if line.strip()] or ["git did not say why"]
        signs = ((line, remedy) for sign, remedy in _REMEDIES for line in lines if re.search(sign, line, re.IGNORECASE))
        otherwise = next((line for line in lines if _WENT_WRONG.match(line)), lines[-1]), _OTHERWISE
        line, remedy = next(signs, otherwise)
        return f"{one_line(_BEGINNING.sub('', self.mask.text(line.strip()))).rstrip('.')}; {remedy}."


def with_token_of(mask: Mask, source: str) -> Mask:
    """A mask that knows the token of an https address too, which stands where others have the name of a user."""
    token = re.match(r"https?://([^/@:\s]{6,})@", source)
    return mask if token is None else replace(mask, values=mask.values | {token[1]})


def _told(name: str) -> bool:
    return _TOLD.fullmatch(name) is not None
