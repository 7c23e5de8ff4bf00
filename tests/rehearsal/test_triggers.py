"""Triggers other than pushes at the deployed door: its rules, function, schedules and permissions, for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from config import load_settings
from rehearsal import audit
from rehearsal.connection import look
from rehearsal.landscape import ModelParts
from rehearsal.replay.happened import waiting
from rehearsal.server import Running
from rehearsal.triggers import by_hand
from tests.conftest import Assembly
from tests.rehearsal.deployed_door import Place, Row, door
from tests.rehearsal.waiting import until

_SCHEDULE = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "ActionAfterCompletion", "Target")
OBJECTS = 1000
LONGEST_STORM_SECONDS = 120


@pytest.fixture(scope="module")
def place(assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with door(tmp_path_factory.mktemp("triggers"), assembly) as made:
        yield made


def test_before_the_first_push_new_data_is_ignored_and_visible(place: Place) -> None:
    place.model("early")
    place.land("early", "dt=2013-01-01/a.csv")
    until(lambda: bool(place.triggers("early")), "the arrival was not decided on")
    (row,) = place.triggers("early")
    assert (row["trigger"], row["decision"], row["count"]) == ("data", "ignore", 1)
    assert row["reason"].startswith("nothing was ever pushed")


def test_a_storm_of_objects_gives_one_retraining_with_the_last_one_in_it(place: Place) -> None:
    pipeline = place.model("storm")
    place.push(model_code__storm__model_dot_yaml="name: storm")
    until(lambda: len(place.started(pipeline)) == 1, "the push started nothing")
    schedules = place.at.client("scheduler")
    _wait_for_the_longest_waits_end()
    place.land("storm", "dt=2013-01-01/first.csv")
    until(lambda: _all(schedules, "DISABLED"), "the arrival made no schedule")
    for some in range(0, OBJECTS, 100):
        place.land("storm", *(f"dt=2013-01-01/{number}.csv" for number in range(some, some + 100)))
        _all(schedules, "DISABLED")  # the storm may go on in another window
    place.land("storm", "dt=2013-01-02/last.csv", "dt=2099-01-01/mistake.csv")

    def decided(decision: str) -> list[Row]:
        return [row for row in place.triggers("storm") if row["decision"] == decision]

    def all_decided() -> bool:
        _all(schedules, "DISABLED")
        return sum(row["count"] for row in decided("defer")) >= OBJECTS + 2

    until(all_decided, "an arrival was not decided on")
    until(lambda: decided("ignore"), "what lies in the future was not refused")
    _all(schedules, "ENABLED")
    until(lambda: len(place.started(pipeline)) == 2, f"no retraining: {place.triggers('storm')}")
    started = place.started(pipeline)[-1]
    assert place.variables(pipeline, started) == {"Trigger": "data", "Reason": "new data up to 2013-01-02",
                                                  "AsOf": "2013-01-02"}  # fmt: skip
    assert sum(row["count"] for row in decided("defer")) == OBJECTS + 2
    assert len(decided("defer")) <= 2
    assert "day 2099-01-01 lies in the future" in [row["reason"] for row in decided("ignore")]
    until(lambda: not _waiting(schedules, "storm"), "a schedule was left behind")
    assert len(place.started(pipeline)) == 2


def test_a_drift_alarm_comes_through_and_waits_for_the_cool_down(place: Place) -> None:
    pipeline = place.model("cooling", cool_down_hours=6)
    place.push(model_code__cooling__model_dot_yaml="name: cooling")
    until(lambda: len(place.started(pipeline)) == 1, "the push started nothing")
    _alarm(place.at, "cooling-drift-predictions")
    until(lambda: any(row["decision"] == "defer" for row in place.triggers("cooling")), "the alarm did not come")
    (row,) = [row for row in place.triggers("cooling") if row["trigger"] == "drift"]
    assert "cool-down of 6 h" in row["reason"]
    assert datetime.fromisoformat(row["until"])
    assert _waiting(place.at.client("scheduler"), "cooling-drift")
    assert len(place.started(pipeline)) == 1


def test_a_drift_alarm_starts_the_pipeline_of_its_model_and_no_other(place: Place) -> None:
    pipeline, other = place.model("drifting"), place.model("drifting_not")
    place.push(model_code__drifting__model_dot_yaml="name: drifting")
    until(lambda: len(place.started(pipeline)) == 1, "the push started nothing")
    _alarm(place.at, "drifting-drift-features")
    until(lambda: len(place.started(pipeline)) == 2, f"drift started nothing: {place.triggers('drifting')}")
    variables = place.variables(pipeline, place.started(pipeline)[-1])
    assert variables["Trigger"] == "drift"
    assert "drifting-drift-features" in variables["Reason"]
    assert not place.started(other)
    # Without a cool-down it is looked at again in minutes; the alarm is still on, and the execution has yet to show.
    worth = f"what execution {place.started(pipeline)[-1]['pipelineExecutionId']} was worth shows by then"
    until(lambda: any(row["reason"].endswith(worth) for row in place.triggers("drifting")), "nobody looked")
    assert _waiting(place.at.client("scheduler"), "drifting-look-")
    assert waiting(look(place.at)[0], "drifting") == []
    assert len(place.started(pipeline)) == 2


def test_a_folder_that_is_not_deployed_is_told_and_by_hand_retrains_what_is(place: Place) -> None:
    pipeline = place.model("known")
    place.push(model_code__unknown__model_dot_yaml="name: unknown")
    until(lambda: bool(place.triggers("unknown")), "the push was not decided on")
    assert "run cdk deploy 'Unknown-*'" in place.triggers("unknown")[0]["reason"]
    client_of, landscape = look(place.at)
    landscape.models["known"] = ModelParts("known", pipeline)
    assert by_hand(client_of, landscape, "known", "labels were corrected", "2013-01-01")["decision"] == "start"
    assert place.variables(pipeline, place.started(pipeline)[0]) == {
        "Trigger": "manual", "Reason": "labels were corrected", "AsOf": "2013-01-01"}  # fmt: skip


def test_nothing_was_denied(place: Place) -> None:
    assert list(audit.read(place.at.state_dir, denied=True)) == []


def _all(schedules: Any, state: str) -> bool:
    """Give the schedules of the storm's windows this state; whether there are any.

    On AWS a window settles for a quarter of an hour. Here that takes seconds, unless its schedule is kept from firing.
    """
    found = schedules.list_schedules(NamePrefix="storm-settled-")["Schedules"]
    for row in found:
        if row["State"] != state:
            asked = schedules.get_schedule(Name=row["Name"], GroupName=row["GroupName"])
            kept = {key: value for key, value in asked.items() if key in _SCHEDULE}
            schedules.update_schedule(**{**kept, "State": state})
    return bool(found)


def _wait_for_the_longest_waits_end() -> None:
    """A storm over the end of the longest wait is two: its first window does not look for a later one then.

    On AWS the retraining of that window begins when the next one is over, and does for both. Here schedules run ahead
    of the function's clock.
    """
    longest = load_settings().retraining.longest_wait_hours * 3600
    if (left := longest - time.time() % longest) < LONGEST_STORM_SECONDS:
        time.sleep(left + 1)


def _alarm(at: Running, name: str) -> None:
    """Put the alarm on: it stays, but a busy machine may not look at it while a datapoint is new."""
    metrics = at.client("cloudwatch")
    metrics.put_metric_alarm(
        AlarmName=name, Namespace="Drift", MetricName=name, Statistic="Maximum", Period=60, EvaluationPeriods=1,
        Threshold=1.0, ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore")  # fmt: skip

    def on() -> bool:
        metrics.put_metric_data(Namespace="Drift", MetricData=[{"MetricName": name, "Value": 2.0}])
        return bool(metrics.describe_alarms(AlarmNames=[name], StateValue="ALARM")["MetricAlarms"])

    until(on, f"{name} did not go on")


def _waiting(schedules: Any, prefix: str) -> list[str]:
    return [row["Name"] for row in schedules.list_schedules()["Schedules"] if row["Name"].startswith(prefix)]
