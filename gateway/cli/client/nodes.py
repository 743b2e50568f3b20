"""`pipeline-gateway nodes`: what became of each model, test, seed and snapshot of a job."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from gateway.cli.client import screen
from gateway.cli.client.connection import client
from gateway.cli.client.jobs import newest
from gateway.client import Client


@click.command("nodes")
@click.argument("job", required=False)
@click.option("--status", metavar="WORDS", help="success, pass, warn, fail, error, skipped, …; several by comma.")
@click.option("--type", "kinds", metavar="WORDS", help="model, test, seed, snapshot, …; several by comma.")
@click.option("--step", metavar="NAME", help="Only the nodes of this step, such as build.")
@click.option("--slowest", is_flag=True, help="Those that took longest first.")
@click.option("--sql", "node", metavar="NODE", help="Print the SQL of this node, given by its name or id.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client
async def nodes(
    gateway: Client,
    *,
    job: str | None,
    status: str | None,
    kinds: str | None,
    step: str | None,
    slowest: bool,
    node: str | None,
    as_json: bool,
) -> None:
    """Show how each model, test, seed and snapshot ended. Without JOB those of the newest one.

    \b
    Which models were slow: pipeline-gateway nodes JOB --type model --slowest
    What failed, and why:   pipeline-gateway nodes JOB --status fail,error
    Rows that fail a test:  pipeline-gateway nodes JOB --sql TEST, and run what it prints in the database
    """
    filters = {"status": status, "resourceType": kinds, "step": step}
    given = {name: value for name, value in filters.items() if value is not None}
    job = job or await newest(gateway)
    found = await gateway.nodes(job, given)
    if node is not None:
        await _print_sql(gateway, job, node, found, as_json=as_json)
        return
    if slowest:
        found.sort(key=lambda node: node["durationSeconds"] or 0.0, reverse=True)
    if as_json:
        screen.print_json({"nodes": found})
        return
    rows: list[list[str | Text]] = [
        [
            screen.word(node["status"]),
            screen.seconds(node["durationSeconds"]),
            node["name"],
            node["step"],
            " ".join((node["message"] or "").split()),
        ]
        for node in found
    ]
    screen.print_table(["STATUS", "TOOK", "NODE", "STEP", "MESSAGE"], rows)


async def _print_sql(gateway: Client, job: str, node: str, found: list[dict[str, Any]], *, as_json: bool) -> None:
    """The statement that shows the failing rows of a test, else what dbt ran for the node."""
    chosen = [one for one in found if node in (one["name"], one["uniqueId"])]
    if not chosen:
        raise click.UsageError(f"There is no node {node!r} among these; `pipeline-gateway nodes {job}` lists them.")
    sql = await gateway.sql(job, chosen[-1]["uniqueId"], chosen[-1]["step"])
    if as_json:
        screen.print_json(sql)
        return
    statement = sql["failuresSql"] or sql["compiledSql"]
    if statement is None:
        raise click.ClickException(f"The SQL of {node} is not known: its step did not end, or dbt made none for it.")
    screen.console.print(statement.strip())
