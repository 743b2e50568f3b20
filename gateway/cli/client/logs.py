"""`pipeline-gateway logs`: what a job prints, and has printed."""

from __future__ import annotations

import sys

import click

from gateway.cli.client import screen
from gateway.cli.client.connection import client
from gateway.cli.client.following import show_events
from gateway.cli.client.jobs import newest
from gateway.client import Client


@click.command("logs")
@click.argument("job", required=False)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on until the job ends, also while the gateway restarts.",
)
@click.option("--tail", type=click.IntRange(min=0), metavar="BYTES", help="Only the last BYTES, from a whole line on.")
@click.option("--step", metavar="NAME", help="Only the output of this step, such as build.")
@click.option("--json", "as_json", is_flag=True, help="Only with --follow: print each event as a line of JSON.")
@client
async def logs(
    gateway: Client, *, job: str | None, follow: bool, tail: int | None, step: str | None, as_json: bool
) -> None:
    """Print the whole output of a job, as far as it is kept. Without JOB that of the newest one."""
    if follow and (tail is not None or step is not None):
        raise click.UsageError("--follow shows the whole output; leave --tail and --step out.")
    if as_json and not follow:
        raise click.UsageError("--json goes with --follow; the output itself is text.")
    job_id = job or await newest(gateway)
    if follow:
        await show_events(gateway, job_id, {}, screen.print_json if as_json else None)
        return
    parameters = {} if tail is None else {"tail": str(tail)}
    sys.stdout.write(await gateway.log(job_id, parameters if step is None else {**parameters, "step": step}))
