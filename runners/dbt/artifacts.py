"""The artifacts of a dbt step: which files it leaves, where they are, and whether one is from its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from runners.dbt.command import lineage_file, report_file, target_folder

RUN_RESULTS, MANIFEST = "run_results.json", "manifest.json"

# The names of artifacts in dbt's target folder, each with that of its file there.
IN_TARGET: Mapping[str, str] = MappingProxyType(
    {
        RUN_RESULTS: RUN_RESULTS,
        MANIFEST: MANIFEST,
        "catalog.json": "catalog.json",
        "sources.json": "sources.json",
        "docs.html": "static_index.html",
    }
)
_OF_A_RUN = (RUN_RESULTS, MANIFEST)


def files(folder: Path) -> Mapping[str, Path]:
    """Where each artifact of a step is, if the step left it. folder: of the step."""
    return {
        **{name: target_folder(folder) / file for name, file in IN_TARGET.items()},
        "lineage.ndjson": lineage_file(folder),
        "elementary_report.html": report_file(folder),
    }


def in_target(verb: str) -> Mapping[str, str]:
    """The artifacts that a subcommand of dbt may leave in its target folder, each with the name of its file."""
    match verb:
        case "deps":
            return {}
        case "build" | "run" | "test":
            return {name: IN_TARGET[name] for name in _OF_A_RUN}
        case _:
            return IN_TARGET


def is_from_run(content: bytes, invocation_id: str) -> bool:
    """Whether a file of dbt is from the run with this id, and not from an earlier one: each of them has its id."""
    return bool(invocation_id) and invocation_id.encode() in content
