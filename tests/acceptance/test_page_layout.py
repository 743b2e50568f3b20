"""What the page computes of jobs and of the dependencies of nodes, by its own modules in a real Chromium."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.support import projects
from tests.support.browser import Pages
from tests.support.gateway import Gateway

Run = Callable[..., Any]
LANES = "one.lanes.map((lane) => [lane.x, lane.y])"


@pytest.fixture(scope="module")
def run(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Evaluate an expression of the modules' functions, with `nodes` and `more`."""
    gateway = Gateway(projects.make(tmp_path_factory.mktemp("layout") / "project")).start()
    pages = Pages(chromium)
    page = pages.open(f"{gateway.base}/")

    def evaluate(expression: str, nodes: Any, more: Any = None) -> Any:
        return page.evaluate(
            "async ([nodes, more]) => { const { criticalPath, layers, pathOf } = await import('/page/layout.js');"
            " const { progressOf, runSeconds } = await import('/page/format.js');"
            f" return {expression}; }}",
            [nodes, more],
        )

    try:
        yield evaluate
    finally:
        pages.close()
        gateway.stop()


def node(
    name: str, *before: str, seconds: float = 1, at: float = 0, kind: str = "model", step: str = "build"
) -> dict[str, Any]:
    """A node that began `at` seconds after the step."""
    return {
        "step": step,
        "uniqueId": name,
        "name": name,
        "resourceType": kind,
        "status": "success",
        "startedAt": f"2026-11-30T00:00:{at:06.3f}Z",
        "durationSeconds": seconds,
        "dependsOn": list(before),
    }


def path(run: Run, *nodes: dict[str, Any]) -> list[str]:
    """The critical path, by names."""
    found: list[str] = run("criticalPath(nodes).map((node) => node.name)", list(nodes))
    return found


def placed(run: Run, *nodes: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """Layer and place of each node, in the order of the answer."""
    found = run("layers(nodes).map((one) => [one.id, [one.x, one.y]])", list(nodes))
    return {name: tuple(place) for name, place in found}


def test_the_critical_path_is_the_chain_with_the_largest_sum(run: Run) -> None:
    diamond = [node("a"), node("b", "a", seconds=3), node("c", "a", seconds=5), node("d", "b", "c")]
    assert path(run, *diamond) == ["a", "c", "d"]
    assert path(run, *diamond, node("alone", seconds=6)) == ["a", "c", "d"]
    assert path(run, *diamond, node("alone", seconds=8)) == ["alone"]


def test_a_node_of_a_build_waits_for_the_tests_before_it(run: Run) -> None:
    test = node("t", "a", seconds=9, at=1, kind="test")
    assert path(run, node("a"), test, node("b", "a", at=10)) == ["a", "t", "b"]
    # of a model further up too
    between = [node("a"), node("a2"), node("b", "a", at=1), node("b2", "a2", at=1), node("c", "b", "b2", at=20)]
    assert path(run, *between, node("t", "a", "a2", seconds=9, at=1, kind="test"))[1:] == ["t", "c"]


def test_a_node_waits_for_no_test_of_what_is_not_before_it(run: Run) -> None:
    """Also where that test happened to end before."""
    nodes = [node("a"), node("other", seconds=2), node("b", "a", seconds=9, at=20)]
    assert path(run, *nodes, node("t", "a", "other", seconds=3, at=2, kind="test")) == ["a", "b"]


def test_a_node_waits_for_no_test_that_ended_after_it_began(run: Run) -> None:
    """As in a step that runs models and tests without a build's order."""
    nodes = [node("a"), node("b", "a", seconds=2, at=1)]
    assert path(run, *nodes, node("t", "a", seconds=1.5, at=1, kind="test")) == ["a", "b"]


def test_a_node_waits_for_its_unit_tests(run: Run) -> None:
    """Which wait for what the node depends on."""
    nodes = [node("a"), node("unit", "b", seconds=2, at=1, kind="unit_test"), node("b", "a", at=3)]
    assert path(run, *nodes) == ["a", "unit", "b"]


def test_a_critical_path_has_an_end_for_a_circle_and_for_no_nodes(run: Run) -> None:
    assert path(run) == []
    assert sorted(path(run, node("a", "b"), node("b", "a"))) == ["a", "b"]
    assert path(run, node("a", "a")) == ["a"]
    assert path(run, node("a", "elsewhere", seconds=0)) == ["a"]


def test_layers_go_from_sources_to_what_nothing_depends_on(run: Run) -> None:
    """A test has no place. The keyboard follows the order of the answer: layer by layer, each from top to bottom."""
    found = placed(
        run,
        node("d", "b", "c"),
        node("c", "a"),
        node("b", "a", "macro.m"),
        node("a", "source.s"),
        node("t", "d", kind="test"),
    )
    assert {name: layer for name, (layer, _) in found.items()} == {"source.s": 0, "a": 1, "b": 2, "c": 2, "d": 3}
    assert list(found) == ["source.s", "a", *sorted("bc", key=lambda name: found[name][1]), "d"]
    assert found["a"][1] == found["d"][1] == (found["b"][1] + found["c"][1]) / 2


def test_a_node_of_two_steps_has_one_place(run: Run) -> None:
    twice = [node("a"), node("b", "a"), node("b", "a", step="elementary")]
    assert list(placed(run, *twice)) == ["a", "b"]
    assert run("layers(nodes).map((one) => one.node.step)", twice) == ["build", "elementary"]


def test_layers_have_places_for_a_circle_and_for_no_nodes(run: Run) -> None:
    assert placed(run) == {}
    assert set(placed(run, node("a", "b"), node("b", "a"), node("c", "c"))) == {"a", "b", "c"}


def test_no_node_or_edge_is_behind_another(run: Run) -> None:
    """An edge over several layers passes those between at a place of its own."""
    names = [f"m{number}" for number in range(60)]
    nodes = [
        node(name, *{names[number // 2], names[number // 3], names[number % 5]} - {name} if number > 5 else ())
        for number, name in enumerate(names)
    ]
    found = run(f"layers(nodes).map((one) => [one.x, one.y, {LANES}])", nodes)
    columns: dict[int, list[tuple[float, float]]] = {}
    for layer, place, lanes in found:
        columns.setdefault(layer, []).append((place, 1))
        for lane_layer, lane in lanes:
            columns.setdefault(lane_layer, []).append((lane, 0))
    assert any(size == 0 for column in columns.values() for _, size in column)
    for column in columns.values():
        for (one, size), (other, next_size) in itertools.pairwise(sorted(column)):
            assert other - one > (size + next_size) / 2 - 0.01, column


def test_edges_that_need_not_cross_do_not(run: Run) -> None:
    """Two trees, whose nodes come in an order that has them crossed."""
    nodes = [node("z"), node("a")]
    nodes += [node(f"{letter}{number}", parent) for letter, parent in (("a", "z"), ("z", "a")) for number in range(4)]
    found = placed(run, *nodes)
    edges = [(found[parent][1], found[one["name"]][1]) for one in nodes for parent in one["dependsOn"]]
    assert not [1 for (a, b), (c, d) in itertools.combinations(edges, 2) if (a - c) * (b - d) < 0]


def test_the_path_of_a_node_is_all_before_and_after_it(run: Run) -> None:
    nodes = [node("a"), node("b", "a"), node("c", "a"), node("d", "b"), node("e", "c")]
    expression = "[...pathOf(more, new Map(layers(nodes).map((one) => [one.id, one])))].sort()"
    assert run(expression, nodes, "b") == ["a", "b", "d"]
    assert run(expression, nodes, "a") == ["a", "b", "c", "d", "e"]
    assert run(expression, [node("a", "b"), node("b", "a")], "a") == ["a", "b"]


def job(phase: str, *steps: tuple[str, str, int | None, int | None]) -> dict[str, Any]:
    """The record of a job that waited 40 minutes and ran 3. steps: name, status, exit code, nodes."""
    counts = ("done", "total", "pass", "warn", "error", "skip", "noop")
    return {
        "phase": phase,
        "createdAt": "2026-11-30T00:00:00Z",
        "startedAt": "2026-11-30T00:40:00Z",
        "finishedAt": "2026-11-30T00:43:00Z" if phase == "ended" else None,
        "durationSeconds": 43 * 60,
        "steps": [
            {"name": name, "status": status, "exitCode": code, "progress": nodes and dict.fromkeys(counts, nodes)}
            for name, status, code, nodes in steps
        ],
    }


@pytest.mark.parametrize(
    ("record", "total"),
    [
        (job("deps", ("ingester", "completed", 0, 5), ("deps", "running", None, None)), None),
        (job("build", ("ingester", "completed", 0, 5), ("build", "running", None, 85)), 85),
        (job("cancelling", ("build", "running", None, 85)), 85),
        (job("ended", ("build", "completed", 1, 271), ("elementary", "completed", 0, 12)), 271),
        (job("ended", ("ingester", "completed", 0, 5), ("build", "completed", 0, 85), ("docs", "completed", 0, 2)), 87),
        (job("ended", ("ingester", "completed", 0, 5)), 5),
        (job("ended", ("deps", "completed", 0, None)), None),
    ],
)
def test_progress_is_that_of_the_step_that_is_told(run: Run, record: dict[str, Any], total: int | None) -> None:
    assert run("progressOf(nodes)?.total ?? null", record) == total


def test_the_time_in_the_queue_is_no_running_time(run: Run) -> None:
    assert run("runSeconds(nodes)", job("ended", ("build", "completed", 0, 85))) == 3 * 60
    assert 3 * 60 <= run("runSeconds(nodes)", job("build", ("build", "running", None, 85))) < 4 * 60
    waiting = {**job("queued", ("build", "pending", None, None)), "startedAt": None}
    assert run("runSeconds(nodes)", waiting) == 0
