"""Glue job: raw hourly counts of a window of days -> training, holdout and baseline rows.

The counts of casual and registered riders add up to the label, so they stay behind; so does all that a client could
not know of an hour to come. The push goes on with train.py, which reads `train/`.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from model_code.bike_demand import quality
from model_code.bike_demand.encoding import FIELDS, LABEL, READINGS
from model_code.shared import feature_job
from model_code.shared.quality import Finding, check_days, check_rows, check_schema, check_unique, require
from model_code.shared.raw_data import expected_days, landed, read

TABLE = "rides"


def main() -> None:
    """Run with Glue's arguments."""
    feature_job.run(prepare, label=LABEL, day="date")


def build(spark: SparkSession, raw: str, output: str, **window: Any) -> dict[str, Any]:
    """Run for `as_of`, `window_days` and `holdout_days`, in a session of the caller's."""
    return feature_job.build(spark, raw, output, prepare, label=LABEL, day="date", **window)


def prepare(spark: SparkSession, raw: str, as_of: date, window_days: int) -> tuple[DataFrame, list[Finding]]:
    """The window's hours with their counts, and what the checks found; cheap checks come first."""
    by_day = landed(spark, raw, [TABLE], as_of)[TABLE]
    window = expected_days(by_day, as_of, window_days)
    findings = [
        check_days(TABLE, sorted(by_day), window),
        check_days("newest", sorted(by_day), window[-1:]),
    ]
    require(findings)
    rides = read(spark, raw, TABLE, by_day, window, quality.COLUMNS)
    findings.append(check_schema(TABLE, rides, quality.COLUMNS))
    require(findings)
    rides = rides.cache()
    findings += [
        *check_rows(TABLE, rides, quality.RULES, filled=quality.COLUMNS, shows=("dt", *quality.COLUMNS)),
        check_unique(TABLE, rides, quality.KEY),
        _check_hours(rides),
    ]
    require(findings)
    return _rows(rides), findings


def _check_hours(rides: DataFrame) -> Finding:
    """Hours of the days that landed for which nothing did."""
    present, days = rides.select("dt", "hr").distinct().count(), rides.select("dt").distinct().count()
    return Finding(f"{TABLE}_missing_hours", 24 * days - present, int(24 * days * quality.MISSING_HOURS))


def _rows(rides: DataFrame) -> DataFrame:
    chosen = {name: F.col(name) for name in (*FIELDS[1:], LABEL)} | {name: _possible(name) for name in READINGS}
    return rides.select(F.date_format("dt", "yyyy-MM-dd").alias("date"), *(chosen[name].alias(name) for name in chosen))


def _possible(name: str) -> Column:
    """The reading, or null where the gauge was faulty."""
    return F.when(F.col(name).between(0, 1), F.col(name))


if __name__ == "__main__":
    main()
