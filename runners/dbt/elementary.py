"""Whether the target of a dbt project has Elementary's tables, looked up as Elementary's own hooks do it."""

from __future__ import annotations

import json

from runners.dbt.command import ELEMENTARY, DbtConfig, DbtPaths, DbtStep, render_command
from runners.dbt.listing import Ask, message
from runners.mask import Mask

_MARK = "elementary's missing tables: "
# Views keep nothing. The hooks find a table by the same call, and write nothing where it finds none.
_QUESTION = " ".join(
    (
        "{% if execute %}{% set missing = [] %}{% for node in graph.nodes.values()",
        f"if node.package_name == '{ELEMENTARY}' and node.resource_type == 'model'",
        "and node.config.materialized not in ['view', 'materialized_view', 'ephemeral']",
        "and not adapter.get_relation(node.database, node.schema, node.alias) %}",
        "{% do missing.append(node.name) %}{% endfor %}",
        f'{{% do print("{_MARK}" ~ tojson(missing)) %}}{{% endif %}}',
        "select 1",
    )
)


async def missing_tables(dbt: DbtConfig, step: DbtStep, paths: DbtPaths, ask: Ask, mask: Mask) -> list[str] | str:
    """The models of Elementary whose table the target of a step does not have, or why dbt can't tell.

    ask, mask: as in runners.dbt.listing.list_nodes.
    """
    result = await ask(render_command(dbt, step, paths, _QUESTION))
    lines = result.output.decode(errors="replace").splitlines()
    answer = next((line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)), None)
    return mask.text(message(result.output, result.error)) if answer is None else [*map(str, json.loads(answer))]
