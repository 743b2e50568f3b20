"""`pipeline-gateway init`: the files of the demo, to be changed into a project of one's own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def init(folder: Path) -> None:
    """Begin a lakehouse of your own: copy the demo's files into a new or empty folder."""
    from gateway.demo import starter

    starter.copy(folder)
    print(f"{folder} is ready. Next: cd {folder}; pipeline-gateway check; pipeline-gateway serve")
