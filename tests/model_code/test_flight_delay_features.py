"""features.py by real Spark on real flights: what becomes a row, what is held out, what stops the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from model_code.flight_delay import features
from model_code.flight_delay.encoding import FIELDS, LABEL
from model_code.shared.quality import BadData

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AS_OF = date(2013, 1, 10)
Edit = Callable[[pd.DataFrame], pd.DataFrame]

# Spark leaves the sockets over which it fetched rows to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def built(spark: SparkSession, landed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(spark, landed, tmp_path_factory.mktemp("built"))


def build(spark: SparkSession, raw: Path, output: Path, *, window_days: int = 8, holdout_days: int = 2) -> Path:
    features.build(spark, f"{raw}/", f"{output}/", as_of=AS_OF, window_days=window_days, holdout_days=holdout_days)
    return output


def change(raw: Path, table: str, edit: Edit, day: str = "2013-01-05") -> None:
    """Replace one landed file by an edited copy."""
    path = raw / f"dt={day}" / f"{table}.parquet"
    rows = edit(pd.read_parquet(path))
    path.unlink()
    rows.to_parquet(path, index=False)


def test_the_holdout_is_the_last_days_and_training_the_days_before(built: Path) -> None:
    days = {name: sorted(pd.read_parquet(built / name)["flight_date"].unique()) for name in ("train", "holdout")}
    assert days["train"] == [f"2013-01-0{day}" for day in range(3, 9)]
    assert days["holdout"] == ["2013-01-09", "2013-01-10"]


def test_rows_hold_what_a_client_knows_before_departure_and_the_label(built: Path) -> None:
    for name in ("train", "holdout"):
        assert list(pd.read_parquet(built / name).columns) == ["flight", *FIELDS, LABEL]
    assert list(pd.read_parquet(built / "baseline").columns) == ["flight", *FIELDS, LABEL, "period"]
    after = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
    assert not after & set(FIELDS)


def test_every_flight_that_arrived_is_a_row_with_its_own_weather_and_plane(built: Path, landed: Path) -> None:
    got = pd.concat([pd.read_parquet(built / name) for name in ("train", "holdout")])
    wanted = _joined_by_pandas(landed, [f"2013-01-{day:02}" for day in range(3, 11)])
    key = ["flight_date", "carrier", "flight", "origin", "dest", "sched_dep_time"]
    columns = [*key, "temp", "wind_gust", "visib", "plane_year", "seats", "engine", LABEL]
    got, wanted = (rows.sort_values(key, ignore_index=True)[columns].fillna({"engine": "?"}) for rows in (got, wanted))
    pd.testing.assert_frame_equal(got, wanted, check_dtype=False)


def _joined_by_pandas(landed: Path, days: list[str]) -> pd.DataFrame:
    """The same rows by New York's clock on both sides, where features.py joins by UTC."""
    flights, weather = (
        pd.concat([pd.read_parquet(landed / f"dt={day}" / f"{name}.parquet") for day in days])
        for name in ("flights", "weather")
    )
    planes = pd.read_parquet(landed / "dt=2013-01-01" / "planes.parquet").rename(columns={"year": "plane_year"})
    hour = ["origin", "year", "month", "day", "hour"]
    rows = flights[flights["arr_delay"].notna()].merge(weather.drop(columns="time_hour"), on=hour, how="left")
    rows = rows.merge(planes[["tailnum", "plane_year", "seats", "engine"]], on="tailnum", how="left")
    date_columns = rows[["year", "month", "day"]]
    return rows.assign(
        flight_date=pd.to_datetime(date_columns).dt.strftime("%Y-%m-%d"),
        **{LABEL: (rows["arr_delay"] > 15).astype(int)},
    )


def test_the_quality_report_says_what_was_checked(built: Path) -> None:
    report = json.loads((built / "quality.json").read_text())
    assert report["passed"]
    assert report["rows"]["train"] == len(pd.read_parquet(built / "train"))
    assert {rule["rule"] for rule in report["rules"]} >= {"duplicate_flights", "without_weather", "flights_schema"}


def test_the_same_data_gives_the_same_rows(spark: SparkSession, built: Path, landed: Path, tmp_path: Path) -> None:
    again = build(spark, landed, tmp_path)
    for name in ("train", "holdout", "baseline"):
        pd.testing.assert_frame_equal(pd.read_parquet(again / name), pd.read_parquet(built / name))


def test_data_after_as_of_and_before_the_window_is_not_looked_at(
    spark: SparkSession, built: Path, raw: Path, tmp_path: Path
) -> None:
    for day in ("2013-01-02", "2013-01-11"):
        (raw / f"dt={day}" / "flights.parquet").unlink()
        (raw / f"dt={day}" / "flights.parquet").write_bytes(b"broken")
    build(spark, raw, tmp_path / "output")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "output/train"), pd.read_parquet(built / "train"))


def test_a_single_impossible_reading_is_dropped_not_trained_on(spark: SparkSession, raw: Path, tmp_path: Path) -> None:
    def gale(rows: pd.DataFrame) -> pd.DataFrame:
        faulty = (rows["origin"] == "JFK") & (rows["hour"] == 18)
        return rows.assign(wind_speed=rows["wind_speed"].where(~faulty, 1048.0))

    change(raw, "weather", gale)
    rows = pd.read_parquet(build(spark, raw, tmp_path / "output") / "train")
    evening = rows[
        (rows["flight_date"] == "2013-01-05") & (rows["origin"] == "JFK") & (rows["sched_dep_time"] // 100 == 18)
    ]
    assert len(evening)
    assert evening["wind_speed"].isna().all()
    assert evening["temp"].notna().all()


def _retyped(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(distance=rows["distance"].astype(str))


def _mistimed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(sched_dep_time=rows["sched_dep_time"].where(rows.index > 0, 1299))


# Each on a day of its own (January 2 to 9), so that one run finds them all.
SPOILED: dict[str, tuple[str, Edit]] = {
    "flights_empty_column: 1 found, 0 allowed, for example dt=2013-01-03, column=tailnum": (
        "flights",
        lambda rows: rows.drop(columns="tailnum"),
    ),
    "duplicate_flights: 2 found, 0 allowed, for example dt=2013-01-04": (
        "flights",
        lambda rows: pd.concat([rows, rows.head(2)]),
    ),
    "impossible_departure: 1 found, 0 allowed, for example tailnum=": ("flights", _mistimed),
    "impossible_distance: 832 found": ("flights", lambda rows: rows.assign(distance=-rows["distance"])),
    "wrong_day: 933 found": ("flights", lambda rows: rows.assign(day=6)),
    "missing_schedule: 3 found": ("flights", lambda rows: rows.assign(carrier=rows["carrier"].where(rows.index > 2))),
}
SPOILED_WEATHER: dict[str, tuple[str, Edit]] = {
    "duplicate_weather: 1 found": ("weather", lambda rows: pd.concat([rows, rows.head(1)])),
    "without_weather: ": ("weather", lambda rows: rows[rows["origin"] == "EWR"]),
    "impossible_weather: 72 found": ("weather", lambda rows: rows.assign(humid=400.0)),
}


@pytest.mark.parametrize("spoiled", [SPOILED, SPOILED_WEATHER], ids=["flights", "weather"])
def test_bad_data_stops_the_run_and_names_every_broken_rule(
    spoiled: dict[str, tuple[str, Edit]], spark: SparkSession, raw: Path, tmp_path: Path
) -> None:
    for day, (table, edit) in enumerate(spoiled.values(), start=3):
        change(raw, table, edit, f"2013-01-{day:02}")
    with pytest.raises(BadData) as stopped:
        build(spark, raw, tmp_path / "output")
    assert [reason for reason in spoiled if reason not in str(stopped.value)] == []
    report: dict[str, Any] = json.loads((tmp_path / "output" / "quality.json").read_text())
    assert not report["passed"]
    assert {rule["rule"] for rule in report["rules"] if not rule["passed"]} == {key.split(":")[0] for key in spoiled}
    assert not (tmp_path / "output" / "train").exists()


def test_a_changed_type_and_a_broken_file_are_named(spark: SparkSession, raw: Path, tmp_path: Path) -> None:
    change(raw, "flights", _retyped)
    (raw / "dt=2013-01-06" / "flights.parquet").unlink()
    (raw / "dt=2013-01-06" / "flights.parquet").write_bytes(b"not parquet")
    with pytest.raises(BadData, match=r"(?s)flights_schema: 2 found.*dt=2013-01-05.*distance.*dt=2013-01-06.*parquet"):
        build(spark, raw, tmp_path / "output")


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("dt=2013-01-10/flights.parquet", "newest_missing_days: 1 found, 0 allowed, for example dt=2013-01-10"),
        ("dt=2013-01-05/weather.parquet", "weather_missing_days: 1 found"),
        ("dt=2013-01-01/planes.parquet", "planes_missing_days"),
    ],
)
def test_a_file_that_did_not_land_stops_the_run(
    gone: str, reason: str, spark: SparkSession, raw: Path, tmp_path: Path
) -> None:
    (raw / gone).unlink()
    with pytest.raises(BadData, match=reason):
        build(spark, raw, tmp_path / "output")


def test_no_data_at_all_stops_the_run(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(BadData, match="newest_missing_days"):
        build(spark, tmp_path / "raw", tmp_path / "output")


def test_a_window_without_training_days_is_refused(spark: SparkSession, landed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holdout_days"):
        build(spark, landed, tmp_path, window_days=2, holdout_days=2)
