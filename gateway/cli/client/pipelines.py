"""`pipeline-gateway pipelines`: what can be triggered."""

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
        ]
        for pipeline in found
    ]
    screen.print_table(["PIPELINE", "STEPS", "LAST RUN", "USUALLY", "PARAMETERS"], rows)


def _last(pipeline: Mapping[str, Any]) -> str:
    last = pipeline.get("lastRun")
    return f"{screen.outcome(last)}, {screen.local_time(last['createdAt'])}" if last else ""


def _parameter(parameter: Mapping[str, Any]) -> str:
    if parameter["required"]:
        return f"{parameter['name']}={parameter['type']} (required)"
    return f"{parameter['name']}={parameter['type'] if parameter['default'] is None else parameter['default']}"
