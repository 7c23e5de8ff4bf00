"""New data: a storm of objects gives one retraining, after it has settled and with the last object in it."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from tests.lambdas.retraining_world import HOUR, MINUTE, NOON, SECOND, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_storm_of_a_thousand_objects_gives_one_retraining_with_the_last_in_it(world: World) -> None:
    for number in range(1000):
        world.now = NOON + number * SECOND * 2  # over three windows
        world.invoke(world.land("2026-11-22" if number < 999 else "2026-11-23", name=f"part-{number}.csv"))
    last = world.now
    world.pass_time(NOON + 24 * HOUR)
    (started,) = world.started()
    assert started.started >= last + 15 * MINUTE
    assert started.variables["AsOf"] == "2026-11-23"
    assert started.variables["Trigger"] == "data"
    assert started.variables["Reason"] == "new data up to 2026-11-23"
    assert world.schedules == {}


def test_an_arrival_costs_one_call_and_a_container_asks_for_the_branch_once(world: World) -> None:
    for number in range(10):
        world.invoke(world.land("2026-11-22", name=str(number)))
    assert world.calls == {"GetBranch": 1, "CreateSchedule": 10}


def test_an_object_that_lands_when_the_window_has_just_fired_is_not_lost(world: World) -> None:
    world.invoke(world.land("2026-11-21"))
    (first,) = world.schedules.values()
    world.now = first["at"] - SECOND
    world.invoke(world.land("2026-11-22"))
    world.pass_time(NOON + 24 * HOUR)
    assert [execution.variables["AsOf"] for execution in world.started()] == ["2026-11-22"]


def test_data_that_never_stops_arriving_retrains_after_the_longest_wait(world: World) -> None:
    world.deploy("flight_delay", cool_down_hours=0)
    for minute in range(0, 13 * 60, 5):
        world.pass_time(NOON + minute * MINUTE)
        world.invoke(world.land("2026-11-22", name=f"part-{minute}.csv"))
    moments = [execution.started - NOON for execution in world.started()]
    assert len(moments) == 2
    assert all(moment <= (index + 1) * 6 * HOUR + HOUR for index, moment in enumerate(moments))


def test_a_retraining_by_push_makes_the_data_that_waits_superfluous(world: World) -> None:
    world.invoke(world.land("2026-11-22"))
    world.pass_time(NOON + 20 * MINUTE)
    world.ran(dt.timedelta(), id="pushed")
    (decision,) = world.pass_time(NOON + HOUR)
    assert decision["decision"] == "ignore"
    assert decision["reason"].startswith("execution pushed does it")


@pytest.mark.parametrize(("becomes", "expected"), [("Succeeded", "ignore"), ("Failed", "start")])
def test_data_waits_for_what_becomes_of_a_push_that_may_do_for_it(world: World, becomes: str, expected: str) -> None:
    """Nobody would tell of the data again, if it was left to a push that Verify then refuses."""
    world.deploy("flight_delay", cool_down_hours=0)
    world.invoke(world.land("2026-11-22"))
    world.pass_time(NOON + 20 * MINUTE)
    push = world.ran(dt.timedelta(), id="pushed", status="InProgress", stages=("Source", "Verify"))
    *_, waits = world.pass_time(NOON + 40 * MINUTE)
    assert (waits["decision"], "execution pushed may do it" in waits["reason"]) == ("defer", True)
    push.status = becomes
    assert [made["decision"] for made in world.pass_time(NOON + HOUR)] == [expected]
    assert len(world.started()) == (expected == "start")


def test_data_that_lands_after_a_push_began_does_not_hang_on_it_with_the_data_before(world: World) -> None:
    """Both wait for the end of the same cool-down, but only for the earlier one the push may do."""
    world.invoke(world.land("2026-11-22", name="early.csv"))
    world.pass_time(NOON + 20 * MINUTE)
    push = world.ran(dt.timedelta(), id="pushed", status="InProgress")
    world.pass_time(NOON + 35 * MINUTE)
    world.invoke(world.land("2026-11-22", name="late.csv"))
    world.pass_time(NOON + 2 * HOUR)
    push.status = "Succeeded"
    late, early = world.pass_time(NOON + 24 * HOUR)
    assert (late["decision"], early["decision"]) == ("start", "ignore")
    assert len(world.started()) == 1


def test_during_the_cool_down_data_waits_and_the_newest_day_is_taken_then(world: World) -> None:
    world.ran(HOUR)
    world.invoke(world.land("2026-11-22"))
    (deferred,) = world.pass_time(NOON + HOUR)
    assert deferred["decision"] == "defer"
    world.invoke(world.land("2026-11-23"))
    world.pass_time(NOON + 24 * HOUR)
    assert [execution.variables["AsOf"] for execution in world.started()] == ["2026-11-23"]


@pytest.mark.parametrize("day", ["2026-11-25", "2099-01-01"])
def test_a_day_in_the_future_is_not_taken(world: World, day: str) -> None:
    (decision,) = world.invoke(world.land(day))
    assert (decision["decision"], decision["reason"]) == ("ignore", f"day {day} lies in the future")
    world.invoke(world.land("2026-11-22"))
    world.pass_time(NOON + HOUR)
    assert [execution.variables["AsOf"] for execution in world.started()] == ["2026-11-22"]


def test_data_of_tomorrow_is_taken_where_clocks_differ(world: World) -> None:
    world.invoke(world.land("2026-11-24"))
    world.pass_time(NOON + HOUR)
    assert [execution.variables["AsOf"] for execution in world.started()] == ["2026-11-24"]


def test_late_data_of_an_old_day_retrains_on_the_newest(world: World) -> None:
    world.objects.add("raw/flight_delay/dt=2026-11-22/rows.csv")
    world.invoke(world.land("2026-01-01"))
    world.pass_time(NOON + HOUR)
    assert [execution.variables["AsOf"] for execution in world.started()] == ["2026-11-22"]


def test_before_the_first_push_data_is_only_there(world: World) -> None:
    world.head = None
    (decision,) = world.invoke(world.land("2026-11-22"))
    assert decision["reason"].startswith("nothing was ever pushed")
    assert world.schedules == {}


def test_a_model_that_does_not_want_it_is_asked_once_a_window(world: World) -> None:
    world.deploy("flight_delay", on_new_data=False)
    for number in range(5):
        world.invoke(world.land("2026-11-22", name=f"{number}"))
    (decision,) = world.pass_time(NOON + HOUR)
    assert decision["reason"] == "model.yaml says on_new_data: false"


def test_data_of_no_model_is_ignored_with_the_models_there_are(world: World) -> None:
    world.invoke(world.land("2026-11-22", model="flights"))
    (decision,) = world.pass_time(NOON + HOUR)
    assert decision["reason"] == "there is no model 'flights'; deployed are: flight_delay"


def test_a_window_that_fires_twice_starts_once(world: World) -> None:
    world.invoke(world.land("2026-11-22"))
    (schedule,) = world.schedules.values()
    world.schedules["delivered again"] = {**schedule, "name": "delivered again"}
    world.pass_time(NOON + HOUR)
    assert len(world.started()) == 1


def test_where_the_schedules_run_ahead_of_the_clock_settled_data_still_starts(world: World) -> None:
    """In a rehearsal at twenty times the speed the function's own clock has not moved that far."""
    for minutes, day in ((0, "2026-11-21"), (5, "2026-11-22")):
        world.now = NOON + minutes * MINUTE
        world.deploy("flight_delay", cool_down_hours=0)
        world.invoke(world.land(day))
        (schedule,) = world.schedules.values()
        world.schedules.clear()
        world.now += 90 * SECOND
        (decision,) = world.invoke(json.loads(schedule["input"]))
        assert decision["decision"] == "start"
    assert [execution.variables["AsOf"] for execution in world.started()] == ["2026-11-21", "2026-11-22"]
