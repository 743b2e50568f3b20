"""`pipeline-gateway pipelines`, `pause` and `unpause`: what can be triggered, and what may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from gateway.cli.client import screen
from gateway.cli.client.connection import client
from gateway.client import Client


@click.command("pipelines")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client
async def pipelines(gateway: Client, *, as_json: bool) -> None:
    """Show what can be triggered, with its parameters and its last run."""
    await show(gateway, as_json=as_json)


@click.command("pause")
@click.argument("pipeline", metavar="[PROJECT:]PIPELINE")
@click.option("--json", "as_json", is_flag=True, help="Print the pipeline as JSON.")
@client
async def pause(gateway: Client, *, pipeline: str, as_json: bool) -> None:
    """Refuse the triggers of a pipeline until `unpause`.

    Its jobs that run or wait in the queue go on. Needs a token with the scope admin, where the gateway has tokens.
    """
    await _set_paused(gateway, pipeline, paused=True, as_json=as_json)


@click.command("unpause")
@click.argument("pipeline", metavar="[PROJECT:]PIPELINE")
@click.option("--json", "as_json", is_flag=True, help="Print the pipeline as JSON.")
@client
async def unpause(gateway: Client, *, pipeline: str, as_json: bool) -> None:
    """Take the triggers of a paused pipeline again. Needs a token with the scope admin, as `pause` does."""
    await _set_paused(gateway, pipeline, paused=False, as_json=as_json)


async def _set_paused(gateway: Client, pipeline: str, *, paused: bool, as_json: bool) -> None:
    project, name = await _named(gateway, pipeline)
    changed = await gateway.set_paused(project, name, paused=paused)
    if as_json:
        screen.print_json(changed)
    elif paused:
        screen.console.print(f"{project}:{name} is paused {_pause(changed)}")
    else:
        screen.console.print(f"{project}:{name} is not paused.")


async def _named(gateway: Client, pipeline: str) -> tuple[str, str]:
    """The project and the name of a pipeline. Without its project, the only pipeline of this name."""
    project, _, name = pipeline.rpartition(":")
    found = [
        one["projectId"]
        for one in await gateway.pipelines()
        if one["name"] == name and project in ("", one["projectId"])
    ]
    if len(found) > 1:
        raise click.UsageError(f"{len(found)} projects have a pipeline {name}: name one, such as {found[0]}:{name}.")
    if not found:
        raise click.UsageError(f"There is no pipeline {pipeline}; `pipeline-gateway pipelines` lists them.")
    return str(found[0]), name


async def show(gateway: Client, *, as_json: bool) -> None:
    """Print the pipelines of a gateway."""
    found = await gateway.pipelines()
    if as_json:
        screen.print_json({"pipelines": found})
        return
    rows = [
        [
            f"{pipeline['projectId']}:{pipeline['name']}",
            " ".join(pipeline["steps"]),
            _last(pipeline),
            screen.seconds(pipeline.get("usualSeconds")),
            " ".join(_parameter(parameter) for parameter in pipeline["parameters"]),
            _pause(pipeline),
        ]
        for pipeline in found
    ]
    screen.print_table(["PIPELINE", "STEPS", "LAST RUN", "USUALLY", "PARAMETERS", "PAUSED"], rows)


def _last(pipeline: Mapping[str, Any]) -> str:
    last = pipeline.get("lastRun")
    return f"{screen.outcome(last)}, {screen.local_time(last['createdAt'])}" if last else ""


def _pause(pipeline: Mapping[str, Any]) -> str:
    """Since when a pipeline is paused, and by whom."""
    if not pipeline["paused"]:
        return ""
    by = f" by {pipeline['pausedBy']}" if pipeline["pausedBy"] else ""
    return f"since {screen.local_time(pipeline['pausedSince'])}{by}"


def _parameter(parameter: Mapping[str, Any]) -> str:
    if parameter["required"]:
        return f"{parameter['name']}={parameter['type']} (required)"
    return f"{parameter['name']}={parameter['type'] if parameter['default'] is None else parameter['default']}"
