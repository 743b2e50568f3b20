"""A trigger as every API makes it: one form for all of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model.job import Caller


class BuiltinPipeline(StrEnum):
    """The pipelines that every installation has, whatever its projects declare."""

    INGESTER = "ingester"
    DBT = "dbt"
    FULL = "full"


class DbtCommand(StrEnum):
    """What the dbt part of a pipeline does."""

    DAILY = "daily"
    RUN = "run"
    BUILD = "build"
    TEST = "test"
    DEPS = "deps"
    ELEMENTARY = "elementary"


class OnConflict(StrEnum):
    """What happens to a trigger while another job holds a resource that it needs.

    attach: where that job does the same, the trigger is answered with it; else as reject.
    """

    REJECT = "reject"
    ATTACH = "attach"
    QUEUE = "queue"


def is_fabric_number(fabric: str) -> bool:
    """Whether a fabric has the id of a number, the only one by which the trigger pipeline API can name it."""
    return fabric.isascii() and fabric.isdecimal() and fabric == str(int(fabric)) and int(fabric) < 2**63


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request with an Idempotency-Key. token: the name of its token, empty where none is needed.

    asked: a hash of the request's body.
    """

    path: str
    token: str
    key: str
    asked: str


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer to an accepted request, as it is given again. location: its header, None without one."""

    status: int
    body: str
    location: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """A request to trigger a pipeline. None stands for a field that was not given.

    pipeline: a BuiltinPipeline, or the name of a pipeline that the project declares.
    A BuiltinPipeline runs on the defaults of the configuration. A name may also be that of a built-in pipeline, on the
    given project and fabric, where the project declares none of this name.
    command, openlineage, elementary: for built-in pipelines only; a declared pipeline has its own.
    project, fabric: ids. parameters: of a declared pipeline, as the client sent them, not validated yet.
    branch, version: of the project's repository. process: the step or model after which the run stops.
    time_limit: seconds for the whole job.
    """

    pipeline: str
    command: DbtCommand | None = None
    openlineage: bool | None = None
    elementary: bool | None = None
    project: str | None = None
    fabric: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    branch: str | None = None
    version: str | None = None
    process: str | None = None
    on_conflict: OnConflict = OnConflict.REJECT
    caller: Caller = field(default_factory=Caller)
    time_limit: float | None = None

    @property
    def dbt_command(self) -> DbtCommand:
        """What the dbt part does."""
        return self.command or DbtCommand.DAILY
