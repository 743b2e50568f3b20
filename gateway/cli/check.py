"""`pipeline-gateway check`: the findings, a line each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from gateway.cli import options
from gateway.settings import settings as settings_file


@click.command("check")
@options.configuration
@click.option("--user", metavar="NAME", help="Also say what this user could not read or write (needs root).")
@click.option("--dbt", is_flag=True, help="Also have dbt parse the projects and connect to their databases.")
def check(config: Path | None, env_file: Path | None, user: str | None, dbt: bool) -> int:
    """Say what is wrong, without serving.

    Looks at configuration, programs and their versions, dbt project and profile, state directory, disk.
    """
    from gateway.cli import findings

    settings, environment = options.load(config, env_file)
    files = [config or settings_file.DEFAULT_FILE, env_file]
    sources = [file.absolute() for file in files if file is not None and file.exists()]
    found = asyncio.run(findings.find(settings, environment, user, sources, run_dbt=dbt))
    for finding in found:
        print(f"{'WRONG' if not finding.good else 'warn ' if finding.warns else 'ok   '}  {finding.text}")
    return 0 if all(finding.good for finding in found) else 1
