"""`pipeline-gateway trigger` and `retry`: start a job, and follow it where that is asked for."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.client import following, pipelines, screen
from gateway.cli.client.connection import client
from gateway.client import Client

_TOGGLES = {"on": True, "off": False}


@click.command("trigger")
@click.argument("pipeline", required=False, metavar="[PROJECT:]PIPELINE")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--command", metavar="COMMAND", help="Of `dbt` and `full`: daily, run, build, test, deps or elementary.")
@click.option("--fabric", metavar="ID", help="Where it runs; default: the default fabric.")
@click.option("--branch", metavar="NAME", help="Run the head of this branch.")
@click.option("--version", "tag", metavar="TAG", help="Run this tag.")
@click.option("--process", metavar="MODEL", help="Run only this model and the models it depends on.")
@click.option("--openlineage", type=click.Choice(list(_TOGGLES)), help="Run dbt through dbt-ol, or not.")
@click.option("--elementary", type=click.Choice(list(_TOGGLES)), help="End `daily` with Elementary, or not.")
@click.option(
    "--on-conflict",
    type=click.Choice(["reject", "attach", "queue"]),
    help="Where another job holds what this one needs: refuse it (the default), attach to that job if it does the same "
    "on the same commit, or queue it.",
)
@click.option(
    "--timeout",
    "limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop the job where it takes longer, from the begin of its first step.",
)
@click.option("-f", "--follow", is_flag=True, help="Show the output until the job ends; exit with its exit code.")
@click.option("-w", "--wait", is_flag=True, help="Show the steps until the job ends; exit with its exit code.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as a line of JSON; with --follow, each event.")
@client
async def trigger(
    gateway: Client,
    *,
    pipeline: str | None,
    parameters: tuple[str, ...],
    follow: bool,
    wait: bool,
    as_json: bool,
    limit: float | None,
    **given: str | None,
) -> int:
    """Start a pipeline, and follow it if you like.

    \b
    pipeline-gateway trigger full --follow
    pipeline-gateway trigger dbt --command build --wait
    pipeline-gateway trigger shop:report carrier=B6 month=3

    PROJECT is the id of a project; without it, the default project. Without PIPELINE, a terminal shows what can be
    triggered. Exit codes: 0 accepted, 75 refused, 69 no gateway answers; with --follow or --wait the job's own, 125
    where the job failed or was cancelled, 130 where you interrupt it.
    """
    if pipeline is None:
        if not screen.console.is_terminal:
            raise click.UsageError("Missing argument PIPELINE, such as `pipeline-gateway trigger full`.")
        await pipelines.show(gateway, as_json=as_json)
        return 2
    most = {} if limit is None else {"timeoutSeconds": limit}
    record = await gateway.trigger({**_body(pipeline, parameters, given), **most})
    return await _accepted(gateway, record, follow=follow, wait=wait, as_json=as_json)


@click.command("retry")
@click.argument("job")
@click.option(
    "--from",
    "start",
    type=click.Choice(["failed", "start"]),
    default="failed",
    show_default=True,
    help="Begin with the step that failed, on the same commit; or run all of it, the branch resolved anew.",
)
@click.option("-f", "--follow", is_flag=True, help="Show the output until the job ends; exit with its exit code.")
@click.option("-w", "--wait", is_flag=True, help="Show the steps until the job ends; exit with its exit code.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as a line of JSON; with --follow, each event.")
@client
async def retry(gateway: Client, *, job: str, start: str, follow: bool, wait: bool, as_json: bool) -> int:
    """Do the work of a job that has ended again, as a new job.

    Prints the id of the new job. Exit codes are those of `trigger`.
    """
    return await _accepted(gateway, await gateway.retry(job, start), follow=follow, wait=wait, as_json=as_json)


async def _accepted(gateway: Client, record: dict[str, Any], *, follow: bool, wait: bool, as_json: bool) -> int:
    """Print the job that was accepted, or follow it to its end; the exit code."""
    if not (follow or wait):
        _print_accepted(record, as_json=as_json)
        return 0
    screen.errors.print(f"{record['jobId']}: {record['status']}")
    return await following.to_the_end(gateway, record["jobId"], output=follow, as_json=as_json)


def _body(pipeline: str, parameters: tuple[str, ...], given: dict[str, str | None]) -> dict[str, Any]:
    """The request: only what was given, so that the service chooses the rest."""
    project, _, name = pipeline.rpartition(":")
    values = dict(_parameter(one) for one in parameters)
    toggles = {
        "enableOpenlineage": _TOGGLES.get(given["openlineage"] or ""),
        "enableElementary": _TOGGLES.get(given["elementary"] or ""),
    }
    words = {
        "pipeline": name,
        "projectId": project or None,
        "parameters": values or None,
        "command": given["command"],
        "fabricId": given["fabric"],
        "branch": given["branch"],
        "version": given["tag"],
        "processName": given["process"],
        "onConflict": given["on_conflict"],
    }
    return {key: value for key, value in {**words, **toggles}.items() if value is not None}


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"The parameter {text!r} has no value; write NAME=VALUE, such as month=3.")
    return name, value


def _print_accepted(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        screen.print_json(record)
        return
    screen.console.print(record["jobId"])
    screen.errors.print(f"{record['status']}. Follow it: pipeline-gateway logs -f {record['jobId']}", style="dim")
