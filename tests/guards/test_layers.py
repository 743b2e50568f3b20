"""The import contracts of setup.cfg: the code keeps them, and each of them can be broken."""

from __future__ import annotations

import configparser
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import ROOT

LINT = Path(sys.executable).with_name("lint-imports")

# A module, an import that it must never have, and the beginning of the contract's name.
FORBIDDEN = [
    ("runners/outcome.py", "import gateway.clock", "gateway drives runners"),
    ("gateway/errors.py", "import gateway.settings.settings", "inside the gateway"),
    ("gateway/settings/settings.py", "import gateway.model.job", "inside the gateway"),
    ("gateway/jobs/execution.py", "import gateway.web.records", "inside the gateway"),
    ("gateway/fabrics/local.py", "import gateway.storage.store", "inside the gateway"),
    ("gateway/web/records.py", "import gateway.app", "inside the gateway"),
    ("gateway/jobs/record.py", "import gateway.jobs.execution", "inside jobs"),
    ("gateway/artifacts/nodes.py", "import gateway.output.parts", "inside the gateway"),
    ("gateway/artifacts/keeping.py", "import gateway.artifacts.kept", "inside the artifacts"),
    ("gateway/output/parts.py", "import gateway.output.log", "inside the output"),
    ("gateway/web/server/traffic.py", "import gateway.web.server.guard", "inside the web's server"),
    ("gateway/fabrics/local.py", "import gateway.fabrics.compose", "inside fabrics"),
    ("gateway/storage/claims.py", "import gateway.storage.store", "inside storage"),
    ("gateway/notify/delivery.py", "import gateway.notify.webhook", "inside notify"),
    ("gateway/notify/command.py", "import aiohttp", "HTTP is the business"),
    ("gateway/notify/receivers.py", "import gateway.jobs.service", "inside the gateway"),
    ("gateway/model/job.py", "import gateway.model.catalog", "inside the model"),
    ("gateway/web/trigger_pipeline.py", "import gateway.web.data_analytics", "inside the web:"),
    ("gateway/web/server/access.py", "import gateway.web.body", "inside the web:"),
    ("gateway/web/jobs_api/pipelines.py", "import gateway.web.jobs_api.jobs", "inside the jobs API"),
    ("gateway/web/openapi/operation.py", "import gateway.web.openapi.document", "inside OpenAPI"),
    ("gateway/settings/fabric.py", "import gateway.settings.project", "inside the settings"),
    ("gateway/cli/init.py", "import gateway.cli.check", "inside the command line"),
    ("runners/process/local_runner.py", "import runners.dbt.command", "inside runners"),
    ("runners/process/local_runner.py", "import runners.containers.docker", "inside runners"),
    ("runners/ingester.py", "import runners.process.local_runner", "inside runners"),
    ("runners/shim.py", "import runners.outcome", "inside runners"),
    ("gateway/output/progress.py", "import aiohttp", "HTTP is the business"),
    ("runners/dbt/command.py", "import aiohttp", "HTTP is the business"),
    ("gateway/web/data_analytics.py", "import aiosqlite", "SQL is the business"),
    ("gateway/model/job.py", "import sqlite3", "SQL is the business"),
    ("runners/detached/supervisor.py", "import structlog", "runners do not log"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--config", "setup.cfg", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def batches() -> list[list[tuple[str, str, str]]]:
    """The forbidden imports, in batches of one for each contract, so that no report hides another."""
    by_contract: dict[str, list[tuple[str, str, str]]] = {}
    for case in FORBIDDEN:
        by_contract.setdefault(case[2], []).append(case)
    return [[case for case in batch if case] for batch in itertools.zip_longest(*by_contract.values())]


def test_every_import_keeps_the_contracts() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_contract_has_a_forbidden_import_here() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    names = [settings[section]["name"] for section in settings.sections() if section.startswith("importlinter:")]
    assert names
    assert [name for name in names if not any(name.startswith(begin) for _, _, begin in FORBIDDEN)] == []


@pytest.mark.parametrize("batch", batches())
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, batch: list[tuple[str, str, str]]) -> None:
    """In a copy of the program, and by the import itself, not by another one of the batch."""
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for package in ("gateway", "runners"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("lakehouse", "__pycache__"))
    for file, statement, _ in batch:
        with (tmp_path / file).open("a", encoding="utf-8") as module:
            module.write(f"\n{statement}\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    kept_or_broken, _, details = done.stdout.partition("Broken contracts")
    broken = [line for line in kept_or_broken.splitlines() if line.endswith("BROKEN")]
    for file, statement, contract in batch:
        edge = f"{file.removesuffix('.py').replace('/', '.')} -> {statement.removeprefix('import ')} (l."
        assert edge in details
        assert any(line.startswith(contract) for line in broken), done.stdout
