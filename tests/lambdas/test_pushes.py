"""Pushes at the one door to retraining, from the event to what AWS is asked for."""

from __future__ import annotations

import json
import re

import pytest

from lambdas.start_retraining import handler
from tests.lambdas.retraining_world import (
    DAY,
    FUNCTION,
    HOUR,
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
    arrival_event,
    deleted,
    look_event,
    modified,
    push_event,
    reasons,
)

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


def test_the_first_push_is_routed_where_s3_says_access_denied_of_what_is_not_there(world: World) -> None:
    world.refuse["GetObject"] = ["AccessDenied"] * 2
    assert world.invoke(push_event())[0]["decision"] == "start"
    with pytest.raises(Exception, match="AccessDenied"):
        world.invoke(push_event())


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
    assert "./pushline retrain taxi_fares" in message["message"]
    assert f"--function-name {FUNCTION}" in message["message"]
    assert NEW in message["message"]


def test_what_a_new_folders_message_says_to_send_starts_it_once_it_is_deployed(world: World) -> None:
    world.folders = {"taxi_fares": ["model.yaml"]}
    world.differences = added("model_code/taxi_fares/model.yaml")
    world.invoke(push_event())
    (message,) = world.messages
    (payload,) = re.findall(r"--payload '(.*)'", message["message"])
    world.deploy("taxi_fares")
    (made,) = world.invoke(json.loads(payload))
    assert (made["model"], made["decision"]) == ("taxi_fares", "start")


def test_a_new_folder_whose_name_no_model_can_have_is_told_so_in_words_that_sns_takes(world: World) -> None:
    names = ["x" * 90, "Taxi's fares"]
    world.folders = {name: ["model.yaml"] for name in names}
    world.differences = added(*(f"model_code/{name}/model.yaml" for name in names))
    for made, name in zip(world.invoke(push_event()), sorted(names), strict=True):
        assert made["reason"].startswith(f"model_code/{name} can't be a model: its name must be lower case letters")
    assert [len(message["subject"]) < 100 for message in world.messages] == [True, True]
    assert json.loads(world.contents["artifacts", "source/routed.json"])["commit"] == NEW


def test_new_folders_beyond_those_looked_into_are_counted(world: World) -> None:
    names = [f"model_{number:02}" for number in range(25)]
    world.folders = {name: ["model.yaml"] for name in names}
    world.differences = added(*(f"model_code/{name}/model.yaml" for name in names))
    *told, rest = world.invoke(push_event())
    assert [row["model"] for row in told] == names[:20]
    assert rest["reason"].startswith("5 more folders of models are new and not looked into, from "
                                     "model_code/model_20 to model_code/model_24")  # fmt: skip
    assert len(world.messages) == 21
    assert world.calls["GetFolder"] == 20


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


def test_a_push_told_again_after_the_next_one_does_not_swallow_that(world: World) -> None:
    """The execution that began after it was pushed does not do for a commit that came later still."""
    world.now += 10 * SECOND
    world.invoke(push_event(NOON))
    moved(world, NEXT, TRAIN)
    assert reasons(world.invoke(push_event(NOON))) == {"flight_delay": f"start: push cccccccc changes {TRAIN}"}
    (own,) = world.invoke(push_event(world.now, commitId=NEXT, oldCommitId=NEW))
    assert own["reason"] == "push cccccccc is routed already"
    assert len(world.started()) == 2


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


def test_a_branch_that_is_forced_back_and_forth_retrains_each_time(routed: World) -> None:
    for commit, before in ((NEXT, NEW), (NEW, NEXT), (NEXT, NEW)):
        moved(routed, commit, TRAIN, since=before)
        routed.now += DAY
        (made,) = routed.invoke(push_event(routed.now, commitId=commit, oldCommitId=before))
        assert made["decision"] == "start"
    assert len(routed.started()) == 4


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
