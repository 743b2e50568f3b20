"""Tokens for tests: one of each scope in a file beside a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.settings import tokens
from gateway.settings.tokens import Scope
from tests.support import projects

SETTINGS = {"tokens_file": "tokens"}
EXPIRED = "expired"


@dataclass(frozen=True)
class Guarded:
    """A project with a tokens file, and the texts of its tokens by name: read, run, admin, expired."""

    folder: Path
    tokens: Mapping[str, str]


def project(folder: Path, settings: Mapping[str, Any] | None = None) -> Guarded:
    """A small project that is guarded by tokens; its dbt is missing, so that what is accepted ends at once."""
    no_dbt = {"local": {"dbt": {"executable": "/no/dbt"}}}
    made = projects.make(folder, settings={"fabrics": no_dbt, **SETTINGS, **(settings or {})})
    now = datetime.now(UTC)
    file = made / "tokens"
    texts = {str(scope): tokens.create(file, str(scope), scope, now, None) for scope in Scope}
    texts[EXPIRED] = tokens.create(file, EXPIRED, Scope.ADMIN, now - timedelta(days=2), now - timedelta(days=1))
    return Guarded(made, texts)
