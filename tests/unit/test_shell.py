"""Which words after `sh -c SCRIPT` reach what the script runs."""

from __future__ import annotations

import subprocess

import pytest

from gateway.fabrics.shell import corrected

RUN = "python ingest.py"


@pytest.mark.parametrize(
    ("argv", "right"),
    [
        (["sh", "-c", RUN], ["sh", "-c", f'{RUN} "$@"', "sh"]),
        (["/bin/bash", "-lc", RUN], ["/bin/bash", "-lc", f'{RUN} "$@"', "sh"]),
        (["bash", "-euo", "pipefail", "-c", RUN], ["bash", "-euo", "pipefail", "-c", f'{RUN} "$@"', "sh"]),
        (["bash", "-c", "-l", "--", RUN], ["bash", "-c", "-l", "--", f'{RUN} "$@"', "sh"]),
        (["env", "X=1", "sh", "-c", RUN], ["env", "X=1", "sh", "-c", f'{RUN} "$@"', "sh"]),
        (["sh", "-c", f'{RUN} "$@"'], ["sh", "-c", f'{RUN} "$@"', "sh"]),
        (["sh", "-c", RUN, "name"], ["sh", "-c", f'{RUN} "$@"', "name"]),
        (["sh", "-c", "echo '$@'", "sh"], ["sh", "-c", "echo '$@' \"$@\"", "sh"]),
        (["sh", "-c", r"echo \$1", "sh"], ["sh", "-c", r'echo \$1 "$@"', "sh"]),
        (["sh", "-c", "echo $1", "sh", "taken"], ["sh", "-c", 'echo $1 "$@"', "sh", "taken"]),
    ],
)
def test_a_script_that_drops_words_is_corrected(argv: list[str], right: list[str]) -> None:
    assert corrected(argv, 1) == tuple(right)
    assert corrected(right, 1) is None


@pytest.mark.parametrize(
    "argv",
    [
        ["python", "ingest.py"],
        ["bash", "ingest.sh"],
        ["bash", "ingest.sh", "-c", "settings.ini"],
        ["env", "SHELL=/bin/sh", "python", "-c", "pass"],
        ["sh", "-c", f"{RUN} $*", "sh"],
        ["sh", "-c", f"{RUN} ${{1:-none}}", "sh"],
        ["sh", "-c", 'exec "$0" "$@"', "python"],
        ["sh", "-c", 'python "$0"'],
        ["sh", "-c", "for option; do echo $option; done", "sh"],
        ["sh", "-c", "while getopts s: o; do :; done", "sh"],
        ["sh", "-c", "# don't\n" + f'{RUN} "$@"', "sh"],
        [],
    ],
)
def test_a_command_that_takes_words_is_left_alone(argv: list[str]) -> None:
    assert corrected(argv, 1) is None


def test_a_corrected_command_does_pass_its_words_on() -> None:
    right = corrected(["sh", "-c", "printf '%s\\n'"], 2)
    assert right is not None
    done = subprocess.run([*right, "--since=1", "--until=2"], check=True, capture_output=True, text=True)
    assert done.stdout == "--since=1\n--until=2\n"
