"""Start, defer or ignore: the decision alone, without AWS."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from typing import Any

import pytest

from lambdas.start_retraining.decide import Decision, Defer, Ignore, Limits, Run, Start, busy, decide
from lambdas.start_retraining.events import TRIGGERS, Request
from lambdas.start_retraining.route import Model
from tests.lambdas.retraining_world import HOUR, MINUTE, NEW, NOON, OLD, SECOND

MODEL = Model("flight_delay", "pushline-flight-delay", ("model_code/flight_delay",), cool_down_hours=6)
LIMITS = Limits(3, 15 * MINUTE, 6 * HOUR, 72 * HOUR)
UNATTENDED = ("schedule", "data", "drift")


def request(trigger: str = "push", **changes: Any) -> Request:
    values: dict[str, Any] = {"model": "flight_delay", "trigger": trigger, "reason": "why", "asked": NOON, "id": "1",
                              "commit": NEW if trigger == "push" else ""}  # fmt: skip
    return Request(**{**values, **changes})


def run(ago: dt.timedelta, **changes: Any) -> Run:
    return Run(**{"id": "r", "started": NOON - ago, "status": "Succeeded", "trained": True, **changes})


def decided(asked: Request, *runs: Run, now: dt.datetime = NOON, model: Model = MODEL) -> Decision:
    return decide(asked, model, runs, LIMITS, now)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_with_nothing_in_the_way_everything_starts(trigger: str) -> None:
    start = decided(request(trigger))
    assert isinstance(start, Start)
    assert start.variables == [{"name": "Trigger", "value": trigger}, {"name": "Reason", "value": "why"},
                               {"name": "AsOf", "value": "none"}]  # fmt: skip


@pytest.mark.parametrize("trigger", UNATTENDED)
def test_the_cool_down_defers_what_no_person_asked_for(trigger: str) -> None:
    deferred = decided(request(trigger), run(HOUR))
    assert isinstance(deferred, Defer)
    assert NOON + 5 * HOUR < deferred.until <= NOON + 5 * HOUR + 10 * MINUTE
    assert "cool-down of 6 h after 2026-11-23 11:00 UTC" in deferred.reason


@pytest.mark.parametrize("trigger", ["push", "manual"])
def test_the_cool_down_is_not_for_people(trigger: str) -> None:
    assert isinstance(decided(request(trigger), run(HOUR, commit=OLD)), Start)


@pytest.mark.parametrize("trigger", UNATTENDED)
def test_after_the_cool_down_it_starts(trigger: str) -> None:
    assert isinstance(decided(request(trigger), run(6 * HOUR)), Start)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_used_up_budget_defers_everything_and_drops_nothing(trigger: str) -> None:
    runs = [run(hours * HOUR, commit=OLD) for hours in (7, 8, 9)]
    deferred = decided(request(trigger), *runs)
    assert isinstance(deferred, Defer)
    assert NOON + 15 * HOUR < deferred.until <= NOON + 15 * HOUR + 10 * MINUTE
    assert "budget of 3 retrainings a day is used up" in deferred.reason


def test_the_budget_is_of_the_last_day_and_of_what_was_trained() -> None:
    old, refused = run(25 * HOUR, commit=OLD), run(8 * HOUR, trained=False, commit=OLD)
    assert isinstance(decided(request(), run(7 * HOUR, commit=OLD), refused, run(9 * HOUR, commit=OLD), old), Start)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_deferred_request_goes_on_when_it_is_due_whatever_the_clock_says(trigger: str) -> None:
    """A rehearsal's schedules run ahead of its functions' clock."""
    runs = [run(hours * HOUR, commit=OLD) for hours in (1, 8, 9)]
    deferred = decided(request(trigger, asked=NOON - MINUTE), *runs)
    assert isinstance(deferred, Defer)
    again = request(trigger, asked=NOON - MINUTE, due=deferred.until)
    assert isinstance(decided(again, *runs, now=NOON + MINUTE), Start)
    assert isinstance(decided(again, *runs, now=deferred.until + SECOND), Start)


def test_requests_of_one_kind_that_wait_for_the_same_moment_are_one() -> None:
    names = [getattr(decided(request("data", id=id, as_of=f"2026-11-2{id}"), run(HOUR)), "name", "") for id in "12"]
    assert names[0] == names[1] != ""


def test_each_by_hand_waits_for_itself() -> None:
    runs = [run(hours * HOUR) for hours in (7, 8, 9)]
    names = [getattr(decided(request("manual", id=id), *runs), "name", "") for id in "12"]
    assert names[0] != names[1]


def test_requests_of_several_kinds_come_back_one_after_another() -> None:
    runs = [run(hours * HOUR, commit=OLD) for hours in (1, 2, 3)]
    moments = [decided(request(trigger), *runs) for trigger in TRIGGERS]
    untils = sorted(found.until for found in moments if isinstance(found, Defer))
    assert all(later - earlier >= MINUTE for earlier, later in itertools.pairwise(untils))
    assert len(untils) == 5


def test_a_retraining_for_drift_gets_the_time_to_show_what_it_was_worth() -> None:
    helped = run(7 * HOUR, id="e1", trigger="drift")
    deferred = decided(request("drift"), helped)
    assert isinstance(deferred, Defer)
    assert NOON + 65 * HOUR < deferred.until <= NOON + 65 * HOUR + 10 * MINUTE
    assert deferred.reason.endswith("what execution e1 was worth shows by then")
    for other in (run(7 * HOUR, trigger="drift", status="Failed"), run(7 * HOUR, trigger="push"),
                  run(72 * HOUR, trigger="drift")):  # fmt: skip
        assert isinstance(decided(request("drift"), other), Start)
    assert isinstance(decided(request("schedule"), helped), Start)


def test_a_drift_request_is_covered_by_what_began_since_it_arose() -> None:
    later = run(-MINUTE, id="e1")
    assert isinstance(decided(request("drift"), later, now=NOON + 2 * MINUTE), Ignore)
    assert isinstance(decided(request("drift"), run(-MINUTE, status="Failed", trained=False)), Start)


# -- single flight ------------------------------------------------------------------------------------------


def test_a_push_whose_commit_the_newest_execution_has_is_done_already() -> None:
    ignored = decided(request(), run(-SECOND, id="e1", status="InProgress", commit=NEW), run(HOUR, commit=OLD))
    assert isinstance(ignored, Ignore)
    assert ignored.reason == "execution e1 does it: why"


@pytest.mark.parametrize(("trigger", "begun_by", "expected"), [
    ("push", "schedule", Ignore), ("schedule", "push", Ignore),
    ("data", "push", Defer), ("drift", "push", Defer), ("data", "data", Ignore), ("drift", "drift", Ignore),
])  # fmt: skip
def test_what_nobody_would_tell_again_is_not_left_to_an_execution_that_may_fail(
    trigger: str, begun_by: str, expected: type
) -> None:
    under_way = run(-MINUTE, status="InProgress", trigger=begun_by)
    assert isinstance(decided(request(trigger), under_way, now=NOON + 2 * MINUTE), expected)


def test_an_older_execution_that_succeeded_is_enough_beside_one_that_is_under_way() -> None:
    under_way, done = run(-2 * MINUTE, status="InProgress", trigger="push"), run(-MINUTE)
    assert isinstance(decided(request("data"), under_way, done, now=NOON + 3 * MINUTE), Ignore)


def test_a_late_event_of_an_older_push_is_done_by_the_execution_of_the_newer() -> None:
    newer = run(-10 * SECOND, status="InProgress", commit="c" * 40)
    assert isinstance(decided(request(), newer, now=NOON + MINUTE), Ignore)


def test_an_execution_within_the_clocks_difference_is_not_trusted() -> None:
    """It may have fetched its source before the push; CodeCommit's events tell whole seconds only."""
    assert isinstance(decided(request(), run(-SECOND, commit=OLD), now=NOON + 2 * SECOND), Start)


def test_going_back_to_an_earlier_commit_is_a_new_push() -> None:
    assert isinstance(decided(request(), run(HOUR, commit=OLD), run(2 * HOUR, commit=NEW)), Start)


def test_a_failed_execution_covers_nothing() -> None:
    assert isinstance(decided(request(), run(-10 * SECOND, status="Failed", commit=NEW)), Start)


def test_by_hand_on_older_data_is_no_answer_to_a_push() -> None:
    old = run(-10 * SECOND, commit=NEW, trigger="manual", as_of="2013-03-01")
    assert isinstance(decided(request(), old), Start)


@pytest.mark.parametrize(("as_of", "expected"), [("none", Ignore), ("2026-11-22", Ignore), ("2026-11-21", Start)])
def test_deferred_data_is_done_if_a_later_execution_took_data_as_new(as_of: str, expected: type) -> None:
    asked = request("data", as_of="2026-11-22", due=NOON + 7 * HOUR)
    later = run(-30 * MINUTE, as_of=as_of, trigger="none" if as_of == "none" else "data")
    assert isinstance(decided(asked, later, now=NOON + 7 * HOUR), expected)


def test_an_execution_that_began_before_the_data_settled_does_not_cover_it() -> None:
    asked = request("data", as_of="2026-11-22", due=NOON + 7 * HOUR)
    assert isinstance(decided(asked, run(MINUTE), now=NOON + 7 * HOUR), Start)


def test_the_same_event_has_the_same_token_and_every_other_one_another() -> None:
    def token(asked: Request, model: Model = MODEL) -> str:
        start = decided(asked, model=model)
        assert isinstance(start, Start)
        return start.token

    bikes = Model("bike_demand", "p", ())
    assert token(request()) == token(request(asked=NOON - MINUTE))
    newer = request(as_of="2026-05-01")
    tokens = {
        token(request()),
        token(request(id="2")),
        token(request("schedule")),
        token(request(), bikes),
        token(newer),
    }
    assert len(tokens) == 5
    assert all(token.isalnum() and len(token) <= 128 for token in tokens)


def test_older_data_by_hand_waits_until_the_pipeline_is_free() -> None:
    """A waiting execution would be superseded by it, and what a push or newer data asked for be lost."""
    asked = request("manual", as_of="2013-03-01")
    running, over = run(HOUR, id="e1", status="InProgress"), run(2 * HOUR)
    deferred = decided(asked, running, over)
    assert isinstance(deferred, Defer)
    assert deferred.reason.endswith("execution e1 goes first")
    assert NOON < deferred.until <= NOON + 20 * MINUTE
    assert isinstance(decided(asked, over, run(HOUR, status="InProgress", trained=False)), Start)
    assert isinstance(decided(request("manual"), running, over), Start)


# -- what a model does not want -------------------------------------------------------------------------------


@pytest.mark.parametrize(("trigger", "key"), [("data", "on_new_data"), ("drift", "on_drift")])
def test_a_model_may_do_without(trigger: str, key: str) -> None:
    model = Model("flight_delay", "p", (), **{key: False})
    ignored = decided(request(trigger), model=model)
    assert isinstance(ignored, Ignore)
    assert ignored.reason == f"model.yaml says {key}: false"
    others = {"data", "drift"} - {trigger}
    assert all(isinstance(decided(request(other), model=model), Start) for other in others)


@pytest.mark.parametrize(("day", "expected"), [("2026-11-24", Start), ("2026-11-25", Ignore), ("2062-01-01", Ignore)])
def test_data_may_be_of_tomorrow_and_not_of_the_day_after(day: str, expected: type) -> None:
    assert isinstance(decided(request("manual", as_of=day)), expected)


# -- texts ----------------------------------------------------------------------------------------------------


def test_variables_are_never_empty_and_the_reason_is_short() -> None:
    for reason in ("", "x" * 2000, "#{}"):
        start = decided(request(reason=reason))
        assert isinstance(start, Start)
        assert all(1 <= len(variable["value"]) <= 256 for variable in start.variables)


@pytest.mark.parametrize("name", ['"},{"name":"MODEL","value":"x', "a\\", "#{Source.CommitId}", "a\nb", "é"])
def test_a_files_name_is_never_more_than_text_in_the_reason(name: str) -> None:
    start = decided(request(reason=f"push changes model_code/flight_delay/{name}"))
    assert isinstance(start, Start)
    listed = json.loads(json.dumps([{"name": "REASON", "value": "#R"}]).replace("#R", start.reason))
    assert listed == [{"name": "REASON", "value": start.reason}]
    assert not set(start.reason) & set('"\\{}#\n')


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_names_of_schedules_are_what_scheduler_takes(trigger: str) -> None:
    longest = Model("a" * 26, "p", ())
    name = busy(request(trigger), longest, "no room", NOON).name
    assert len(name) <= 64
    assert all(character.isalnum() or character in "-_." for character in name)
