"""The frame of a feature job: Glue's arguments in, training, holdout and baseline rows and `quality.json` out.

The holdout is the window's last days, never a random sample: a row shares its day's circumstances with its
neighbours, and tomorrow's rows have no neighbours yet. A model brings `prepare`: its rows, and what it checked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from model_code.shared import quality
from model_code.shared.quality import BadData, Finding
from model_code.shared.raw_data import write_text

BASELINE_ROWS = 5000

Prepare = Callable[[SparkSession, str, date, int], tuple[DataFrame, list[Finding]]]
"""Session, raw prefix, cut-off date and window in days -> the window's labelled rows, and what the checks found."""


def run(prepare: Prepare, *, label: str, day: str) -> None:
    """Build with Glue's arguments; `label` and `day` (an ISO date) are columns of the rows."""
    from awsglue.utils import getResolvedOptions

    given = getResolvedOptions(sys.argv, ["raw", "output", "as_of", "window_days", "holdout_days"])
    summary = build(
        SparkSession.builder.getOrCreate(),
        given["raw"],
        given["output"],
        prepare,
        label=label,
        day=day,
        as_of=date.fromisoformat(given["as_of"]),
        window_days=int(given["window_days"]),
        holdout_days=int(given["holdout_days"]),
    )
    print(json.dumps(summary))


def build(
    spark: SparkSession,
    raw: str,
    output: str,
    prepare: Prepare,
    *,
    label: str,
    day: str,
    as_of: date,
    window_days: int,
    holdout_days: int,
) -> dict[str, Any]:
    """Write the features of the days through `as_of` under `output`; raises BadData if the raw data is no good."""
    if not 0 < holdout_days < window_days:
        raise ValueError(f"holdout_days must be between 1 and window_days - 1, found {holdout_days} of {window_days}")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    output = output.rstrip("/")
    summary: dict[str, Any] = {"as_of": as_of.isoformat(), "window_days": window_days, "holdout_days": holdout_days}
    try:
        rows, findings = prepare(spark, raw.rstrip("/"), as_of, window_days)
    except BadData as bad:
        _write_quality(spark, output, {**summary, "passed": False}, bad.findings)
        raise
    first_held_out = (as_of - timedelta(days=holdout_days - 1)).isoformat()
    counts = _write(rows, output, label, day, F.col(day) >= first_held_out)
    summary |= {"passed": True, "rows": counts}
    _write_quality(spark, output, summary, findings)
    return summary


def _write(rows: DataFrame, output: str, label: str, day: str, held_out: Any) -> dict[str, int]:
    """Write train, holdout and baseline; the number of rows of each."""
    count = dict(rows.groupBy(held_out).count().collect())
    counts = {"train": count.get(False, 0), "holdout": count.get(True, 0)}
    quality.require([Finding(f"{name}_empty", int(rows == 0), 0) for name, rows in counts.items()])
    train = rows.where(~held_out)
    facts = [name for name in rows.columns if name != label]
    baseline = train.where(F.pmod(F.xxhash64(*facts), F.lit(counts["train"])) < BASELINE_ROWS)
    for name, frame in (("train", train), ("holdout", rows.where(held_out))):
        frame.write.mode("overwrite").parquet(f"{output}/{name}/")
    # By week, so that drift can be told from the change that the weeks of training had among themselves.
    week = F.date_format(F.date_trunc("week", F.to_date(day)), "yyyy-MM-dd")
    weekly = baseline.withColumn("period", week).repartition("period").write.partitionBy("period")
    weekly.mode("overwrite").parquet(f"{output}/baseline/")
    return counts


def _write_quality(spark: SparkSession, output: str, summary: dict[str, Any], findings: list[Finding]) -> None:
    text = json.dumps({**summary, "rules": [finding.as_json() for finding in findings]}, indent=1)
    write_text(spark, f"{output}/quality.json", text)
