"""Selections and variables against the real dbt: what is let through keeps its meaning, what is refused would not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import catalog
from gateway.model.plan import Plan, PlannedStep, StepName
from runners.dbt.arguments import ONLY_BUILDABLE_TESTS, exclude, select, select_up_to, vars_argument
from runners.dbt.command import DbtConfig, DbtStep
from runners.dbt.command import paths as dbt_paths
from runners.dbt.listing import Node, list_nodes
from runners.mask import Mask
from runners.parameters import Parameter, ParameterType, ParameterValue, resolve_values
from runners.program import ProgramResult
from tests.conftest import need
from tests.support import projects
from tests.support.injections import CANARY, WORDS, refusal

DBT = str(Path(sys.executable).with_name("dbt"))
SECRET = "the secret of the gateway"  # in the environment of dbt, by the canary's name
MODELS = {"numbers", "evens", "thirds", "sixths", "hooked"}
OF_THIRDS = "relationships_thirds_n__n__ref_numbers_"  # a test that touches thirds and numbers
TESTS = {"not_null_numbers_n", "unique_numbers_n", "unique_evens_n", OF_THIRDS, "sixths_are_fewer"}

# Calls dbt in one process, which is quick: each line of stdin is a command line, each line of stdout how it ended.
CALLS = """
import json, os, sys
from dbt.cli.main import dbtRunner
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
heard = []
runner = dbtRunner(callbacks=[lambda event: heard.append(event.info.msg)])
for line in sys.stdin:
    heard.clear()
    done = runner.invoke(json.loads(line))
    ran = [one.node.name for one in getattr(done.result, "results", []) if hasattr(one, "node")]
    listed = done.result if isinstance(done.result, list) else ran
    why = type(done.exception).__name__ if done.exception else None
    print(json.dumps([done.success, why, listed, heard]), file=answers, flush=True)
"""
# Tells all variables that dbt was given, each as a model would find it.
TELL = """
{% macro tell() %}
  {%- set found = {} -%}
  {%- for name in invocation_args_dict.vars -%} {%- do found.update({name: var(name)}) -%} {%- endfor -%}
  {{ log("TOLD " ~ tojson(found), info=True) }}
{% endmacro %}
"""
HOOKED = """
{{ config(pre_hook="select '" ~ var("first", "") ~ var("second", "") ~ "'") }} select 1 as i
"""
# Beside numbers and evens: thirds of the numbers, and sixths of evens and thirds.
MORE = """
models:
  - name: thirds
    config: {tags: [odd]}
    columns: [{name: n, data_tests: [{relationships: {arguments: {to: ref('numbers'), field: n}}}]}]
"""
FEWER = """
select 1
from (select count(*) as n from {{ ref('sixths') }}) as sixths, (select count(*) as n from {{ ref('evens') }}) as evens
where sixths.n > evens.n
"""


@dataclass(frozen=True)
class Done:
    """How a command of dbt ended.

    exception: the name of its type. listed: what `ls` found, or the names of what ran. heard: all it logged.
    """

    success: bool
    exception: str | None
    listed: list[str]
    heard: list[str]

    @property
    def names(self) -> set[str]:
        return {line.rpartition(".")[2] for line in self.listed}

    @property
    def told(self) -> dict[str, Any] | None:
        """The variables by name, as a model finds them."""
        for line in self.heard:
            if line.startswith("TOLD "):
                found: dict[str, Any] = json.loads(line.removeprefix("TOLD "))
                return found
        return None


class Dbt:
    """The real dbt on a small project, called again and again."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.environment = {**os.environ, "DO_NOT_TRACK": "1", CANARY: SECRET}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CALLS],
            cwd=project,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def call(self, *arguments: str) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return Done(*json.loads(self._process.stdout.readline()))

    def tell(self, argument: str) -> Done:
        return self.call("run-operation", "tell", argument)

    def close(self) -> None:
        with self._process as process:
            process.kill()


@pytest.fixture(scope="module")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dbt]:
    need(DBT)
    project = projects.dbt_project(tmp_path_factory.mktemp("words") / "transform")
    projects.write(project / "macros/tell.sql", TELL)
    projects.write(project / "models/hooked.sql", HOOKED)
    projects.write(project / "models/odd/thirds.sql", "select n from {{ ref('numbers') }} where n % 3 = 0\n")
    projects.write(
        project / "models/sixths.sql", "select n from {{ ref('evens') }} semi join {{ ref('thirds') }} using (n)\n"
    )
    projects.write(project / "models/odd/more.yml", MORE)
    projects.write(project / "tests/sixths_are_fewer.sql", FEWER)
    made = Dbt(project)
    yield made
    made.close()


def let_through(word: str) -> bool:
    return refusal(lambda given: resolve_values({"x": Parameter(ParameterType.STRING)}, {"x": given}), word) is None


def batches(values: Mapping[str, ParameterValue]) -> Iterator[dict[str, ParameterValue]]:
    """So many of them at a time that one argument takes them."""
    some: dict[str, ParameterValue] = {}
    for name, value in values.items():
        if len(vars_argument(some).encode()) > 4000:
            yield some
            some = {}
        some[name] = value
    yield some


def texts() -> list[str]:
    """What Hypothesis thinks of."""
    found = []

    @settings(max_examples=150)
    @given(st.text(st.sampled_from("{}%#'\"\\\u00e9\U0001f600 :,-*&!a1\u00a0\ufeff")) | st.text())
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return found


def test_dbt_reads_each_accepted_value_as_the_same_value(dbt: Dbt) -> None:
    """And reads no variable besides."""
    strings = [word for word in (*WORDS, *texts()) if let_through(word)]
    assert len(strings) > 250
    others: list[ParameterValue] = [
        0,
        -1,
        2**63 - 1,
        -(2**63),
        1.5,
        -0.0,
        1e16,
        1e20,
        1e-7,
        5e-324,
        1.5e300,
        True,
        False,
        "2026-11-30",
    ]
    for some in batches({f"v{number}": value for number, value in enumerate([*strings, *others])}):
        done = dbt.tell(vars_argument(some))
        assert done.success, done
        assert done.told is not None
        assert {name: repr(value) for name, value in done.told.items()} == {name: repr(some[name]) for name in some}


def test_values_keep_their_letters_on_a_host_without_a_locale(tmp_path: Path) -> None:
    project = projects.dbt_project(tmp_path / "transform")
    projects.write(project / "macros/tell.sql", TELL)
    values: dict[str, ParameterValue] = {"x": "\u00fc \U0001f600 \u4e2d", "y": 7}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    command = [DBT, "--log-format=json", "run-operation", "tell", vars_argument(values)]
    environment |= {"LC_ALL": "C", "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, check=True)
    said = [json.loads(line)["info"]["msg"] for line in done.stdout.splitlines()]
    assert [json.loads(line.removeprefix("TOLD ")) for line in said if line.startswith("TOLD ")] == [values]


def test_templates_are_refused_because_dbt_would_run_them(dbt: Dbt) -> None:
    raw = {
        "read": f'{{{{ env_var("{CANARY}") }}}}',
        "made": f"{{% do run_query('create table {CANARY} as select 1') %}}",
        "sum": "{{ 7 * 7 }}",
        "gone": "{# x #}",
    }
    assert not any(map(let_through, raw.values()))
    done = dbt.tell(f"--vars={json.dumps(raw)}")
    assert done.told == {"read": SECRET, "made": "", "sum": "49", "gone": ""}
    assert [line for line in done.heard if f"create table {CANARY}" in line and "TOLD" not in line]


def test_a_brace_at_the_end_is_refused(dbt: Dbt) -> None:
    """A project may concatenate it with another one."""
    raw = {"first": "{", "second": f'{{ env_var("{CANARY}") }}}}'}
    assert [let_through(value) for value in raw.values()] == [False, True]
    done = dbt.call("run", select("hooked"), f"--vars={json.dumps(raw)}")
    assert [line for line in done.heard if f"select '{SECRET}'" in line]


def test_a_careless_argument_would_have_been_misread(dbt: Dbt) -> None:
    assert dbt.tell("--vars={x: %s}" % "1, y: injected").told == {"x": 1, "y": "injected"}  # noqa: UP031, as people write it
    assert dbt.tell(f"--vars={json.dumps({'x': 1e20})}").told == {"x": "1e+20"}
    assert not dbt.tell(f"--vars={json.dumps({'x': chr(0x1F600)})}").success
    assert dbt.tell(f"--vars={json.dumps({'x': chr(0x85)}, ensure_ascii=False)}").told == {"x": " "}


def test_an_accepted_selection_selects_nodes_or_dbt_says_why_not(dbt: Dbt) -> None:
    taken = [word for word in WORDS if refusal(select, word) is None]
    assert len(taken) > 20
    for word in [
        *taken,
        "2+evens+3",
        "path:models",
        "models/evens.sql",
        "a+",
        "models/",
        "tag:x,evens",
        "state:modified",
    ]:
        done = dbt.call("ls", select(word))
        assert done.exception in (None, "InvalidSelectorError", "DbtRuntimeError"), (word, done)
        assert done.names <= MODELS | TESTS, word
    assert not list(dbt.project.parent.rglob(CANARY))


def test_a_model_selects_itself_and_what_is_upstream_of_it(dbt: Dbt) -> None:
    assert dbt.call("ls", select_up_to("evens"), "--resource-type=model").names == {"evens", "numbers"}
    assert dbt.call("ls", select_up_to("numbers"), "--resource-type=model").names == {"numbers"}


WORDS_OF_MODELS = {
    "evens": {"small.evens", "small.numbers"},
    "gr\u00f6\u00dfe": {"small.gr\u00f6\u00dfe"},
    "dim.v2": {"small.dim.v2"},
    "dim_v1": {"small.dim.v1"},
    "dim": {"small.dim.v1", "small.dim.v2"},
    "a.b": {"small.a.b"},
    "base": {"shared.base"},
}


async def test_dbts_word_for_a_model_selects_it_and_what_is_upstream(tmp_path: Path) -> None:
    """A package may have a model of its name, its letters may be of any script, and one version may be named."""
    project = projects.dbt_project(tmp_path / "transform")
    package = project / "dbt_packages/shared"
    projects.write(package / "dbt_project.yml", "name: shared\nversion: '1.0'\nmodels: {+schema: shared}\n")
    projects.write(package / "models/base.sql", "select 1 as n")
    projects.write(package / "models/evens.sql", "select n from {{ ref('base') }}")
    for name in ("gr\u00f6\u00dfe", "dim_v1", "dim_v2", "a.b"):
        projects.write(project / f"models/{name}.sql", "select 1 as n")
    projects.write(project / "models/dim.yml", "models: [{name: dim, versions: [{v: 1}, {v: 2}]}]\n")
    dbt = Dbt(project)

    async def ask(argv: tuple[str, ...]) -> ProgramResult:
        return ProgramResult(0, "\n".join(dbt.call(*argv[1:]).listed).encode(), "")

    async def nodes(*arguments: str) -> list[Node]:
        config, folder = DbtConfig(project), tmp_path / "listing"
        where = dbt_paths(config, folder, folder / "none", {})
        found = await list_nodes(config, DbtStep("run", arguments), where, ask, Mask(), may_install=False)
        assert isinstance(found, list), found
        return found

    listed, own = await nodes(), await nodes(select("package:this"))
    plan = Plan((PlannedStep(StepName.RUN),), ())
    for process, expected in WORDS_OF_MODELS.items():
        found = catalog.find_models(process, listed, plan)
        stop = catalog.stop_at(process, [node for node in found if node in own] or found, listed, plan)
        assert isinstance(stop, catalog.Models), stop
        done = dbt.call("ls", select_up_to(*stop.words), "--resource-type=model")
        assert set(done.listed) == expected, process
    dbt.close()


def models(dbt: Dbt, *selection: str) -> set[str]:
    done = dbt.call("ls", "--resource-type=model", *selection)
    assert done.success, done
    return done.names


WITHIN = (
    *("numbers", "evens thirds", "+evens thirds", "2+sixths+", "1+sixths", "numbers+1", "@thirds", "+evens,+thirds"),
    *("path:models/odd", "models/evens.sql", "*", "*ns", "tag:odd+ evens", "+tag:odd,numbers+ hooked", "nobody"),
)


def test_a_model_within_a_selection_is_exactly_what_both_select(dbt: Dbt) -> None:
    for selection in WITHIN:
        selected = models(dbt, select(selection))
        assert models(dbt, select_up_to("evens", within=selection)) == {"numbers", "evens"} & selected, selection
    assert models(dbt, select_up_to("sixths", within="+evens thirds hooked")) == {"numbers", "evens", "thirds"}
    assert models(dbt, select_up_to("sixths", within="evens,tag:odd")) == set()
    assert models(dbt, select_up_to("evens")) == {"numbers", "evens"}


def test_one_glued_argument_selects_or_leaves_out_several(dbt: Dbt) -> None:
    assert models(dbt, select("evens tag:odd")) == {"evens", "thirds"}
    assert models(dbt, exclude("elementary", "evens tag:odd", "hooked")) == {"numbers", "sixths"}
    assert models(dbt, select_up_to("sixths"), exclude("elementary", "evens tag:odd")) == {"numbers", "sixths"}


def test_several_selections_are_added_up(dbt: Dbt) -> None:
    assert models(dbt, select("tag:odd"), select("evens numbers"), exclude("numbers")) == {"thirds", "evens"}


def test_only_tests_run_whose_models_are_selected_or_upstream(dbt: Dbt) -> None:
    own = {"not_null_numbers_n", "unique_numbers_n", "unique_evens_n"}
    # by itself dbt takes each test that touches one of them, here before the other models were ever built
    eager = dbt.call("build", select_up_to("evens"))
    assert eager.names == {"numbers", "evens"} | own | {OF_THIRDS, "sixths_are_fewer"}
    assert not eager.success
    buildable = dbt.call("build", select_up_to("evens"), ONLY_BUILDABLE_TESTS)
    assert buildable.names == {"numbers", "evens"} | own
    assert buildable.success
    assert dbt.call("ls", select_up_to("sixths"), ONLY_BUILDABLE_TESTS).names == (MODELS - {"hooked"}) | TESTS
    # a test whose other model is upstream, though not selected, is one of them
    assert dbt.call("ls", select("thirds"), ONLY_BUILDABLE_TESTS).names == {"thirds", OF_THIRDS}


def test_refused_selections_set_options_break_dbt_or_select_nothing(dbt: Dbt) -> None:
    raw = f"numbers --log-path={CANARY}"
    dbt.call("ls", "--select", *raw.split())
    assert (dbt.project / CANARY).exists()
    shutil.rmtree(dbt.project / CANARY)
    dbt.call("ls", f"--select={raw}")  # glued, it is harmless, and refused all the same
    assert not (dbt.project / CANARY).exists()
    assert dbt.call("ls", "--select=path:.").exception == "IndexError"
    assert dbt.call("ls", "--select=/etc").exception == "NotImplementedError"
    assert dbt.call("ls", f"--select={'a/' * 400}a").exception == "RecursionError"
    for nothing in ("", "numbers,", "2+", "path:../*"):
        done = dbt.call("ls", f"--select={nothing}")
        assert (done.success, done.listed) == (True, []), nothing
    for word in (raw, "path:.", "/etc", "a/" * 400 + "a", "", "numbers,", "2+", "path:../*"):
        assert refusal(select, word) is not None, word
