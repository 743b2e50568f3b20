"""Injection attempts in every field of a request: none reaches a program, an option or a variable."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.model.job import Job
from gateway.model.request import BuiltinPipeline, DbtCommand
from gateway.storage.store import Store
from runners.containers import compose_project
from runners.containers.compose_project import ComposeCli, ComposeService
from runners.dbt import command as dbt
from runners.dbt.arguments import exclude, select, select_up_to, vars_argument
from runners.dbt.command import DbtConfig, DbtStep
from runners.detached.supervisor import MARKER
from runners.git.refs import branch_ref, tag_ref
from runners.mask import Mask
from runners.outcome import Command, Exited
from runners.parameters import Parameter, ParameterType, WordError, resolve_values
from runners.process.local_runner import LocalRunner
from tests.conftest import MakeApi
from tests.support import projects
from tests.support.api import Api
from tests.support.gateway import PATH
from tests.support.injections import CANARY, VARIABLES, WORDS, Call, StandIns, as_sent, refusal
from tests.support.raw import request, send

JOBS = "/api/v1/jobs"
FIELDS = ("pipeline", "command", "enableOpenlineage", "enableElementary")
UNKNOWN = ("select", "exclude", "vars", "parameters", "branch", "version", "processName", "environment", "env", "args")

Request = tuple[str, str, Any]


def requests(word: str) -> Iterator[Request]:
    """The word in every field, query parameter and path segment, as a value and as a name."""
    for field in FIELDS:
        for value in (word, [word], {"x": word}):
            yield "POST", PATH, {"pipeline": "dbt", "command": "run", field: value}
    for field in (*UNKNOWN, word):
        yield "POST", PATH, {"pipeline": "dbt", "command": "run", field: word}
    for name in VARIABLES[:3]:
        yield "POST", PATH, {"pipeline": "dbt", "command": "run", "environment": {name: word}}
    for sent in as_sent(word):
        yield "GET", f"{PATH}?jobId={sent}", None
        yield "GET", f"{PATH}?{sent}=1", None
        yield "GET", f"{JOBS}/x?wait={sent}", None
        yield "GET", f"{JOBS}/{sent}", None
        yield "POST", f"{JOBS}/{sent}/cancel", None
        yield "POST", f"{PATH}/{sent}", {"pipeline": "dbt"}
        yield "GET", f"/{sent}/{sent}", None


async def refused(api: Api, asked: Request, *also: int) -> None:
    """`also` are statuses that are right as well."""
    method, path, body = asked
    answer = await api.call(method, path, body)
    assert 400 <= answer.status < 500 or answer.status in also, (asked, answer)
    assert len(answer.body) < 3000, (asked, answer)
    assert b"Traceback" not in answer.body, (asked, answer)


def local(stand_ins: StandIns) -> dict[str, Any]:
    programs = {
        "executable": str(stand_ins.folder / "dbt"),
        "openlineage_executable": str(stand_ins.folder / "dbt-ol"),
    }
    return {"local": {"dbt": programs, "environment": {"NAMED": "by the configuration"}}}


def in_containers(stand_ins: StandIns) -> dict[str, Any]:
    return {"containers": {"runner": "compose"}}


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path / "stand-ins")


PACE = {"trigger_rate": 100_000, "trigger_burst": 100_000}  # no request may be refused for its rate


async def served(make_api: MakeApi, folder: Path, stand_ins: StandIns, fabrics: dict[str, Any]) -> Api:
    return await make_api(projects.make(folder, settings={"fabrics": fabrics, **PACE}), {"PATH": stand_ins.path})


@pytest.mark.parametrize("fabrics", [local, in_containers])
async def test_hostile_words_in_a_trigger_are_refused_and_call_no_program(
    tmp_path: Path, make_api: MakeApi, stand_ins: StandIns, fabrics: Any
) -> None:
    api = await served(make_api, tmp_path / "project", stand_ins, fabrics(stand_ins))
    for word in WORDS:
        await asyncio.gather(*(refused(api, asked) for asked in requests(word)))
    # the gateway itself asks the engine now and then for containers that were left behind
    meanwhile = [call for call in stand_ins.calls() if call.arguments[:2] != ["ps", "--no-trunc"]]
    assert meanwhile == []
    assert CANARY not in json.dumps([[call.arguments, call.environment] for call in stand_ins.calls()])
    assert await api.jobs() == []
    assert found_in(tmp_path) == []
    # and a call would have been recorded
    answer = await api.call("POST", PATH, {"pipeline": "dbt", "command": "run", "enableOpenlineage": False})
    if answer.status == 202:
        await api.finished(answer.json["jobId"])
    assert [call for call in stand_ins.calls() if call.arguments[:2] != ["ps", "--no-trunc"]]


def found_in(folder: Path) -> list[Path]:
    """The files that an injection made."""
    return list(folder.rglob(CANARY))


TRIGGER = "/api/trigger/pipeline"
RUN = {"fabricId": 1, "projectId": "small", "pipelineName": "all"}
PIPELINES: dict[str, Any] = {
    "all": {
        "ingester": True,
        "dbt": {"command": "build"},
        "parameters": {
            "number": {"type": "integer"},
            "when": {"type": "date"},
            "on": {"type": "boolean"},
            "one": {"choices": ["a", "b"], "option": "--one"},
        },
    }
}


def runs(word: str) -> Iterator[Request]:
    """The word in every field of a trigger of the trigger pipeline API, as the name of a field, and as a run's id."""
    for field in (*RUN, "branch", "version", "processName"):
        for value in (word, [word], {"x": word}):
            yield "POST", TRIGGER, {**RUN, field: value}
    for parameter in PIPELINES["all"]["parameters"]:
        for value in (word, [word], {"x": word}):
            yield "POST", TRIGGER, {**RUN, "parameters": {parameter: value}}
    yield "POST", TRIGGER, {**RUN, "parameters": {word: word}}
    yield "POST", TRIGGER, {**RUN, "parameters": word}
    yield "POST", TRIGGER, {**RUN, word: word}
    for sent in as_sent(word):
        yield "GET", f"{TRIGGER}/{sent}", None


@pytest.mark.parametrize("fabrics", [local, in_containers])
async def test_hostile_words_in_a_run_are_refused_and_reach_no_program(
    tmp_path: Path, make_api: MakeApi, stand_ins: StandIns, fabrics: Any
) -> None:
    [fabric] = fabrics(stand_ins).values()
    small = {"dbt": "transform", "ingester": {"command": ["true"]}, "pipelines": PIPELINES}
    settings = {"fabrics": {1: fabric}, "projects": {"small": small}, **PACE}
    api = await make_api(projects.make(tmp_path / "project", settings=settings), {"PATH": stand_ins.path})
    for word in WORDS:
        # a word that may be a branch or a model is looked up, by stand-ins for git and the engine that record calls
        await asyncio.gather(*(refused(api, asked, 503) for asked in runs(word) if not is_valid_value(asked)))
    assert CANARY not in json.dumps([[call.arguments, call.environment] for call in stand_ins.calls()])
    assert await api.jobs() == []
    assert found_in(tmp_path) == []


def is_valid_value(asked: Request) -> bool:
    """Whether a word is a valid value of its parameter: a number, a date, true."""
    given = (asked[2] or {}).get("parameters")
    declared = {
        name: Parameter(ParameterType(kind))
        for name, kind in (("number", "integer"), ("when", "date"), ("on", "boolean"))
    }
    if not isinstance(given, dict) or not set(given) <= set(declared):
        return False
    try:
        resolve_values(declared, given)
    except WordError:
        return False
    return True


async def test_hostile_words_that_are_not_escaped_are_refused(
    tmp_path: Path, make_api: MakeApi, stand_ins: StandIns
) -> None:
    api = await served(make_api, tmp_path / "project", stand_ins, local(stand_ins))
    assert api.base.port is not None
    for word in WORDS:
        sent = word.encode(errors="surrogatepass")
        for target in (f"{JOBS}/".encode() + sent, f"{PATH}?jobId=".encode() + sent):
            answer = await send(api.base.port, request("GET", target))
            # a fragment, or text after a space, is ignored; the remaining request may answer with an empty list
            assert 400 <= answer.status < 500 or answer.json.get("jobs") == [], (target, answer)
    assert stand_ins.calls() == []


async def test_requests_set_no_variable_and_add_no_argument(
    tmp_path: Path, make_api: MakeApi, stand_ins: StandIns
) -> None:
    api = await served(make_api, tmp_path / "project", stand_ins, local(stand_ins))
    plain = {"pipeline": "dbt", "command": "run", "enableOpenlineage": False}
    await api.run(**plain)
    for name in VARIABLES:
        for body in ({name: CANARY}, {"environment": {name: CANARY}}, {"env": [f"{name}={CANARY}"]}):
            await refused(api, ("POST", PATH, {**plain, **body}))
        await refused(api, ("GET", f"{PATH}?{name}={CANARY}", None))
        answer = await api.call("POST", PATH, plain, {name: CANARY, "Cookie": f"{name}={CANARY}"})
        assert answer.status == 202, answer
        await api.finished(answer.json["jobId"])
    first, *others = stand_ins.calls()
    assert len(others) == len(VARIABLES)
    assert first.environment["NAMED"] == "by the configuration"
    added = set(first.environment) - set(os.environ)
    assert added <= {*dbt.DEFAULT_VARIABLES, MARKER, "NAMED", "LC_CTYPE"}
    for other in others:
        assert without_its_folder(other) == without_its_folder(first)
        assert CANARY not in json.dumps([other.arguments, other.environment])


def without_its_folder(call: Call) -> tuple[str, list[str], dict[str, str]]:
    """A call without the folder of its step, which is in the marker variable."""
    step = call.environment[MARKER]
    return (
        call.program,
        [argument.replace(step, "") for argument in call.arguments],
        {name: value.replace(step, "") for name, value in call.environment.items()},
    )


def string(word: str) -> str:
    """The argument that passes this string to dbt."""
    return vars_argument(resolve_values({"x": Parameter(ParameterType.STRING)}, {"x": word}))


@pytest.fixture(scope="module")
def arguments() -> list[str]:
    """The arguments made of the words that the validators of dbt's arguments accept."""
    return [make(word) for make in (select, exclude, select_up_to, string) for word in WORDS if not refusal(make, word)]


async def called(tmp_path: Path, stand_ins: StandIns, command: Command) -> list[str]:
    """The arguments that reach the step's program."""
    runner, folder = LocalRunner(1 << 20), tmp_path / "job/1-build"
    await runner.start(folder, command)
    outcome = await runner.wait(folder, lambda _: None)
    assert isinstance(outcome, Exited), outcome
    [call] = stand_ins.calls()
    return call.arguments


def dbt_command(stand_ins: StandIns, arguments: list[str]) -> Command:
    made = DbtConfig(project=stand_ins.folder, executable=str(stand_ins.folder / "dbt"))
    paths = dbt.paths(made, stand_ins.folder / "step", stand_ins.folder / "none", {})
    return dbt.command(made, DbtStep("build", tuple(arguments)), paths, {}, grace=1, time_limit=60, mask=Mask())


async def test_each_accepted_word_reaches_dbt_as_one_argument(
    tmp_path: Path, stand_ins: StandIns, arguments: list[str]
) -> None:
    assert len(arguments) > 250
    got = await called(tmp_path, stand_ins, dbt_command(stand_ins, arguments))
    at = got.index(arguments[0])
    assert got[at:] == arguments
    assert all(argument.startswith(("--select=", "--exclude=", "--vars={")) for argument in got[at:])


async def test_each_accepted_word_reaches_a_container_after_its_service(
    tmp_path: Path, stand_ins: StandIns, arguments: list[str]
) -> None:
    service = ComposeService("transform", "image", ("dbt",), {}, log_driver=None, log_rotates=False)
    docker = (str(stand_ins.folder / "docker"),)
    compose = ComposeCli(str(stand_ins.folder), docker, entrypoint_program="dbt")
    what = dbt_command(stand_ins, arguments)
    command = compose_project.run_command(compose, service, what, (), tmp_path / "job/1-build")
    got = await called(tmp_path, stand_ins, command)
    options, behind = got[: got.index("--")], got[got.index("--") + 1 :]
    assert not set(options) & set(arguments)
    assert (behind[0], behind[-len(arguments) :]) == ("transform", arguments)


async def test_each_accepted_ref_reaches_git_by_its_full_name(tmp_path: Path, stand_ins: StandIns) -> None:
    refs = [make(word) for make in (branch_ref, tag_ref) for word in WORDS if not refusal(make, word)]
    assert len(refs) > 80
    argv = (str(stand_ins.folder / "git"), "fetch", "--", "origin", *refs)
    got = await called(tmp_path, stand_ins, Command((argv,), str(tmp_path), {}, grace=1, time_limit=60))
    assert got == ["fetch", "--", "origin", *refs]
    assert all(ref.startswith("refs/") for ref in refs)


@pytest.fixture
async def api(tmp_path: Path, make_api: MakeApi) -> Api:
    """A service whose dbt and ingester are missing, so that an accepted job ends at once."""
    small = {"dbt": "transform", "ingester": {"command": ["/no/ingester"]}}
    more = {"fabrics": {"local": {"dbt": {"executable": "/no/dbt"}}}, "projects": {"small": small}, **PACE}
    return await make_api(projects.make(tmp_path / "project", settings=more))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that are looked up in the database."""
    found = []
    get = Store.get

    async def noted(store: Store, job_id: str) -> Job | None:
        found.append(job_id)
        return await get(store, job_id)

    monkeypatch.setattr(Store, "get", noted)
    return found


@settings(max_examples=100)
@given(word=st.text(min_size=1) | st.text(st.sampled_from("aZ09._-/%\\\0\n \u00e9"), min_size=1))
@example("full-1700000000000-abc123")
@example("a\n")
async def test_an_unknown_id_gets_404_and_only_valid_ids_are_looked_up(
    api: Api, looked_up: list[str], word: str
) -> None:
    for sent in as_sent(word):
        for path in (f"{PATH}?jobId={sent}", f"{JOBS}/{sent}"):
            answer = await api.call("GET", path)
            assert answer.status == 404, (path, answer)
            assert answer.json["code"] in ("unknown_job", "unknown_path")
            assert len(answer.body) < 2000
    assert all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", job_id) for job_id in looked_up)


LETTERS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LETTERS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(LETTERS, inner, max_size=2),
    max_leaves=5,
)
KNOWN = st.fixed_dictionaries(
    {"pipeline": st.sampled_from(BuiltinPipeline).map(str) | VALUES},
    optional={
        "command": st.sampled_from(DbtCommand).map(str) | VALUES,
        "enableOpenlineage": st.booleans() | VALUES,
        "enableElementary": st.booleans() | VALUES,
    },
)


def is_valid(body: dict[str, Any]) -> bool:
    """Whether a body is valid, stated independently of the API's own code."""
    return (
        set(body) <= set(FIELDS)
        and body.get("pipeline") in ("ingester", "dbt", "full")
        and body.get("command") in (None, "daily", "run", "build", "test", "deps", "elementary")
        and all(body.get(field) is None or isinstance(body[field], bool) for field in FIELDS[2:])
    )


@settings(max_examples=150)
@given(body=KNOWN | st.builds(dict.__or__, KNOWN, st.dictionaries(LETTERS, VALUES, max_size=1)))
async def test_a_body_is_accepted_only_if_all_of_its_fields_are_valid(api: Api, body: dict[str, Any]) -> None:
    answer = await api.call("POST", PATH, body)
    assert answer.status in ((202, 409) if is_valid(body) else (400,)), (body, answer)
    assert len(answer.body) < 3000
