"""Progress from a step's output: which lines are read, and that skipped ones are counted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.output import progress
from gateway.output.progress import ProgressFollower
from runners.output import Chunk, OutputRing
from runners.report import Progress


class Lines:
    """A reader that keeps what it is fed."""

    progress: Progress | None = None
    cause = ""

    def __init__(self) -> None:
        self.fed: list[str] = []
        self.skipped = 0

    def feed(self, line: str) -> None:
        self.fed.append(line)

    def skip(self) -> None:
        self.skipped += 1


def append(folder: Path, data: bytes, start: int = 0) -> None:
    with (folder / f"output.{start:020}").open("ab") as segment:
        segment.write(data)


def test_lines_are_read_once_and_whole_however_they_arrive(tmp_path: Path) -> None:
    lines = Lines()
    follower = ProgressFollower(OutputRing(tmp_path), 0, lines)
    for piece in (b"on", b"e\ntw", b"o\n", b"", b"last"):
        append(tmp_path, piece)
        follower.catch_up()
    assert lines.fed == ["one", "two"]
    follower.finish()
    assert lines.fed == ["one", "two", "last"]
    assert lines.skipped == 0


def test_a_step_is_read_from_its_own_first_byte(tmp_path: Path) -> None:
    append(tmp_path, b"an earlier step\nmine\n")
    lines = Lines()
    ProgressFollower(OutputRing(tmp_path), len(b"an earlier step\n"), lines).catch_up()
    assert lines.fed == ["mine"]


def test_of_too_much_output_the_beginning_and_the_end_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_CHUNK", 100)
    monkeypatch.setattr(progress, "_TOO_FAR", 1000)
    append(tmp_path, b"first\n" + b"middle\n" * 1000 + b"last\n")
    lines = Lines()
    ProgressFollower(OutputRing(tmp_path), 0, lines).finish()
    assert lines.fed[0] == "first"
    assert "last" in lines.fed
    assert len(lines.fed) < 100
    assert lines.skipped == 1


def test_output_that_the_ring_dropped_counts_as_skipped(tmp_path: Path) -> None:
    append(tmp_path, b"half a line\nwhole\n", start=500)
    lines = Lines()
    ProgressFollower(OutputRing(tmp_path), 0, lines).catch_up()
    assert lines.skipped == 1
    assert lines.fed[-1] == "whole"


def test_output_that_grows_faster_than_it_is_read_does_not_block(tmp_path: Path) -> None:
    class Endless(OutputRing):
        """The output of a step that has written more at each look."""

        written = 10

        def bounds(self) -> tuple[int, int]:
            return 0, self.written

        def read(self, offset: int, limit: int) -> Chunk:
            self.written += 10
            return Chunk(offset, b"y\n" * 5)

    lines = Lines()
    ProgressFollower(Endless(tmp_path), 0, lines).catch_up()  # fails by the timeout of the suite
    assert set(lines.fed) == {"y"}


def test_concurrent_reads_feed_each_line_once(tmp_path: Path) -> None:
    append(tmp_path, b"".join(b"%d\n" % number for number in range(100_000)))
    lines = Lines()
    follower = ProgressFollower(OutputRing(tmp_path), 0, lines)
    threads = [threading.Thread(target=follower.catch_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines.fed == [str(number) for number in range(100_000)]
