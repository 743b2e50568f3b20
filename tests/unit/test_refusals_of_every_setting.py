"""Every setting, found in the models, refuses each kind of wrong value with its key, the value and a right line."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.settings import settings as config
from gateway.settings.settings import Settings
from tests.support.pydantic_words import STOCK_PHRASES, WRONG_VALUES

Place = tuple[str | int, ...]

# What makes room for each setting. A key that the user names is `a` here.
AROUND: dict[str, Any] = {"projects": {"a": {"ingester": {"command": ["a"]}, "pipelines": {"a": {"ingester": True}}}}}


def places(schema: dict[str, Any], root: dict[str, Any], at: Place = ()) -> Iterator[Place]:
    """Each setting, each entry of a list, and each value under a key of the user's, by the models."""
    schema = next(iter(schema.get("anyOf", [schema])))
    schema = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for name, inside in schema.get("properties", {}).items():
        yield (*at, name)
        yield from places(inside, root, (*at, name))
    for inside in schema.get("patternProperties", {}).values():
        yield (*at, "a")
        yield from places(inside, root, (*at, "a"))
    if isinstance(schema.get("items"), dict):
        yield (*at, 0)
        yield from places(schema["items"], root, (*at, 0))


def with_value(content: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A configuration in which this value is in this place."""
    whole: dict[str, Any] = copy.deepcopy(content)
    inside: Any = whole
    for part, following in itertools.pairwise(place):
        if isinstance(following, int):
            inside[part] = [None]
        elif isinstance(inside, dict):
            inside.setdefault(part, {})
        else:  # an entry of a list, which is a section
            inside[int(part)] = {}
        inside = inside[part]
    inside[place[-1]] = value
    return whole


def problems(content: dict[str, Any]) -> list[Place]:
    try:
        Settings.model_validate(content)
    except ValidationError as error:
        return [problem["loc"] for problem in error.errors()]
    return []


def is_taken(place: Place, value: Any) -> bool:
    return all(found[: len(place)] != place for found in problems(with_value(AROUND, place, value)))


def said_of(content: dict[str, Any], file: Path) -> list[str]:
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        config.load(file, {})
    return str(refused.value).splitlines()


ROOT = Settings.model_json_schema()
PLACES = {".".join(map(str, place)): place for place in places(ROOT, ROOT)}


@pytest.mark.parametrize("name", PLACES)
def test_every_setting_refuses_a_wrong_value_with_a_right_line(tmp_path: Path, name: str) -> None:
    place = PLACES[name]
    wrong = [value for value in WRONG_VALUES if place in problems(with_value(AROUND, place, value))]
    assert wrong
    for value in wrong:
        said = said_of(with_value(AROUND, place, value), tmp_path / "gateway.yaml")
        line = next(line for line in said if f": {name}: " in line)
        assert not STOCK_PHRASES.search(line)
        found = re.sub("password", "***", line.partition("; found ")[2])
        assert found in ("***", *(repr(shown).replace("password", "***") for shown in (value, str(value)))), line
        if "it would do nothing: give `ingester: true`" not in line:  # two settings together
            right = right_line(line)
            assert is_taken(place, right[0] if isinstance(place[-1], int) else right[place[-1]]), line


def right_line(said: str) -> Any:
    shown = re.search(r"`([^`]+)`; found ", said)
    assert shown is not None, said
    return yaml.safe_load(shown[1])


@pytest.mark.parametrize("name", ["fabrics", "projects", "fabrics.a.environment", "projects.a.pipelines"])
@pytest.mark.parametrize("key", ["", "a b", "ä", "-x"])
def test_a_key_of_the_users_is_refused_with_a_right_line(tmp_path: Path, name: str, key: str) -> None:
    said = said_of(with_value(AROUND, PLACES[name], {key: {}}), tmp_path / "gateway.yaml")
    line = next(line for line in said if f": {name}.{key}: " in line and line.endswith(f"; found {key!r}"))
    assert not STOCK_PHRASES.search(line)
    assert is_taken(PLACES[name], right_line(line)), line
