"""Drift at the one door: an alarm speaks once, so whoever waits or has retrained looks at it again."""

from __future__ import annotations

import pytest

from tests.lambdas.retraining_world import DAY, HOUR, MINUTE, NOON, Params, World, alarm_event

ALARM, SECOND_ALARM = "flight-delay-drift-predictions", "flight-delay-drift-features"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A model with a cool-down of six hours, whose alarm is on."""
    made = World(monkeypatch)
    made.alarms = {ALARM: "ALARM"}
    return made


def goes_on(world: World, name: str = ALARM) -> list[Params]:
    """The alarm goes on now."""
    world.alarms[name] = "ALARM"
    event = {**alarm_event(name), "id": f"{name} {world.now}", "time": f"{world.now:%Y-%m-%dT%H:%M:%SZ}"}
    return world.invoke(event)


def test_a_request_that_waited_is_dropped_if_the_alarm_is_over_by_then(world: World) -> None:
    world.ran(HOUR)
    assert goes_on(world)[0]["decision"] == "defer"
    world.alarms[ALARM] = "OK"
    (made,) = world.pass_time(NOON + DAY)
    assert (made["model"], made["trigger"]) == ("flight_delay", "drift")
    assert (made["decision"], made["reason"]) == ("ignore", "no drift alarm of the model is on any more")
    assert world.started() == []


def test_a_request_that_waited_starts_for_whichever_alarm_is_on_by_then(world: World) -> None:
    world.ran(HOUR)
    goes_on(world)
    world.alarms = {ALARM: "INSUFFICIENT_DATA", SECOND_ALARM: "ALARM"}
    world.pass_time(NOON + 6 * HOUR)
    (started,) = world.started()
    assert started.variables["Reason"] == f"alarm {SECOND_ALARM}: 2 datapoints were over 1.0"


def test_the_alarm_of_a_model_with_a_like_name_counts_for_that_one(world: World) -> None:
    world.deploy("flight_delay_drift_night")
    world.ran(HOUR)
    goes_on(world)
    world.alarms = {"flight-delay-drift-night-drift-predictions": "ALARM"}
    assert [made["decision"] for made in world.pass_time(NOON + DAY)] == ["ignore"]


def test_a_start_is_told_with_when_the_alarm_is_looked_at_again(world: World) -> None:
    start, again = goes_on(world)
    assert (start["decision"], again["decision"]) == ("start", "defer")
    assert "looks whether an alarm is still on" in again["reason"]
    assert NOON + 6 * HOUR <= world.schedules[again["name"]]["at"] <= NOON + 6 * HOUR + 10 * MINUTE


def test_an_alarm_that_stays_on_after_a_failure_retrains_again_after_the_cool_down(world: World) -> None:
    goes_on(world)
    world.started()[0].status = "Failed"
    world.pass_time(NOON + 7 * HOUR)
    assert [started.variables["Trigger"] for started in world.started()] == ["drift", "drift"]


def test_an_alarm_that_stays_on_after_a_retraining_has_time_to_clear_before_the_next(world: World) -> None:
    """As after a challenger that was refused; the alarm looks at three days, most of them before the retraining."""
    goes_on(world)
    world.started()[0].status = "Succeeded"
    world.pass_time(NOON + 3 * DAY - HOUR)
    assert len(world.started()) == 1
    world.pass_time(NOON + 3 * DAY + HOUR)
    assert len(world.started()) == 2


def test_an_alarm_that_cleared_ends_it(world: World) -> None:
    goes_on(world)
    world.started()[0].status = "Succeeded"
    world.pass_time(NOON + DAY)
    world.alarms[ALARM] = "OK"
    world.pass_time(NOON + 9 * DAY)
    assert len(world.started()) == 1
    assert world.schedules == {}


@pytest.mark.parametrize("cool_down", [0, 6])
def test_two_alarms_a_minute_apart_are_one_retraining(world: World, cool_down: int) -> None:
    world.deploy("flight_delay", cool_down_hours=cool_down)
    goes_on(world)
    world.now += MINUTE
    assert [made["decision"] for made in goes_on(world, SECOND_ALARM)] == ["defer"]
    world.started()[0].status = "Succeeded"
    world.pass_time(NOON + DAY)
    world.alarms = {}
    world.pass_time(NOON + 9 * DAY)
    assert len(world.started()) == 1


def test_two_alarms_of_one_moment_are_one_execution(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "list_pipeline_executions", lambda **_: {"pipelineExecutionSummaries": []})
    first, second = goes_on(world)[0], goes_on(world, SECOND_ALARM)[0]
    assert first["execution"] == second["execution"]


def test_drift_on_another_day_is_another_execution(world: World) -> None:
    first = goes_on(world)[0]["execution"]
    world.executions["pushline-flight-delay"] = []  # long ago by then
    world.now += 10 * DAY
    assert goes_on(world)[0]["execution"] != first


def test_an_alarm_that_stays_on_costs_a_retraining_every_three_days_at_most(world: World) -> None:
    goes_on(world)
    for hour in range(1, 24 * 30):
        world.pass_time(NOON + hour * HOUR)
        for execution in world.started():
            execution.status = "Succeeded"
    assert len(world.started()) == 10
    assert len(world.schedules) <= 2
