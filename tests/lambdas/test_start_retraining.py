"""The one door to retraining, from the event to what AWS is asked for."""

from __future__ import annotations

import datetime as dt

import pytest

from lambdas.start_retraining import handler
from tests.lambdas.retraining_world import (
    DAY,
    HOUR,
    MINUTE,
    NEW,
    NEXT,
    NOON,
    OLD,
    SECOND,
    TRAIN,
    Params,
    World,
    added,
    alarm_event,
    deleted,
    manual_event,
    modified,
    push_event,
    schedule_event,
)

# -- the other triggers ---------------------------------------------------------------------------------------


def test_a_schedule_starts_its_model_once(world: World) -> None:
    world.invoke(schedule_event())
    (started,) = world.started()
    assert started.variables["Reason"] == "schedule of 2026-11-23T03:00:00Z"


@pytest.mark.parametrize("later", [SECOND, 8 * HOUR])
def test_a_schedule_that_is_delivered_twice_starts_once(world: World, later: dt.timedelta) -> None:
    """Also when CodePipeline has forgotten the first start's token, which it keeps for nobody says how long."""
    world.now = dt.datetime(2026, 11, 23, 3, 0, SECOND.seconds, tzinfo=dt.UTC)
    world.invoke(schedule_event())
    world.now += later
    world.tokens.clear()
    (again,) = world.invoke(schedule_event(), "delivered-again")
    assert again["decision"] == "ignore"
    assert world.pass_time(world.now + DAY) == []


def test_a_model_that_a_push_removed_is_retrained_by_nothing_until_it_is_back(world: World) -> None:
    declaration = "model_code/flight_delay/model.yaml"
    world.deploy("flight_delay", "model_code/shared")
    world.differences = deleted(declaration)
    world.invoke(push_event())
    world.head = NEXT
    world.commits.add(NEXT)
    world.between[NEW, NEXT] = modified("model_code/shared/calendar.py")
    for event in (push_event(commitId=NEXT), schedule_event(), alarm_event(), manual_event()):
        (made,) = world.invoke(event)
        assert (made["decision"], "cdk destroy 'FlightDelay-*'" in made["reason"]) == ("ignore", True)
    world.invoke(world.land("2026-11-22"))
    assert [made["decision"] for made in world.pass_time(NOON + HOUR)] == ["ignore"]
    back = "d" * 40
    world.head = back
    world.commits.add(back)
    world.between[NEXT, back] = added(declaration)
    assert world.invoke(push_event(world.now, commitId=back))[0]["decision"] == "start"


def test_a_drift_alarm_starts_the_model_it_is_about(world: World) -> None:
    world.invoke(alarm_event())
    (started,) = world.started()
    reason = "alarm flight-delay-drift-predictions: 1 datapoint was over 1.0"
    assert started.variables == {"Trigger": "drift", "AsOf": "none", "Reason": reason}


def test_an_alarm_of_no_model_is_ignored(world: World) -> None:
    (made,) = world.invoke(alarm_event("taxi-drift-predictions"))
    assert made["reason"] == "alarm taxi-drift-predictions is about no deployed model"


def test_by_hand_retrains_on_the_day_asked_for(world: World) -> None:
    world.invoke(manual_event(as_of="2013-03-01", reason="labels were corrected"))
    assert world.started()[0].variables == {"Trigger": "manual", "Reason": "labels were corrected",
                                            "AsOf": "2013-03-01"}  # fmt: skip


def test_older_data_by_hand_comes_after_the_push_that_waits_and_is_told_once(world: World) -> None:
    training, waiting = (world.ran(ago, status="InProgress", commit=NEW) for ago in (2 * HOUR, HOUR))
    (made,) = world.invoke(manual_event(as_of="2013-03-01"))
    assert (made["decision"], f"execution {waiting.id} goes first" in made["reason"]) == ("defer", True)
    assert [again["decision"] for again in world.pass_time(NOON + HOUR)].count("defer") >= 3
    training.status = waiting.status = "Succeeded"
    assert [again["decision"] for again in world.pass_time(NOON + 2 * HOUR)] == ["start"]
    assert world.started()[0].variables["AsOf"] == "2013-03-01"
    assert [message["subject"] for message in world.messages] == ["flight_delay: a retraining waits"]


def test_by_hand_for_an_unknown_model_names_the_known_ones(world: World) -> None:
    world.deploy("bike_demand")
    (made,) = world.invoke(manual_event("flights"))
    assert made["reason"] == "there is no model 'flights'; deployed are: bike_demand, flight_delay"


@pytest.mark.parametrize("event", [schedule_event(), alarm_event(), manual_event()])
def test_before_the_first_push_nothing_retrains(world: World, event: Params) -> None:
    world.head = None
    (made,) = world.invoke(event)
    assert made["reason"].startswith("nothing was ever pushed")


# -- guardrails -----------------------------------------------------------------------------------------------


def test_a_push_beyond_the_budget_waits_and_is_not_dropped(world: World) -> None:
    for hours in (1, 2, 3):
        world.ran(hours * HOUR, commit=OLD)
    (made,) = world.invoke(push_event())
    assert (made["decision"], "budget of 3" in made["reason"]) == ("defer", True)
    assert made["until"] > NOON.isoformat()
    (message,) = world.messages
    assert message["subject"] == "flight_delay: a retraining waits"
    assert "budget of 3 retrainings a day is used up" in message["message"]
    world.invoke(push_event(), "delivered-again")
    assert len(world.messages) == 1
    world.pass_time(NOON + DAY)
    (started,) = world.started()
    assert started.variables["Reason"] == f"push aaaaaaaa changes {TRAIN}"


def test_what_verify_refused_costs_no_budget_and_what_failed_later_does(world: World) -> None:
    for hours in (1, 2, 3):
        world.ran(hours * HOUR, status="Failed", commit=OLD, stages=("Source", "Verify"))
    world.ran(2 * HOUR, status="Superseded")
    world.ran(2 * HOUR, trigger="CreatePipeline")
    assert world.invoke(push_event())[0]["decision"] == "start"
    for hours in (4, 5):
        world.ran(hours * HOUR, status="Failed", commit=OLD)
    world.head = OLD
    assert world.invoke(push_event(commitId=OLD, oldCommitId=NEW))[0]["decision"] == "defer"


def test_a_change_released_by_hand_without_a_reason_is_no_retraining(world: World) -> None:
    """The pipeline ends before it trains then: it must not stand for the push that waits, nor cost any budget."""
    for hours in (4, 5, 6):
        world.ran(hours * HOUR, commit=OLD)
    assert world.invoke(push_event())[0]["decision"] == "defer"
    world.ran(-MINUTE, id="by-hand", commit=NEW, variables={"Trigger": "none", "Reason": "none", "AsOf": "none"})
    *_, made = world.pass_time(NOON + DAY)
    assert made["decision"] == "start"
    assert made["reason"] == f"push aaaaaaaa changes {TRAIN}"


def test_no_storm_of_triggers_costs_more_than_the_budget(world: World) -> None:
    world.alarms = {"flight-delay-drift-predictions": "ALARM"}
    for minute in range(0, 24 * 60, 7):
        world.pass_time(NOON + minute * MINUTE)
        for execution in world.started():
            execution.status = "Succeeded"
        event = {**alarm_event(f"flight-delay-drift-{minute}"), "id": f"e-{minute}"}
        world.invoke(event)
        world.invoke(schedule_event(time=f"{world.now:%Y-%m-%dT%H:%M:%SZ}"))
        world.invoke(world.land("2026-11-23", name=str(minute)))
        world.invoke(manual_event(), f"by-hand-{minute}")
        world.head = f"{minute:040x}"
        world.commits.add(world.head)
        world.invoke(push_event(world.now, commitId=world.head))
    day = [execution for execution in world.started() if execution.started < NOON + DAY]
    assert len(day) == 3


def test_all_that_waits_for_the_cool_down_becomes_one_retraining(world: World) -> None:
    world.ran(HOUR)
    world.alarms = {"flight-delay-drift-predictions": "ALARM"}
    world.invoke(alarm_event())
    world.invoke(schedule_event(time="2026-11-23T12:00:00Z"))
    world.invoke(world.land("2026-11-22"))
    decisions = world.pass_time(NOON + 6 * HOUR)
    (started,) = world.started()
    started.status = "Succeeded"
    decisions += world.pass_time(NOON + DAY)
    assert len(world.started()) == 1
    assert [made["decision"] for made in decisions].count("ignore") == 2
    assert world.messages == []


# -- single flight, and what goes wrong -----------------------------------------------------------------------


def test_a_push_told_twice_starts_once(world: World) -> None:
    world.invoke(push_event())
    world.now += SECOND
    (made,) = world.invoke(push_event(), "delivered-again")
    assert len(world.started()) == 1
    assert made["decision"] == "ignore"


def test_two_invocations_at_the_same_moment_start_one_execution(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "list_pipeline_executions", lambda **_: {"pipelineExecutionSummaries": []})
    monkeypatch.setattr(world, "put_object", lambda **_: {})
    first, second = world.invoke(push_event()), world.invoke(push_event())
    assert first[0]["execution"] == second[0]["execution"]


def test_two_pushes_within_a_second_both_reach_the_pipeline_or_are_one(world: World) -> None:
    """The pipeline takes the branch's head: an execution that has the second commit does for both."""
    world.head, first = "c" * 40, push_event()
    world.commits.add(world.head)
    world.invoke(first)
    (made,) = world.invoke(push_event(commitId=world.head, oldCommitId=NEW))
    assert (made["decision"], len(world.started())) == ("ignore", 1)
    assert world.started()[0].commit == world.head


def test_the_second_of_two_pushes_starts_if_the_first_ones_source_was_fetched_before_it(world: World) -> None:
    world.invoke(push_event())
    world.head = "c" * 40
    world.commits.add(world.head)
    world.now += SECOND
    world.invoke(push_event(world.now, commitId=world.head, oldCommitId=NEW))
    assert [execution.commit for execution in world.started()] == [NEW, world.head]


def test_events_out_of_order_bring_no_older_commit_back(world: World) -> None:
    world.head = "c" * 40
    world.commits.add(world.head)
    world.now = NOON + 10 * SECOND
    world.invoke(push_event(NOON + 8 * SECOND, commitId=world.head, oldCommitId=NEW))
    world.now = NOON + 20 * SECOND
    world.invoke(push_event(NOON))
    assert {execution.commit for execution in world.started()} == {world.head}


def test_no_start_names_a_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every execution takes the branch's head, so that none can run an older or a foreign commit."""
    asked: list[Params] = []
    start = world.start_pipeline_execution
    monkeypatch.setattr(world, "start_pipeline_execution", lambda **given: asked.append(given) or start(**given))
    for event in (push_event(), schedule_event(), alarm_event(), manual_event()):
        world.invoke(event)
    assert asked
    assert all(set(given) == {"name", "variables", "clientRequestToken"} for given in asked)


def test_a_trigger_while_a_retraining_runs_waits_its_turn(world: World) -> None:
    world.ran(MINUTE, status="InProgress", commit=OLD)
    assert world.invoke(alarm_event())[0]["decision"] == "defer"
    assert world.invoke(push_event())[0]["decision"] == "start"


@pytest.mark.parametrize("event", [alarm_event(), push_event()])
def test_a_trigger_right_after_a_retraining_starts_where_no_cool_down_is_asked_for(world: World, event: Params) -> None:
    world.deploy("flight_delay", cool_down_hours=0)
    world.ran(MINUTE, status="Succeeded", commit=OLD)
    assert world.invoke(event)[0]["decision"] == "start"


@pytest.mark.parametrize("code", ["ThrottlingException", "ConcurrentPipelineExecutionsLimitExceededException",
                                  "ConflictException"])  # fmt: skip
def test_a_start_that_codepipeline_has_no_room_for_comes_again(world: World, code: str) -> None:
    world.refuse["StartPipelineExecution"] = [code]
    (made,) = world.invoke(push_event())
    assert made["decision"] == "defer"
    assert f"CodePipeline has no room for it now ({code})" in made["reason"]
    world.pass_time(NOON + HOUR)
    assert len(world.started()) == 1


def test_a_model_whose_pipeline_can_not_be_asked_keeps_no_other_waiting(world: World) -> None:
    world.deploy("bike_demand")
    world.differences = modified(TRAIN, "model_code/bike_demand/train.py")
    world.refuse["ListPipelineExecutions pushline-flight-delay"] = ["PipelineNotFoundException"]
    with pytest.raises(handler.Unfinished, match=r"flight_delay: .*PipelineNotFound"):
        world.invoke(push_event())
    assert len(world.started("bike_demand")) == 1
    world.invoke(push_event(), "repeated-by-lambda")
    assert len(world.started("flight_delay")) == len(world.started("bike_demand")) == 1


def test_a_throttled_look_up_fails_the_invocation_so_that_lambda_repeats_it(world: World) -> None:
    world.refuse["GetParametersByPath"] = ["ThrottlingException"]
    with pytest.raises(Exception, match="ThrottlingException"):
        world.invoke(push_event())


def test_a_missing_environment_variable_fails_loudly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_ARN")
    with pytest.raises(KeyError, match="SOURCE_ARN"):
        world.invoke(push_event())
