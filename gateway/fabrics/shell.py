"""Command lines such as `sh -c SCRIPT`: which words after the script reach what it runs. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})
_NAME = "sh"  # the `$0` of a corrected script, which shells use in their error messages
_LONG_WITH_VALUE = ("--rcfile", "--init-file")
# Parts of a script: an escaped character, a text in quotes, a comment, anything else.
_PART = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?<![^\s;])\#[^\n]*|[^\\'"#]+|.""", re.DOTALL)
_POSITION = re.compile(r"\$(?:([@*0-9])|\{[#!]?([@*]|[0-9]+))")
# What takes all words without naming them: `shift`, `getopts`, and `for x; do` and `for x do`.
_TAKES_ALL = re.compile(r"\b(?:shift|getopts)\b|\bfor\s+\w+\s*(?:;|\n|do\b)")


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a shell. before: its words up to the script. after: those behind it, whose first one is `$0`."""

    before: tuple[str, ...]
    script: str
    after: tuple[str, ...]

    def passes_on(self, count: int) -> bool:
        """Whether so many more words at its end reach what the script runs."""
        used = _positions(self.script)
        first = len(self.after)
        return all(str(n) in used or (n > 0 and "@" in used) for n in range(first, first + count))


def corrected(argv: Sequence[str], count: int) -> tuple[str, ...] | None:
    """The command line with a shell script that passes on `count` more words; None if nothing is to be corrected."""
    call = _find_call(argv)
    if call is None or call.passes_on(count):
        return None
    better = replace(call, after=call.after or (_NAME,))
    if not better.passes_on(count):
        better = replace(better, script=f'{call.script} "$@"')
    return (*better.before, better.script, *better.after)


def _find_call(argv: Sequence[str]) -> _Call | None:
    """The call of a shell with `-c`, which may follow other programs: `env X=1 sh -c SCRIPT`."""
    for start, word in enumerate(argv):
        script = _script_index(argv, start + 1) if posixpath.basename(word) in _SHELLS and "=" not in word else None
        if script is not None:
            return _Call(tuple(argv[:script]), argv[script], tuple(argv[script + 1 :]))
    return None


def _script_index(argv: Sequence[str], n: int) -> int | None:
    """The index of the script after a shell's options, which begin at n; None if they have no `-c`."""
    has_script = False
    while n < len(argv) and argv[n].startswith(("-", "+")) and argv[n] not in ("-", "--"):
        word = argv[n]
        letters = "" if word.startswith("--") else word[1:]
        has_script = has_script or (word.startswith("-") and "c" in letters)
        n += 2 if "o" in letters.lower() or word in _LONG_WITH_VALUE else 1  # `-o pipefail`
    n += n < len(argv) and argv[n] in ("-", "--")
    return n if has_script and n < len(argv) else None


def _positions(script: str) -> set[str]:
    """The positional parameters that a script uses, `@` for all of them; without what its quotes keep as it is."""
    parts = (part for part in _PART.findall(script) if not part.startswith(("\\", "'", "#")))
    text = "".join(re.sub(r"\\.", "", part, flags=re.DOTALL) for part in parts)
    used = {short or long for short, long in _POSITION.findall(text)}
    return used | {"@"} if "*" in used or _TAKES_ALL.search(text) else used
