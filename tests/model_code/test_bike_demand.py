"""bike_demand's sample data and its features.py by real Spark on real hours: what becomes a row, what stops the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from model_code.bike_demand import features, sample_data
from model_code.bike_demand.encoding import FIELDS, LABEL
from model_code.shared.quality import BadData

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AS_OF = date(2011, 1, 12)
Edit = Callable[[pd.DataFrame], pd.DataFrame]

# Spark leaves the sockets over which it fetched rows to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Raw data of the first fourteen days of 2011."""
    sample_data.write(tmp_path / "raw", since=date(2011, 1, 1), through=date(2011, 1, 14))
    return tmp_path / "raw"


def build(spark: SparkSession, raw: Path, output: Path) -> Path:
    features.build(spark, f"{raw}/", f"{output}/", as_of=AS_OF, window_days=8, holdout_days=3)
    return output


def change(raw: Path, edit: Edit, day: int) -> None:
    path = raw / f"dt=2011-01-{day:02}" / "rides.parquet"
    edit(pd.read_parquet(path)).to_parquet(path, index=False)


def test_the_sample_is_all_of_2011_and_its_weekdays_agree_with_its_dates(tmp_path: Path) -> None:
    days = sample_data.write(tmp_path, since=date(2011, 1, 1), through=date(2013, 3, 1))
    assert (days[0], days[-1], len(days)) == (date(2011, 1, 1), date(2011, 12, 31), 365)
    landed = {day: pd.read_parquet(tmp_path / f"dt={day}" / "rides.parquet") for day in days}
    assert sum(map(len, landed.values())) == 8645
    assert all((rows["weekday"] == day.isoweekday() % 7).all() for day, rows in landed.items())


def test_every_hour_of_the_window_is_a_row_and_the_last_days_are_held_out(
    spark: SparkSession, raw: Path, tmp_path: Path
) -> None:
    built = build(spark, raw, tmp_path / "output")
    rows = {name: pd.read_parquet(built / name) for name in ("train", "holdout", "baseline")}
    assert all(list(rows[name].columns) == [*FIELDS, LABEL] for name in ("train", "holdout"))
    assert list(rows["baseline"].columns) == [*FIELDS, LABEL, "period"]
    assert sorted(rows["train"]["date"].unique()) == [f"2011-01-{day:02}" for day in range(5, 10)]
    assert sorted(rows["holdout"]["date"].unique()) == ["2011-01-10", "2011-01-11", "2011-01-12"]
    landed = pd.concat(pd.read_parquet(raw / f"dt=2011-01-{day:02}") for day in range(5, 13))
    got = pd.concat([rows["train"], rows["holdout"]]).sort_values(["date", "hr"])
    assert got[[*FIELDS[1:], LABEL]].to_numpy().tolist() == landed[[*FIELDS[1:], LABEL]].to_numpy().tolist()
    report = json.loads((built / "quality.json").read_text())
    assert report["passed"]
    assert report["rows"] == {name: len(rows[name]) for name in ("train", "holdout")}


def _first(column: str, value: object) -> Edit:
    return lambda rows: rows.assign(**{column: rows[column].where(rows.index > 0, value)})


# Each on a day of its own (January 5 to 12), so that one run finds them all.
SPOILED: dict[str, Edit] = {
    "count_does_not_add_up: 1 found, 0 allowed, for example dt=2011-01-05": _first("casual", 999),
    "duplicate_rides: 2 found, 0 allowed, for example dt=2011-01-06": lambda rows: pd.concat([rows, rows.head(2)]),
    "impossible_hour: 1 found": _first("hr", 24),
    "wrong_day: 24 found": lambda rows: rows.assign(day=9),
    "wrong_working_day: 24 found": lambda rows: rows.assign(workingday=1 - rows["workingday"]),
    "unknown_sky: 1 found": _first("weathersit", "frogs"),
    "rides_missing_hours: 25 found": lambda rows: rows.head(4),
    "impossible_reading: 22 found": lambda rows: rows.assign(temp=rows["temp"] * 41),
}


def test_bad_data_stops_the_run_and_names_every_broken_rule(spark: SparkSession, raw: Path, tmp_path: Path) -> None:
    for day, edit in enumerate(SPOILED.values(), start=5):
        change(raw, edit, day)
    with pytest.raises(BadData) as stopped:
        build(spark, raw, tmp_path / "output")
    assert [reason for reason in SPOILED if reason not in str(stopped.value)] == [], str(stopped.value)
    report = json.loads((tmp_path / "output" / "quality.json").read_text())
    assert {rule["rule"] for rule in report["rules"] if not rule["passed"]} == {key.split(":")[0] for key in SPOILED}
    assert not (tmp_path / "output" / "train").exists()


def test_a_faulty_reading_is_dropped_and_its_hour_kept(spark: SparkSession, raw: Path, tmp_path: Path) -> None:
    change(raw, _first("hum", 9.9), 6)
    train = pd.read_parquet(build(spark, raw, tmp_path / "output") / "train")
    assert train["hum"].isna().sum() == 1
    assert (train["date"] == "2011-01-06").sum() == 23


@pytest.mark.parametrize(
    ("gone", "reason"), [(8, "rides_missing_days: 1 found"), (12, "newest_missing_days: 1 found, 0 allowed")]
)
def test_a_day_that_did_not_land_stops_the_run(
    gone: int, reason: str, spark: SparkSession, raw: Path, tmp_path: Path
) -> None:
    (raw / f"dt=2011-01-{gone:02}" / "rides.parquet").unlink()
    with pytest.raises(BadData, match=reason):
        build(spark, raw, tmp_path / "output")
