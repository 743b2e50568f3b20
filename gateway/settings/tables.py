"""Writes the tables of all settings into the manual: `python -m gateway.settings.tables`, in a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from gateway.settings.expected import size_text
from gateway.settings.fabric import Section
from gateway.settings.settings import VARIABLES, Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_HEADING = "\n## All settings\n"
_LONGEST_CELL = 60  # characters of a default


def with_tables(page: str) -> str:
    """The page with its own text, and under the last heading the tables as the models have them now."""
    return page.partition(_HEADING)[0] + _HEADING + "".join(_tables(Settings, ""))


def _tables(model: type[Section], path: str) -> Iterator[str]:
    """The table of a section, then those of the sections in it that have a table of their own."""
    title = f"\n### `{path}`\n" if path else ""
    yield f"{title}\n{model.__doc__}\n\n| setting | default | meaning |\n|---|---|---|\n{''.join(_rows(model, ''))}"
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is not None and _has_table(field, section):
            key = "" if get_origin(field.annotation) is not dict else f".<{'name' if path else 'id'}>"
            yield from _tables(section, f"{path}.{name}{key}".removeprefix("."))


def _rows(model: type[Section], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is not None and not _has_table(field, section):
            yield from _rows(section, f"{prefix}{name}.")
        else:
            meaning = f"{field.description}{_variable(name) if model is Settings else ''}"
            default = _default(field)
            if len(default) > _LONGEST_CELL:
                meaning, default = f"{meaning} Default: {default}.", "a list"
            yield f"| `{prefix}{name}` | {default} | {meaning} |\n"


def _section(field: FieldInfo) -> type[Section] | None:
    """The section that a field is, or has for each of its keys."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _has_table(field: FieldInfo, section: type[Section]) -> bool:
    """A section is a few rows of the table around it, unless it has keys of the user's or sections of its own."""
    return get_origin(field.annotation) is dict or any(map(_section, section.model_fields.values()))


def _variable(setting: str) -> str:
    return "".join(f" Variable: `{variable}`." for variable, key in VARIABLES.items() if key == setting)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    match value:
        case Section():
            return "see below"
        case None | "":
            return "none"
        case tuple() | dict():
            return ", ".join(f"`{one}`" for one in value) or "none"
        case _:
            return f"`{_text(value)}`"


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case ByteSize():
            return size_text(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
