"""`pipeline-gateway artifacts`: the files that the steps of a job have left."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway.cli.client import screen
from gateway.cli.client.connection import client
from gateway.client import Client


@click.command("artifacts")
@click.argument("job")
@click.argument("artifact", required=False, metavar="[STEP/NAME]")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Save the artifact to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@client
async def artifacts(gateway: Client, *, job: str, artifact: str | None, output: Path | None, as_json: bool) -> None:
    """List the files that the steps of a job have left, or print one of them.

    \b
    pipeline-gateway artifacts JOB
    pipeline-gateway artifacts JOB build/run_results.json
    pipeline-gateway artifacts JOB elementary/elementary_report.html -o report.html
    """
    if artifact is not None:
        if as_json:
            raise click.UsageError("--json is for the list; leave STEP/NAME out, or --json.")
        await _fetch(gateway, job, artifact, output)
        return
    if output is not None:
        raise click.UsageError("--output saves one artifact; name it, such as build/run_results.json.")
    found = await gateway.artifacts(job)
    if as_json:
        screen.print_json({"artifacts": found})
        return
    rows = [[f"{one['step']}/{one['name']}", str(one["bytes"]), one["contentType"]] for one in found]
    screen.print_table(["ARTIFACT", "BYTES", "TYPE"], rows)


async def _fetch(gateway: Client, job: str, artifact: str, output: Path | None) -> None:
    step, slash, name = artifact.partition("/")
    if not (step and slash and name):
        raise click.UsageError(f"{artifact!r} is no STEP/NAME, such as build/run_results.json.")
    pieces = gateway.artifact(job, step, name)
    if output is None:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    _save(output, b"".join([piece async for piece in pieces]))  # whole before the file is touched


def _save(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from None
