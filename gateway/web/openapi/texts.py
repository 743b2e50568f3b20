"""What the OpenAPI document says that no model and no route does: of tags, parameters and headers, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Prefixes of paths, the first that fits counts, with the tag of their operations and what it means.
TAGS = (
    ("/api/data-analytics/", "data-analytics", "The published data-analytics API."),
    ("/api/trigger/", "trigger-pipeline", "The published trigger pipeline API."),
    ("/api/v1/", "jobs", "The jobs API, which has every job, whichever API triggered it."),
    ("/", "service", "What monitors and tools ask the service."),
)
PATH_PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "id": "The `jobId` of a job, or the `runId` of a run.",
        "runId": "The `runId` of a run, or the `jobId` of a job.",
        "project": "The `projectId` of a pipeline.",
        "name": "The `name` of a pipeline or of an artifact.",
        "step": "The name of a step of the job.",
        "uniqueId": "The `uniqueId` of a node.",
    }
)
RESPONSE_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "X-Request-Id": "The id under which the gateway's log has the request.",
        "Location": "Where to read the job.",
        "ETag": "Names this state of the record, for `If-None-Match`.",
        "Retry-After": "When to try again, in seconds, where that is known.",
        "WWW-Authenticate": "How to authenticate.",
        "Log-Start": "The offset of the first byte.",
        "Log-Next": "The `offset` of what comes next.",
        "Log-Dropped": "How many of the bytes asked for were removed.",
        "Idempotent-Replayed": "`true` where the request was answered before with the same key.",
        "Content-Disposition": "Has browsers save the answer to a file, where that was asked for.",
    }
)
OPTIONAL_HEADERS = ("Content-Disposition", "Idempotent-Replayed", "Retry-After")
# Of fields of answers by their names, where the model has no example itself.
FIELD_EXAMPLES: Mapping[str, object] = MappingProxyType(
    {
        "jobId": "dbt-1796043514018-ioqtdn",
        "runId": "nightly-1796043514018-ioqtdn",
        "pipeline": "dbt",
        "phase": "build",
        "exitCode": -1,
        "projectId": "shop",
        "fabricId": "1",
        "fabricIds": ["1"],
        "commit": "3f786850e387550fdab836ed7e6dc881de23001b",
        "branch": "main",
        "version": "1.4.0",
        "processName": "orders",
        "parameters": {"since": "2026-01-31"},
        "durationSeconds": 73.5,
        "logUrl": "http://localhost:3000/api/v1/jobs/dbt-1796043514018-ioqtdn/log",
        "resource": "warehouse",
        "node": "model.shop.orders",
        "message": 'Catalog Error: Table with name "sales" does not exist!',
        "current": "model.shop.orders",
        "token": "airflow",
        "address": "127.0.0.1",
        "code": "unknown_job",
    }
)
DESCRIPTION = """\
Start and follow the data pipelines of one server. The manual is at `/docs`.

A job that is triggered by one API can be read and cancelled by all others. Later versions may add fields to answers.
But for events, what a GET answers, a HEAD answers too, without the body."""
