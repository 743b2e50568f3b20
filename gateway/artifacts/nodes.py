"""The nodes of a job's dbt steps: from what is kept of a step, and where that does not tell, from its log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.artifacts import kept
from gateway.errors import UnknownTargetError
from gateway.model.job import Active, Finished, Job, StepState, Waiting
from gateway.model.plan import StepName
from runners.dbt import nodes as dbt
from runners.dbt.artifacts import MANIFEST, RUN_RESULTS
from runners.dbt.command import state_file
from runners.dbt.nodes import LogNodes, Node, Sql
from runners.mask import Mask
from runners.outcome import Exited
from runners.output import OutputRing

_CHUNK = 1 << 20  # bytes of output that are read at once
_LONGEST_LINE = 1 << 20
_WITHOUT_NODES = (StepName.INGESTER, StepName.DEPS)
_RAN_TO_ITS_END = (0, 1)  # exit codes of dbt after which its results have each node


@dataclass(frozen=True, slots=True)
class StepNode:
    """A node of a step."""

    step: str
    node: Node


@dataclass(frozen=True, slots=True)
class _DbtStep:
    """A dbt step that was begun. start, end: offsets of its output; end: None for the last step so far."""

    name: StepName
    folder: Path
    state: Active | Finished
    start: int | None
    end: int | None

    @property
    def ran_to_its_end(self) -> bool:
        match self.state:
            case Finished(outcome=Exited(code=code)):
                return code in _RAN_TO_ITS_END
            case Active() | Finished():
                return False


def of_job(folder: Path, job: Job, step: str | None, mask: Mask) -> list[StepNode]:
    """The nodes of a job or of one step. folder: of the job. Blocks. Raises UnknownTargetError, OSError."""
    if step is not None:
        kept.must_have_step(job, step)
    return [
        StepNode(one.name, node)
        for one in _steps(folder, job)
        if step in (None, one.name)
        for node in _masked(_nodes(folder, one), mask)
    ]


def sql_of(folder: Path, job: Job, unique_id: str, step: str | None, mask: Mask) -> Sql:
    """The statements of a node in a step, the latest that has the node unless one is given. Blocks.

    folder: of the job. Raises UnknownTargetError, OSError.
    """
    if step is not None:
        kept.must_have_step(job, step)
    for one in reversed(list(_steps(folder, job))):
        if step not in (None, one.name):
            continue
        results = _results(one, sql_of=unique_id) or []
        manifest = dbt.parse_manifest(kept.document(one.folder, MANIFEST) or b"", sql_of=unique_id)
        if unique_id in {result["unique_id"] for result in results} or _has_begun(folder, one, unique_id):
            found = dbt.sql(unique_id, results, manifest)
            compiled, failures = (
                None if text is None else mask.text(text) for text in (found.compiled, found.failures)
            )
            return Sql(compiled, failures)
    where = "the job" if step is None else f"the step {step}"
    raise UnknownTargetError(
        "unknown_node",
        f"Node {unique_id[:200]!a} not found in {where}; GET /api/v1/jobs/{job.id}/nodes lists those there are.",
    )


def _steps(folder: Path, job: Job) -> Iterator[_DbtStep]:
    """The dbt steps that were begun, in order."""
    states = (state.last if isinstance(state, Waiting) else state for state in job.steps)
    begun = [
        (n, planned.name, state)
        for n, (planned, state) in enumerate(zip(job.plan.steps, states, strict=True))
        if isinstance(state, Active | Finished)
    ]
    ends = [*(_start(state) for _, _, state in begun[1:]), None]
    for (n, name, state), end in zip(begun, ends, strict=False):
        if name not in _WITHOUT_NODES:
            yield _DbtStep(name, kept.step_folder(folder, job, n), state, _start(state), end)


def _start(state: StepState) -> int | None:
    """Where the output of a step begins; records of older versions don't have that of an ended step."""
    match state:
        case Active(output_from=start) | Finished(output_from=start):
            return start
        case _:
            return None


def _nodes(job: Path, step: _DbtStep) -> list[Node]:
    results = _results(step)
    logged = [] if results is not None and step.ran_to_its_end else _logged(job, step)
    manifest = dbt.parse_manifest(kept.document(step.folder, MANIFEST) or b"")
    return dbt.joined(results or [], logged, manifest, runs=isinstance(step.state, Active))


def _results(step: _DbtStep, sql_of: str | None = None) -> list[dbt.Document] | None:
    """The results of a step, after `dbt retry` with those of the nodes that had ended before it."""
    last = dbt.parse_results(kept.document(step.folder, RUN_RESULTS) or b"", sql_of)
    try:
        before = dbt.parse_results(kept.read(state_file(step.folder)) or b"", sql_of)
    except FileNotFoundError:
        return last
    if last is None or before is None:
        return last
    return list({result["unique_id"]: result for result in (*before, *last)}.values())


def _has_begun(job: Path, step: _DbtStep, unique_id: str) -> bool:
    return any(node.unique_id == unique_id for node in _logged(job, step))


def _logged(job: Path, step: _DbtStep) -> list[Node]:
    """The nodes by the output of a step, as far as it is kept. job: the folder of the job."""
    ring, nodes, rest, offset = OutputRing(job), LogNodes(), b"", step.start
    if offset is None:
        return []
    end = ring.bounds()[1] if step.end is None else step.end
    while offset < end and (chunk := ring.read(offset, min(_CHUNK, end - offset))).data:
        rest = rest if chunk.start == offset else b""  # what was dropped lies between
        offset = chunk.start + len(chunk.data)
        *lines, rest = (rest + chunk.data).split(b"\n")
        rest = rest[-_LONGEST_LINE:]
        for line in lines:
            nodes.feed(line.decode("utf-8", "replace"))
    return nodes.nodes


def _masked(nodes: list[Node], mask: Mask) -> list[Node]:
    """The nodes without secrets, which an escape or a number of a terminal's colour may have hidden before.

    All texts are masked at once, since each call costs; no secret has a NUL in it.
    """
    texts = [text.replace("\0", "") for node in nodes for text in _texts(node)]
    shown = mask.text("\0".join(texts)).split("\0")
    if shown == texts:
        return nodes
    following = iter(shown)
    return [_with_texts(node, following) for node in nodes]


def _texts(node: Node) -> Iterator[str]:
    yield from (node.unique_id, node.name, node.message or "", node.path or "", node.column or "")
    yield from node.depends_on


def _with_texts(node: Node, texts: Iterator[str]) -> Node:
    """A node with texts in the order of `_texts`."""
    unique_id, name, message, path, column = (next(texts) for _ in range(5))
    before = tuple(next(texts) for _ in node.depends_on)
    return replace(
        node,
        unique_id=unique_id,
        name=name,
        message=message or None,
        path=path or None,
        column=column or None,
        depends_on=before,
    )
