"""The one door to retraining, from the event to what AWS is asked for."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from lambdas.start_retraining import handler
from tests.lambdas.retraining_world import (
    HOUR,
    MINUTE,
    NEW,
    NEXT,
    NOON,
    OLD,
    SECOND,
    Params,
    World,
    added,
    alarm_event,
    arrival_event,
    deleted,
    look_event,
    manual_event,
    modified,
    pipeline,
    push_event,
    schedule_event,
)

TRAIN = "model_code/flight_delay/train.py"
DAY = 24 * HOUR


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    made.differences = modified(TRAIN)
    return made


def reasons(decisions: list[Params]) -> dict[str, str]:
    return {str(made["model"]): f"{made['decision']}: {made['reason']}" for made in decisions}


# -- push -----------------------------------------------------------------------------------------------------


def test_a_push_starts_the_models_it_touches_and_says_why(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.deploy("bike_demand")
    (made,) = world.invoke(push_event())
    assert (made["model"], made["decision"]) == ("flight_delay", "start")
    assert world.started()[0].variables == {"Trigger": "push", "Reason": f"push aaaaaaaa changes {TRAIN}",
                                            "AsOf": "none"}  # fmt: skip
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == made
    assert made["event"] == "e-1"


def test_a_push_to_shared_code_starts_every_model_that_watches_it(world: World) -> None:
    for name in ("bike_demand", "taxi_fares"):
        world.deploy(name, "model_code/shared")
    world.differences = modified("model_code/shared/calendar.py")
    assert list(reasons(world.invoke(push_event()))) == ["bike_demand", "taxi_fares"]


def test_the_first_push_starts_what_it_has(world: World) -> None:
    world.deploy("bike_demand")
    world.folders = {"flight_delay": ["model.yaml"], "shared": ["__init__.py"]}
    event = push_event(event="referenceCreated")
    del event["detail"]["oldCommitId"]
    said = reasons(world.invoke(event))
    assert said["flight_delay"] == "start: push aaaaaaaa: no earlier commit to compare with"
    assert said["bike_demand"].startswith("ignore: there is no model_code/bike_demand/model.yaml")
    assert "GetDifferences" not in world.calls


def test_after_a_forced_push_over_a_commit_that_is_gone_everything_counts_as_changed(world: World) -> None:
    world.commits.remove(OLD)
    world.folders = {"flight_delay": ["model.yaml"]}
    assert reasons(world.invoke(push_event())) == {
        "flight_delay": "start: push aaaaaaaa: no earlier commit to compare with"}  # fmt: skip


def test_a_file_renamed_out_of_a_model_concerns_it(world: World) -> None:
    """CodeCommit tells a rename as one file deleted and one added."""
    world.differences = deleted("model_code/flight_delay/notes.md") + added("docs/notes.md")
    assert list(reasons(world.invoke(push_event()))) == ["flight_delay"]


def test_all_pages_of_what_changed_are_read(world: World) -> None:
    world.differences = modified(*(f"docs/{number}.md" for number in range(250)), TRAIN)
    assert list(reasons(world.invoke(push_event()))) == ["flight_delay"]
    assert world.calls["GetDifferences"] == 3


def test_no_file_is_fetched_so_that_its_size_does_not_matter(world: World) -> None:
    world.differences = modified("model_code/flight_delay/weights.bin")
    world.invoke(push_event())
    assert not {"GetFile", "GetBlob"} & set(world.calls)


def test_a_push_that_touches_no_model_starts_nothing(world: World) -> None:
    world.differences = modified("README.md")
    assert reasons(world.invoke(push_event())) == {"None": "ignore: push aaaaaaaa touches no model"}


@pytest.mark.parametrize("event", [
    push_event(referenceName="feature"), push_event(event="referenceDeleted"),
    {**push_event(), "account": "111111111111"}, push_event(repositoryName="other"),
    {**arrival_event(), "account": "111111111111"}, {**alarm_event(), "account": "111111111111"},
])  # fmt: skip
def test_what_is_forged_or_of_another_branch_asks_aws_nothing(world: World, event: Params) -> None:
    (made,) = world.invoke(event)
    assert made["decision"] == "ignore"
    assert not world.calls


def test_a_forged_commit_starts_nothing(world: World) -> None:
    (made,) = world.invoke(push_event(commitId=NEXT))
    assert made["reason"] == f"commit {NEXT} is not in repository pushline"
    assert world.started() == []


def test_a_new_folder_is_told_with_the_deploy_it_needs_and_breaks_nothing(world: World) -> None:
    world.folders = {"taxi_fares": ["model.yaml", "train.py"], "shared": ["a.py"]}
    world.differences = added("model_code/taxi_fares/model.yaml", "model_code/shared/a.py") + modified(TRAIN)
    said = reasons(world.invoke(push_event()))
    assert said["flight_delay"].startswith("start")
    assert said["taxi_fares"].startswith("ignore: model_code/taxi_fares is new and has no stacks yet: run cdk deploy")
    (message,) = world.messages
    assert "cdk deploy 'TaxiFares-*'" in message["message"]
    assert NEW in message["message"]


def test_a_removed_model_is_not_retrained(world: World) -> None:
    world.differences = deleted("model_code/flight_delay/model.yaml", TRAIN)
    assert "cdk destroy 'FlightDelay-*'" in reasons(world.invoke(push_event()))["flight_delay"]
    assert world.started() == []


# -- pushes that were not told --------------------------------------------------------------------------------


def moved(world: World, commit: str, *paths: str, since: str = NEW) -> None:
    """A push that may be told or not: `paths` changed since the commit that was routed last."""
    world.head = commit
    world.commits.add(commit)
    world.between[since, commit] = modified(*paths)
    world.now += HOUR


@pytest.fixture
def routed(world: World) -> World:
    """Everything up to NEW is routed."""
    world.deploy("bike_demand")
    world.invoke(push_event())
    return world


def test_a_lost_push_is_made_good_by_the_next_whatever_that_one_changes(routed: World) -> None:
    lost = "d" * 40
    routed.commits.add(lost)
    routed.between[lost, NEXT] = modified("README.md")
    moved(routed, NEXT, "model_code/bike_demand/train.py", "README.md")
    made = routed.invoke(push_event(routed.now, commitId=NEXT, oldCommitId=lost))
    assert reasons(made) == {"bike_demand": "start: push cccccccc changes model_code/bike_demand/train.py"}


def test_a_lost_last_push_is_found_within_the_hour_and_routed_once(routed: World) -> None:
    moved(routed, NEXT, TRAIN)
    assert reasons(routed.invoke(look_event())) == {"flight_delay": f"start: push cccccccc changes {TRAIN}"}
    assert routed.invoke(look_event(), "an-hour-later") == []
    (late,) = routed.invoke(push_event(routed.now - HOUR, commitId=NEXT, oldCommitId=NEW))
    assert (late["decision"], late["reason"]) == ("ignore", "push cccccccc is routed already")
    assert len(routed.started()) == 2


def test_a_lost_first_push_is_found_too(world: World) -> None:
    world.folders = {"flight_delay": ["model.yaml"]}
    assert list(reasons(world.invoke(look_event()))) == ["flight_delay"]
    assert len(world.started()) == 1


def test_with_nothing_pushed_or_nothing_new_a_look_decides_nothing(world: World) -> None:
    world.head = None
    assert world.invoke(look_event()) == []
    world.head = NEW
    world.invoke(push_event())
    assert world.invoke(look_event()) == []


def test_a_push_that_touches_no_model_is_looked_at_once(routed: World) -> None:
    moved(routed, NEXT, "README.md")
    assert reasons(routed.invoke(look_event())) == {"None": "ignore: push cccccccc touches no model"}
    assert routed.invoke(look_event()) == []


def test_where_the_commit_routed_last_is_gone_the_events_own_one_is_compared(routed: World) -> None:
    moved(routed, NEXT, TRAIN, since=OLD)
    routed.commits.remove(NEW)
    made = routed.invoke(push_event(routed.now, commitId=NEXT, oldCommitId=OLD))
    assert reasons(made) == {"flight_delay": f"start: push cccccccc changes {TRAIN}"}


def test_a_forced_push_back_retrains_what_it_takes_back(routed: World) -> None:
    moved(routed, OLD, "model_code/bike_demand/train.py")
    made = routed.invoke(push_event(routed.now, commitId=OLD, oldCommitId=NEW))
    assert reasons(made) == {"bike_demand": "start: push bbbbbbbb changes model_code/bike_demand/train.py"}


def test_a_branch_that_is_gone_when_its_push_is_told_starts_nothing(world: World) -> None:
    world.head = None
    (made,) = world.invoke(push_event())
    assert made["reason"] == "there is no branch main any more"


def test_a_model_that_could_not_be_asked_is_owed_its_part_and_the_others_are_not_retrained_for_it(
    routed: World,
) -> None:
    moved(routed, NEXT, TRAIN, "model_code/bike_demand/train.py")
    routed.refuse["ListPipelineExecutions pushline-flight-delay"] = ["PipelineNotFoundException"]
    with pytest.raises(handler.Unfinished):
        routed.invoke(push_event(routed.now, commitId=NEXT, oldCommitId=NEW))
    moved(routed, "d" * 40, "README.md", since=NEXT)
    made = routed.invoke(push_event(routed.now, commitId="d" * 40, oldCommitId=NEXT))
    assert reasons(made) == {"flight_delay": "start: push dddddddd: an earlier one could not be routed"}
    assert routed.invoke(look_event()) == []


# -- the other triggers ---------------------------------------------------------------------------------------


def test_a_schedule_starts_its_model_once(world: World) -> None:
    world.invoke(schedule_event())
    world.invoke(schedule_event(), "delivered-again")
    (started,) = world.started()
    assert started.variables["Reason"] == "schedule of 2026-11-23T03:00:00Z"


def test_a_drift_alarm_starts_the_model_it_is_about(world: World) -> None:
    world.invoke(alarm_event())
    (started,) = world.started()
    assert started.variables == {"Trigger": "drift", "AsOf": "none",
                                 "Reason": "alarm flight-delay-drift-prediction: 1 datapoint was over 1.0"}  # fmt: skip


def test_an_alarm_of_no_model_is_ignored(world: World) -> None:
    (made,) = world.invoke(alarm_event("taxi-drift-prediction"))
    assert made["reason"] == "alarm taxi-drift-prediction is about no deployed model"


def test_by_hand_retrains_on_the_day_asked_for(world: World) -> None:
    world.invoke(manual_event(as_of="2013-03-01", reason="labels were corrected"))
    assert world.started()[0].variables == {"Trigger": "manual", "Reason": "labels were corrected",
                                            "AsOf": "2013-03-01"}  # fmt: skip


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


def test_no_storm_of_triggers_costs_more_than_the_budget(world: World) -> None:
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
    world.invoke(alarm_event())
    world.invoke(schedule_event())
    world.invoke(world.land("2026-11-22"))
    decisions = world.pass_time(NOON + DAY)
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


@pytest.mark.parametrize("code", ["ThrottlingException", "ConcurrentPipelineExecutionsLimitExceededException"])
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


def test_starts_run_side_by_side_and_are_told_in_the_models_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet, start = threading.Barrier(4, timeout=30), world.start_pipeline_execution

    def together(**given: Any) -> Params:
        meet.wait()
        return start(**given)

    monkeypatch.setattr(world, "start_pipeline_execution", together)
    models(world, 16)
    made = world.invoke(push_event())
    assert [row["model"] for row in made] == list(world.models)
    assert {row["decision"] for row in made} == {"start"}


def test_refused_and_throttled_starts_of_some_models_hurt_no_other_of_two_hundred(world: World) -> None:
    models(world, 200)
    throttled, gone = "ThrottlingException", "PipelineNotFoundException"
    for number, code in ((7, throttled), (90, gone), (150, throttled)):
        world.refuse[f"StartPipelineExecution {pipeline(f'model_{number}')}"] = [code]
    with pytest.raises(handler.Unfinished, match=r"^model_90: "):
        world.invoke(push_event())
    assert len([name for name in world.models if world.started(name)]) == 197
    assert len(world.schedules) == 2
    assert reasons(world.invoke(push_event(), "repeated-by-lambda")).keys() == {"model_90"}
    world.pass_time(NOON + HOUR)
    assert [len(world.started(name)) for name in world.models] == [1] * 200


def test_what_does_not_fit_into_the_invocation_waits_instead_of_being_lost(world: World) -> None:
    models(world, 50)
    world.left = 100
    made = world.invoke(push_event())
    assert {row["decision"] for row in made} == {"defer"}
    assert all("this invocation is nearly over" in row["reason"] for row in made)
    assert world.messages == []
    world.left = 300
    world.pass_time(NOON + HOUR)
    assert [len(world.started(name)) for name in world.models] == [1] * 50


def models(world: World, count: int) -> None:
    """So many models, and a push that changes each."""
    for number in range(count - 1):
        world.deploy(f"model_{number}")
    world.differences = modified(*(f"model_code/{name}/train.py" for name in world.models))


def test_a_throttled_look_up_fails_the_invocation_so_that_lambda_repeats_it(world: World) -> None:
    world.refuse["GetParametersByPath"] = ["ThrottlingException"]
    with pytest.raises(Exception, match="ThrottlingException"):
        world.invoke(push_event())


def test_a_missing_environment_variable_fails_loudly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_ARN")
    with pytest.raises(KeyError, match="SOURCE_ARN"):
        world.invoke(push_event())


# -- scale ----------------------------------------------------------------------------------------------------


def test_a_thousand_files_over_two_hundred_models_stay_within_the_apis_pages(world: World) -> None:
    for number in range(199):
        world.deploy(f"model_{number}")
    names = list(world.models)
    world.differences = modified(*(f"model_code/{names[number % 200]}/file_{number}.py" for number in range(1000)))
    assert len(world.invoke(push_event())) == 200
    assert world.calls == {"GetParametersByPath": 20, "GetBranch": 1, "GetCommit": 1, "GetDifferences": 10,
                           "GetObject": 1, "PutObject": 1,
                           "ListPipelineExecutions": 200, "StartPipelineExecution": 200}  # fmt: skip
