"""Small real projects: a folder with gateway.yaml, an ingester and a dbt project on DuckDB."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from tests.support.quick_dbt import QUICK_DBT

INGESTER = """
    import json, time
    for number in range(1, 4):
        print(json.dumps({"table": f"table_{number}", "rows": number, "done": number, "total": 3}))
"""
# A dbt package named elementary, since tests don't reach the dbt hub, which has the real one. Like that one, it has two
# tables and a view of them, and a hook that writes the results of each run into those tables that exist.
_RESULTS = """
{{ config(materialized='incremental') }}
select '' as unique_id, '' as invocation_id, '' as status where false
"""
ELEMENTARY_STAND_IN = {
    "dbt_project.yml": """\
name: elementary
version: '0.1'
config-version: 2
on-run-end: ["{{ elementary.keep_results(results) }}"]
""",
    "models/dbt_run_results.sql": _RESULTS,
    "models/elementary_test_results.sql": _RESULTS,
    "models/alerts.sql": "select * from {{ ref('elementary_test_results') }} where status <> 'pass'\n",
    "macros/keep_results.sql": """\
{% macro keep_results(results) %}
  {% if execute %}
    {% do elementary.insert_into('dbt_run_results', results) %}
    {% set tests = results | selectattr('node.resource_type', '==', 'test') | list %}
    {% do elementary.insert_into('elementary_test_results', tests) %}
  {% endif %}
{% endmacro %}
{% macro insert_into(name, results) %}
  {% set model = graph.nodes['model.elementary.' ~ name] %}
  {% set table = adapter.get_relation(model.database, model.schema, model.alias) %}
  {% if table and results %}
    {% set rows = [] %}
    {% for result in results %}
      {% set words = [result.node.unique_id, invocation_id, result.status] %}
      {% do rows.append("('" ~ words | join("', '") ~ "')") %}
    {% endfor %}
    {% do run_query("insert into " ~ table ~ " values " ~ rows | join(", ")) %}
    {% do adapter.commit() %}
  {% endif %}
{% endmacro %}
""",
}


def make(
    folder: Path, *, ingester: str = INGESTER, dbt: Path | None = None, settings: dict[str, Any] | None = None
) -> Path:
    """A project whose ingester is this Python program and whose dbt project has two models and three tests.

    dbt: the program, by default the one of QUICK_DBT. settings: merged over the gateway.yaml at its top level.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "ingest.py", ingester)
    configuration: dict[str, Any] = {
        "enabled": True,
        "fabrics": {
            "local": {
                "resources": {"ingester": "warehouse", "dbt": "warehouse"},
                "dbt": {"executable": str(dbt or QUICK_DBT.program)},
            }
        },
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
    """Give a dbt project the stand-in for Elementary."""
    for file, text in ELEMENTARY_STAND_IN.items():
        write(project.parent / "elementary_package" / file, text)
    write(project / "packages.yml", "packages:\n  - local: ../elementary_package\n")


def write(file: Path, text: str) -> None:
    """A text file, its folder made and its indentation taken away."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
