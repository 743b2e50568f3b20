"""Words that try to be more than a word: what an attacker would send; and stand-ins that note what reaches them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hypothesis import strategies as st

from runners.parameters import WordError

# The file that an injection would make, the variable that it would read, the table that it would make.
CANARY = "PWNED"

# One a line, with the canary's name in them.
_OPTIONS = """\
-
--
-h
--help
-x
-t=prod
--target=prod
--target prod
--profiles-dir=/tmp
--target-path=PWNED
--log-path=PWNED
numbers --target-path=PWNED
numbers --log-path PWNED
numbers -x
numbers,--full-refresh
--vars={x: 1}
--entrypoint=/bin/echo
--privileged
--volume=/:/host
-v/:/host
--upload-pack=touch PWNED
--upload-pack=touch${IFS}PWNED
--exec=touch PWNED
-c
-c core.sshCommand=touch PWNED
-ccore.pager=id
--config=core.fsmonitor=touch PWNED
--output=PWNED
--open-files-in-pager=touch PWNED
--end-of-options
-O touch PWNED
"""
_FILES_AND_PATHS = r"""
@/etc/passwd
@PWNED
file:///etc/passwd
< /etc/passwd
> PWNED
/dev/stdin
/proc/self/environ
.
..
../
../..
../../etc/passwd
/etc/passwd
/etc/*
path:../*
path:/etc/*
path:.
a/../b
..\..\etc
..%2f..%2fetc%2fpasswd
..%252f..%252fetc
%2e%2e
%2e%2e%2f
..%c0%afetc
%00
a%00
....//....//etc
~/.ssh/id_rsa
~root
C:\windows
\\host\share
path:**/**/**/**/**/**/**/**/**/**/**/**
"""
_TEMPLATES = """
{{ 7 * 7 }}
{{7*7}}
{% raw %}
{# x #}
{{
{%
{#
{
a{
a{{b
{{{
{%- do 1 -%}
{{ env_var("PWNED") }}
{{ run_query('create table PWNED as select 1') }}
{% do run_query('create table PWNED as select 1') %}
{{ modules.os.system('id') }}
{{ ''.__class__.__mro__ }}
numbers{{ 1 }}
}} {{ 1
${jndi:ldap://x/a}
#{7*7}
<%= 7*7 %>
%PATH%
"""
_YAML = """
x: 1
{x: 1, y: injected}
1, y: injected
", "y": "injected
"}
1}, {y: injected
*a
&a x
!!str 1
!!python/object/apply:os.system [id]
!!python/name:os.system
<<: {y: 1}
<<
? y
- x
# x
a # b
%YAML 1.2
---
yes
no
on
~
null
0x10
0o17
010
1_000
12:30:45
1e3
.inf
.nan
NaN
Infinity
"""
_SHELL_AND_SQL = r"""
; touch PWNED
$(touch PWNED)
`touch PWNED`
| touch PWNED
&& touch PWNED
$(touch${IFS}PWNED)
`touch${IFS}PWNED`
a;touch${IFS}PWNED
a|id
a&id
a'b
a"b
a\b
${PATH}
$HOME
*
?
[a-z]
!id
a b
\
' OR 1=1 --
'; drop table jobs; --
1 UNION SELECT 1
" or ""="
a'||'b
/**/
') or ('1'='1
jobs;--
"""
_GIT = """
ext::sh -c touch% PWNED
ext::sh
file:///
ssh://-oProxyCommand=touch/x
-oProxyCommand=id
fd::17
@
HEAD
@{-1}
@{u}
main@{1}
main^
main~1
^main
:/fix
main:evens.sql
main..other
+main
main.lock
a.lock/b
.hidden
a/.b
a//b
/main
main/
main.
refs/heads/*
a..b
+a:refs/heads/main
"""
_CONTROLS = (
    *("\0", "numbers\0", "a\0--target=prod", "numbers\n", "\nnumbers", "a\nDBT_TARGET=prod", "a\r\nX-Injected: 1"),
    *("\t", "a\tb", "\x08", "\x0b", "\x1b[2J", "\x7f", "\x80", "a\x85b", "\u2028", "a\u2029", "\ufeffnumbers"),
    *("\ufffe", "\uffff", "\ud800", "\udfff", "a\udc80", "\ud83d", "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]"),
)
_DASHES = tuple(f"{dash}-target=prod" for dash in "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d\xad")
_LOOKALIKES = (
    *(
        "\uff4eumbers",
        "n\u03c5mbers",
        "numb\u0435rs",
        "\u0661\u0662",
        "\uff11\uff12",
        "\xb2",
        "\u2167",
        "n\u200bumbers",
    ),
    *(
        "\u202enumbers",
        "\u017f",
        "\u0130",
        "\ufb01",
        "\uff5b\uff5b 1 \uff5d\uff5d",
        "\ufe5b\ufe5b 1",
        "\u2025/",
        "\uff0e\uff0e/",
    ),
)
_LONG = (
    "a" * 300,
    "a" * 9_000,
    "a:b " * 300 + "-",
    "\xe9" * 200,
    "(" * 2_000,
    "9" * 400,
    "-" * 2_000,
    "a/" * 400 + "a",
)

WORDS = tuple(
    word
    for word in (
        *(_OPTIONS + _FILES_AND_PATHS + _TEMPLATES + _YAML + _SHELL_AND_SQL + _GIT).split("\n"),
        *(*_CONTROLS, *_DASHES, *_LOOKALIKES, *_LONG, " "),
    )
    if word
)

# Texts and JSON that Hypothesis makes of these words, of letters that a program gives a meaning, and of any.
NASTY = (
    st.text(st.sampled_from("ab2.+:@*,/ -_{}%#\\'\"\n\0\x85\ud800é"), max_size=12) | st.text() | st.sampled_from(WORDS)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
)

# Names of variables that would change what a step does.
VARIABLES = (
    *("PATH", "HOME", "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "DBT_TARGET", "DBT_ENGINE_TARGET"),
    *("DBT_PROFILES_DIR", "DOCKER_HOST", "COMPOSE_FILE", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "OPENLINEAGE_URL"),
)


def refusal(validator: Callable[[str], object], word: str) -> str | None:
    """What a validator says of a word that it refuses; None where it lets it through."""
    try:
        validator(word)
    except WordError as refused:
        return str(refused)
    return None


def as_sent(word: str) -> tuple[str, str]:
    """A word as a part of a URL: escaped once, and twice."""
    once = quote(word.encode(errors="surrogatepass"), safe="")
    return once, quote(once, safe="")


@dataclass(frozen=True)
class Call:
    """What a stand-in was called with."""

    program: str
    arguments: list[str]
    environment: dict[str, str]


class StandIns:
    """Programs of these names in a folder of their own, which do nothing but write down how they were called."""

    def __init__(self, folder: Path, names: Iterable[str] = ("dbt", "dbt-ol", "docker", "git")) -> None:
        self.folder = folder
        self._record = folder / "calls"
        self._record.mkdir(parents=True)
        # a file per process, in the shell's language, since there are hundreds of calls: first the number of words
        program = f"""#!/bin/sh
{{ printf '%s\\0' "$#" "${{0##*/}}" "$@"; cat /proc/$$/environ; }} >> {shlex.quote(str(self._record))}/$$
"""
        for name in names:
            (folder / name).write_text(program, encoding="utf-8")
            (folder / name).chmod(0o755)

    @property
    def path(self) -> str:
        """A PATH on which they come first."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def calls(self) -> list[Call]:
        """Every call so far, in no order."""
        return [_read_call(os.fsdecode(file.read_bytes())) for file in self._record.iterdir()]


def _read_call(written: str) -> Call:
    count, program, *words = written.removesuffix("\0").split("\0")
    variables = (variable.partition("=") for variable in words[int(count) :])
    return Call(program, words[: int(count)], {name: value for name, _, value in variables})
