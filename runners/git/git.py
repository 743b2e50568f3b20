"""The git command line: it never prompts, ends within a time limit, and its errors become sentences."""

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

TIMEOUT = 60.0  # seconds that a call may take
_KILL_AFTER = 2.0  # seconds from SIGTERM to SIGKILL for a call that takes longer
# Only `timeout` keeps the lock file as its standard input: a helper of git that outlives git must not hold the lock.
_WITHOUT_INPUT = 'exec "$@" </dev/null'
_NOT_FOUND = 127  # exit code of a shell

# The GIT_ variables that git gets from the gateway's environment. Others, such as GIT_DIR, select another repository.
_PASSED_VARIABLES = re.compile(
    r"GIT_(?:SSH|SSH_COMMAND|SSH_VARIANT|SSL_\w+|HTTP_\w+|EXEC_PATH"
    r"|CONFIG_(?:GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+))"
)
_NON_INTERACTIVE = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",  # the patterns below are English
}
_NO_USER_CONFIGURATION = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file"}
_USER_CONFIGURATION = {"GIT_ALLOW_PROTOCOL": "https:ssh"}

# A pattern of git's error output and what the user can do. The first pattern that matches a line decides.
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
_DEFAULT_REMEDY = "solve that, and try again"
_PREFIX = re.compile(r"^(?:(?:fatal|error|warning|remote|ssh): )+", re.IGNORECASE)
_ERROR_LINE = re.compile(r"^(?:fatal|error):", re.IGNORECASE)


class RepositoryError(Exception):
    """A sentence about a repository: what failed, why, and what to do. Secrets are masked."""


class UnavailableError(RepositoryError):
    """The repository can't be reached or read now."""


class GitFailedError(UnavailableError):
    """git ran to its end within the time limit and reported an error."""


class UnknownRefError(RepositoryError):
    """The repository has no such branch, version or commit, or a version that is ambiguous."""


@dataclass(frozen=True, slots=True)
class GitResult:
    """Exit code, standard output and standard error of a git command."""

    code: int
    output: str
    error: str


@dataclass(frozen=True, slots=True)
class Git:
    """A way to call git. environment: the whole environment of git. mask: of its error output."""

    environment: Mapping[str, str] = field(repr=False)
    mask: Mask

    @classmethod
    def isolated(cls, environment: Mapping[str, str], mask: Mask) -> Git:
        """A git that reads no configuration but the repository's, and reaches local repositories only."""
        kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
        return cls({**kept, **_NON_INTERACTIVE, **_NO_USER_CONFIGURATION}, mask)

    @classmethod
    def with_user_configuration(cls, environment: Mapping[str, str], mask: Mask) -> Git:
        """A git with the gateway user's configuration, credentials and keys, which reaches https and ssh only."""
        kept = {name: value for name, value in environment.items() if not name.startswith("GIT_") or _is_passed(name)}
        return cls({**kept, **_NON_INTERACTIVE, **_USER_CONFIGURATION}, mask)

    async def run(self, *arguments: str, lock: int = subprocess.DEVNULL, umask: int = -1) -> GitResult:
        """Run one git command. Raises UnavailableError if git is not installed, takes too long, or is killed.

        lock: descriptor of a locked file, which stays locked while git runs, also if this process dies meanwhile.
        """
        began = time.monotonic()
        # `timeout` ends git and its helpers even if this process has died
        limits = ("timeout", f"--kill-after={_KILL_AFTER}", str(TIMEOUT))
        result = await program.run(
            (*limits, "/bin/sh", "-c", _WITHOUT_INPUT, "sh", "git", *arguments),
            self.environment,
            within=TIMEOUT + 2 * _KILL_AFTER,
            stdin=lock,
            umask=umask,
        )
        if not result.was_run:
            why = one_line(self.mask.text(result.error))
            raise UnavailableError(f"git can't be run: {why}; install git and coreutils.")
        if result.code == _NOT_FOUND:
            raise UnavailableError("git is not installed, or not on the gateway's PATH: install it.")
        if time.monotonic() - began >= TIMEOUT:
            raise UnavailableError(self.explain(f"it did not answer within {TIMEOUT:.0f} s"))
        if result.code is None or result.code < 0:
            raise UnavailableError("git was killed, perhaps for lack of memory; free memory, and try again.")
        return GitResult(result.code, result.output.decode(errors="surrogateescape"), result.error)

    def explain(self, error: str) -> str:
        """The second half of a sentence: the decisive line of git's error output, masked, and what to do."""
        lines = [line for line in error.splitlines() if line.strip()] or ["git did not say why"]
        matches = (
            (line, remedy) for pattern, remedy in _REMEDIES for line in lines if re.search(pattern, line, re.IGNORECASE)
        )
        default = next((line for line in lines if _ERROR_LINE.match(line)), lines[-1]), _DEFAULT_REMEDY
        line, remedy = next(matches, default)
        return f"{one_line(_PREFIX.sub('', self.mask.text(line.strip()))).rstrip('.')}; {remedy}."


def with_token_of(mask: Mask, source: str) -> Mask:
    """The mask with the token of an https address added, which stands in the place of a user name."""
    token = re.match(r"https?://([^/@:\s]{6,})@", source)
    return mask if token is None else replace(mask, values=mask.values | {token[1]})


def _is_passed(name: str) -> bool:
    return _PASSED_VARIABLES.fullmatch(name) is not None
