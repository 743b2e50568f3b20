"""`pipeline-gateway schema`: the JSON Schema of gateway.yaml."""

from __future__ import annotations

import click


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of gateway.yaml, by which editors complete and check the file."""
    from gateway.settings import schema as settings_schema

    print(settings_schema.text(), end="")
