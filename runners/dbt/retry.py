"""`dbt retry`: what failed in a step or was skipped runs again, from the results that its last attempt left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners import durable
from runners.dbt.command import state_file, target_folder

_RUN_AGAIN = frozenset({"error", "fail", "skipped", "runtime error", "partial success"})  # statuses, as dbt has them
_COMMANDS = ("build", "run", "test")
_PARSE_FILE = "partial_parse_file_path"
_MASKED = "***"  # what a mask leaves of a secret
_NOT_TAKEN = ("vars", "invocation_command")  # arguments that dbt does not take from its state, as it is called here


def prepare(earlier: Path, folder: Path) -> str | None:
    """Make the state that `dbt retry` goes on from; why it can't go on, as the end of a sentence.

    earlier: the folder of the attempt before. folder: of the attempt that is about to begin. The results of a retry
    have only the nodes that it ran, so those of all attempts are put together.
    """
    try:
        return _prepare(earlier, folder)
    except OSError as error:
        return f"the results of its last attempt can't be taken over: {error}"


def _prepare(earlier: Path, folder: Path) -> str | None:
    """As `prepare`. Raises OSError."""
    before, last = _read(state_file(earlier)), _read(target_folder(earlier) / "run_results.json")
    state = last if before is None else before if last is None else merged(before, last)
    if state is None:
        return "its last attempt left no results"
    arguments = state.get("args")
    if not isinstance(arguments, dict) or arguments.get("which") not in _COMMANDS:
        return "its last attempt was no run that dbt can go on with"
    again = [result["unique_id"] for result in state["results"] if _runs_again(result)]
    if not again:
        return "none of its nodes had failed"
    taken = {name: value for name, value in arguments.items() if name not in _NOT_TAKEN}
    if _MASKED in json.dumps([again, taken]):
        return "a name in the results of its last attempt is masked, since a secret is part of it"
    parse_file = arguments.get(_PARSE_FILE)
    if parse_file is not None and not Path(str(parse_file)).exists():  # dbt refuses a file that does not exist
        del arguments[_PARSE_FILE]
    durable.make_directory(state_file(folder).parent)
    durable.write(state_file(folder), state)
    return None


def merged(before: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a run, with those of a later one in the place of the same nodes'."""
    results = {result["unique_id"]: result for result in (*before["results"], *last["results"])}
    return {**before, "results": list(results.values())}


def _runs_again(result: Mapping[str, Any]) -> bool:
    return result.get("status") in _RUN_AGAIN and not result["unique_id"].startswith("operation.")


def _read(file: Path) -> dict[str, Any] | None:
    """A run_results.json, None where there is none that can be understood. Raises OSError."""
    try:
        document = json.loads(file.read_bytes())
        results = document["results"]
        understood = isinstance(results, list) and all(isinstance(result["unique_id"], str) for result in results)
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return document if understood else None
