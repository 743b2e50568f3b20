"""What a dbt step would run, by dbt's own word, before anything runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runners.dbt import command as dbt
from runners.dbt import listing as dbt_nodes
from runners.dbt.command import DbtConfig, DbtPaths, DbtStep
from runners.dbt.listing import Node
from runners.mask import Mask
from runners.program import ProgramResult

TAKES = 120.0  # seconds that dbt may need to parse a large project

Ask = Callable[[tuple[str, ...]], Awaitable[ProgramResult]]


async def nodes(
    dbt_run: DbtConfig, step: DbtStep, paths: DbtPaths, ask: Ask, mask: Mask, *, may_install: bool
) -> list[Node] | str:
    """The nodes, or why they can't be found out. ask: runs a command line of dbt where the project is.

    may_install: packages that are missing are installed; else the project's own folder stays as it is.
    """
    said = await ask(dbt.list_command(dbt_run, step, paths))
    if said.code != 0 and dbt_nodes.lacks_packages(said.output) and may_install:
        said = await ask(dbt.deps_command(dbt_run, step, paths))
        said = await ask(dbt.list_command(dbt_run, step, paths)) if said.code == 0 else said
    found = dbt_nodes.read(said.output)
    if said.code != 0 or (said.output.strip() and not found):
        return f"dbt can't list the models: {mask.text(dbt_nodes.why(said.output, said.error))}"
    return found
