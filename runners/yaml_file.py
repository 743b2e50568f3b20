"""YAML files that people write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml


def read_mapping(file: Path) -> Mapping[str, object] | str:
    """The mapping in a YAML file, empty for an empty file; or a sentence about what is wrong with the file."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        return f"{file}: can't be read: {error.strerror}"
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, a path with a NUL, an impossible date
        return f"{file}: is not YAML: {describe_error(error)}"
    if content is None:
        return {}
    if not isinstance(content, dict):
        return f"{file}: expected a YAML mapping, found {type(content).__name__}"
    return {str(key): value for key, value in content.items()}


def describe_error(error: Exception) -> str:
    """Why a text is not YAML, and in which line, without the text itself: it may contain a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())
