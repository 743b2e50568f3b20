"""Reading the output ring, and the text that a terminal would show."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.output import Chunk, OutputRing, tail_text, terminal_text


def tail(ring: OutputRing, size: int, text: Callable[[str], str] = str) -> str:
    """The tail where each line's text is this."""
    return tail_text(ring, size, lambda _, line: text(line), str)


def ring_of(folder: Path, *pieces: bytes, first: int = 0) -> OutputRing:
    for piece in pieces:
        (folder / f"output.{first:020}").write_bytes(piece)
        first += len(piece)
    return OutputRing(folder)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("nothing special\tbut a tab, ä and 日本", "nothing special\tbut a tab, ä and 日本"),
        ("\x1b[32mgreen\x1b[0m", "green"),
        ("\x9b1mbold\x9b0m", "bold"),
        ("windows line\r", "windows line"),
        ("10%\r100%", "100%"),
        ("100%\r10%", "10%%"),
        ("100%\r\x1b[K10%", "10%"),
        ("100%\r\x1b[0K", ""),
        ("a long line\x1b[2K\rshort", "short"),
        ("a long line\r\x1b[2Kshort", "short"),
        ("abcdef\b\b\b\x1b[Kx", "abcx"),
        ("abc\b\bX", "aXc"),
        ("\b\bstart", "start"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice control\x1b\\text", "text"),
        ("text\x1b]0;never ended", "text"),
        ("text\x1b[3", "text"),
        ("text\x1b", "text"),
        ("\x1b(Btext\x1b7", "text"),
        ("\x1b\x1b[0m[Kshown", "[Kshown"),
        ("bell\x07 nul\x00 del\x7f c1\x85 end", "bell nul del c1 end"),
        ("\x1b[2A\x1b[5Gtext", "text"),
    ],
)
def test_a_line_is_the_text_that_a_terminal_would_show(line: str, shown: str) -> None:
    assert terminal_text(line) == shown


def test_no_combination_of_characters_leaves_a_control_character() -> None:
    signs = ["\x1b", "[", "K", "]", "\x07", "\r", "\b", "0", "m", "\x9b", "a"]
    for first in signs:
        for second in signs:
            for third in signs:
                shown = terminal_text(first + second + third + "\x1b[0mz")
                assert all(sign == "\t" or " " <= sign < "\x7f" for sign in shown), (first, second, third)


HOSTILE = {
    "NULs": b"\0",
    "backspaces": b"\b",
    "a backspace each": b"x\b",
    "carriage returns": b"x\r",
    "erased lines": b"a\x1b[2K",
    "erased ends": b"\x1b[K",
    "colours": b"\x1b[mx",
    "cut sequences": b"\x1b[0",
    "begun titles": b"\x1b]",
    "begun strings of 8 bits": b"\xc2\x9d",
    "parameters": b"\x1b[;",
    "JSON": b'{"info":[[',
    "lines of NULs": b"\0" * 99 + b"\n",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_the_tail_of_a_flood_takes_bounded_work_and_memory(tmp_path: Path, piece: bytes) -> None:
    """The bound of the work is the timeout of the suite: what grows with the square of the length takes hours."""
    ring = ring_of(tmp_path, piece * ((8 << 20) // len(piece)) + b"\x1bQ")
    tracemalloc.start()
    try:
        tail(ring, 10_240)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_after_a_flood_what_a_terminal_shows_is_shown(tmp_path: Path) -> None:
    frames = b"".join(b"\r%4d/9999 files" % n for n in range(9999))
    ring = ring_of(tmp_path, b"before\n" + b"\0" * 500_000 + b"after\n" + frames)
    assert tail(ring, 10_240) == "before\nafter\n9998/9999 files"


def test_what_interrupts_a_sequence_ends_it() -> None:
    assert terminal_text("\x1b]0;title\x1b[1mbold \x1b[3\x1b[0mplain \x1b]0;cut\x18here") == "bold plain here"


def render(folder: Path, data: bytes, text: Callable[[str], str] = str) -> str:
    return tail(ring_of(folder, data), 1000, text)


def test_the_function_for_lines_may_drop_a_line_or_return_several(tmp_path: Path) -> None:
    def text(line: str) -> str:
        return {"drop\n": "", "drop": "", "two\n": "1\n\x1b[1m2\x1b[0m\n"}.get(line, line)

    assert render(tmp_path, b"a\ndrop\ntwo\n\nlast", text) == "a\n1\n2\n\nlast"
    assert render(tmp_path, b"a\ndrop", text) == "a\n"
    assert render(tmp_path, b"", text) == ""


def test_a_line_is_rendered_by_where_it_begins(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, b"lf\none\ntwo\nend", first=100)
    assert tail_text(ring, 100, lambda start, line: f"{start}:{line}", str) == "103:one\n107:two\n111:end"


def test_invalid_utf8_is_replaced_and_a_partial_character_left_out(tmp_path: Path) -> None:
    assert render(tmp_path, b"\xff\xe2\x82\nok \xe2\x82") == "��\nok "


def test_an_empty_or_missing_ring_has_no_output(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        ring = OutputRing(folder)
        assert ring.bounds() == (0, 0)
        assert ring.read(0, 10) == Chunk(0, b"")
        assert ring.tail(10) == Chunk(0, b"")
        assert tail(ring, 10) == ""


def test_a_read_spans_segments_and_begins_at_the_first_kept_byte(tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text("not ours")
    ring = ring_of(tmp_path, b"abcd", b"efgh", b"ij", first=100)
    assert ring.bounds() == (100, 110)
    assert ring.read(0, 6) == Chunk(100, b"abcdef")
    assert ring.read(103, 100) == Chunk(103, b"defghij")
    assert ring.read(104, 4) == Chunk(104, b"efgh")
    assert ring.read(110, 5) == Chunk(110, b"")
    assert ring.read(500, 5) == Chunk(500, b"")
    assert ring.tail(3) == Chunk(107, b"hij")
    assert ring.tail(1000) == Chunk(100, b"abcdefghij")


def test_a_read_stops_at_a_gap_between_ring_of(tmp_path: Path) -> None:
    (tmp_path / f"output.{0:020}").write_bytes(b"abc")
    (tmp_path / f"output.{10:020}").write_bytes(b"klm")
    ring = OutputRing(tmp_path)
    assert ring.read(0, 100) == Chunk(0, b"abc")
    assert ring.read(3, 100) == Chunk(10, b"klm")


def test_a_segment_removed_during_a_read_moves_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = ring_of(tmp_path, b"abcd", b"efgh")
    listed = ring._segment_starts()
    (tmp_path / f"output.{0:020}").unlink()
    monkeypatch.setattr(ring, "_segment_starts", lambda: listed)
    assert ring.read(1, 100) == Chunk(4, b"efgh")


def test_the_tail_is_cut_at_a_character(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, "ä€😀".encode() * 100)
    for size in range(1, 40):
        text = tail(ring, size)
        assert "�" not in text
        assert size - 4 < len(text.encode()) <= size
    assert tail(ring, 0) == ""


def test_the_tail_leaves_out_a_line_without_its_beginning(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, b"lf of it\nwhole\n", first=1000)
    assert tail(ring, 1000) == "whole\n"


def test_a_single_line_is_shown_though_its_beginning_is_missing(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, "€".encode()[1:] + b"endless", first=1000)
    assert tail(ring, 1000) == "endless"


def wanted(line: str) -> str:
    return line if line == "wanted\n" else ""


def test_the_tail_reads_further_back_if_most_lines_are_left_out(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, b"wanted\n" * 10 + b"debug\n" * 100_000)
    assert tail(ring, 14, wanted) == "wanted\nwanted\n"


def test_the_tail_reads_back_only_to_a_limit(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, b"wanted\n" + b"debug\n" * 1_000_000)
    assert tail(ring, 14, wanted) == ""


def test_a_text_is_masked_before_it_is_cut(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, b"it is \x1b[1mse\0cret\x1b[0m, so")
    assert tail_text(ring, 9, lambda _, line: line, lambda text: text.replace("secret", "***")) == "is ***, so"[-9:]
