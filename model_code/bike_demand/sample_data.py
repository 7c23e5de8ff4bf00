"""Writes the real hourly counts of 2011 as they would have landed in the data lake, one folder per day.

The data is Bikeshare.csv of the package `ISLP`: the bikes of Washington's Capital Bikeshare, with the hour's weather.
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_DAY = date(2011, 1, 1)

_TEXT = ("mnth", "weathersit")
_FRACTIONS = ("temp", "atemp", "hum", "windspeed")


def main() -> None:
    """Write the days from `--since` through `--through`, both included."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--through", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    parser.add_argument("--since", type=date.fromisoformat, default=FIRST_DAY, metavar="YYYY-MM-DD")
    arguments = parser.parse_args()
    days = write(arguments.output, since=arguments.since, through=arguments.through)
    print(f"{len(days)} days written to {arguments.output}")


def write(output: Path, *, since: date, through: date) -> list[date]:
    """Write each day's hours; the days written."""
    by_day = {_date(number): rows for number, rows in pd.read_csv(_data()).groupby("day")}
    days = sorted(day for day in by_day if since <= day <= through)
    for day in days:
        _land(by_day[day], output / f"dt={day.isoformat()}")
    return days


def _data() -> Path:
    # The package is installed without what it needs, so it is never imported: only its place is looked up.
    spec = find_spec("ISLP")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The sample data comes with the package ISLP, which is not installed.")
    return Path(spec.submodule_search_locations[0]) / "data" / "Bikeshare.csv"


def _date(number: int) -> date:
    """The date of a day of the year; the data says 1 to 365 only, its weekdays say 2011."""
    return FIRST_DAY + timedelta(days=int(number) - 1)


def _land(rows: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(column, _type(column)) for column in rows.columns])
    pq.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False), folder / "rides.parquet")


def _type(column: str) -> pa.DataType:
    return pa.string() if column in _TEXT else pa.float64() if column in _FRACTIONS else pa.int64()


if __name__ == "__main__":
    main()
