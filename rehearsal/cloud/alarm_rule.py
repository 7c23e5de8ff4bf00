"""What state an alarm is in, from its own data points and nothing else: CloudWatch's documented rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
FURTHER_BACK = 2
"""CloudWatch looks at some periods more than it evaluates, to have enough where some are missing."""
LEAST_PERIOD_SECONDS = 0.2
"""No period gets shorter than this, however fast time runs: what is measured must have the time to arrive."""
MINUTE, HOUR, DAY = 60, 3600, 86400
OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
COMPARISONS = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
MISSING_DATA = ("breaching", "notBreaching", "ignore", "missing")


@dataclass(frozen=True)
class Verdict:
    """An alarm's state and why; `datapoints` are the values looked at, oldest first, None where one is missing."""

    state: str
    reason: str
    datapoints: list[float | None]


def period_seconds(period: float, time_scale: float) -> float:
    """How long a period of CloudWatch lasts here."""
    return max(period / time_scale, LEAST_PERIOD_SECONDS)


def evaluate(alarm: Document, points: Iterable[Document], now: float, time_scale: float) -> Verdict:
    """The state of `alarm` at `now`. `points` are of its own metric and dimensions; minutes that are not over, or
    only just, are not looked at. The periods slide: they end with the last whole minute, or the last whole hour where
    all of them take more than a day (alarm-evaluation-window in CloudWatch's guide)."""
    period = period_seconds(alarm["Period"], time_scale)
    least = period_seconds(min(alarm["Period"], MINUTE), time_scale)
    step = period_seconds(HOUR, time_scale) if alarm["Period"] * alarm["EvaluationPeriods"] > DAY else least
    end = math.floor((now - least / 2) / step) * step
    slots: dict[int, list[Document]] = {}
    for point in points:
        if alarm.get("Unit") in (None, point.get("Unit")):
            slots.setdefault(math.ceil((end - point["Timestamp"]) / period - 1e-6), []).append(point)
    statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
    back = range(alarm["EvaluationPeriods"] + FURTHER_BACK, 0, -1)
    return _judge(alarm, [value(slots.get(slot, []), statistic) for slot in back], statistic)


def _judge(alarm: Document, data: list[float | None], statistic: str) -> Verdict:
    periods = alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm") or periods
    real = [point for point in data if point is not None]
    looked_at = real[-periods:] if len(real) >= periods else real
    breaches = [point for point in looked_at if _breaches(alarm, point)]
    reason = (
        f"{len(breaches)} of the last {periods} datapoints {_numbers(looked_at)} ({statistic}) "
        f"{'were' if len(breaches) != 1 else 'was'} {alarm['ComparisonOperator']} ({alarm['Threshold']:g}); "
        f"{needed} {'are' if needed != 1 else 'is'} needed for the alarm."
    )
    missing = periods - len(looked_at)
    state = _state(alarm, data, breaches, missing, needed)
    if missing:
        treated = alarm.get("TreatMissingData") or "missing"
        reason += f" {missing} missing datapoint{'s' if missing > 1 else ''} treated as [{treated}]."
    prefix = {ALARM: "Threshold Crossed: ", OK: "Threshold not crossed: ", INSUFFICIENT: "Insufficient Data: "}
    return Verdict(state, prefix[state] + reason, data)


def _state(alarm: Document, data: list[float | None], breaches: list[float], missing: int, needed: int) -> str:
    treated = alarm.get("TreatMissingData") or "missing"
    if len(breaches) >= needed or (treated == "breaching" and len(breaches) + missing >= needed):
        return ALARM
    if not missing or treated in ("breaching", "notBreaching"):
        return OK
    real = [point for point in data if point is not None]
    if treated == "ignore":
        undecided = len(breaches) == len(real)
        return str(alarm["StateValue"]) if undecided else OK
    if not real:
        return INSUFFICIENT
    oldest = next(number for number, point in enumerate(data) if point is not None)
    # Sparse data that only breaches is an alarm once its oldest breach is as old as the alarm needs.
    return ALARM if len(breaches) == len(real) and len(data) - oldest >= needed else OK


def _breaches(alarm: Document, point: float) -> bool:
    return bool(COMPARISONS[alarm["ComparisonOperator"]](point, alarm["Threshold"]))


def _numbers(values: list[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def value(points: list[Document], statistic: str) -> float | None:
    """One period's datapoint, or None if it has none (or, for a percentile, only sums of several values)."""
    counted = [part for part in map(_parts, points) if part[0] > 0]
    if not counted:
        return None
    if statistic.startswith("p"):
        return _percentile(counted, float(statistic[1:]))
    count, total = sum(part[0] for part in counted), sum(part[1] for part in counted)
    return {
        "SampleCount": count,
        "Sum": total,
        "Average": total / count,
        "Minimum": min(part[2] for part in counted),
        "Maximum": max(part[3] for part in counted),
    }[statistic]


def _parts(point: Document) -> tuple[float, float, float, float]:
    """(count, sum, minimum, maximum) of what was published at once: one value, the same `Count` times, or a set."""
    if (published := point.get("_stat")) is not None:
        count, total, low, high = (float(published[key]) for key in ("SampleCount", "Sum", "Minimum", "Maximum"))
        return count, total, low, high
    count = float(point.get("Count", 1.0))
    return count, point["Value"] * count, point["Value"], point["Value"]


def _percentile(parts: list[tuple[float, float, float, float]], percent: float) -> float | None:
    if any(low != high or low < 0 for _, _, low, high in parts):
        return None
    ordered = sorted((low, count) for count, _, low, _ in parts)
    rank = percent / 100 * (sum(count for _, count in ordered) - 1)
    return _at(ordered, math.floor(rank)) + (rank % 1) * (
        _at(ordered, math.ceil(rank)) - _at(ordered, math.floor(rank))
    )


def _at(ordered: list[tuple[float, float]], index: float) -> float:
    seen = 0.0
    for found, count in ordered:
        seen += count
        if index < seen:
            return found
    return ordered[-1][0]


def refused(alarm: Document) -> Iterator[str]:
    """Why an alarm can't be evaluated faithfully here; nothing when it can."""
    if alarm.get("Metrics") or alarm.get("ThresholdMetricId") or alarm.get("EvaluationCriteria"):
        yield "metric math, anomaly detection and queries are not rehearsed: name one MetricName and Namespace"
        return
    if "WallClockWindow" in (alarm.get("EvaluationWindow") or {}):
        yield "wall clock windows are not rehearsed; sliding ones, which are the default, are"
    if alarm.get("ComparisonOperator") not in COMPARISONS:
        yield f"ComparisonOperator {alarm.get('ComparisonOperator')} is not one of {', '.join(COMPARISONS)}"
    if (alarm.get("TreatMissingData") or "missing") not in MISSING_DATA:
        yield f"TreatMissingData {alarm['TreatMissingData']} is not one of {', '.join(MISSING_DATA)}"
    if extended := alarm.get("ExtendedStatistic"):
        if not _is_percentile(extended):
            yield f"ExtendedStatistic {extended} is not rehearsed; percentiles such as p99 or p99.9 are"
        if alarm.get("EvaluateLowSampleCountPercentile") == "ignore":
            yield "EvaluateLowSampleCountPercentile ignore is not rehearsed"
    elif alarm.get("Statistic") not in STATISTICS:
        yield f"Statistic {alarm.get('Statistic')} is not one of {', '.join(STATISTICS)}"
    period = alarm.get("Period") or 0
    if period not in (10, 20, 30) and (period <= 0 or period % 60):
        yield f"Period {period} is not 10, 20, 30 or a multiple of 60"
    if not 1 <= (alarm.get("DatapointsToAlarm") or 1) <= alarm.get("EvaluationPeriods", 0):
        yield "DatapointsToAlarm must be between 1 and EvaluationPeriods"
    yield from _refused_actions(alarm)


def _refused_actions(alarm: Document) -> Iterator[str]:
    for kind in ("AlarmActions", "OKActions", "InsufficientDataActions"):
        for action in alarm.get(kind) or []:
            if action.split(":")[2:3] not in (["sns"], ["lambda"], ["autoscaling"]):
                yield f"the action {action} is not rehearsed; topics, functions and scaling policies are"


def _is_percentile(statistic: str) -> bool:
    number = statistic[1:]
    return statistic.startswith("p") and number.replace(".", "", 1).isdigit() and 0 <= float(number) <= 100
