"""Glue job: raw flights, weather and planes of a window of days -> training, holdout and baseline rows.

Only what is known before departure becomes a feature. The holdout is the window's last days, never a random
sample: a flight's delay is shared by its neighbours, and tomorrow's flights have no neighbours yet.
The push goes on with train.py, which reads `train/`.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import date, timedelta
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from model_code.flight_delay import quality
from model_code.flight_delay.encoding import FIELDS, LABEL, WEATHER
from model_code.flight_delay.quality import BadData, Finding

LATE_MINUTES = 15
BASELINE_ROWS = 5000
IDENTITY = ("flight",)  # with the schedule among FIELDS it names a flight; not a feature

Landed = dict[str, dict[date, list[str]]]


def main() -> None:
    """Run with Glue's arguments."""
    from awsglue.utils import getResolvedOptions

    given = getResolvedOptions(sys.argv, ["raw", "output", "as_of", "window_days", "holdout_days"])
    spark = SparkSession.builder.getOrCreate()
    summary = build(
        spark,
        given["raw"],
        given["output"],
        as_of=date.fromisoformat(given["as_of"]),
        window_days=int(given["window_days"]),
        holdout_days=int(given["holdout_days"]),
    )
    print(json.dumps(summary))


def build(
    spark: SparkSession, raw: str, output: str, *, as_of: date, window_days: int, holdout_days: int
) -> dict[str, Any]:
    """Write the features of the days through `as_of` under `output`; raises BadData if the raw data is no good."""
    if not 0 < holdout_days < window_days:
        raise ValueError(f"holdout_days must be between 1 and window_days - 1, found {holdout_days} of {window_days}")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    summary: dict[str, Any] = {"as_of": as_of.isoformat(), "window_days": window_days, "holdout_days": holdout_days}
    try:
        joined, findings = _checked(spark, raw.rstrip("/"), as_of, window_days)
    except BadData as bad:
        _write_quality(spark, output, {**summary, "passed": False}, bad.findings)
        raise
    rows = _write(joined, output.rstrip("/"), first_held_out=as_of - timedelta(days=holdout_days - 1))
    summary |= {"passed": True, "rows": rows}
    _write_quality(spark, output, summary, findings)
    return summary


def _checked(spark: SparkSession, raw: str, as_of: date, window_days: int) -> tuple[DataFrame, list[Finding]]:
    """The window's flights, each with its weather and plane, and what the checks found; cheap checks come first."""
    landed = _landed(spark, raw, as_of)
    window = _expected_days(landed, as_of, window_days)
    findings = [
        quality.check_days("flights", sorted(landed["flights"]), window),
        quality.check_days("weather", sorted(landed["weather"]), window),
        quality.check_days("newest", sorted(landed["flights"]), window[-1:]),
        quality.check_days("planes", window if landed["planes"] else [], window),
    ]
    quality.require(findings)
    days = {"flights": window, "weather": window, "planes": sorted(landed["planes"])[-1:]}
    flights, weather, planes = (_read(spark, raw, table, landed[table], days[table]) for table in days)
    findings += [
        quality.check_schema(table, frame, quality.COLUMNS[table])
        for table, frame in (("flights", flights), ("weather", weather), ("planes", planes))
    ]
    quality.require(findings)
    joined = _join(flights, weather, planes).cache()
    findings += [
        *quality.check_rows(
            "flights",
            joined,
            quality.FLIGHT_RULES,
            filled=quality.COLUMNS["flights"],
            shows=("tailnum", "arr_delay", *quality.KEY),
        ),
        *quality.check_rows(
            "weather", weather, quality.WEATHER_RULES, filled=quality.FILLED_WEATHER, shows=quality.COLUMNS["weather"]
        ),
        quality.check_unique("flights", joined, quality.KEY),
        quality.check_unique("weather", weather, ("origin", "time_hour")),
        quality.check_unique("planes", planes, ("tailnum",)),
    ]
    quality.require(findings)
    return joined, findings


def _landed(spark: SparkSession, raw: str, as_of: date) -> Landed:
    """The files of each table by day, through `as_of`."""
    landed: Landed = {"flights": {}, "weather": {}, "planes": {}}
    for name, by_day in landed.items():
        for path in _glob(spark, f"{raw}/dt=*/{name}*.parquet"):
            day = date.fromisoformat(re.findall(r"/dt=([^/]*)/", path)[-1])
            if day <= as_of:
                by_day.setdefault(day, []).append(path)
    return landed


def _glob(spark: SparkSession, pattern: str) -> list[str]:
    path = _jvm(spark).org.apache.hadoop.fs.Path(pattern)
    found = path.getFileSystem(_hadoop(spark)).globStatus(path)
    return sorted(status.getPath().toString() for status in found or [])


def _expected_days(landed: Landed, as_of: date, window_days: int) -> list[date]:
    """The window's days, without those before anything ever landed."""
    window = [as_of - timedelta(days=back) for back in reversed(range(window_days))]
    first = min(landed["flights"], default=as_of)
    return [day for day in window if day >= first]


def _read(spark: SparkSession, raw: str, table: str, by_day: dict[date, list[str]], days: list[date]) -> DataFrame:
    """The table of these days; a column that a day lacks is null there, one whose type changed is bad data."""
    paths = [path for day in days for path in by_day.get(day, [])]
    try:
        return spark.read.option("basePath", raw).option("mergeSchema", True).parquet(*paths)
    except (PySparkException, Py4JJavaError) as error:
        wrong = _unreadable(spark, table, paths) or [{"error": _causes(error)}]
        raise BadData([Finding(f"{table}_schema", len(wrong), 0, wrong[: quality.EXAMPLES])]) from error


def _unreadable(spark: SparkSession, table: str, paths: list[str]) -> list[dict[str, str]]:
    """The files that can't be read, or not as the wanted columns."""
    wrong = []
    for path in paths:
        try:
            found = quality.check_schema(table, spark.read.parquet(path), quality.COLUMNS[table])
            wrong += [{"file": path, **column} for column in found.examples]
        except (PySparkException, Py4JJavaError) as error:
            wrong.append({"file": path, "error": _causes(error)})
    return wrong


def _causes(error: Exception) -> str:
    """Spark's and Java's own words, without their stack."""
    causes = re.findall(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.*)", str(error), re.MULTILINE)
    return " ".join(causes) or str(error)


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


def _write(joined: DataFrame, output: str, *, first_held_out: date) -> dict[str, int]:
    """Write train, holdout and baseline; the number of rows of each."""
    late = (F.col("arr_delay") > LATE_MINUTES).cast("int").alias(LABEL)
    labelled = joined.where("arr_delay is not null").select(*IDENTITY, *FIELDS, late)
    train = labelled.where(F.col("flight_date") < first_held_out.isoformat())
    holdout = labelled.where(F.col("flight_date") >= first_held_out.isoformat())
    held_out = dict(labelled.groupBy(F.col("flight_date") >= first_held_out.isoformat()).count().collect())
    rows = {"train": held_out.get(False, 0), "holdout": held_out.get(True, 0)}
    quality.require([Finding(f"{name}_empty", int(count == 0), 0) for name, count in rows.items()])
    baseline = train.where(F.pmod(F.xxhash64(*IDENTITY, *FIELDS), F.lit(rows["train"])) < BASELINE_ROWS)
    for name, frame in (("train", train), ("holdout", holdout)):
        frame.write.mode("overwrite").parquet(f"{output}/{name}/")
    # By week, so that drift can be told from the change that the weeks of training had among themselves.
    week = F.date_format(F.date_trunc("week", F.to_date("flight_date")), "yyyy-MM-dd")
    weekly = baseline.withColumn("period", week).repartition("period").write.partitionBy("period")
    weekly.mode("overwrite").parquet(f"{output}/baseline/")
    return rows


def _write_quality(spark: SparkSession, output: str, summary: dict[str, Any], findings: list[Finding]) -> None:
    """Write `quality.json` through Hadoop's file system, which knows S3 in Glue and disks elsewhere."""
    text = json.dumps({**summary, "rules": [finding.as_json() for finding in findings]}, indent=1)
    path = _jvm(spark).org.apache.hadoop.fs.Path(f"{output.rstrip('/')}/quality.json")
    stream = path.getFileSystem(_hadoop(spark)).create(path, True)
    stream.write(bytearray(text, "utf-8"))
    stream.close()


def _jvm(spark: SparkSession) -> Any:
    return spark.sparkContext._jvm


def _hadoop(spark: SparkSession) -> Any:
    return spark.sparkContext._jsc.hadoopConfiguration()


if __name__ == "__main__":
    main()
