"""The pipelines that can be triggered by name, and their pauses."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway import clock
from gateway.errors import StorageError, UnknownTargetError
from gateway.jobs.requests import PipelineInfo
from gateway.model.job import JobOutcome, Status
from gateway.model.plan import StepName
from gateway.model.request import is_fabric_number
from gateway.settings.project import ParameterSettings
from gateway.web import SERVICE, body
from gateway.web.answers import Answer, Moment, base_url, is_none, json_answer
from gateway.web.openapi.operation import Reply, codes, operation
from gateway.web.records import whole_record
from gateway.web.server.access import CALLER
from runners.parameters import ParameterType

Value = bool | int | float | str


class ParameterAnswer(Answer):
    """A parameter of a pipeline, with the limits of its values where there are any."""

    name: str
    type: ParameterType
    default: Value | None
    required: bool
    minimum: Annotated[Value | None, Field(exclude_if=is_none)]
    maximum: Annotated[Value | None, Field(exclude_if=is_none)]
    choices: Annotated[tuple[Value, ...] | None, Field(exclude_if=is_none)]


class LastRun(Answer):
    """The newest job of a pipeline."""

    job_id: str
    status: Status
    outcome: JobOutcome | None
    exit_code: int
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    duration_seconds: float


class PipelineAnswer(Answer):
    """A pipeline. fabric_ids: those of its fabrics that the trigger pipeline API can name.

    paused: its triggers are refused. paused_since, paused_by: who paused it, by token, and when.
    """

    name: str
    project_id: str
    fabric_ids: list[str]
    fabrics: list[str]
    steps: list[StepName]
    parameters: list[ParameterAnswer]
    last_run: LastRun | None
    usual_seconds: float | None
    paused: bool
    paused_since: Moment | None
    paused_by: str | None


class PausedBody(BaseModel):
    """Whether the pipeline is to be paused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    paused: bool


class PipelineList(Answer):
    """All pipelines."""

    pipelines: list[PipelineAnswer]


@operation("listPipelines", {200: Reply(PipelineList)})
async def list_pipelines(request: web.Request) -> web.Response:
    """The pipelines that can be triggered by name."""
    infos = request.app[SERVICE].pipelines()
    return json_answer(PipelineList(pipelines=[await _pipeline(request, info) for info in infos]))


@operation(
    "setPaused",
    {200: Reply(PipelineAnswer)},
    body=PausedBody,
    refusals=(
        *codes(
            UnknownTargetError,
            unknown_project="There is no such project.",
            unknown_pipeline="The project has no such pipeline.",
        ),
        StorageError,
    ),
)
async def set_paused(request: web.Request) -> web.Response:
    """Pause a pipeline, or allow it again; the pipeline."""
    given = await body.read(request, PausedBody)
    service = request.app[SERVICE]
    info = service.pipeline(request.match_info["project"], request.match_info["name"])
    await service.pauses.set(info.project, info.name, request[CALLER], paused=given.paused)
    return json_answer(await _pipeline(request, info))


ROUTES = (
    web.get("/api/v1/pipelines", list_pipelines),
    web.put("/api/v1/pipelines/{project}/{name}/paused", set_paused),
)


async def _pipeline(request: web.Request, info: PipelineInfo) -> PipelineAnswer:
    service = request.app[SERVICE]
    last, usual = await service.last_run(info), await service.usual_seconds(info)
    pause = service.pauses.get(info.project, info.name)
    record = {} if last is None else dict(whole_record(last, base_url(request)))
    return PipelineAnswer(
        name=info.name,
        project_id=info.project,
        fabric_ids=list(filter(is_fabric_number, info.fabrics)),
        fabrics=list(info.fabrics),
        steps=list(info.steps),
        parameters=[_parameter(name, given) for name, given in info.settings.parameters.items()],
        last_run=LastRun(**{name: record[name] for name in LastRun.model_fields}) if record else None,
        usual_seconds=None if usual is None else round(usual, 3),
        paused=pause is not None,
        paused_since=None if pause is None else clock.rfc3339(pause.since),
        paused_by=None if pause is None else pause.by.token,
    )


def _parameter(name: str, given: ParameterSettings) -> ParameterAnswer:
    return ParameterAnswer(
        name=name,
        type=given.type,
        default=given.default,
        required=given.required,
        minimum=given.minimum,
        maximum=given.maximum,
        choices=given.choices,
    )
