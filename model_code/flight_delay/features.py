"""Glue job: raw flights, weather and planes of a window of days -> training, holdout and baseline rows.

Only what is known before departure becomes a feature. The push goes on with train.py, which reads `train/`.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from model_code.flight_delay import quality
from model_code.flight_delay.encoding import FIELDS, LABEL, WEATHER
from model_code.shared import feature_job
from model_code.shared.quality import Finding, check_days, check_rows, check_schema, check_unique, require
from model_code.shared.raw_data import expected_days, landed, read

LATE_MINUTES = 15
IDENTITY = ("flight",)  # with the schedule among FIELDS it names a flight; not a feature


def main() -> None:
    """Run with Glue's arguments."""
    feature_job.run(prepare, label=LABEL, day="flight_date")


def build(spark: SparkSession, raw: str, output: str, **window: Any) -> dict[str, Any]:
    """Run for `as_of`, `window_days` and `holdout_days`, in a session of the caller's."""
    return feature_job.build(spark, raw, output, prepare, label=LABEL, day="flight_date", **window)


def prepare(spark: SparkSession, raw: str, as_of: date, window_days: int) -> tuple[DataFrame, list[Finding]]:
    """The window's flights that arrived, each with its weather, plane and label, and what the checks found."""
    joined, findings = _checked(spark, raw, as_of, window_days)
    late = (F.col("arr_delay") > LATE_MINUTES).cast("int").alias(LABEL)
    return joined.where("arr_delay is not null").select(*IDENTITY, *FIELDS, late), findings


def _checked(spark: SparkSession, raw: str, as_of: date, window_days: int) -> tuple[DataFrame, list[Finding]]:
    """The window's flights, each with its weather and plane, and what the checks found; cheap checks come first."""
    found = landed(spark, raw, quality.COLUMNS, as_of)
    window = expected_days(found["flights"], as_of, window_days)
    findings = [
        check_days("flights", sorted(found["flights"]), window),
        check_days("weather", sorted(found["weather"]), window),
        check_days("newest", sorted(found["flights"]), window[-1:]),
        check_days("planes", window if found["planes"] else [], window),
    ]
    require(findings)
    days = {"flights": window, "weather": window, "planes": sorted(found["planes"])[-1:]}
    flights, weather, planes = (
        read(spark, raw, table, found[table], days[table], quality.COLUMNS[table]) for table in days
    )
    findings += [
        check_schema(table, frame, quality.COLUMNS[table])
        for table, frame in (("flights", flights), ("weather", weather), ("planes", planes))
    ]
    require(findings)
    joined = _join(flights, weather, planes).cache()
    findings += [
        *check_rows(
            "flights",
            joined,
            quality.FLIGHT_RULES,
            filled=quality.COLUMNS["flights"],
            shows=("tailnum", "arr_delay", *quality.KEY),
        ),
        *check_rows(
            "weather", weather, quality.WEATHER_RULES, filled=quality.FILLED_WEATHER, shows=quality.COLUMNS["weather"]
        ),
        check_unique("flights", joined, quality.KEY),
        check_unique("weather", weather, ("origin", "time_hour")),
        check_unique("planes", planes, ("tailnum",)),
    ]
    require(findings)
    return joined, findings


def _join(flights: DataFrame, weather: DataFrame, planes: DataFrame) -> DataFrame:
    """Each flight with the weather of its scheduled hour and its plane; `weather` and `planes` are small."""
    hourly = weather.select(
        "origin", "time_hour", *(_possible(name) for name in WEATHER), F.lit(True).alias("measured")
    )
    known = planes.select("tailnum", F.col("year").alias("plane_year"), "engine", "seats", F.lit(True).alias("known"))
    return (
        flights.select("dt", *quality.COLUMNS["flights"])
        .join(F.broadcast(hourly), ["origin", "time_hour"], "left")
        .join(F.broadcast(known), "tailnum", "left")
        .withColumn("has_weather", F.col("measured").isNotNull())
        .withColumn("has_plane", F.col("known").isNotNull())
        .withColumn("flight_date", F.date_format("dt", "yyyy-MM-dd"))
    )


def _possible(name: str) -> Column:
    """The reading, or null where no such weather exists on Earth."""
    low, high = quality.IMPOSSIBLE_WEATHER[name]
    return F.when(F.col(name).between(low, high), F.col(name)).alias(name)


if __name__ == "__main__":
    main()
