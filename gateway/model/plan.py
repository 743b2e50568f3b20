"""A plan: the ordered steps of a job and the resources that it holds while they run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runners.outcome import StepError


class StepName(StrEnum):
    """The steps that a plan can have."""

    INGESTER = "ingester"
    DEPS = "deps"
    BUILD = "build"
    RUN = "run"
    TEST = "test"
    ELEMENTARY = "elementary"


@dataclass(frozen=True, slots=True)
class Retries:
    """When a step is tried again. attempts: at most so many, the first included. wait: seconds between two of them.

    errors: the kinds after which there is another attempt.
    """

    attempts: int
    wait: float
    errors: tuple[StepError, ...]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan.

    lineage: dbt runs through dbt-ol.
    without_elementary: Elementary's models are left to a later step of the same plan. Before the step begins its target
        is asked for Elementary's tables, and with_elementary takes its place where they are missing.
    with_elementary: Elementary's models are part of the step, whatever else it selects.
    tolerates: the highest exit code after which the plan goes on.
    arguments: what the pipeline and its parameters add to the command, each one word.
    selective: the arguments select what dbt runs, so a run of nothing is an error.
    retries: when it is tried again, None for never.
    """

    name: StepName
    lineage: bool = False
    without_elementary: bool = False
    with_elementary: bool = False
    tolerates: int = 0
    arguments: tuple[str, ...] = ()
    selective: bool = False
    retries: Retries | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a job in order, the resources it holds while it is active, and notes for its reader."""

    steps: tuple[PlannedStep, ...]
    resources: tuple[str, ...]
    notes: tuple[str, ...] = ()
