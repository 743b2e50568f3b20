"""Which lines of a job's output are dbt's, by its record."""

from __future__ import annotations

from dataclasses import replace

from gateway import clock
from gateway.model.job import Active, Finished, Skipped, StepState
from gateway.output.parts import line_renderer
from runners.outcome import Exited, NotStarted
from tests.support.jobs import SPAN, make_job, planned

EVENT = '{"info": {"name": "MainReportVersion", "msg": "Running", "ts": "2026-11-21T23:10:48Z"}, "data": {}}\n'
SHOWN = "23:10:48  Running\n"
ENDED = Finished(Exited(0, SPAN))


def rendered(*steps: StepState, at: int) -> str:
    names = ("ingester", "deps", "build")
    return line_renderer(make_job(plan=planned(*names[: len(steps)]), steps=steps))(at, EVENT)


def test_a_line_is_of_the_last_step_that_began_before_it() -> None:
    steps = (replace(ENDED, output_from=0), replace(ENDED, output_from=100), Active(clock.now(), 200))
    assert [rendered(*steps, at=at) for at in (0, 99, 100, 250)] == [EVENT, EVENT, SHOWN, SHOWN]


def test_a_step_that_never_began_has_no_lines() -> None:
    steps = (replace(ENDED, output_from=0), Finished(NotStarted("no dbt")), Skipped("earlier step failed: deps"))
    assert rendered(*steps, at=50) == EVENT


def test_a_record_of_an_older_version_is_rendered_as_that_version_did() -> None:
    assert rendered(ENDED, ENDED, at=0) == SHOWN
    assert rendered(ENDED, at=0) == EVENT
