"""`pipeline-gateway init` and `schema`: the files of a project of one's own, and what gateway.yaml may have."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def init(folder: Path) -> None:
    """Begin a lakehouse of your own: copy the demo's files into a new or empty folder."""
    from gateway.demo import starter

    starter.copy(folder)
    print(f"{folder} is ready. Next: cd {folder}; pipeline-gateway check; pipeline-gateway serve")


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of gateway.yaml, by which editors complete and check the file."""
    from gateway.settings import schema as settings_schema

    print(settings_schema.text(), end="")
