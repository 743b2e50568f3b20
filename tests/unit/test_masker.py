"""How the shim masks secrets in a stream, however the stream is divided into pieces."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest

from runners.masker import Masker

TOKEN = b"pgw_" + b"aZ09_-b" * 6 + b"c"
# Secrets, parts of secrets, near misses, and the delimiters of URLs.
LETTERS = [b"a", b"b", b"\n", b" ", b"\0", b"\xff", b"p", b"pg", b"pgw_", b":", b"/", b"@", b"://", b"x" * 600]
LETTERS += [TOKEN, TOKEN[:20], b"://u:p@ss@host", b"://me:"]


def masked(values: Sequence[bytes], *pieces: bytes) -> bytes:
    masker = Masker(values)
    shown = [bytes(masker.feed(bytearray(piece + b"?"), len(piece))) for piece in pieces]
    return b"".join([*shown, masker.finish()])


def masked_by_plain_search(values: Iterable[bytes], text: bytes) -> bytes:
    """The expected result for a whole text that does not end within a secret, by a simple and slow search."""
    found = [
        (at.start(), at.start() + len(value)) for value in values for at in _overlapping_matches(re.escape(value), text)
    ]
    found += [(at.start(), at.start() + 47) for at in _overlapping_matches(rb"pgw_[A-Za-z0-9_-]{43}", text)]
    for url in _overlapping_matches(rb'://([^\x00-\x20"<>\\/?#]{0,512})', text):
        user, _, rest = url[1].partition(b":")
        if password := rest.rpartition(b"@")[0]:
            begin = url.start(1) + len(user) + 1
            found.append((begin, begin + len(password)))
    shown, end = b"", 0
    for begin, over in sorted(found):
        shown += text[end:begin] + b"***" if begin >= end else b""
        end = max(end, over)
    return shown + text[end:]


def _overlapping_matches(pattern: bytes, text: bytes) -> Iterable[re.Match[bytes]]:
    return re.finditer(b"(?=" + pattern + b")", text, re.DOTALL)


@pytest.mark.parametrize("seed", range(8))
def test_any_division_into_pieces_gives_the_result_of_a_plain_search(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(400):
        values = [bytes(chance.choices(b"ab\n", k=chance.randrange(1, 9))) for _ in range(chance.randrange(4))]
        text = b"".join(chance.choice([*values, *LETTERS]) for _ in range(chance.randrange(20)))
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(12)))
        pieces = [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]
        assert masked(values, *pieces) == masked(values, text), (values, pieces)
        assert masked(values, *pieces, b". . .") == masked_by_plain_search(values, text + b". . ."), (values, pieces)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_passed_on_do_not_depend_on_the_bytes_that_follow(seed: int) -> None:
    """So a copier can continue the log where a killed one stopped."""
    chance = random.Random(seed)
    for _ in range(400):
        values = [bytes(chance.choices(b"ab\n", k=chance.randrange(1, 9))) for _ in range(chance.randrange(4))]
        text = b"".join(chance.choice([*values, *LETTERS]) for _ in range(chance.randrange(20)))
        shown = bytes(Masker(values).feed(bytearray(text), len(text)))
        for more in (b". . .", b"ab\nab. . .", b"@h . . .", TOKEN + b". . ."):
            assert masked_by_plain_search(values, text + more).startswith(shown), (values, text, more)


def test_only_bytes_that_may_begin_a_secret_are_held_back() -> None:
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
def test_a_secret_cut_off_by_the_end_is_masked_if_it_is_long_enough(text: bytes, shown: bytes) -> None:
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
def test_only_the_password_of_a_url_is_masked(text: bytes, shown: bytes) -> None:
    assert masked([], text) == shown


def test_a_secret_next_to_a_nul_byte_is_masked() -> None:
    assert masked([b"hunter22"], b"\0hunter22\0hunter22") == b"\0***\0***"
