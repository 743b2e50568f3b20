"""The identity of a container: its name and its labels."""

from __future__ import annotations

from pathlib import Path

from runners.containers.docker import ContainerState

INSTANCE_LABEL = "pipeline-gateway.instance"
JOB_LABEL = "pipeline-gateway.job"
STEP_LABEL = "pipeline-gateway.step"


def container_name(step: Path, number: int = 0) -> str:
    """The name of a container. step: the step's folder. number: of the command in the step, from 0."""
    name = f"pipeline-gateway-{step.parent.name}-{step.name}"
    return f"{name}-{number + 1}" if number else name


def belongs_to_step(state: ContainerState, step: Path) -> bool:
    """Whether a container has the labels of a step, and does not only have its name. step: the step's folder.

    A job's id is random enough to belong to one gateway only.
    """
    return (state.labels.get(JOB_LABEL), state.labels.get(STEP_LABEL)) == (step.parent.name, step.name)


def step_filters(step: Path) -> tuple[str, str]:
    """The filters of docker that the containers of a step match. step: the step's folder."""
    return f"label={JOB_LABEL}={step.parent.name}", f"label={STEP_LABEL}={step.name}"
