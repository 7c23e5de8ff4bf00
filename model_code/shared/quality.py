"""Quality checks of raw data by Spark: a broken rule stops the run before anything is trained on it."""

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
