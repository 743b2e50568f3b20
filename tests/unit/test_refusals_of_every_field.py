"""Every field of a body or a query, found in the models, refuses wrong values with its name and a right line."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway import web
from gateway.errors import BadRequestError
from gateway.web import body
from gateway.web.records import Answer
from tests.support.pydantic_words import STOCK_PHRASES, WRONG_VALUES

ROOMS = [importlib.import_module(room.name) for room in pkgutil.walk_packages(web.__path__, "gateway.web.")]
FIELDS = {
    f"{room.__name__}.{model.__name__}.{field}": (model, field)
    for room in ROOMS
    for model in vars(room).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and not issubclass(model, Answer)
    if model.__module__ == room.__name__
    for field in model.model_fields
}


def is_taken(model: type[BaseModel], field: str, value: Any) -> bool:
    try:
        model.model_validate({field: value})
    except ValidationError as error:
        return all(problem["loc"][0] != field for problem in error.errors())
    return True


def is_query(model: type[BaseModel]) -> bool:
    """Whether all values are texts."""
    return model.__name__.endswith("Query")


def refusal(model: type[BaseModel], field: str, content: dict[str, Any]) -> str:
    """What is said where all other fields are right."""
    others = {name: right_value(model, name) for name, info in model.model_fields.items() if info.is_required()}
    others.pop(field, None)
    with pytest.raises(BadRequestError) as refused:
        body.validate(model, {**others, **content}, "query parameter" if is_query(model) else "field")
    return str(refused.value)


def right_value(model: type[BaseModel], field: str) -> Any:
    return next(value for value in ("full", "1", True) if is_taken(model, field, value))


def shows_a_right_line(said: str, model: type[BaseModel], field: str) -> None:
    assert not STOCK_PHRASES.search(said)
    shown = re.search(r", such as (?:(\".+)|\?(.+)=(.+))\.$", said)
    assert shown is not None, said
    right = json.loads(f"{{{shown[1]}}}") if shown[1] else {shown[2]: shown[3]}
    assert [*right] == [field]
    assert is_taken(model, field, right[field]), said


def test_the_bodies_and_queries_of_all_routes_are_known() -> None:
    assert {name.rpartition(".")[0].removeprefix("gateway.web.") for name in FIELDS} == {
        "data_analytics.TriggerBody",
        "data_analytics.JobQuery",
        "trigger_pipeline.TriggerBody",
        "jobs_api.jobs.TriggerBody",
        "jobs_api.jobs.ListQuery",
        "jobs_api.jobs.WaitQuery",
        "jobs_api.log.LogQuery",
        "jobs_api.events.EventsQuery",
        "jobs_api.pipelines.PausedBody",
    }


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_a_wrong_value_with_a_right_line(name: str) -> None:
    model, field = FIELDS[name]
    values = [value for value in WRONG_VALUES if isinstance(value, str) or not is_query(model)]
    wrong = [value for value in values if not is_taken(model, field, value)]
    assert wrong
    for value in wrong:
        said = refusal(model, field, {field: value})
        assert field in said
        assert any(json.dumps(shown) in said for shown in (value, str(value))), said
        shows_a_right_line(said, model, field)


@pytest.mark.parametrize(
    "name", [name for name, (model, field) in FIELDS.items() if model.model_fields[field].is_required()]
)
def test_a_missing_field_is_named_with_a_right_line(name: str) -> None:
    model, field = FIELDS[name]
    said = refusal(model, field, {})
    assert f"'{field}' is missing: " in said
    shows_a_right_line(said, model, field)
