"""A job's output: how much there is of it, and its end as a terminal shows it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.model.job import Active, Ended, Finished, Job, Pending, Skipped, StepState, Waiting
from gateway.model.plan import StepName
from gateway.model.status import first_started
from gateway.storage import job_file
from runners.dbt import output as dbt_output
from runners.mask import Mask
from runners.output import OutputRing, RenderLine, tail_text


@dataclass(frozen=True, slots=True)
class OutputSize:
    """How many bytes of a job's output are kept, and how many were dropped.

    None: that was not asked for, or can't be read now. removed: all files of the job were removed, to keep those of all
    jobs under state_cap.
    """

    kept: int | None = None
    dropped: int | None = None
    removed: bool = False


def output_size(folder: Path, job: Job) -> OutputSize:
    """How much there is of a job's output. Blocks. folder: of the job."""
    try:
        start, end = OutputRing(folder).bounds()
        ran = any(first_started(state) is not None for state in job.steps)
        removed = isinstance(job.state, Ended) and ran and not job_file.has_more(folder)
    except OSError:  # such as no free descriptor: an answer must still tell the job's status
        return OutputSize()
    return OutputSize(end - start, max(end, job.output_end or 0) - (end - start), removed)


def rendered_tail(folder: Path, job: Job, size: int, mask: Mask) -> str:
    """The last `size` bytes of the text of a job's output, without secrets. Blocks. Raises OSError.

    folder: of the job.
    """
    return tail_text(OutputRing(folder), size, line_renderer(job), mask.text)


def line_renderer(job: Job) -> RenderLine:
    """Renders a line by the step that printed it: only in dbt's output is a line of JSON a log event of dbt."""
    parts = list(step_parts(job))
    offsets = [part.start for part in parts]

    def render(start: int, line: str) -> str:
        part = parts[bisect_right(offsets, start) - 1]
        return dbt_output.render_line(line) if part.is_dbt else line

    return render


@dataclass(frozen=True, slots=True)
class StepPart:
    """The part of a job's output that an attempt of a step printed. start: of its first byte.

    name: of the step, None where it is unknown. attempt: counted from 1.
    """

    start: int
    name: StepName | None
    is_dbt: bool
    attempt: int = 1


def step_parts(job: Job) -> Iterator[StepPart]:
    """The parts of the steps that have begun, in order, one for each attempt.

    Records of older versions don't have the offsets of ended steps, so a first part stands for all of these.
    """
    steps = list(zip(job.plan.steps, job.steps, strict=True))
    unknown = [planned for planned, state in steps if isinstance(state, Finished) and state.output_from is None]
    yield StepPart(0, None, any(planned.name is not StepName.INGESTER for planned in unknown))
    for planned, state in steps:
        for number, offset in enumerate(_attempt_offsets(state), 1):
            if offset is not None:
                yield StepPart(offset, planned.name, planned.name is not StepName.INGESTER, number)


def _attempt_offsets(state: StepState) -> Iterator[int | None]:
    """Where the output of each attempt of a step begins, None where that is not known."""
    match state:
        case Active(output_from=offset, earlier=earlier) | Finished(output_from=offset, earlier=earlier):
            yield from (attempt.output_from for attempt in earlier)
            yield offset
        case Waiting(attempts=attempts):
            yield from (attempt.output_from for attempt in attempts)
        case Pending() | Skipped():
            pass
