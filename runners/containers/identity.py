"""How a container is known again: its name and its labels."""

from __future__ import annotations

from pathlib import Path

from runners.containers.docker import ContainerState

INSTANCE_LABEL = "pipeline-gateway.instance"
JOB_LABEL = "pipeline-gateway.job"
STEP_LABEL = "pipeline-gateway.step"


def container_name(step: Path, number: int = 0) -> str:
    """The name of a container of the step whose folder this is; a step has one for each of its commands."""
    name = f"pipeline-gateway-{step.parent.name}-{step.name}"
    return f"{name}-{number + 1}" if number else name


def belongs_to_step(state: ContainerState, step: Path) -> bool:
    """Whether a container is of the step whose folder this is, and not somebody else's of the same name.

    A job's id has enough of chance in it to be one gateway's alone.
    """
    return (state.labels.get(JOB_LABEL), state.labels.get(STEP_LABEL)) == (step.parent.name, step.name)
