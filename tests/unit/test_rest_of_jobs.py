"""The rest of a job that failed, as a retry runs it."""

from __future__ import annotations

import pytest

from gateway.model.attempts import is_folder_of
from gateway.model.job import Completed, Ended, Finished, Job, JobState, Pending, Skipped, StepState
from gateway.model.plan import StepName
from gateway.model.retry import failed_step, rest_of
from runners.outcome import Exited
from tests.support.jobs import NOON, SPAN, make_job, planned

DONE = Finished(Exited(0, SPAN), started=NOON)
BROKEN = Finished(Exited(1, SPAN), started=NOON)


def job_of(*steps: tuple[str, StepState], state: JobState | None = None) -> Job:
    names, states = [name for name, _ in steps], [one for _, one in steps]
    return make_job("job-1", plan=planned(*names), steps=states, state=state or Ended(NOON, Completed(1, None)))


def rest(job: Job, first: int, *, needs_packages: bool) -> tuple[list[str], list[str]]:
    """The names of the steps that are left out, and of those that run."""
    plan, done = rest_of(job, first, needs_packages=needs_packages)
    assert all(isinstance(state, Skipped) for state in done)
    names = [str(step.name) for step in plan.steps]
    return names[: len(done)], names[len(done) :]


@pytest.mark.parametrize(
    ("steps", "first", "needs_packages", "left_out", "runs"),
    [
        (["ingester", "deps", "build", "elementary"], 2, False, ["ingester", "deps"], ["build", "elementary"]),
        (["ingester", "deps", "build", "elementary"], 2, True, ["ingester"], ["deps", "build", "elementary"]),
        (["ingester", "deps", "build", "elementary"], 3, True, ["ingester", "build"], ["deps", "elementary"]),
        (["ingester", "deps", "build"], 1, True, ["ingester"], ["deps", "build"]),
        (["ingester", "build"], 0, True, [], ["ingester", "deps", "build"]),
        (["build"], 0, True, [], ["deps", "build"]),
        (["ingester"], 0, True, [], ["ingester"]),
    ],
)
def test_a_checkout_that_was_made_anew_gets_its_packages_first(
    steps: list[str], first: int, needs_packages: bool, left_out: list[str], runs: list[str]
) -> None:
    states = [DONE] * first + [BROKEN] + [Pending()] * (len(steps) - first - 1)
    job = job_of(*zip(steps, states, strict=True))
    assert failed_step(job) == first
    assert rest(job, first, needs_packages=needs_packages) == (left_out, runs)
    told = [note for note in rest_of(job, first, needs_packages=needs_packages)[0].notes if "made anew" in note]
    assert bool(told) == (len(left_out) + len(runs) > len(steps) or (needs_packages and "deps" in steps[:first]))


def test_a_job_whose_steps_all_did_their_work_has_nothing_to_retry() -> None:
    """Such as one that the gateway gave up after its last step."""
    assert failed_step(job_of(("build", DONE))) == "Each step of the job job-1 did its work"


@pytest.mark.parametrize("folder", ["job-1/2-build", "job-1/2-build.3", "2-build"])
def test_a_folder_tells_its_step(folder: str) -> None:
    assert is_folder_of(folder, StepName.BUILD)
    assert not is_folder_of(folder, StepName.RUN)
