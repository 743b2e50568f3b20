"""The run_results.json of a dbt step, and what the end of a dbt step means by its results and its log."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from runners.dbt.command import ELEMENTARY, DbtStep, state_file, target_folder
from runners.dbt.output import FAILED_STATUSES, DbtReader, Results, add_node
from runners.dbt.retry import merged
from runners.mask import Mask
from runners.outcome import Exited, Killed, NotStarted, Outcome
from runners.report import Failure, Progress, folded, one_line, without_frames

_HIGHEST_SIGNAL = 64


def read_results(folder: Path) -> Results | None:
    """The results of the step whose folder this is; None if there is no run_results.json or it can't be understood.

    The target folder is in the step's own folder, so it never has the results of an earlier run. dbt writes the file
    itself, so the failure may have secrets in it. Raises OSError if the file can't be read.
    """
    try:
        document = json.loads((target_folder(folder) / "run_results.json").read_bytes())
        if state_file(folder).exists():  # what failed before, and was not run again, still counts
            document = merged(json.loads(state_file(folder).read_bytes()), document)
        nodes = [(str(node["status"]), str(node["unique_id"]), node.get("message")) for node in document["results"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    progress = functools.reduce(add_node, (status for status, _, _ in nodes), Progress(total=len(nodes)))
    failed = [(node, message) for status, node, message in nodes if status in FAILED_STATUSES]
    failure = None
    if failed:
        node, message = failed[0]
        text = str(message or "failed without a message")
        failure = Failure(folded(node), folded(without_frames(text)), len(failed) - 1)
    return Results(progress, failure, all(map(_is_elementary_or_hook, (node for _, node, _ in nodes))))


def _is_elementary_or_hook(node: str) -> bool:
    return node.split(".")[1:2] == [ELEMENTARY] or node.startswith("operation.")


def judge_outcome(
    outcome: Outcome, step: DbtStep, reader: DbtReader, results: Results | None, mask: Mask, *, has_report: bool
) -> Outcome:
    """The outcome of a dbt step: its exit code counts only as far as log and results confirm it.

    results: None if the step has none. mask: of what they say. has_report: whether the file of edr's report exists.
    """
    match outcome:
        case Exited(code=0):
            why = _why_incomplete(step, reader, results, mask, has_report=has_report)
            return NotStarted(why, 0, outcome.span) if why else outcome
        case Exited(code=code) if step.lineage and code >= 256 - _HIGHEST_SIGNAL:
            return Killed(256 - code, outcome.span)  # dbt-ol exits with minus the signal that ended its dbt
        case Exited(code=code):
            why = _why_not_begun(step, reader, results, mask)
            return NotStarted(f"dbt {step.verb} {why}", code, outcome.span) if why else outcome
        case _:
            return outcome


def _why_incomplete(
    step: DbtStep, reader: DbtReader, results: Results | None, mask: Mask, *, has_report: bool
) -> str | None:
    """Why a step that exited with 0 did not do its work; None if it did."""
    if step.verb == "deps":
        return None if reader.started else "dbt deps exited 0 without having run; is it dbt 1.x? Look at its output."
    if results is None:
        return f"dbt {step.verb} exited 0 without leaving a run_results.json: it did not run; look at its output."
    if results.failure is not None:
        message = one_line(results.failure.message, hide=mask.text)
        return f"dbt {step.verb} exited 0, but {results.failure.node} failed: {message}"
    if step.elementary and results.progress.done == 0:
        return "dbt found no model of Elementary to run; run `deps`, and see that the package is enabled."
    if step.selective and (results.progress.done == 0 or (step.with_elementary and results.only_elementary)):
        selected = " ".join(step.selection)
        return f"dbt {step.verb} found nothing to do in what was selected ({selected}); see that it exists."
    if step.report and not has_report:
        return "edr exited 0 without leaving its report; look at its output."
    return None


def _why_not_begun(step: DbtStep, reader: DbtReader, results: Results | None, mask: Mask) -> str | None:
    """Why a step that exited with another code than 0 did not begin its work; None if it began.

    A run that began has results, or nodes that have ended, or an error in its models. A run that did not begin failed
    at the program, the project, its profile, or the database.
    """
    if results is not None or (reader.progress is not None and reader.progress.done > 0):
        return None
    message = one_line(reader.cause or "it said nothing", hide=mask.text)
    if not reader.started:
        return f"could not be started: {message}; mend that and trigger it again."
    if step.verb == "deps":
        return None
    if not reader.loaded:
        return f"could not load its project or profile: {message}; mend that and trigger it again."
    if reader.connecting:
        return (
            f"could not use its database: {message}; make sure it can be reached and is not in use, "
            "then trigger it again."
        )
    return None
