"""dbt's own environment variables: what they choose, as dbt reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Variables that make dbt run less than what the arguments select.
_SELECTION = ("RESOURCE_TYPES", "EXCLUDE_RESOURCE_TYPES", "EMPTY", "SAMPLE")
_PREFIXES = ("DBT_ENGINE_", "DBT_")  # since dbt 1.11 the first one wins
SELECTION_VARIABLES = frozenset(f"{prefix}{name}" for prefix in _PREFIXES for name in _SELECTION)


def value(environment: Mapping[str, str], name: str) -> str | None:
    """The value of dbt's variable DBT_ENGINE_<name> or DBT_<name>; dbt takes an empty one for none."""
    return next((found for prefix in _PREFIXES if (found := environment.get(f"{prefix}{name}"))), None)


def profiles_folder(configured: Path | None, project: Path, environment: Mapping[str, str]) -> Path:
    """The folder of profiles.yml: configured, by dbt's variable, the project's if it has one, or that of the user.

    dbt must be called in the project's folder.
    """
    if configured is not None:
        return configured
    chosen = value(environment, "PROFILES_DIR")
    if chosen is not None:
        return project / chosen
    if (project / "profiles.yml").exists():
        return project
    return Path(environment.get("HOME") or Path.home()) / ".dbt"  # dbt uses HOME too
