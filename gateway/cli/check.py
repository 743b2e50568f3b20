"""`pipeline-gateway check`: the findings, a line each."""

from __future__ import annotations

import argparse
import asyncio

from gateway.cli import options as shared
from gateway.settings import settings as config


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check configuration, programs and their versions, dbt project and profile, state directory, disk."
    )
    shared.add_configuration(parser)
    parser.add_argument("--user", metavar="NAME", help="also say what this user could not read or write (needs root)")
    parser.add_argument(
        "--dbt", action="store_true", help="also have dbt parse the projects and connect to their databases"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from gateway.cli import findings

    settings, environment = shared.load(options)
    files = [options.config or config.DEFAULT_FILE, options.env_file]
    sources = [file.absolute() for file in files if file is not None and file.exists()]
    found = asyncio.run(findings.find(settings, environment, options.user, sources, run_dbt=options.dbt))
    for finding in found:
        print(f"{'WRONG' if not finding.good else 'warn ' if finding.warns else 'ok   '}  {finding.text}")
    return 0 if all(finding.good for finding in found) else 1
