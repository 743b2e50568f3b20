"""Small real projects: a folder with gateway.yaml, an ingester and a dbt project on DuckDB."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

INGESTER = """
    import json, time
    for number in range(1, 4):
        print(json.dumps({"table": f"table_{number}", "rows": number, "done": number, "total": 3}))
"""


def make(folder: Path, *, ingester: str = INGESTER, settings: dict[str, Any] | None = None) -> Path:
    """A project whose ingester is this Python program and whose dbt project has two models and three tests.

    settings: merged over the gateway.yaml at its top level. The programs are those of the running Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "ingest.py", ingester)
    configuration: dict[str, Any] = {
        "enabled": True,
        "fabrics": {"local": {"resources": {"ingester": "warehouse", "dbt": "warehouse"}}},
        "projects": {"small": {"dbt": "transform", "ingester": {"command": [sys.executable, "ingest.py"]}}},
    }
    (folder / "gateway.yaml").write_text(yaml.safe_dump({**configuration, **(settings or {})}), encoding="utf-8")
    dbt_project(folder / "transform")
    return folder


def dbt_project(folder: Path) -> Path:
    """A dbt project on a DuckDB file beside it."""
    write(folder / "dbt_project.yml", "name: small\nversion: '1.0'\nprofile: small\n")
    write(
        folder / "profiles.yml",
        """
        small:
          target: dev
          outputs:
            dev: {type: duckdb, path: ../warehouse.duckdb, threads: 2}
        """,
    )
    write(folder / "models/numbers.sql", "select range as n from range(10)\n")
    write(folder / "models/evens.sql", "select n from {{ ref('numbers') }} where n % 2 = 0\n")
    write(
        folder / "models/models.yml",
        """
        models:
          - name: numbers
            columns: [{name: n, data_tests: [unique, not_null]}]
          - name: evens
            columns: [{name: n, data_tests: [unique]}]
        """,
    )
    return folder


def add_elementary(project: Path) -> None:
    """Give a dbt project a package named elementary.

    The real one comes from the dbt hub, which tests don't reach; this one has two models of its own, so that the
    command line, the selection and the order of the steps are what is tested.
    """
    package = project.parent / "elementary_package"
    write(package / "dbt_project.yml", "name: elementary\nversion: '0.1'\nconfig-version: 2\n")
    write(package / "models/elementary_results.sql", "select 1 as id\n")
    write(package / "models/elementary_runs.sql", "select * from {{ ref('elementary_results') }}\n")
    write(project / "packages.yml", "packages:\n  - local: ../elementary_package\n")


def write(file: Path, text: str) -> None:
    """A text file, its folder made and its indentation taken away."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
