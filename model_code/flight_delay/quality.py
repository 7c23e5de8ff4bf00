"""Quality rules for the raw data: a broken rule stops the run before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

EXAMPLES = 3


@dataclass(frozen=True)
class Rule:
    """At most the share `at_most` of a table's rows may meet the SQL condition `offends`."""

    name: str
    offends: str
    at_most: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What one rule found: how many rows offend, how many may, and a few of those that do."""

    rule: str
    count: int
    allowed: int
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.count <= self.allowed

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        shown = "; ".join(", ".join(f"{key}={value}" for key, value in row.items()) for row in self.examples)
        return f"{self.rule}: {self.count} found, {self.allowed} allowed" + (f", for example {shown}" if shown else "")


class BadData(Exception):
    """The raw data broke a rule; it is left where it is."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        broken = [str(finding) for finding in findings if not finding.passed]
        super().__init__("\n  ".join(["The raw data fails its quality checks:", *broken]))


def require(findings: list[Finding]) -> None:
    """Raise BadData unless every finding passed."""
    if not all(finding.passed for finding in findings):
        raise BadData(findings)


KEY = ("dt", "carrier", "flight", "origin", "dest", "sched_dep_time")

COLUMNS = {
    "flights": {
        "year": "int",
        "month": "int",
        "day": "int",
        "carrier": "string",
        "flight": "int",
        "tailnum": "string",
        "origin": "string",
        "dest": "string",
        "distance": "double",
        "sched_dep_time": "int",
        "arr_delay": "double",
        "time_hour": "timestamp",
    },
    "weather": {
        "origin": "string",
        "time_hour": "timestamp",
        "temp": "double",
        "dewp": "double",
        "humid": "double",
        "wind_dir": "double",
        "wind_speed": "double",
        "wind_gust": "double",
        "precip": "double",
        "pressure": "double",
        "visib": "double",
    },
    "planes": {"tailnum": "string", "year": "int", "engine": "string", "seats": "int"},
}
# A calm day has no gusts, and pressure is often not reported; any other column has values every day.
FILLED_WEATHER = tuple(name for name in COLUMNS["weather"] if name not in ("wind_gust", "pressure"))

FLIGHT_RULES = (
    Rule(
        "missing_schedule",
        " or ".join(
            f"{name} is null"
            for name in ("carrier", "flight", "origin", "dest", "distance", "sched_dep_time", "time_hour")
        ),
    ),
    Rule("wrong_day", "make_date(year, month, day) is distinct from dt"),
    Rule("impossible_departure", "sched_dep_time < 0 or sched_dep_time > 2400 or sched_dep_time % 100 > 59"),
    Rule("impossible_distance", "distance <= 0 or distance > 12000"),
    Rule("impossible_delay", "arr_delay < -180 or arr_delay > 2880"),
    Rule("without_delay", "arr_delay is null", at_most=0.25),  # cancelled and diverted; a blizzard week has a fifth
    Rule("without_weather", "not has_weather", at_most=0.05),
    Rule("without_plane", "not has_plane", at_most=0.5),  # two large carriers report no tail numbers
)
IMPOSSIBLE_WEATHER = {
    "temp": (-60, 140),
    "dewp": (-80, 100),
    "humid": (0, 100),
    "wind_dir": (0, 360),
    "wind_speed": (0, 150),
    "wind_gust": (0, 200),
    "precip": (0, 20),
    "pressure": (850, 1100),
    "visib": (0, 100),
}
# One reading of a faulty gauge is dropped (1,048 miles an hour at Newark in February); many are a broken feed.
WEATHER_RULES = (
    Rule(
        "impossible_weather",
        " or ".join(f"{name} not between {low} and {high}" for name, (low, high) in IMPOSSIBLE_WEATHER.items()),
        at_most=0.01,
    ),
)


def check_schema(table: str, frame: DataFrame, columns: dict[str, str]) -> Finding:
    """The columns that are missing or whose type can't be read as the wanted one."""
    actual = dict(frame.dtypes)
    wrong = [
        {"column": name, "wanted": kind, "found": actual.get(name, "nothing")}
        for name, kind in columns.items()
        if not _readable(actual.get(name), kind)
    ]
    return Finding(f"{table}_schema", len(wrong), 0, wrong)


def _readable(found: str | None, wanted: str) -> bool:
    whole = {"tinyint", "smallint", "int", "bigint"}
    kinds = {"int": whole, "double": whole | {"float", "double"}}
    return found in kinds.get(wanted, {wanted})


def check_days(table: str, landed: list[date], expected: list[date], *, at_most: float = 0.05) -> Finding:
    """Days without data between the first and the last expected one."""
    missing = [{"dt": day.isoformat()} for day in expected if day not in landed]
    return Finding(f"{table}_missing_days", len(missing), int(at_most * len(expected)), missing[:EXAMPLES])


def check_rows(
    table: str, frame: DataFrame, rules: tuple[Rule, ...], *, filled: Iterable[str], shows: Iterable[str]
) -> list[Finding]:
    """All rules, and that no column of `filled` is empty for a whole day, in one pass over `frame`."""
    by_day = (
        frame.groupBy("dt")
        .agg(
            F.count(F.lit(1)).alias("rows"),
            *(F.count_if(F.expr(rule.offends)).alias(rule.name) for rule in rules),
            *(F.count(name).alias(f"filled_{name}") for name in filled),
        )
        .orderBy("dt")
        .collect()
    )
    rows = sum(day["rows"] for day in by_day)
    found = [
        (rule, Finding(rule.name, sum(day[rule.name] for day in by_day), int(rule.at_most * rows))) for rule in rules
    ]
    empty = [{"dt": str(day["dt"]), "column": name} for day in by_day for name in filled if not day[f"filled_{name}"]]
    return [
        Finding(f"{table}_empty", int(rows == 0), 0),
        Finding(f"{table}_empty_column", len(empty), 0, empty[:EXAMPLES]),
        *(
            finding if finding.passed else _with_examples(finding, frame.where(rule.offends), shows)
            for rule, finding in found
        ),
    ]


def check_unique(table: str, frame: DataFrame, key: tuple[str, ...]) -> Finding:
    """Rows that share their key with an earlier row."""
    repeated = frame.groupBy(*key).count().where("count > 1")
    surplus = repeated.agg(F.coalesce(F.sum(F.col("count") - 1), F.lit(0))).first()
    finding = Finding(f"duplicate_{table}", surplus[0] if surplus else 0, 0)
    return finding if finding.passed else _with_examples(finding, repeated, key)


def _with_examples(finding: Finding, offending: DataFrame, shows: Iterable[str]) -> Finding:
    rows = offending.select(*shows).limit(EXAMPLES).collect()
    examples = [{key: str(value) for key, value in row.asDict().items()} for row in rows]
    return Finding(finding.rule, finding.count, finding.allowed, examples)
