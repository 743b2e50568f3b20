"""The nodes of a job's dbt steps: models, tests, seeds and snapshots, with how each ended."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.artifacts.nodes import StepNode
from gateway.clock import rfc3339
from gateway.errors import UnknownJobError, UnknownTargetError
from gateway.web import SERVICE, body
from gateway.web.answers import Answer, Moment, json_answer, json_text
from gateway.web.openapi.operation import Reply, codes, operation

# dbt's own words, and two for a node that has begun and not ended
NodeStatus = Literal[
    "success",
    "pass",
    "warn",
    "fail",
    "error",
    "runtime error",
    "partial success",
    "skipped",
    "no-op",
    "reused",
    "running",
    "interrupted",
]
ResourceType = Literal[
    "model", "test", "seed", "snapshot", "unit_test", "operation", "analysis", "saved_query", "exposure", "function"
]


def _list(text: str) -> list[str]:
    return text.split(",")


Step = Annotated[str, Field(min_length=1, examples=["build"])]


class NodesQuery(BaseModel):
    """Which nodes."""

    model_config = ConfigDict(extra="forbid")

    step: Step | None = None
    status: Annotated[tuple[NodeStatus, ...], Field(min_length=1), BeforeValidator(_list)] = ()
    resourceType: Annotated[tuple[ResourceType, ...], Field(min_length=1), BeforeValidator(_list)] = ()  # noqa: N815, the API's name


class SqlQuery(BaseModel):
    """Of which step; without one, of the latest that has the node."""

    model_config = ConfigDict(extra="forbid")

    step: Step | None = None


class NodeAnswer(Answer):
    """A node of a step. failures: of a test. column: that it tests. depends_on: ids of nodes."""

    step: str
    unique_id: str
    name: str
    resource_type: str
    status: str
    message: str | None
    started_at: Moment | None
    duration_seconds: float | None
    thread: str | None
    failures: int | None
    rows_affected: int | None
    path: str | None
    column: str | None
    depends_on: list[str]


class NodeList(Answer):
    """The nodes of a job."""

    nodes: list[NodeAnswer]


class SqlAnswer(Answer):
    """What dbt ran for a node. failures_sql: of a test that failed or warned, the statement that shows these rows."""

    compiled_sql: str | None
    failures_sql: str | None


_NO_STEP = codes(UnknownTargetError, unknown_step="The job has no such step.")


@operation("listNodes", {200: Reply(NodeList)}, query=NodesQuery, refusals=(UnknownJobError, *_NO_STEP))
async def list_nodes(request: web.Request) -> web.Response:
    """The nodes of a job, in the order in which they ended; those that have not come last."""
    asked = body.query(request, NodesQuery)

    def text(found: list[StepNode]) -> str:
        wanted = (
            one
            for one in found
            if (not asked.status or one.node.status in asked.status)
            and (not asked.resourceType or one.node.resource_type in asked.resourceType)
        )
        return json_text(NodeList(nodes=list(map(_node, wanted))))

    nodes = await request.app[SERVICE].artifacts.nodes(request.match_info["id"], asked.step, text)
    return web.Response(text=f"{nodes}\n", content_type="application/json")


@operation(
    "getSql",
    {200: Reply(SqlAnswer)},
    query=SqlQuery,
    refusals=(
        UnknownJobError,
        *_NO_STEP,
        *codes(UnknownTargetError, unknown_node="No step of the job has such a node."),
    ),
)
async def sql(request: web.Request) -> web.Response:
    """The statements of one node."""
    asked, where = body.query(request, SqlQuery), request.match_info
    found = await request.app[SERVICE].artifacts.sql(where["id"], where["uniqueId"], asked.step)
    return json_answer(SqlAnswer(compiled_sql=found.compiled, failures_sql=found.failures))


ROUTES = (
    web.get("/api/v1/jobs/{id}/nodes", list_nodes),
    web.get("/api/v1/jobs/{id}/nodes/{uniqueId}/sql", sql),
)


def _node(found: StepNode) -> NodeAnswer:
    node = found.node
    return NodeAnswer(
        step=found.step,
        unique_id=node.unique_id,
        name=node.name,
        resource_type=node.resource_type,
        status=node.status,
        message=node.message,
        started_at=None if node.started is None else rfc3339(node.started),
        duration_seconds=None if node.duration is None else round(node.duration, 3),
        thread=node.thread,
        failures=node.failures,
        rows_affected=node.rows_affected,
        path=node.path,
        column=node.column,
        depends_on=list(node.depends_on),
    )
