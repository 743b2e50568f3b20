"""A job's output in parts, from any byte on."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import UnknownTargetError
from gateway.model.job import Active, Completed, Ended, Finished, Job, Pending, StepState
from gateway.output.log import JobLog, OutputPart, is_final
from runners.mask import Mask
from runners.outcome import Exited
from runners.output import OutputRing
from tests.support.jobs import NOON, SPAN, make_job, planned

PART, LONGEST = 64 << 10, 1 << 20
DONE = Finished(Exited(0, SPAN))
EVENT = '{"info": {"name": "X", "msg": "Running", "ts": "2026-11-21T23:10:48Z"}, "data": {}}\n'
MASK = Mask(values=frozenset({"hunter2secret"}))


def ring_of(folder: Path, *segments: bytes, first: int = 0) -> None:
    for segment in segments:
        (folder / f"output.{first:020}").write_bytes(segment)
        first += len(segment)


def job_of(*starts: int, is_ended: bool = True) -> Job:
    """A job whose steps printed from these offsets on: an ingester, then steps of dbt."""
    steps: list[StepState] = [replace(DONE, output_from=start) for start in starts]
    if not is_ended:
        steps[-1:] = [Active(NOON, starts[-1])]
    job = make_job(plan=planned(*("ingester", "deps", "build")[: len(starts)]), steps=steps)
    return replace(job, state=Ended(NOON, Completed(0, None))) if is_ended else job


def parts(folder: Path, job: Job, offset: int = 0) -> list[OutputPart]:
    """All parts from an offset on, as a follower gets them at once."""
    log, found = JobLog(folder, job, MASK), []
    while part := log.read(offset, log.bounds()[1], is_final=is_final(job)):
        found.append(part)
        offset = part.next
    return found


def text(folder: Path, job: Job, offset: int = 0) -> str:
    return "".join(part.text for part in parts(folder, job, offset))


def found(folder: Path, job: Job, **asked: object) -> tuple[int, int, int]:
    """The range of the log that is served: its start, its end, and what is lost."""
    log = JobLog(folder, job, MASK)
    wanted = {"offset": None, "tail": None, "until": None, "step": None, **asked}
    range_ = log.find(log.bounds()[1], is_final=is_final(job), **wanted)  # type: ignore[arg-type]
    return range_.start, range_.end, range_.dropped


def test_each_step_begins_with_a_line_that_names_it(tmp_path: Path) -> None:
    """Also where the shim first ended the last line of the step before, and not for a step that printed nothing."""
    ring_of(tmp_path, b"loaded", b"\ndeps\n", EVENT.encode())
    assert text(tmp_path, job_of(0, 6)) == "==> ingester <==\nloaded\n==> deps <==\ndeps\n23:10:48  Running\n"
    assert text(tmp_path, job_of(0, 6, 12)).count("==> build <==\n23:10:48  Running\n") == 1
    assert text(tmp_path, job_of(0, 0)).startswith("==> deps <==\nloaded")


def test_a_follower_gets_the_same_text_wherever_it_was_interrupted(tmp_path: Path) -> None:
    rng = random.Random(3)
    lines = [("é" * rng.randrange(400) + "\n").encode() for _ in range(600)]
    output = b"".join([*lines, b"no end"])
    ring_of(tmp_path, output[:100_000], output[100_000:])
    job = job_of(0, len(b"".join(lines[:300])))
    whole = parts(tmp_path, job)
    assert len(whole) > 3
    assert [part.offset for part in whole] == [0, *(part.next for part in whole[:-1])]
    assert whole[-1].next == len(output)
    for part in whole:
        assert text(tmp_path, job, part.next) == "".join(later.text for later in whole if later.offset >= part.next)
        assert JobLog(tmp_path, job, MASK).line_start(part.next) == part.next


def test_an_unfinished_line_is_held_until_its_end_or_the_steps(tmp_path: Path) -> None:
    ring_of(tmp_path, b"one\ntw")
    assert text(tmp_path, job_of(0, is_ended=False)) == "==> ingester <==\none\n"
    assert text(tmp_path, job_of(0, 6, is_ended=False)) == "==> ingester <==\none\ntw"
    assert text(tmp_path, job_of(0)) == "==> ingester <==\none\ntw"
    assert found(tmp_path, job_of(0, is_ended=False)) == (0, 4, 0)
    assert found(tmp_path, job_of(0, is_ended=False), offset=99) == (99, 99, 0)
    assert found(tmp_path, job_of(0)) == (0, 6, 0)
    between = replace(job_of(0, 6, is_ended=False), steps=(replace(DONE, output_from=0), Pending()))
    assert text(tmp_path, between) == "==> ingester <==\none\ntw"


def test_an_unfinished_line_over_64_kib_comes_in_parts(tmp_path: Path) -> None:
    ring_of(tmp_path, b"word " * 30_000)
    got = parts(tmp_path, job_of(0, is_ended=False))
    assert len(got) == 2
    assert all(part.text.endswith("word ") for part in got)
    assert "".join(part.text for part in got) == "==> ingester <==\n" + "word " * (got[-1].next // 5)
    start, end, _ = found(tmp_path, job_of(0, is_ended=False))
    assert (start, end % 5) == (0, 0)
    assert JobLog(tmp_path, job_of(0, is_ended=False), MASK).line_start(got[0].next) == got[0].next


def test_a_long_line_without_blanks_is_cut_between_characters(tmp_path: Path) -> None:
    ring_of(tmp_path, ("x" + "日" * 60_000).encode())
    got = parts(tmp_path, job_of(0, is_ended=False))
    assert "".join(part.text for part in got).startswith("==> ingester <==\nx日日")
    assert "\ufffd" not in "".join(part.text for part in got)


def test_an_ended_line_of_300_kb_is_rendered_as_one(tmp_path: Path) -> None:
    event = json.dumps({"info": {"name": "X", "msg": "y" * 300_000, "ts": "2026-11-21T23:10:48Z"}, "data": {}})
    ring_of(tmp_path, event.encode() + b"\nnext\n")
    job = replace(job_of(0), plan=planned("build"))
    assert text(tmp_path, job) == f"==> build <==\n23:10:48  {'y' * 300_000}\nnext\n"


def test_what_the_ring_dropped_is_counted_up_to_the_next_whole_line(tmp_path: Path) -> None:
    ring_of(tmp_path, b"st of a line\nkept\n", first=1000)
    [part] = parts(tmp_path, job_of(0), 400)
    assert (part.offset, part.next, part.dropped, part.text) == (1013, 1018, 613, "kept\n")
    assert found(tmp_path, job_of(0)) == (1013, 1018, 1013)
    assert found(tmp_path, job_of(0), offset=1013) == (1013, 1018, 0)
    assert parts(tmp_path, job_of(0, 1000))[0].text == "==> deps <==\nst of a line\nkept\n"  # a line begins there


def test_a_follower_of_a_job_without_files_learns_how_much_is_gone(tmp_path: Path) -> None:
    job = replace(job_of(0), output_end=5000)
    assert parts(tmp_path, job, 1200) == [OutputPart(5000, 5000, "", 3800)]
    assert parts(tmp_path, job, 5000) == []
    assert found(tmp_path, job) == (5000, 5000, 5000)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (0, 24, 0)),
        ({"offset": 4}, (4, 24, 0)),
        ({"offset": 6}, (4, 24, 0)),  # in a line: from its beginning on
        ({"offset": 24}, (24, 24, 0)),
        ({"offset": 99}, (99, 99, 0)),
        ({"tail": 7}, (18, 24, 0)),  # from the next whole line on
        ({"tail": 0}, (24, 24, 0)),
        ({"tail": 99}, (0, 24, 0)),
        ({"step": "ingester"}, (0, 8, 0)),
        ({"step": "deps"}, (8, 24, 0)),
        ({"step": "deps", "offset": 2}, (8, 24, 0)),
        ({"step": "deps", "tail": 10}, (18, 24, 0)),
        ({"step": "ingester", "offset": 20}, (20, 20, 0)),
        ({"until": 8}, (0, 8, 0)),
        ({"until": 10}, (0, 8, 0)),  # in a line: up to its beginning
        ({"until": 99}, (0, 24, 0)),
        ({"until": 18, "tail": 8}, (18, 18, 0)),  # no line begins in these bytes
        ({"until": 18, "tail": 14}, (4, 18, 0)),  # what comes before that which a reader has
        ({"until": 4, "offset": 6}, (6, 6, 0)),
    ],
)
def test_a_range_is_in_whole_lines(tmp_path: Path, asked: dict[str, object], expected: tuple[int, int, int]) -> None:
    ring_of(tmp_path, b"one\ntwo\n", b"deps says\nthat.\n")
    assert found(tmp_path, job_of(0, 8), **asked) == expected


def test_a_step_not_begun_has_no_output_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    ring_of(tmp_path, b"one\n")
    job = make_job(plan=planned("ingester", "deps"), steps=[replace(DONE, output_from=0), Pending()])
    assert found(tmp_path, job, step="deps") == (4, 4, 0)
    with pytest.raises(UnknownTargetError, match="Step 'test' not found; the job has ingester, deps"):
        found(tmp_path, job, step="test")


def test_a_secret_that_is_hidden_by_colours_is_masked(tmp_path: Path) -> None:
    ring_of(tmp_path, b"pass hunter2\x1b[1msecret\x00\n\x1b[31mred\x1b[0m\n10%\r100%\n")
    assert text(tmp_path, job_of(0)) == "==> ingester <==\npass ***\nred\n100%\n"


def test_an_event_of_dbt_that_was_cut_off_is_shown_as_it_is(tmp_path: Path) -> None:
    ring_of(tmp_path, b'{"data": {"x": ')
    assert text(tmp_path, replace(job_of(0), plan=planned("build"))) == '==> build <==\n{"data": {"x": '


def test_the_memory_of_a_part_is_bounded_whatever_was_printed(tmp_path: Path) -> None:
    ring_of(tmp_path, b"x" * (8 << 20))
    assert max(part.next - part.offset for part in parts(tmp_path, job_of(0))) <= LONGEST
    assert OutputRing(tmp_path).bounds() == (0, 8 << 20)
