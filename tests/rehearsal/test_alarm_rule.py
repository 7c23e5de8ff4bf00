"""Alarm states, by the examples in CloudWatch's documentation: 0 is within the threshold, X breaches, - is missing."""

from __future__ import annotations

import pytest

from rehearsal.cloud.alarm_rule import evaluate, refused, value
from rehearsal.cloud.alarms import _from_query

TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
KEEP, NONE = "(kept)", "INSUFFICIENT_DATA"


@pytest.mark.parametrize(
    ("data", "needed", "states"),
    [
        ("0-X-X", 3, ("OK", "OK", "OK", "OK")),
        ("----0", 3, ("OK", "OK", "OK", "OK")),
        ("-----", 3, (NONE, KEEP, "ALARM", "OK")),
        ("0XX-X", 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("--X--", 3, ("ALARM", KEEP, "ALARM", "OK")),
        ("0-X-X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("00X0X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0-X--", 2, ("OK", "OK", "ALARM", "OK")),
        ("----0", 2, ("OK", "OK", "ALARM", "OK")),
        ("----X", 2, ("OK", KEEP, "ALARM", "OK")),
    ],
)
def test_missing_data_is_treated_as_the_alarm_says(data: str, needed: int, states: tuple[str, ...]) -> None:
    points = [
        {"Timestamp": 60.0 * slot, "Value": 9.0 if kind == "X" else 0.0}
        for slot, kind in enumerate(data)
        if kind != "-"
    ]
    alarm = {"Period": 60, "EvaluationPeriods": 3, "DatapointsToAlarm": needed, "Statistic": "Average"}
    alarm |= {"Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold"}
    for current in ("OK", "ALARM"):
        found = [
            evaluate({**alarm, "TreatMissingData": treated, "StateValue": current}, points, 5 * 60 + 31, 1).state
            for treated in TREATMENTS
        ]
        assert found == [current if state == KEEP else state for state in states]


DAY, HOUR, MINUTE = 86400.0, 3600.0, 60.0
DAILY = {"Period": 86400, "EvaluationPeriods": 3, "DatapointsToAlarm": 2, "Statistic": "Maximum", "StateValue": "OK",
         "Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "ignore"}  # fmt: skip


@pytest.mark.parametrize("time_scale", [1, 400])
def test_windows_slide_so_that_a_daily_job_is_heard_of_within_the_hour(time_scale: float) -> None:
    """The job ends at 10:02; a look at 10:03 has what was up to 10:00, and that at 11:03 has seen it."""

    def state(now: float) -> str:
        points = [
            {"Timestamp": (day * DAY + 10 * HOUR + 2 * MINUTE) / time_scale, "Value": found}
            for day, found in ((8, 1.1), (9, 0.9), (10, 1.9))
            if day * DAY + 10 * HOUR + 2 * MINUTE <= now
        ]
        return evaluate(DAILY, points, now / time_scale, time_scale).state

    assert [state(10 * DAY + 10 * HOUR + 3 * MINUTE), state(10 * DAY + 11 * HOUR + 3 * MINUTE)] == ["OK", "ALARM"]


def test_windows_of_minutes_slide_by_the_minute() -> None:
    alarm = {**DAILY, "Period": 300, "EvaluationPeriods": 1, "DatapointsToAlarm": 1}
    points = [{"Timestamp": 10 * MINUTE, "Value": 5.0}]
    states = [evaluate(alarm, points, minute * MINUTE + 31, 1).state for minute in (10, 11, 15)]
    assert states == ["OK", "ALARM", "ALARM"]


def test_a_wall_clock_window_is_refused_in_the_query_protocol_too() -> None:
    given = _from_query({"EvaluationWindow.WallClockWindow.Timezone": ["UTC"], "Period": ["60"]})
    assert "wall clock windows are not rehearsed; sliding ones, which are the default, are" in list(refused(given))
    assert not any("wall clock" in problem for problem in refused(_from_query({"Period": ["60"]})))


def test_percentiles_weigh_values_by_their_counts() -> None:
    points = [{"Timestamp": 0, "Value": 1.0, "Count": 98.0}, {"Timestamp": 0, "Value": 100.0, "Count": 3.0}]
    assert value(points, "p50") == 1.0
    assert value(points, "p99") == 100.0
