"""Rules for every module."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.source import modules

MODULES = modules()
NAMES = sorted(MODULES)
LONGEST = 400
LONGER = {"runners.shim": 520}  # it stands alone: whatever it needs is in this file, and masking in one beside it
SHIM = ("runners.shim", "runners.masker")


def trees(names: list[str]) -> Iterator[tuple[str, ast.Module]]:
    for name in names:
        yield name, ast.parse(MODULES[name].read_text(encoding="utf-8"))


def nodes(tree: ast.Module, kind: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def test_the_modules_are_found() -> None:
    assert {"gateway", "gateway.cli.main", "gateway.storage.store", "runners", "runners.shim"} <= set(NAMES)


# Forks a process for each module, since an interpreter for each would take minutes. None of them has a module of the
# product yet; the other packages are imported once, before.
IMPORT_EACH = """
import os, sys
import aiohttp.web, aiosqlite, pydantic, structlog, yaml
assert not [name for name in sys.modules if name.partition(".")[0] in ("gateway", "runners")]
for name in sys.argv[1:]:
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        __import__(name)
        sys.stdout.flush()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        print(name, "fails with", code)
"""


def test_every_module_imports_alone_and_without_a_warning(tmp_path: Path) -> None:
    names = [name for name in NAMES if name != "gateway.__main__"]
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH, *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_runs_as_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "gateway", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pipeline-gateway ")


def test_no_module_is_over_the_length_limit() -> None:
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in MODULES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGER.get(name, LONGEST)} == {}


def test_every_module_has_a_docstring() -> None:
    assert [name for name, tree in trees(NAMES) if not ast.get_docstring(tree)] == []


def test_no_import_is_for_type_checking_only() -> None:
    """Needing one means that the layer is wrong."""
    assert [name for name, file in MODULES.items() if "TYPE_CHECKING" in file.read_text(encoding="utf-8")] == []


def test_only_the_command_prints() -> None:
    printing = {
        name
        for name, tree in trees(NAMES)
        for node in nodes(tree, ast.Name)
        if isinstance(node, ast.Name) and node.id in ("print", "pprint", "breakpoint")
    }
    assert "gateway.cli.main" in printing
    assert {name for name in printing if not name.startswith("gateway.cli.")} == set()


@pytest.mark.parametrize("name", NAMES)
def test_no_module_names_the_database_of_the_users_projects(name: str) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(MODULES[name].read_text(encoding="utf-8")).readline)
    documentation = docstrings(name)
    said = [
        token.string
        for token in tokens
        if token.type != tokenize.COMMENT and token.start[0] not in documentation and "duckdb" in token.string
    ]
    assert said == []


def docstrings(name: str) -> set[int]:
    """The lines on which docstrings begin."""
    [(_, tree)] = trees([name])
    return {
        node.body[0].lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
    }


WHERE_A_STEP_RUNS = ("runners.containers", "runners.detached", "runners.process")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(WHERE_A_STEP_RUNS)])
def test_where_a_step_runs_never_mentions_what_it_runs(name: str) -> None:
    """Neither in code nor in prose: a runner takes any command."""
    assert re.findall(r"dbt|ingest", MODULES[name].read_text(encoding="utf-8"), re.IGNORECASE) == []


def imported(tree: ast.Module) -> Iterator[str]:
    """The top-level name of each module that is imported, anywhere in the file; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else str(node.module).partition(".")[0]


@pytest.mark.parametrize("name", SHIM)
def test_the_shim_imports_the_standard_library_only(name: str) -> None:
    """It goes on while the gateway is replaced, and runs without site-packages."""
    [(_, tree)] = trees([name])
    names = set(imported(tree))
    assert names
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("statement", ["import runners.mask", "from aiohttp import web", "from . import mask"])
def test_an_import_of_anything_else_is_found(statement: str) -> None:
    assert not set(imported(ast.parse(f"def f():\n    {statement}"))) <= sys.stdlib_module_names


def test_the_shim_imports_where_nothing_is_installed(tmp_path: Path) -> None:
    for name in SHIM:
        shutil.copy(MODULES[name], tmp_path)
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(tmp_path)!r}); import shim"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
