"""What the service depends on, why, and which insides of other packages it uses."""

from __future__ import annotations

import asyncio
import configparser
import inspect
import itertools
from collections.abc import Iterator
from operator import attrgetter

import pytest
from aiohttp import http, http_exceptions, typedefs, web
from aiohttp.abc import AbstractStreamWriter
from dotenv import parser
from packaging.requirements import Requirement

from gateway.web.server.connections import Connection, Connections
from tests.support.source import ROOT

FILE = ROOT / "setup.cfg"
# Methods of aiohttp that Connection overrides or calls, with the parameters that it relies on.
METHODS = {
    "RequestHandler.connection_made": ["self", "transport"],
    "RequestHandler.connection_lost": ["self", "exc"],
    "RequestHandler.start": ["self"],
    "RequestHandler.handle_error": ["self", "request", "status", "exc", "message"],
    "RequestHandler.finish_response": ["self", "request", "resp", "start_time"],
}
CONSTRUCTOR = {"manager", "loop", "access_log", "max_line_size", "max_field_size", "auto_decompress"}
BOUNDED = ["aiohttp", "python-dotenv"]


def settings() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(FILE, "utf-8")
    return found


def required() -> dict[str, Requirement]:
    """What an installation without extras has, by name."""
    lines = settings()["options"]["install_requires"].split("\n")
    return {found.name: found for found in (Requirement(line) for line in lines if line)}


def blocks() -> Iterator[tuple[str, str]]:
    """Each requirement of setup.cfg, extras too, with the line before it."""
    known = [settings()["options"]["install_requires"], *settings()["options.extras_require"].values()]
    names = {line for block in known for line in block.split("\n") if line}
    lines = [line.strip() for line in FILE.read_text("utf-8").splitlines()]
    yield from ((line, before) for before, line in itertools.pairwise(lines) if line in names)


def test_every_requirement_has_its_reason_in_a_comment() -> None:
    found = list(blocks())
    assert {"aiohttp", "dbt-core", "ruff"} <= {Requirement(line).name for line, _ in found}
    assert [line for line, before in found if not before.startswith("#")] == []


@pytest.mark.parametrize("name", BOUNDED)
def test_a_package_whose_insides_are_used_has_an_upper_bound(name: str) -> None:
    assert "<" in {one.operator for one in required()[name].specifier}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_connection_overrides_is_as_it_was(name: str) -> None:
    method = attrgetter(name)(web)
    assert list(inspect.signature(method).parameters) == METHODS[name]
    assert name.partition(".")[2] in vars(Connection)


def test_start_and_finish_response_are_coroutines() -> None:
    assert inspect.iscoroutinefunction(web.RequestHandler.start)
    assert inspect.iscoroutinefunction(web.RequestHandler.finish_response)


def test_the_constructor_takes_what_connection_gives() -> None:
    assert set(inspect.signature(web.RequestHandler).parameters) >= CONSTRUCTOR


async def test_a_connection_is_made_for_a_server_and_logs_no_access() -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    connection = Connection(web.Server(answer), Connections(1))
    assert isinstance(connection, asyncio.Protocol)
    assert connection.access_logger is None
    assert connection.transport is None


async def test_the_runner_of_an_application_has_its_server() -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    assert isinstance(runner.server, web.Server)
    await runner.cleanup()


def test_a_request_has_its_connection_and_its_writer() -> None:
    assert isinstance(inspect.getattr_static(web.BaseRequest, "protocol"), property)
    assert isinstance(inspect.getattr_static(web.BaseRequest, "writer"), property)
    assert AbstractStreamWriter.output_size == 0


def test_the_parser_has_the_module_by_which_it_is_told() -> None:
    assert http.HttpRequestParser.__module__ == "aiohttp._http_parser"
    assert issubclass(http_exceptions.LineTooLong, http_exceptions.BadHttpMessage)


@pytest.mark.parametrize("name", ["Handler", "Middleware"])
def test_the_types_of_middlewares_are_there(name: str) -> None:
    assert hasattr(typedefs, name)


def test_the_parser_of_environment_files_gives_bindings() -> None:
    assert list(inspect.signature(parser.parse_stream).parameters) == ["stream"]
    assert parser.Binding._fields == ("key", "value", "original", "error")
    assert parser.Original._fields == ("string", "line")
