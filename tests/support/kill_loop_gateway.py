"""The gateway as `pipeline-gateway serve` runs it, with one route more: a job of any number of steps on any resources.

The published APIs trigger the plans of the default fabric, whose resources are two at most; the kill loop wants many
jobs at once. Run as `python -m tests.support.kill_loop_gateway` in a project's folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

from aiohttp import web

from gateway import app
from gateway.cli import main as cli
from gateway.model.plan import Retries
from gateway.model.request import OnConflict, TriggerRequest
from gateway.web import SERVICE
from gateway.web.server.access import CALLER
from runners.outcome import StepError
from tests.support.jobs import planned, planned_job

SUBMIT = "/test/submit"


async def submit(request: web.Request) -> web.Response:
    """Submit a plan of `steps` ingester steps that holds `resources`; the job's pipeline is called `label`.

    wait: it is queued where others hold them. retry: seconds after which a step that failed is tried once more.
    """
    wanted = await request.json()
    settings, service = request.app[app.SETTINGS], request.app[SERVICE]
    plan = planned(*["ingester"] * wanted["steps"], resources=wanted["resources"])
    if "retry" in wanted:
        retries = Retries(2, wanted["retry"], (StepError.ANY,))
        plan = replace(plan, steps=tuple(replace(step, retries=retries) for step in plan.steps))
    on_conflict = OnConflict.QUEUE if wanted.get("wait", False) else OnConflict.REJECT
    trigger = TriggerRequest(wanted["label"], on_conflict=on_conflict, caller=request[CALLER])
    registry = request.app[app.REGISTRY]
    job = await service.accept(planned_job(registry, plan, trigger, settings.default_fabric, wanted["project"]))
    return web.json_response({"jobId": job.id, "state": job.state.kind}, status=202)


def main(_: Sequence[str] = ()) -> int:
    """Serve until SIGTERM; the exit code."""
    build = app.build_app

    def build_with_route(*args: Any, **kwargs: Any) -> web.Application:
        built = build(*args, **kwargs)
        built.add_routes([web.post(SUBMIT, submit)])
        return built

    with mock.patch.object(app, "build_app", build_with_route):
        return cli.main(["serve"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
