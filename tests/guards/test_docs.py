"""The README and the manual tell of everything that can be set, called or asked, and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml
from aiohttp import web

from gateway.app import build_app
from gateway.cli import main as cli
from gateway.settings import settings as config
from gateway.settings import tables
from gateway.settings.settings import Settings
from gateway.web import docs
from tests.support import manual
from tests.support.source import ROOT, modules

# What stands in code: blocks and the parts of a line between backticks.
CODE = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", manual.TEXT, re.DOTALL))
LONGEST_README = 1300  # words


def test_the_readme_has_at_most_1300_words() -> None:
    assert len(manual.README.read_text("utf-8").split()) <= LONGEST_README


def test_the_readme_and_the_index_link_to_every_page() -> None:
    pages = {page.name for page in manual.PAGES}
    assert set(docs.PAGES) == pages
    linked = re.findall(r"\]\(gateway/docs/(\w+\.md)", manual.README.read_text("utf-8"))
    assert set(linked) == pages
    index = (ROOT / "gateway/docs/index.md").read_text("utf-8")
    assert set(re.findall(r"\]\((\w+\.md)", index)) == pages - {"index.md"}


@pytest.mark.parametrize("page", [manual.README, *manual.PAGES], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in [docs.anchor(heading) for heading in headings], target


def test_the_tables_of_settings_are_those_of_the_models() -> None:
    page = tables.PAGE.read_text("utf-8")
    assert "| `resources.dbt` |" in page
    assert page == tables.with_tables(page), "run: python -m gateway.settings.tables"


@pytest.mark.parametrize("variable", [*config.VARIABLES, "GATEWAY_<SETTING>"])
def test_every_variable_is_in_the_manual_and_in_the_commands_help(variable: str) -> None:
    assert variable in CODE
    assert variable in cli.cli.get_help(click.Context(cli.cli, info_name="pipeline-gateway"))


async def test_every_route_is_in_the_manual_with_its_method(tmp_path: Path) -> None:
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
    lines = [line for line in manual.TEXT.splitlines() if re.search(pattern, line)]
    return any(("POST" in line) == (method == "POST") for line in lines)


def test_every_command_is_in_the_manual() -> None:
    assert cli.COMMANDS
    assert [name for name in cli.COMMANDS if f"pipeline-gateway {name}" not in CODE] == []


def test_every_file_that_the_manual_names_is_there() -> None:
    named = set(re.findall(r"`((?:tests|gateway|runners|systemd)/[\w/.]+)`", manual.TEXT))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_module_that_the_readmes_map_names_is_there() -> None:
    [rooms] = [block for block in manual.blocks(manual.README.read_text("utf-8"), "text") if "gateway/web " in block]
    named = []
    for line in re.sub(r"\n +", " ", rooms).splitlines():
        room, _, content = line.partition(" ")
        for names in re.findall(r"(?:^|\. )\s*(\w+(?:, \w+)*): ", content):
            named += [f"{room}/{name}.py" for name in names.split(", ")]
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [manual.README, *manual.PAGES], ids=lambda page: page.name)
def test_every_configuration_in_a_page_is_valid(page: Path, tmp_path: Path) -> None:
    for block in manual.blocks(page.read_text("utf-8"), "yaml"):
        assert yaml.safe_load(block) is None or isinstance(yaml.safe_load(block), dict)
        (tmp_path / "gateway.yaml").write_text(block)
        config.load(tmp_path / "gateway.yaml", {})


def test_every_message_that_the_manual_quotes_is_in_the_source() -> None:
    source = "\n".join(file.read_text("utf-8") for file in modules().values())
    page = (ROOT / "gateway/docs/troubleshooting.md").read_text("utf-8")
    quoted = re.findall(r'^\| [^|]*?"([^"|]+)"[^|]* \|', page, re.MULTILINE)
    parts = [part.strip() for text in quoted if not text.startswith("left-over") for part in text.split("…")]
    assert len(parts) > 8
    assert [part for part in parts if part not in source] == []
