"""`pipeline-gateway demo`: a real pipeline from end to end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("lakehouse"))
@click.option("--port", type=int, help="Default: PORT, else 3000, or a free one where that is taken.")
@click.option("--serve", is_flag=True, help="Keep serving afterwards, and say what to try.")
def demo(folder: Path, port: int | None, serve: bool) -> int:
    """Run a real pipeline from end to end.

    Makes a lakehouse in FOLDER (./lakehouse), serves it on loopback, triggers `full` over HTTP, shows the outcome.
    """
    from gateway import log
    from gateway.demo import run

    log.set_up(quiet=True)
    return asyncio.run(run.run(folder.absolute(), os.environ, port, serve=serve, out=sys.stdout))
