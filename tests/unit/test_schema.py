"""The JSON Schema of gateway.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.demo import starter
from gateway.settings import schema
from tests.support import manual

DEMO = starter.LAKEHOUSE / "gateway.yaml"


def problems(text: str) -> list[str]:
    """What an editor would mark in a gateway.yaml; its keys are text there, and it makes no dates."""
    content = json.loads(json.dumps(yaml.safe_load(text), default=str))
    found = jsonschema.Draft202012Validator(schema.json_schema()).iter_errors(content)
    return [error.message for error in found]


def test_the_schema_is_one_of_draft_2020_12() -> None:
    known: dict[str, Any] = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(known)
    assert known["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert known["$id"]
    assert known["title"] == "gateway.yaml of Pipeline Gateway"
    assert known["properties"]["enabled"]["description"].startswith("Take triggers")


def test_every_setting_has_a_description() -> None:
    known: dict[str, Any] = schema.json_schema()
    models = [known, *(model for model in known["$defs"].values() if "properties" in model)]
    assert len(models) > 10
    lacking = [name for model in models for name, field in model["properties"].items() if "description" not in field]
    assert lacking == []


def test_the_demos_configuration_fits_the_schema() -> None:
    assert problems(DEMO.read_text("utf-8")) == []


@pytest.mark.parametrize("page", [manual.README, *manual.PAGES], ids=lambda page: page.name)
def test_every_configuration_of_the_manual_fits_the_schema(page: Path) -> None:
    for block in manual.blocks(page.read_text("utf-8"), "yaml"):
        assert problems(block if yaml.safe_load(block) else "{}") == []


@pytest.mark.parametrize(
    "text",
    ["default_fabric: 1", "output_cap: 1GiB", "output_cap: 1048576", "projects: {shop: {fabrics: [1, two]}}"],
)
def test_what_the_settings_take_fits_the_schema(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    "text",
    ["enabeld: true", "port: many", "fabrics: {a: {runner: kubernetes}}", "projects: {a: {ingester: {}}}"],
)
def test_a_mistake_does_not_fit_the_schema(text: str) -> None:
    assert problems(text) != []


def test_the_starter_has_the_schema_that_its_first_line_names(tmp_path: Path) -> None:
    starter.copy(tmp_path / "mine")
    first = (tmp_path / "mine/gateway.yaml").read_text("utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={schema.SCHEMA_FILE}"
    assert json.loads((tmp_path / "mine" / schema.SCHEMA_FILE).read_text("utf-8")) == schema.json_schema()
