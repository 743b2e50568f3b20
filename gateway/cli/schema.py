"""`pipeline-gateway schema`: the JSON Schema of gateway.yaml."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Print the JSON Schema of gateway.yaml, by which editors complete and check the file."
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    from gateway.settings import schema

    print(schema.text(), end="")
    return 0
