"""What the function believes it was told, and what it refuses to believe."""

from __future__ import annotations

from typing import Any

import pytest

from contract.model import MAXIMUM_SLUG
from lambdas.start_retraining import advice
from lambdas.start_retraining.events import Arrival, Ignored, Push, Request, Settled, Watched, is_name, parse
from tests.lambdas.retraining_world import (
    ACCOUNT,
    ARN,
    DATA,
    MINUTE,
    NEW,
    NOON,
    OLD,
    Params,
    alarm_event,
    arrival_event,
    manual_event,
    push_event,
    schedule_event,
)

WATCHED = Watched(ARN, "main", DATA, ACCOUNT)
OTHER = "111111111111"


def told(event: Params) -> Any:
    return parse(event, WATCHED, "request-1", NOON)


def test_a_push_names_its_commits_and_its_time() -> None:
    assert told(push_event()) == Push(NEW, OLD, NOON)


def test_a_new_branch_has_no_old_commit() -> None:
    event = push_event(event="referenceCreated")
    del event["detail"]["oldCommitId"]
    assert told(event) == Push(NEW, "", NOON)


def test_an_arrival_names_model_and_day() -> None:
    assert told(arrival_event("raw/bike_demand/dt=2013-03-01/a=b/part 1.csv")) == Arrival("bike_demand", "2013-03-01")


def test_an_alarm_is_a_request_with_its_reason() -> None:
    request = told(alarm_event())
    assert (request.model, request.trigger) == ("flight-delay-drift-predictions", "drift")
    assert request.reason == "alarm flight-delay-drift-predictions: 1 datapoint was over 1.0"


def test_a_schedules_time_identifies_its_firing() -> None:
    assert told(schedule_event()).id == told(schedule_event()).id == "2026-11-23T03:00:00Z"
    assert told(schedule_event(time="2026-11-24T03:00:00Z")).id != told(schedule_event()).id


def test_by_hand_is_a_request_with_a_day() -> None:
    request = told(manual_event(as_of="2013-03-01", reason="new labels"))
    assert request == Request("flight_delay", "manual", "new labels", NOON, "request-1", "2013-03-01")


def test_what_comes_back_is_what_was_put_off() -> None:
    until = NOON + 30 * MINUTE
    detail = {"model": "m", "window": NOON.isoformat(), "due": until.isoformat(), "made": NOON.isoformat()}
    assert told({"source": "pushline.settled", "detail": detail}) == Settled("m", NOON, until, NOON)


@pytest.mark.parametrize(("event", "why"), [
    (push_event(event="referenceDeleted"), "branch main was deleted"),
    (push_event(event="referenceDeleted", referenceName="feature"), "not branch main"),
    (push_event(referenceName="feature"), "not branch main"),
    (push_event(referenceType="tag"), "not branch main"),
    (push_event(repositoryName="other"), "not about repository pushline"),
    (push_event(commitId="HEAD; rm -rf"), "no commit"),
    (push_event(oldCommitId="../.."), "no commit"),
    ({**push_event(), "account": OTHER}, f"account {OTHER}"),
    ({**push_event(), "resources": []}, "not about repository"),
    ({**push_event(), "resources": [ARN, ARN.replace("pushline", "other")]}, "not about repository"),
    ({**push_event(), "resources": [ARN.replace("000000000000", OTHER)]}, "not about repository"),
    ({**push_event(), "source": "my.codecommit"}, "unknown event"),
    ({**push_event(), "detail": "text"}, "no detail"),
    ({**arrival_event(), "account": OTHER}, f"account {OTHER}"),
    (arrival_event(bucket="elsewhere"), f"not about bucket {DATA}"),
    (arrival_event("features/flight-delay/run/a.parquet"), "not a model's raw data"),
    (arrival_event("raw/../etc/dt=2013-03-01/a"), "not a model's raw data"),
    (arrival_event("raw/flight_delay/_SUCCESS"), "outside of dt="),
    (arrival_event("raw/flight_delay/dt=2013-02-30/a"), "outside of dt="),
    ({**alarm_event(), "account": OTHER}, f"account {OTHER}"),
    (alarm_event(state="OK"), "is over"),
    ({}, "unknown event"),
    ({"source": "pushline.manual", "detail": {}}, "must name the model"),
    (manual_event(as_of="yesterday"), "not a date"),
    ({"source": "pushline.schedule", "detail": {"model": "m"}}, "lacks 'time'"),
    ({"source": "pushline.settled", "detail": {"model": "m"}}, "lacks 'window'"),
    ({"source": "pushline.deferred", "detail": {"model": "m", "trigger": "whim"}}, "allowed: push, schedule"),
])  # fmt: skip
def test_what_is_forged_foreign_or_nothing_is_ignored_with_the_reason(event: Params, why: str) -> None:
    with pytest.raises(Ignored, match=why):
        told(event)


def test_a_name_may_be_as_long_as_verify_lets_it_be() -> None:
    longest = MAXIMUM_SLUG * "a"
    assert (is_name(longest), is_name(f"{longest}a")) == (True, False)
    assert f"at most {MAXIMUM_SLUG} characters" in advice.about_unfit(f"{longest}a")
