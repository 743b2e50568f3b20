"""What a place in a model takes, in words and as an example, by the model's JSON Schema, which editors show as well."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ByteSize, ValidationError

_SAID = "patternErrorMessage"  # a keyword that editors know: what they say of a text that does not have the pattern
_EXPECTED = "expected "
KEY = "[key]"  # how pydantic ends the location of a refused key

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "object": "keys with values under it",
}

Schema = Mapping[str, Any]
Location = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a place takes. words: such as `a whole number from 0 to 65535`. example: a value that would be right.

    schema: the place's own, without references.
    """

    words: str
    example: Any
    schema: Schema


def in_words(words: str, example: str) -> dict[str, Any]:
    """What a Field with a pattern needs, so that editors and refusals can say what its texts are."""
    return {"examples": [example], "json_schema_extra": {_SAID: f"{_EXPECTED}{words}"}}


def at(model: type[BaseModel], location: Location) -> Expected:
    """What the place of a model takes that pydantic names so."""
    root = _schema(model)
    schema = _resolved(root, root)
    for part in (*location[:-2], KEY) if location[-1:] == (KEY,) else location:
        schema = _resolved(root, _inside(schema, part))
    return Expected(_words(schema), _example(root, schema), schema)


def is_taken(model: type[BaseModel], location: Location, value: Any) -> bool:
    """Whether the place takes this value."""
    content = value
    for part in reversed(location):
        content = [content] if isinstance(part, int) else {part: content}
    try:
        model.model_validate(content)
    except ValidationError as error:
        return all(problem["loc"][: len(location)] != location for problem in error.errors())
    return True


def size_text(size: float) -> str:
    """A number of bytes as people write it."""
    return ByteSize(size).human_readable().replace(".0", "")


@functools.cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _inside(schema: Schema, part: int | str) -> Schema:
    """The schema of an item, a key or a value, with its part of the example around it."""
    around = next(iter(schema.get("examples", ())), None)
    if isinstance(part, int):
        found, examples = schema.get("items"), around if isinstance(around, list) else None
    elif part in schema.get("properties", {}):
        found, examples = schema["properties"][part], None
    elif part == KEY:
        found, examples = schema.get("propertyNames"), [*around] if isinstance(around, dict) else None
    else:
        found = next(iter(schema.get("patternProperties", {}).values()), None)
        examples = [*around.values()] if isinstance(around, dict) else None
    inherited = {"examples": examples} if examples else {}
    return {**found, **inherited} if isinstance(found, dict) else inherited


def _resolved(root: Schema, schema: Schema) -> Schema:
    """With what it refers to; of several kinds, the first: the others are null, or other spellings."""
    if "$ref" in schema:
        return {**root["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    if "anyOf" in schema:
        return {**_resolved(root, schema["anyOf"][0]), **schema}
    return schema


def _words(schema: Schema) -> str:
    """What a place takes, as the object of a sentence."""
    match schema:
        case {"patternErrorMessage": str(said)}:
            return said.removeprefix(_EXPECTED)
        case {"enum": [*values]}:
            return " or ".join(filter(None, [", ".join(map(repr, values[:-1])), repr(values[-1])]))
        case {"const": value}:
            return repr(value)
        case {"pattern": ByteSize.byte_string_pattern}:
            return f"a size of at least {size_text(schema['ge'])}" if "ge" in schema else "a size"
        case {"properties": known}:
            return f"some of these keys under it: {', '.join(known)}"
        case {"format": "path"}:
            return "a path"
        case {"format": "date-time"}:
            return "a date and a time with its zone"
        case _:
            return f"{_KINDS[schema['type']]}{_limits(schema)}"


def _limits(schema: Schema) -> str:
    match schema:
        case {"minimum": least, "maximum": most}:
            return f" from {_number(least)} to {_number(most)}"
        case {"exclusiveMinimum": bound, "maximum": most}:
            return f" above {_number(bound)}, at most {_number(most)}"
        case {"minItems": _} | {"minProperties": _}:
            return ", at least one"
        case {"minLength": _}:
            return " that is not empty"
        case _:
            return ""


def _number(value: float) -> str:
    return str(int(value) if value == int(value) else value)


def _example(root: Schema, schema: Schema) -> Any:
    match schema:
        case {"pattern": ByteSize.byte_string_pattern, "default": size}:
            return size_text(size)
        case {"default": str() | int() | float() as default} if default:
            return default
        case {"examples": [example, *_]} | {"enum": [example, *_]} | {"const": example}:
            return example
        case {"type": "boolean"}:
            return True
        case {"type": "array", "items": items}:
            return [_example(root, _resolved(root, items))]
        case {"type": "object", "properties": known}:
            name, first = next(iter(known.items()))
            return {name: _example(root, _resolved(root, first))}
        case _:
            return None
