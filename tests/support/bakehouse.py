"""A project for the trigger pipeline API: the reference's pipeline `bakehouse`, in a real git repository with versions.

Fabric 33290 and project "41459" are those of the reference's example. Version 1 lacks the model franchise_reviews.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import duckdb
import yaml

from tests.support import projects, repositories
from tests.support.quick_dbt import QUICK_DBT

PATH = "/api/trigger/pipeline"
FABRIC, PROJECT, PIPELINE = 33290, "41459", "bakehouse"
# Says what it was given, and waits where a test wants it to.
INGESTER = """
    import os, pathlib, sys, time
    home = pathlib.Path(os.environ["BAKEHOUSE"])
    print("ingester", *sys.argv[1:], "in", pathlib.Path.cwd(), flush=True)
    while (home / "wait").exists():
        time.sleep(0.01)
"""
FRANCHISES = """
    select * from (values (3000007, 'Lisbon'), (3000008, 'Oslo'), (3000009, 'Kyoto')) as franchises(franchise_id, city)
"""
REVIEWS = """
    select franchise_id, stars from {{ ref('franchises') }}, range(1, 6) as reviews(stars)
    {% if var('franchise_id', none) is not none %} where franchise_id = {{ var('franchise_id') }} {% endif %}
"""
SUMMARY = """
    select franchise_id, count(*) as reviews from {{ ref('franchise_reviews') }} group by franchise_id
"""
SUMMARY_OF_VERSION_1 = """
    select franchise_id, 0 as reviews from {{ ref('franchises') }}
"""
# Reaches from silver beyond: what stops before gold must not run it.
NOTHING_LOST = """
    select 1 from (select count(distinct franchise_id) as n from {{ ref('franchise_reviews') }}) as reviewed,
    (select count(*) as n from {{ ref('franchise_summary') }}) as summed where reviewed.n <> summed.n
"""
PIPELINES: dict[str, Any] = {
    PIPELINE: {
        "ingester": True,
        "dbt": {"command": "build"},
        "parameters": {
            "franchise_id": {"type": "integer", "minimum": 3000001, "maximum": 3999999},
            "source": {"default": "reviews", "choices": ["reviews", "orders"], "option": "--source"},
        },
    },
    "gold": {"dbt": {"command": "build", "select": "gold", "exclude": "never"}},
    "load": {"ingester": True},
}


def make(
    folder: Path,
    *,
    project: dict[str, Any] | None = None,
    fabric: dict[str, Any] | None = None,
    fabrics: dict[int, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Path:
    """A folder with gateway.yaml, and the project's repository in `bakehouse` beside it.

    project, fabric, settings: merged over theirs. fabrics: more of them, by id.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    versions(folder / "bakehouse")
    configuration: dict[str, Any] = {
        "enabled": True,
        "enable_openlineage": False,
        "default_fabric": str(FABRIC),
        "fabrics": {
            FABRIC: {
                "name": "bakery",
                "resources": {"ingester": "warehouse", "dbt": "warehouse"},
                "dbt": {"executable": str(QUICK_DBT.program)},
                "environment": {"BAKEHOUSE": str(home), "WAREHOUSE": str(home / "warehouse.duckdb")},
                **(fabric or {}),
            },
            **(fabrics or {}),
        },
        "projects": {
            PROJECT: {
                "name": "bakehouse",
                "directory": "bakehouse",
                "dbt": "transform",
                "ingester": {"command": [sys.executable, "ingest.py"]},
                "pipelines": PIPELINES,
                **(project or {}),
            }
        },
    }
    (folder / "gateway.yaml").write_text(yaml.safe_dump({**configuration, **(settings or {})}), encoding="utf-8")
    return folder


def versions(repository: Path) -> None:
    """A repository with the tags 1 and v2 on main, where one commit more breaks a model, and the branch `dev`."""
    projects.write(repository / "ingest.py", INGESTER)
    transform = repository / "transform"
    projects.write(transform / "dbt_project.yml", "name: bakehouse\nversion: '1.0'\nprofile: bakehouse\n")
    projects.write(
        transform / "profiles.yml",
        """
        bakehouse:
          target: dev
          outputs:
            dev: {type: duckdb, path: "{{ env_var('WAREHOUSE') }}", threads: 2}
        """,
    )
    projects.write(transform / "models/silver/franchises.sql", FRANCHISES)
    projects.write(transform / "models/gold/franchise_summary.sql", SUMMARY_OF_VERSION_1)
    repositories.repository(repository, {".gitignore": "target/\nlogs/\ndbt_packages/\n"})
    repositories.tag(repository, "1")
    projects.write(transform / "models/silver/franchise_reviews.sql", REVIEWS)
    projects.write(transform / "models/gold/franchise_summary.sql", SUMMARY)
    projects.write(transform / "tests/nothing_lost.sql", NOTHING_LOST)
    repositories.commit(repository, {})
    repositories.tag(repository, "v2", annotated=True)
    repositories.branch(repository, "dev")
    repositories.commit(repository, {"transform/models/gold/only_on_dev.sql": "select 1 as one\n"})
    repositories.switch(repository, "main")
    repositories.commit(repository, {"transform/models/gold/broken.sql": "select * from nowhere\n"})


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What is in the warehouse."""
    with duckdb.connect(str(folder / "home" / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def tables(folder: Path) -> set[str]:
    """The names of what dbt has made in the warehouse."""
    return {name for (name,) in rows(folder, "select table_name from information_schema.tables")}
