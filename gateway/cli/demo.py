"""`pipeline-gateway demo`: a real pipeline from end to end."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Make a lakehouse in a folder, serve it on loopback, trigger `full` over HTTP, show the outcome."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("lakehouse"), help="default: ./lakehouse")
    parser.add_argument("--port", type=int, help="default: PORT, else 3000, or a free one where that is taken")
    parser.add_argument("--serve", action="store_true", help="keep serving afterwards, and say what to try")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from gateway import log
    from gateway.demo import run as demo

    log.set_up(quiet=True)
    return asyncio.run(
        demo.run(options.folder.absolute(), os.environ, options.port, serve=options.serve, out=sys.stdout)
    )
