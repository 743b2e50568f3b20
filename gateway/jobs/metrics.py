"""What is counted of jobs since the start of the service, and when each pipeline last succeeded."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.model.job import Ended, Job, JobOutcome
from gateway.model.status import is_good, job_outcome, run_seconds
from gateway.output.parts import OutputSize

# Upper bounds of durations in seconds: minutes to hours, which is how long pipelines run.
BUCKETS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)
# What jobs of pipelines count for that are not configured any more: names in metrics must be bounded.
OTHER = ("other", "other")

PipelineKey = tuple[str, str]  # project and name


@dataclass(slots=True)
class PipelineCounts:
    """The jobs of one pipeline that have ended. durations: how many ran for how long, by bucket; the last has no bound.

    seconds: that they ran for, together.
    """

    outcomes: Counter[JobOutcome] = field(default_factory=Counter)
    durations: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0


class JobMetrics:
    """Counts jobs at their end. output_bytes: that they have printed. dropped_bytes: those of them that are gone."""

    def __init__(self) -> None:
        self.pipelines: dict[PipelineKey, PipelineCounts] = {}
        self.last_success: dict[PipelineKey, float] = {}  # epoch seconds
        self.output_bytes = 0
        self.dropped_bytes = 0

    def know(self, pipelines: Iterable[PipelineKey]) -> None:
        """Count these pipelines by name, from 0 on: a counter that begins with 1 shows no increase."""
        for key in pipelines:
            self.pipelines.setdefault(key, PipelineCounts())

    def restore(self, last_success: Mapping[PipelineKey, float]) -> None:
        """Take over when pipelines last succeeded under an earlier process."""
        self.last_success.update(last_success)

    def ended(self, job: Job, output: OutputSize) -> None:
        """Count a job that has ended. output: what there was of it then."""
        outcome, key = job_outcome(job), (job.project, job.pipeline)
        if not isinstance(job.state, Ended) or outcome is None:
            return
        counts = self.pipelines.setdefault(key if key in self.pipelines else OTHER, PipelineCounts())
        counts.outcomes[outcome] += 1
        if (seconds := run_seconds(job)) is not None:
            counts.durations[bisect_left(BUCKETS, seconds)] += 1
            counts.seconds += seconds
        if is_good(outcome):
            self.last_success[key] = job.state.at.wall
        self.output_bytes += (output.kept or 0) + (output.dropped or 0)
        self.dropped_bytes += output.dropped or 0
