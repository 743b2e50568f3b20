"""`pipeline-gateway schema`: the JSON Schema of gateway.yaml."""

from __future__ import annotations

from gateway.settings import schema


def show() -> int:
    """Print the schema; the exit code."""
    print(schema.text(), end="")
    return 0
