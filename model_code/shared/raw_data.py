"""Raw data as it lands: a folder `dt=YYYY-MM-DD` per day, a parquet file or several per table in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from model_code.shared.quality import EXAMPLES, BadData, Finding, check_schema

Landed = dict[str, dict[date, list[str]]]
"""Table to day to files."""
Columns = dict[str, str]
"""Column to Spark type."""


def landed(spark: SparkSession, raw: str, tables: Iterable[str], as_of: date) -> Landed:
    """The files of each table by day, through `as_of`."""
    found: Landed = {table: {} for table in tables}
    for table, by_day in found.items():
        for path in _glob(spark, f"{raw}/dt=*/{table}*.parquet"):
            day = date.fromisoformat(re.findall(r"/dt=([^/]*)/", path)[-1])
            if day <= as_of:
                by_day.setdefault(day, []).append(path)
    return found


def expected_days(by_day: Mapping[date, object], as_of: date, window_days: int) -> list[date]:
    """The window's days, without those before anything ever landed."""
    window = [as_of - timedelta(days=back) for back in reversed(range(window_days))]
    first = min(by_day, default=as_of)
    return [day for day in window if day >= first]


def read(
    spark: SparkSession, raw: str, table: str, by_day: Mapping[date, list[str]], days: Iterable[date], columns: Columns
) -> DataFrame:
    """The table of these days; a column that a day lacks is null there, one whose type changed is bad data."""
    paths = [path for day in days for path in by_day.get(day, [])]
    try:
        return spark.read.option("basePath", raw).option("mergeSchema", True).parquet(*paths)
    except (PySparkException, Py4JJavaError) as error:
        wrong = _unreadable(spark, table, paths, columns) or [{"error": _causes(error)}]
        raise BadData([Finding(f"{table}_schema", len(wrong), 0, wrong[:EXAMPLES])]) from error


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Write a file through Hadoop's file system, which knows S3 in Glue and disks elsewhere."""
    target = _jvm(spark).org.apache.hadoop.fs.Path(path)
    stream = target.getFileSystem(_hadoop(spark)).create(target, True)
    stream.write(bytearray(text, "utf-8"))
    stream.close()


def _glob(spark: SparkSession, pattern: str) -> list[str]:
    path = _jvm(spark).org.apache.hadoop.fs.Path(pattern)
    found = path.getFileSystem(_hadoop(spark)).globStatus(path)
    return sorted(status.getPath().toString() for status in found or [])


def _unreadable(spark: SparkSession, table: str, paths: list[str], columns: Columns) -> list[dict[str, str]]:
    """The files that can't be read, or not as the wanted columns."""
    wrong = []
    for path in paths:
        try:
            found = check_schema(table, spark.read.parquet(path), columns)
            wrong += [{"file": path, **column} for column in found.examples]
        except (PySparkException, Py4JJavaError) as error:
            wrong.append({"file": path, "error": _causes(error)})
    return wrong


def _causes(error: Exception) -> str:
    """Spark's and Java's own words, without their stack."""
    causes = re.findall(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.*)", str(error), re.MULTILINE)
    return " ".join(causes) or str(error)


def _jvm(spark: SparkSession) -> Any:
    return spark.sparkContext._jvm


def _hadoop(spark: SparkSession) -> Any:
    return spark.sparkContext._jsc.hadoopConfiguration()
