"""The queries of the history: of jobs, and of refused triggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.model.history import JobFilter

# The inner query reads the index alone, and the outer one the records of the page.
_PAGE = """
    SELECT seq, record FROM job WHERE seq IN (
        SELECT seq FROM job INDEXED BY job_listed WHERE {conditions} ORDER BY seq DESC LIMIT ?
    ) ORDER BY seq DESC
"""
_REFUSALS = """
    SELECT seq, created_at, project, fabric, pipeline, code, error, conflict FROM refusal
        WHERE {conditions} ORDER BY seq DESC LIMIT ?
"""
USUAL = """
    SELECT seconds FROM job WHERE project = ? AND pipeline = ? AND status = 'completed' ORDER BY seq DESC LIMIT ?
"""
# The inner query reads the index alone.
LAST_SUCCESSES = """
    SELECT project, pipeline, ended_at FROM job WHERE seq IN (
        SELECT max(seq) FROM job INDEXED BY job_listed WHERE outcome IN ('succeeded', 'warnings')
        GROUP BY project, pipeline
    )
"""


def page(wanted: JobFilter, before: int | None, limit: int) -> tuple[str, list[object]]:
    """The query of the newest `limit` jobs that are wanted, and its values. before: a `seq` that they are below."""
    return _filled(_PAGE, wanted, before, limit)


def refusals(wanted: JobFilter, before: int | None, limit: int) -> tuple[str, list[object]]:
    """The same of refused triggers. wanted: without statuses and outcomes, which these don't have."""
    return _filled(_REFUSALS, wanted, before, limit)


def _filled(query: str, wanted: JobFilter, before: int | None, limit: int) -> tuple[str, list[object]]:
    parts = list(_conditions(wanted, before))
    conditions = " AND ".join(condition for condition, _ in parts) or "1"
    return query.format(conditions=conditions), [*(value for _, values in parts for value in values), limit]


def _conditions(wanted: JobFilter, before: int | None) -> Iterator[tuple[str, Sequence[object]]]:
    if before is not None:
        yield "seq < ?", (before,)
    if wanted.since is not None:
        yield "created_at >= ?", (wanted.since,)
    if wanted.until is not None:
        yield "created_at < ?", (wanted.until,)
    for column, values in (
        ("status", wanted.statuses),
        ("outcome", wanted.outcomes),
        ("pipeline", wanted.pipelines),
        ("project", wanted.projects),
        ("fabric", wanted.fabrics),
    ):
        if values:
            yield f"{column} IN ({', '.join('?' * len(values))})", values
