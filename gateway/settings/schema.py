"""The JSON Schema of gateway.yaml, by which editors complete and check the file."""

from __future__ import annotations

import json
from typing import Any

from gateway.settings.settings import Settings

# Where `pipeline-gateway init` puts it, beside the gateway.yaml whose first line names it.
SCHEMA_FILE = ".gateway.schema.json"


def json_schema() -> dict[str, Any]:
    """The schema, of draft 2020-12. Keys and values are those of the file, as a user writes them."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:pipeline-gateway:gateway.yaml",
        **Settings.model_json_schema(),
        "title": "gateway.yaml of Pipeline Gateway",
    }


def text() -> str:
    """The schema as the text of a file."""
    return f"{json.dumps(json_schema(), indent=2)}\n"
