"""`pipeline-gateway status`, `list`, `wait`, `cancel` and `open`: what is known of jobs, and their end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.client import following, screen
from gateway.cli.client.connection import client
from gateway.client import ENDED, Client

_AGO = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_PAGE = 200  # the most that the API gives at once


def _time(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A time with its date, in this host's zone unless it names one, or how long ago; as the API takes it."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise click.BadParameter(f"expected a time such as 12h, 7d or 2026-11-30T02:00, found {text!r}") from None


@click.command("status")
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@client
async def status(gateway: Client, *, job: str | None, as_json: bool) -> None:
    """Show a job: its outcome and why, its steps. Without JOB the newest one."""
    record = await gateway.job(job or await newest(gateway))
    if as_json:
        screen.print_json(record)
    else:
        screen.print_record(record)


@click.command("list")
@click.option(
    "--status",
    metavar="WORDS",
    help="queued, running, completed, failed; several by comma. Or refused: triggers that made no job.",
)
@click.option("--outcome", metavar="WORDS", help="succeeded, warnings, errors, failed, cancelled; several by comma.")
@click.option("--pipeline", metavar="NAMES", help="Of these pipelines.")
@click.option("--project", metavar="IDS", help="Of these projects.")
@click.option("--fabric", metavar="IDS", help="On these fabrics.")
@click.option(
    "--since",
    callback=_time,
    metavar="TIME",
    help="Triggered at this time or later: 12h, 7d or 2026-11-30T02:00 (this host's time).",
)
@click.option("--until", callback=_time, metavar="TIME", help="Triggered before this time.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Show so many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client
async def list_jobs(gateway: Client, *, limit: int, as_json: bool, **filters: str | None) -> None:
    """List jobs, newest first.

    What failed last night: pipeline-gateway list --outcome errors,failed --since 24h
    """
    found: list[dict[str, Any]] = []
    query = {name: value for name, value in filters.items() if value is not None}
    while True:
        page = await gateway.jobs({**query, "limit": str(min(_PAGE, limit - len(found)))})
        found += page["jobs"]
        if page["next"] is None or len(found) >= limit:
            break
        query["cursor"] = page["next"]
    if page["next"] is not None:
        screen.errors.print(f"There are more than {limit}: see --limit, --since and the filters.", style="dim")
    if as_json:
        screen.print_json({"jobs": found})
        return
    if filters["status"] == "refused":
        refusals = [[screen.local_time(one["createdAt"]), one["pipeline"], one["code"], one["error"]] for one in found]
        screen.print_table(["CREATED", "PIPELINE", "CODE", "WHY"], refusals)
        return
    rows = [
        [
            record["jobId"],
            screen.word(screen.outcome(record)),
            screen.local_time(record["createdAt"]),
            screen.seconds(record.get("durationSeconds")),
            screen.why(record),
        ]
        for record in found
    ]
    screen.print_table(["JOB", "OUTCOME", "CREATED", "TOOK", "WHY"], rows)


@click.command("wait")
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the record at the end as JSON.")
@client
async def wait(gateway: Client, *, job: str | None, as_json: bool) -> int:
    """Wait until a job ends.

    Exits with the exit code of the job, or 125 where it failed or was cancelled. Without JOB the newest one.
    """
    return await following.to_the_end(gateway, job or await newest(gateway), output=False, as_json=as_json)


@click.command("cancel")
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@client
async def cancel(gateway: Client, *, job: str, as_json: bool) -> None:
    """Stop a job and all its processes.

    Returns at once; the job has ended when `wait JOB` returns.
    """
    await gateway.cancel(job)
    record = await gateway.job(job)
    if as_json:
        screen.print_json(record)
    elif record["status"] in ENDED:
        screen.console.print(f"{job} has ended: {screen.outcome(record)}")
    else:
        screen.console.print(f"{job} is being cancelled.")


@click.command("open")
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the URL as JSON.")
@client
async def open_page(gateway: Client, *, job: str | None, as_json: bool) -> None:
    """Print the URL of a job on the gateway's page, or without JOB that of the page.

    It asks the gateway nothing. In a terminal: xdg-open "$(pipeline-gateway open JOB)"
    """
    url = f"{gateway.base}/" if job is None else f"{gateway.base}/#/jobs/{quote(job)}"
    if as_json:
        screen.print_json({"url": url})
    else:
        screen.console.print(url)


async def newest(gateway: Client) -> str:
    """The id of the newest job."""
    found = (await gateway.jobs({"limit": "1"}))["jobs"]
    if not found:
        raise click.UsageError("There is no job yet; start one, such as `pipeline-gateway trigger full`.")
    return str(found[0]["jobId"])
