"""What the shim lets through of a stream with secrets in it, whatever the pieces that it comes in."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest

from runners.shim import Masker

TOKEN = b"pgw_" + b"aZ09_-b" * 6 + b"c"
# Secrets and what is nearly one, whole and in parts, beside what makes URLs begin and end.
LETTERS = [b"a", b"b", b"\n", b" ", b"\0", b"\xff", b"p", b"pg", b"pgw_", b":", b"/", b"@", b"://", b"x" * 600]
LETTERS += [TOKEN, TOKEN[:20], b"://u:p@ss@host", b"://me:"]


def masked(values: Sequence[bytes], *pieces: bytes) -> bytes:
    masker = Masker(values)
    shown = [bytes(masker.feed(bytearray(piece + b"?"), len(piece))) for piece in pieces]
    return b"".join([*shown, masker.finish()])


def plainly(values: Iterable[bytes], text: bytes) -> bytes:
    """The same of a whole text that begins no secret at its end, as slow as it is simple."""
    found = [(at.start(), at.start() + len(value)) for value in values for at in _everywhere(re.escape(value), text)]
    found += [(at.start(), at.start() + 47) for at in _everywhere(rb"pgw_[A-Za-z0-9_-]{43}", text)]
    for url in _everywhere(rb'://([^\x00-\x20"<>\\/?#]{0,512})', text):
        user, _, rest = url[1].partition(b":")
        if password := rest.rpartition(b"@")[0]:
            begin = url.start(1) + len(user) + 1
            found.append((begin, begin + len(password)))
    shown, end = b"", 0
    for begin, over in sorted(found):
        shown += text[end:begin] + b"***" if begin >= end else b""
        end = max(end, over)
    return shown + text[end:]


def _everywhere(pattern: bytes, text: bytes) -> Iterable[re.Match[bytes]]:
    return re.finditer(b"(?=" + pattern + b")", text, re.DOTALL)


@pytest.mark.parametrize("seed", range(8))
def test_the_result_is_that_of_a_plain_search_however_it_is_divided(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(400):
        values = [bytes(chance.choices(b"ab\n", k=chance.randrange(1, 9))) for _ in range(chance.randrange(4))]
        text = b"".join(chance.choice([*values, *LETTERS]) for _ in range(chance.randrange(20)))
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(12)))
        pieces = [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]
        assert masked(values, *pieces) == masked(values, text), (values, pieces)
        assert masked(values, *pieces, b". . .") == plainly(values, text + b". . ."), (values, pieces)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shown_before_the_end_is_shown_whatever_comes_next(seed: int) -> None:
    """So a later copier of the same log goes on where an earlier one was killed."""
    chance = random.Random(seed)
    for _ in range(400):
        values = [bytes(chance.choices(b"ab\n", k=chance.randrange(1, 9))) for _ in range(chance.randrange(4))]
        text = b"".join(chance.choice([*values, *LETTERS]) for _ in range(chance.randrange(20)))
        shown = bytes(Masker(values).feed(bytearray(text), len(text)))
        for more in (b". . .", b"ab\nab. . .", b"@h . . .", TOKEN + b". . ."):
            assert plainly(values, text + more).startswith(shown), (values, text, more)


def test_only_what_may_begin_a_secret_is_held_back() -> None:
    masker = Masker([b"hunter22"])
    for text, shown in [
        (b"nothing of it\n", b"nothing of it\n"),
        (b"hun", b""),
        (b"ger", b"hunger"),
        (b" hunter2", b" "),
        (b"2!", b"***!"),
        (b"see http://localhost:3000/ and http://me:se", b"see http://localhost:3000/ and http"),
        (b"cret@host", b""),
        (b" ", b"://me:***@host "),
        (b"pgw_short ", b"pgw_short "),
    ]:
        assert bytes(masker.feed(bytearray(text), len(text))) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"hunte", b"hunte"),
        (b"hunter", b"***"),
        (b"go hunter2", b"go ***"),
        (b"postgres://me:hunter", b"postgres://me:***"),
        (b"postgres://me:open-sesame", b"postgres://me:***"),
        (b"http://localhost:3000", b"http://localhost:3000"),
        (b"http://[::1]:3000", b"http://[::1]:3000"),
        (b"pgw_a", b"pgw_a"),
        (b"pgw_ab", b"***"),
    ],
)
def test_a_secret_that_the_end_cuts_off_is_masked_once_it_tells_something(text: bytes, shown: bytes) -> None:
    assert masked([b"hunter22"], text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"postgresql+psycopg2://me:p%40ss@db:5432/x ", b"postgresql+psycopg2://me:***@db:5432/x "),
        (b"redis://:secret@cache ", b"redis://:***@cache "),
        (b"a://u:p@h,b://v:q@i ", b"a://u:***@h,b://v:***@i "),
        (b'{"url": "http://u:p@ss:w@h"} ', b'{"url": "http://u:***@h"} '),
        (b"ssh://git@host:22/a:b@c ", b"ssh://git@host:22/a:b@c "),
        (b"http://h:80/p@q ", b"http://h:80/p@q "),
        (b"http://u:@h ", b"http://u:@h "),
        (b"me@host.org: http://h ", b"me@host.org: http://h "),
    ],
)
def test_of_a_url_the_password_is_masked_and_nothing_else(text: bytes, shown: bytes) -> None:
    assert masked([], text) == shown


def test_a_secret_is_found_beside_a_nul_as_well() -> None:
    assert masked([b"hunter22"], b"\0hunter22\0hunter22") == b"\0***\0***"
