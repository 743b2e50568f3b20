"""Shows what is in the lakehouse: the rows of each bronze table, and which carrier to fly with."""

import os
import sys
from pathlib import Path

import duckdb

DATABASE = os.environ.get("LAKEHOUSE_DUCKDB", str(Path(__file__).with_name("lakehouse.duckdb")))
TABLES = """
    select table_name from duckdb_tables()
    where schema_name = 'bronze' and not starts_with(table_name, '_dlt') order by table_name
"""
CARRIERS = """
    select rank, carrier_name, flights, avg_departure_delay_minutes, on_time_percent, cancelled_percent
    from gold.carrier_delays order by rank
"""


def main() -> None:
    with duckdb.connect(DATABASE, read_only=True) as lakehouse:
        say("Bronze: rows per table")
        for (table,) in lakehouse.execute(TABLES).fetchall():
            say(f"  {table:<10}{len(lakehouse.table(f'bronze.{table}')):>10,}")
        say()
        say("Gold: the carriers of New York in 2013, the most punctual first (gold.carrier_delays)")
        say(f"  {'':>2}  {'carrier':<28}{'flights':>8}  {'delay':>10}  {'on time':>8}  {'cancelled':>9}")
        for rank, carrier, flights, delay, on_time, cancelled in lakehouse.execute(CARRIERS).fetchall():
            say(f"  {rank:>2}  {carrier:<28}{flights:>8,}  {delay:>6.1f} min  {on_time:>6.1f} %  {cancelled:>7.1f} %")


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
