"""The import contracts of setup.cfg: the code keeps them, and each of them can be broken."""

from __future__ import annotations

import configparser
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
    ("gateway/fabrics/local.py", "import gateway.fabrics.compose", "inside fabrics"),
    ("gateway/storage/claims.py", "import gateway.storage.store", "inside storage"),
    ("gateway/model/job.py", "import gateway.model.catalog", "inside the model"),
    ("gateway/cli/init.py", "import gateway.cli.check", "inside the command line"),
    ("runners/process/local_runner.py", "import runners.dbt.command", "inside runners"),
    ("runners/process/local_runner.py", "import runners.containers.docker", "inside runners"),
    ("runners/ingester.py", "import runners.process.local_runner", "inside runners"),
    ("runners/shim.py", "import runners.outcome", "inside runners"),
    ("gateway/jobs/progress.py", "import aiohttp", "HTTP is the business"),
    ("runners/dbt/command.py", "import aiohttp", "HTTP is the business"),
    ("gateway/web/data_analytics.py", "import aiosqlite", "SQL is the business"),
    ("gateway/model/job.py", "import sqlite3", "SQL is the business"),
    ("runners/detached/supervisor.py", "import structlog", "runners do not log"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--config", "setup.cfg", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program and its setup.cfg, to be spoilt."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "setup.cfg", folder)
    for package in ("gateway", "runners"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("lakehouse", "__pycache__"))
    return folder


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


@pytest.mark.parametrize(("file", "statement", "contract"), FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(copied: Path, file: str, statement: str, contract: str) -> None:
    spoilt = copied / file
    text = spoilt.read_text(encoding="utf-8")
    spoilt.write_text(f"{text}\n{statement}\n", encoding="utf-8")
    try:
        done = lint(copied)
    finally:
        spoilt.write_text(text, encoding="utf-8")
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert done.returncode != 0
    assert any(line.startswith(contract) for line in broken), done.stdout
