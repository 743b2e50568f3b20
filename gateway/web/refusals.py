"""What a refused request is answered: each API has its shape, also for paths of it that don't exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRIGGER_PIPELINE = "/api/trigger"


def content(path: str, code: str, text: str, details: Mapping[str, object]) -> dict[str, Any]:
    """The body of a refusal. details: what else the data-analytics and the jobs API tell."""
    if path == TRIGGER_PIPELINE or path.startswith(f"{TRIGGER_PIPELINE}/"):
        return {"success": False, "msg": text}
    return {"success": False, "code": code, "error": text, "output": text, **details}
