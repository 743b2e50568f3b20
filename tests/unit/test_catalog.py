"""Plans, compared with the contract's table, which is repeated here cell by cell."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from gateway.model import catalog
from gateway.model.catalog import Installation, Models
from gateway.model.plan import Plan, StepName
from gateway.model.request import BuiltinPipeline, DbtCommand, TriggerRequest
from gateway.settings.fabric import ResourceSettings
from gateway.settings.project import PipelineSettings
from runners.dbt.listing import Node
from runners.parameters import ParameterValue

# The steps of `dbt` by command, without what the toggle adds to daily.
DBT_STEPS = {
    "daily": ["deps", "build"],
    "run": ["run"],
    "build": ["build"],
    "test": ["test"],
    "deps": ["deps"],
    "elementary": ["elementary"],
}
THROUGH_LINEAGE = {"build", "run", "test"}
NO_LINEAGE_NOTE = "OpenLineage is off: dbt-ol was not found."
NO_ELEMENTARY_NOTE = "Elementary is off: the project does not have its package."

# (the request's value, the server's default, whether it is installed): whether it is on
TOGGLE = {
    (True, True, True): True,
    (True, True, False): True,
    (True, False, True): True,
    (True, False, False): True,
    (True, None, True): True,
    (True, None, False): True,
    (False, True, True): False,
    (False, True, False): False,
    (False, False, True): False,
    (False, False, False): False,
    (False, None, True): False,
    (False, None, False): False,
    (None, True, True): True,
    (None, True, False): True,  # and the job fails before its first step
    (None, False, True): False,
    (None, False, False): False,
    (None, None, True): True,
    (None, None, False): False,  # the only case that the record notes
}
CELLS = [(pipeline, command) for pipeline in BuiltinPipeline for command in DbtCommand]


def installed(
    *,
    openlineage: bool | None = None,
    elementary: bool | None = None,
    has_openlineage: bool = True,
    has_elementary: bool = True,
    resources: tuple[str, str] = ("local.ingester", "local.dbt"),
    ingester_may_fail: bool = False,
) -> Installation:
    return Installation(
        openlineage=openlineage,
        elementary=elementary,
        lineage_problem=None if has_openlineage else "dbt-ol was not found",
        has_elementary=has_elementary,
        ingester_resource=resources[0],
        dbt_resource=resources[1],
        ingester_may_fail=ingester_may_fail,
    )


def names(plan: Plan) -> list[str]:
    return [str(step.name) for step in plan.steps]


def plan_with_toggles(
    pipeline: BuiltinPipeline,
    command: DbtCommand,
    lineage: tuple[bool | None, bool | None, bool],
    elementary: tuple[bool | None, bool | None, bool],
) -> Plan:
    return catalog.plan(
        TriggerRequest(pipeline, command, lineage[0], elementary[0]),
        installed(
            openlineage=lineage[1],
            has_openlineage=lineage[2],
            elementary=elementary[1],
            has_elementary=elementary[2],
        ),
    )


@pytest.mark.parametrize(("pipeline", "command"), CELLS)
def test_every_request_has_its_steps_under_all_values_of_both_toggles(
    pipeline: BuiltinPipeline, command: DbtCommand
) -> None:
    for lineage, elementary in itertools.product(TOGGLE, TOGGLE):
        steps = [] if pipeline == "dbt" else ["ingester"]
        if pipeline != "ingester":
            steps += DBT_STEPS[command]
            if command == "daily" and TOGGLE[elementary]:
                steps.append("elementary")
        plan = plan_with_toggles(pipeline, command, lineage, elementary)
        assert names(plan) == steps, (lineage, elementary)
        for step in plan.steps:
            assert step.lineage == (step.name in THROUGH_LINEAGE and TOGGLE[lineage]), (step, lineage)


@pytest.mark.parametrize(("pipeline", "command"), CELLS)
def test_build_excludes_elementarys_models_only_if_its_step_follows(
    pipeline: BuiltinPipeline, command: DbtCommand
) -> None:
    for elementary in TOGGLE:
        plan = plan_with_toggles(pipeline, command, (None, None, True), elementary)
        for step in plan.steps:
            follows = step.name == "build" and names(plan)[-1] == "elementary"
            assert step.without_elementary == follows, (step, elementary)


@pytest.mark.parametrize(("pipeline", "command"), CELLS)
def test_only_a_toggle_off_because_its_package_is_missing_is_noted(
    pipeline: BuiltinPipeline, command: DbtCommand
) -> None:
    for lineage, elementary in itertools.product(TOGGLE, TOGGLE):
        notes = []
        if pipeline != "ingester" and command not in ("deps", "elementary") and lineage == (None, None, False):
            notes.append(NO_LINEAGE_NOTE)
        if pipeline != "ingester" and command == "daily" and elementary == (None, None, False):
            notes.append(NO_ELEMENTARY_NOTE)
        assert list(plan_with_toggles(pipeline, command, lineage, elementary).notes) == notes, (lineage, elementary)


@pytest.mark.parametrize("command", DbtCommand)
def test_the_ingester_pipeline_ignores_all_other_fields(command: DbtCommand) -> None:
    expected = catalog.plan(TriggerRequest(BuiltinPipeline.INGESTER), installed())
    for given in itertools.product((True, False, None), (True, False, None)):
        assert catalog.plan(TriggerRequest(BuiltinPipeline.INGESTER, command, *given), installed()) == expected


@pytest.mark.parametrize("command", DbtCommand)
def test_full_is_the_ingester_followed_by_the_plan_of_dbt(command: DbtCommand) -> None:
    for given in itertools.product((True, False, None), (True, False, None)):
        full = catalog.plan(TriggerRequest(BuiltinPipeline.FULL, command, *given), installed())
        dbt = catalog.plan(TriggerRequest(BuiltinPipeline.DBT, command, *given), installed())
        assert full.steps[1:] == dbt.steps


@pytest.mark.parametrize("command", DbtCommand)
@pytest.mark.parametrize(
    ("resources", "pipeline", "held"),
    [
        (("a", "b"), BuiltinPipeline.INGESTER, ("a",)),
        (("a", "b"), BuiltinPipeline.DBT, ("b",)),
        (("a", "b"), BuiltinPipeline.FULL, ("a", "b")),
        (("one", "one"), BuiltinPipeline.INGESTER, ("one",)),
        (("one", "one"), BuiltinPipeline.DBT, ("one",)),
        (("one", "one"), BuiltinPipeline.FULL, ("one",)),
    ],
)
def test_a_plan_has_each_resource_of_its_steps_once(
    command: DbtCommand, resources: tuple[str, str], pipeline: BuiltinPipeline, held: tuple[str, ...]
) -> None:
    assert catalog.plan(TriggerRequest(pipeline, command), installed(resources=resources)).resources == held


@pytest.mark.parametrize("may_fail", [True, False])
def test_only_dailys_build_and_an_ingester_that_may_fail_tolerate_failure(may_fail: bool) -> None:
    tolerant = {}
    for pipeline, command in CELLS:
        for step in catalog.plan(TriggerRequest(pipeline, command), installed(ingester_may_fail=may_fail)).steps:
            if step.tolerates:
                tolerant[f"{pipeline} {command} {step.name}"] = step.tolerates
    expected = {f"{pipeline} daily build": 1 for pipeline in ("dbt", "full")}
    if may_fail:
        expected |= {
            f"{pipeline} {command} ingester": 255 for pipeline in ("ingester", "full") for command in DBT_STEPS
        }
    assert tolerant == expected


def test_the_default_command_is_daily() -> None:
    assert TriggerRequest(BuiltinPipeline.DBT).dbt_command is DbtCommand.DAILY


PIPELINE = PipelineSettings.model_validate(
    {
        "ingester": True,
        "dbt": {"select": "gold silver,tag:x", "exclude": "slow"},
        "parameters": {
            "carrier": {"default": "AA"},
            "month": {"type": "integer", "variable": "flight_month"},
            "since": {"type": "date", "option": "--since"},
        },
    }
)
VALUES: dict[str, ParameterValue] = {"carrier": "AA", "month": 3, "since": "2026-11-01"}


def steps_with_arguments(plan: Plan) -> list[tuple[str, tuple[str, ...]]]:
    return [(step.name, step.arguments) for step in plan.steps]


def test_the_steps_of_a_pipeline_get_its_selection_and_their_parameters() -> None:
    plan = catalog.declared_plan(PIPELINE, VALUES, None, installed())
    selection = ("--select=gold silver,tag:x", "--indirect-selection=buildable", "--exclude=slow")
    variables = '--vars={"carrier": "AA", "flight_month": 3}'
    assert steps_with_arguments(plan) == [
        ("ingester", ("--since=2026-11-01",)),
        ("deps", (variables,)),
        ("build", (*selection, variables)),
        ("elementary", (variables,)),
    ]
    assert [step.selective for step in plan.steps] == [False, False, True, False]


@pytest.mark.parametrize(("value", "given"), [(True, ("--full-refresh",)), (False, ()), (None, ())])
def test_a_flag_is_given_to_the_steps_that_take_it_where_it_is_true(value: bool | None, given: tuple[str, ...]) -> None:
    """Not to Elementary's, whose tables are the history of all runs."""
    full = {"type": "boolean", "flag": "--full-refresh"}
    pipeline = PipelineSettings.model_validate({"dbt": {}, "parameters": {"full": full}})
    values: dict[str, ParameterValue] = {} if value is None else {"full": value}
    plan = catalog.declared_plan(pipeline, values, None, installed())
    assert steps_with_arguments(plan) == [("deps", ()), ("build", given), ("elementary", ())]


def test_missing_packages_are_installed_before_the_first_dbt_step() -> None:
    needing = replace(installed(), needs_packages=True)
    both = PipelineSettings.model_validate({"ingester": True, "dbt": {"command": "run"}})
    assert [step.name for step in catalog.declared_plan(both, {}, None, needing).steps] == ["ingester", "deps", "run"]
    assert [step.name for step in catalog.declared_plan(both, {}, Models(("orders",)), needing).steps] == [
        "ingester",
        "deps",
        "run",
    ]
    daily = [step.name for step in catalog.declared_plan(PIPELINE, {}, None, needing).steps]
    assert daily.count(StepName.DEPS) == 1
    only_ingester = PipelineSettings.model_validate({"ingester": True})
    assert [step.name for step in catalog.declared_plan(only_ingester, {}, None, needing).steps] == ["ingester"]


@pytest.mark.parametrize(("pipeline", "command"), CELLS)
def test_a_checkout_without_its_packages_gets_them_first_with_a_note(
    pipeline: BuiltinPipeline, command: DbtCommand
) -> None:
    request, needing = TriggerRequest(pipeline, command), replace(installed(), needs_packages=True)
    usual, plan = catalog.plan(request, installed()), catalog.plan(request, needing)
    if pipeline == "ingester" or command in ("daily", "deps"):
        assert plan == usual
        return
    assert [name for name in names(plan) if name != "deps"] == names(usual)
    assert names(plan).index("deps") == (1 if pipeline == "full" else 0)
    assert "The step deps comes first" in plan.notes[-1]


def test_a_run_up_to_the_ingester_has_no_note_about_packages() -> None:
    needing = replace(installed(), needs_packages=True)
    both = PipelineSettings.model_validate({"ingester": True, "dbt": {"command": "run"}})
    assert catalog.declared_plan(both, {}, StepName.INGESTER, needing).notes == ()
    assert catalog.declared_plan(both, {}, StepName.DEPS, needing).notes != ()


def test_a_run_stops_only_at_nodes_that_its_command_builds() -> None:
    only_models = PipelineSettings.model_validate({"dbt": {"command": "run"}})
    whole = catalog.declared_plan(only_models, {}, None, installed())
    assert stop("orders", MODELS, whole) == Models(("orders",))
    assert "not found" in str(stop("countries", MODELS, whole))


def test_a_parameter_without_a_value_adds_no_argument() -> None:
    assert steps_with_arguments(catalog.declared_plan(PIPELINE, {}, None, installed()))[0] == ("ingester", ())
    only_dbt = PipelineSettings.model_validate({"dbt": {"command": "run"}})
    assert steps_with_arguments(catalog.declared_plan(only_dbt, {}, None, installed())) == [("run", ())]


def test_a_run_up_to_a_model_ends_with_the_step_that_builds_it() -> None:
    """That step builds what is upstream of the model and in the pipeline's selection."""
    plan = catalog.declared_plan(PIPELINE, {}, Models(("orders",)), installed())
    assert steps_with_arguments(plan) == [
        ("ingester", ()),
        ("deps", ()),
        (
            "build",
            ("--select=+fqn:orders,gold +fqn:orders,silver,tag:x", "--indirect-selection=buildable", "--exclude=slow"),
        ),
    ]
    assert not any(step.without_elementary for step in plan.steps)
    assert plan.resources == catalog.declared_plan(PIPELINE, {}, None, installed()).resources


@pytest.mark.parametrize(
    ("process", "steps"),
    [
        ("ingester", ["ingester"]),
        ("deps", ["ingester", "deps"]),
        ("build", ["ingester", "deps", "build"]),
        ("elementary", ["ingester", "deps", "build", "elementary"]),
    ],
)
def test_a_run_up_to_a_step_is_the_whole_plan_cut_after_it(process: str, steps: list[str]) -> None:
    whole = catalog.declared_plan(PIPELINE, VALUES, None, installed())
    plan = catalog.declared_plan(PIPELINE, VALUES, StepName(process), installed())
    assert [step.name for step in plan.steps] == steps
    assert plan.steps == whole.steps[: len(steps)]


def test_a_run_up_to_the_ingester_holds_only_the_ingesters_resource() -> None:
    plan = catalog.declared_plan(PIPELINE, {}, StepName.INGESTER, installed())
    assert plan.resources == (installed().ingester_resource,)


def test_the_resources_of_a_pipeline_come_before_those_of_its_fabric() -> None:
    own = PIPELINE.model_copy(update={"resources": ResourceSettings(dbt="orders")})
    whole = catalog.declared_plan(own, {}, None, installed())
    assert whole.resources == (installed().ingester_resource, "orders")


MODELS = [
    Node("orders", "model", ("shop", "silver", "orders")),
    Node("gold", "model", ("shop", "gold")),
    Node("sales", "model", ("shop", "gold", "sales")),
    Node("countries", "seed", ("shop", "countries")),
    Node("unique_orders_id", "test", ("shop", "silver", "unique_orders_id")),
]


def stop(process: str, nodes: list[Node], whole: Plan | None = None) -> Models | str:
    """Where a run up to this process stops, or why it can't."""
    whole = whole or catalog.declared_plan(PIPELINE, {}, None, installed())
    return catalog.stop_at(process, catalog.find_models(process, nodes, whole), nodes, whole)


@pytest.mark.parametrize(
    ("process", "problem"),
    [
        ("orders", None),
        ("countries", None),
        ("sales", None),
        ("order", "Process `order` not found: it must be a step or a model of the pipeline. There are: ingester, deps"),
        ("unique_orders_id", "not found"),
        ("silver", "not found"),
        ("shop", "not found"),
        ("gold", "is the name of a model and of a folder or package"),
    ],
)
def test_a_run_may_stop_only_at_a_model_whose_name_selects_only_it(process: str, problem: str | None) -> None:
    found = stop(process, MODELS)
    assert isinstance(found, Models) == (problem is None)
    if problem is not None:
        assert problem in str(found)


VERSIONS = [
    Node("dim", "model", ("shop", "dim", "v1"), has_version=True),
    Node("dim", "model", ("shop", "dim", "v2"), has_version=True),
    Node("gr\u00f6\u00dfe", "model", ("shop", "gr\u00f6\u00dfe")),
    Node("days", "model", ("shop", "days")),
    Node("days", "model", ("calendar", "days")),
    Node("a.b", "model", ("shop", "a.b")),
]


@pytest.mark.parametrize(
    ("process", "words"),
    [
        ("dim.v2", ("dim.v2",)),
        ("dim_v1", ("dim.v1",)),
        ("dim", ("dim.v1", "dim.v2")),
        ("gr\u00f6\u00dfe", ("gr\u00f6\u00dfe",)),
        ("gro\u0308\u00dfe", ("gr\u00f6\u00dfe",)),
        ("a.b", ("a.b",)),
    ],
)
def test_a_model_is_called_by_any_of_dbts_words_for_it(process: str, words: tuple[str, ...]) -> None:
    found = stop(process, VERSIONS)
    assert isinstance(found, Models)
    assert found.words == words


def test_a_run_up_to_all_versions_of_a_model_says_so() -> None:
    found = stop("dim", VERSIONS)
    assert isinstance(found, Models)
    assert "all of them are built: name one of dim.v1, dim.v2" in found.notes[0]
    whole = catalog.declared_plan(PIPELINE, {}, found, installed())
    assert whole.notes[-1:] == found.notes


def test_a_model_that_a_package_has_too_is_called_by_its_full_name() -> None:
    whole = catalog.declared_plan(PIPELINE, {}, None, installed())
    assert "of several packages (calendar, shop)" in str(stop("days", VERSIONS))
    own = [node for node in catalog.find_models("days", VERSIONS, whole) if node.fqn[0] == "shop"]
    assert catalog.stop_at("days", own, VERSIONS, whole) == Models(("shop.days",))


def test_a_refusal_names_only_some_of_many_models() -> None:
    nodes = [Node(f"model_{n}", "model", ("shop", f"model_{n}")) for n in range(1000)]
    problem = stop("x", nodes)
    assert isinstance(problem, str)
    assert problem.endswith("and 984 more.")
    assert len(problem) < 500
