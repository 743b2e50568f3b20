"""`pipeline-gateway init`: the files of the demo, to be changed into a project of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Copy the demo's files into a new or empty folder."
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from gateway.demo import starter

    starter.copy(options.folder)
    print(f"{options.folder} is ready. Next: cd {options.folder}; pipeline-gateway check; pipeline-gateway serve")
    return 0
