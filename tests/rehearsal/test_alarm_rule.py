"""Alarm states, by the examples in CloudWatch's documentation: 0 is within the threshold, X breaches, - is missing."""

from __future__ import annotations

import pytest

from rehearsal.cloud.alarm_rule import evaluate, value

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


def test_percentiles_weigh_values_by_their_counts() -> None:
    points = [{"Timestamp": 0, "Value": 1.0, "Count": 98.0}, {"Timestamp": 0, "Value": 100.0, "Count": 3.0}]
    assert value(points, "p50") == 1.0
    assert value(points, "p99") == 100.0
