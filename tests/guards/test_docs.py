"""The README tells of everything that can be set, called or asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from aiohttp import web
from pydantic import BaseModel

from gateway.app import build_app
from gateway.cli import main as cli
from gateway.settings import settings as config
from gateway.settings.settings import Settings
from tests.support.source import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What stands in code: blocks and the parts of a line between backticks.
CODE = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", README, re.DOTALL))


def models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models(argument)


def keys(model: type[BaseModel], under: str = "") -> Iterator[str]:
    """Every setting with the section of its section: `port`, `fabrics`, `dbt.threads`, `resources.dbt`."""
    for name, field in model.model_fields.items():
        yield under + name
        for nested in models(field.annotation):
            inside = "" if name in ("fabrics", "projects") else f"{name}."
            yield from keys(nested, inside)


SETTINGS = sorted(set(keys(Settings)))


def test_all_settings_are_found() -> None:
    assert {"port", "fabrics", "time_limit", "dbt.threads", "resources.ingester", "ingester.command"} <= set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_in_the_readme(setting: str) -> None:
    section, _, name = setting.rpartition(".")
    grouped = rf"`{section}` \([^)]*`{name}`" if section else r"(?!)"
    assert re.search(rf"`{re.escape(setting)}`|{grouped}|^ *{re.escape(setting)}:", README, re.MULTILINE)


@pytest.mark.parametrize("variable", [*config._VARIABLES, "GATEWAY_<SETTING>"])
def test_every_variable_is_in_the_readme_and_in_the_commands_help(variable: str) -> None:
    assert variable in CODE
    assert variable in cli.parser().format_help()


async def test_every_route_is_in_the_readme_with_its_method(tmp_path: Path) -> None:
    runner = web.AppRunner(build_app(Settings(state_directory=tmp_path), {"PATH": "/bin"}))
    await runner.setup()
    routes = [
        (route.method, route.resource.canonical)
        for route in runner.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    ]
    await runner.cleanup()
    assert ("POST", "/api/data-analytics/pipeline/trigger") in routes
    assert [f"{method} {path}" for method, path in routes if not documented(method, path)] == []


def documented(method: str, path: str) -> bool:
    pattern = re.sub(r"\\\{\w+\\\}", r"(?:<\\w+>|ID)", re.escape(path)) + r"(?![\w/])"
    lines = [line for line in README.splitlines() if re.search(pattern, line)]
    return any(("POST" in line) == (method == "POST") for line in lines)


def commands() -> list[str]:
    return list(cli.COMMANDS)


def test_every_command_is_in_the_readme() -> None:
    assert commands()
    assert [name for name in commands() if f"pipeline-gateway {name}" not in CODE] == []


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:tests|gateway|runners|systemd)/[\w/.]+)`", README))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
