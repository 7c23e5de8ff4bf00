"""Pushes through the deployed door, with real git: merged, forced, moved, untold, racing, beside a release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rehearsal import audit
from tests.conftest import Assembly
from tests.rehearsal.deployed_door import Place, Row, door, head
from tests.rehearsal.test_codecommit import commit, git
from tests.rehearsal.waiting import until


@pytest.fixture(scope="module")
def place(assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with door(tmp_path_factory.mktemp("pushes"), assembly) as made:
        yield made


def test_a_merge_retrains_what_it_brings_and_nothing_that_was_there(place: Place) -> None:
    before, merged = place.model("before_the_merge"), place.model("merged")
    place.push(model_code__merged__model_dot_yaml="name: merged", model_code__merged__train_dot_py="# 1")
    until(lambda: len(place.starts("merged")) == 1, "the push started nothing")
    git(place.clone, "checkout", "-q", "-b", "side")
    commit(place.clone, model_code__merged__train_dot_py="# 2")
    git(place.clone, "checkout", "-q", "main")
    place.push(model_code__before_the_merge__model_dot_yaml="name: before_the_merge")
    until(lambda: len(place.starts("before_the_merge")) == 1, "the push started nothing")
    git(place.clone, "merge", "-q", "--no-ff", "-m", "merge", "side")
    pushed = place.push_head()
    assert len(git(place.clone, "rev-list", "--parents", "-n1", pushed).split()) == 3
    until(lambda: len(place.starts("merged")) == 2, lambda: f"the merge started nothing: {place.triggers('merged')}")
    assert place.reason(merged) == f"push {pushed[:8]} changes model_code/merged/train.py"
    assert len(place.started(before)) == 1


def test_a_forced_push_retrains_what_it_takes_back(place: Place) -> None:
    other, pipeline = place.model("kept"), place.model("forced")
    place.push(model_code__forced__train_dot_py="# 1", model_code__kept__train_dot_py="# 1")
    until(lambda: len(place.starts("forced")) == 1, "the push started nothing")
    place.push(model_code__forced__train_dot_py="# 2")
    until(lambda: len(place.starts("forced")) == 2, "the push started nothing")
    git(place.clone, "reset", "-q", "--hard", "HEAD~1")
    commit(place.clone, README="forced")
    pushed = place.push_head("--force")
    until(lambda: len(place.starts("forced")) == 3,
          lambda: f"the forced push started nothing: {place.triggers('forced')}")  # fmt: skip
    assert place.reason(pipeline) == f"push {pushed[:8]} changes model_code/forced/train.py"
    assert len(place.started(other)) == 1


def test_a_file_moved_from_one_model_to_another_retrains_both(place: Place) -> None:
    giver, taker = place.model("giver"), place.model("taker")
    place.push(model_code__giver__encode_dot_py="# the same bytes here and there\n" * 20,
               model_code__giver__model_dot_yaml="name: giver", model_code__taker__model_dot_yaml="name: taker",
               )  # fmt: skip
    until(lambda: place.starts("giver") and place.starts("taker"), "the push started nothing")
    git(place.clone, "mv", "model_code/giver/encode.py", "model_code/taker/encode.py")
    commit(place.clone)
    assert "R100" in git(place.clone, "show", "--name-status", "-M", "--format=", "HEAD")
    place.push_head()
    until(lambda: len(place.starts("giver")) == len(place.starts("taker")) == 2,
          lambda: f"not both: {place.triggers('giver')} {place.triggers('taker')}")  # fmt: skip
    assert place.reason(giver).endswith("changes model_code/giver/encode.py")
    assert place.reason(taker).endswith("changes model_code/taker/encode.py")


def test_a_push_that_was_not_told_is_found_by_looking(place: Place) -> None:
    pipeline, rules = place.model("untold"), place.at.client("events")
    place.push(model_code__untold__model_dot_yaml="name: untold")
    until(lambda: len(place.starts("untold")) == 1, "the push started nothing")
    (rule,) = [row for row in rules.list_rules()["Rules"] if "aws.codecommit" in row.get("EventPattern", "")]
    rules.disable_rule(Name=rule["Name"])
    try:
        pushed = place.push(model_code__untold__train_dot_py="# lost")
        until(lambda: len(place.starts("untold")) == 2, "nobody looked")
    finally:
        rules.enable_rule(Name=rule["Name"])
    assert place.reason(pipeline) == f"push {pushed[:8]} changes model_code/untold/train.py"


def test_a_push_while_a_reconciler_runs_is_retrained_meanwhile_and_leaves_it_alone(place: Place) -> None:
    machine, pipeline = place.machine("released-reconciler", seconds=24 * 3600), place.model("released")
    machines = place.at.client("stepfunctions")
    release = machines.start_execution(stateMachineArn=machine, input='{"started_by": "SelfHeal"}')["executionArn"]
    pushed = place.push(model_code__released__train_dot_py="# while it is released")
    until(lambda: _at_rest(place, pipeline, pushed), lambda: f"the push waits: {place.triggers('released')}")
    until(lambda: place.starts("released"), lambda: f"no start was told: {place.triggers('released')}")
    assert "defer" not in [row["decision"] for row in place.triggers("released")]
    assert place.started(pipeline)[0]["status"] == "Succeeded"
    assert machines.describe_execution(executionArn=release)["status"] == "RUNNING"


def test_the_newest_push_waits_for_what_retrains_and_supersedes_those_that_wait(place: Place) -> None:
    """The execution that the pipeline's creation starts trains the older commit, long enough for two pushes.

    What happens if it is abandoned and goes on: `test_overtaken.py`."""
    oldest = place.push(model_code__racing__train_dot_py="# oldest")
    pipeline = place.model("racing", seconds=1500)
    until(lambda: _retrain_stage(place, pipeline).get("latestExecution", {}).get("status") == "InProgress",
          "nothing retrains")  # fmt: skip
    commits = [oldest]
    for number in range(2):
        commits.append(place.push(model_code__racing__train_dot_py=f"# {number}"))
        until(lambda: _waits(place, pipeline, commits[-1]), "a push does not wait for what retrains")
    until(lambda: _at_rest(place, pipeline, commits[-1]), "the newest push was not retrained")
    ended = {commit: {row["status"] for row in place.executions(pipeline) if head(row) == commit} for commit in commits}
    assert "Succeeded" in ended[commits[0]], "its own push's event may start it once more, to be superseded"
    assert ended[commits[1]] == {"Superseded"}
    assert "Succeeded" in ended[commits[2]]
    (_, first_ended, first), (second_began, _, second) = _retrained(place, pipeline)
    assert [first, second] == [commits[0], commits[2]]
    assert first_ended <= second_began


def test_nothing_was_denied(place: Place) -> None:
    assert list(audit.read(place.at.state_dir, denied=True)) == []


def _retrained(place: Place, pipeline: str) -> list[tuple[Any, Any, str]]:
    """When each retraining began and ended, and the commit that it was of."""
    client, found = place.at.client("codepipeline"), []
    for execution in place.executions(pipeline):
        actions = client.list_action_executions(
            pipelineName=pipeline, filter={"pipelineExecutionId": execution["pipelineExecutionId"]}
        )["actionExecutionDetails"]
        found += [(action["startTime"], action["lastUpdateTime"], head(execution))
                  for action in actions if action["stageName"] == "Retrain"]  # fmt: skip
    return sorted(found)


def _retrain_stage(place: Place, pipeline: str) -> Row:
    stages = place.at.client("codepipeline").get_pipeline_state(name=pipeline)["stageStates"]
    return next(dict(stage) for stage in stages if stage["stageName"] == "Retrain")


def _waits(place: Place, pipeline: str, commit_id: str) -> bool:
    """Whether the execution that has the commit is the one that waits for the Retrain stage."""
    inbound = _retrain_stage(place, pipeline).get("inboundExecution", {}).get("pipelineExecutionId")
    return any(row["pipelineExecutionId"] == inbound and head(row) == commit_id for row in place.started(pipeline))


def _at_rest(place: Place, pipeline: str, newest: str) -> bool:
    started = place.started(pipeline)
    over = all(row["status"] not in ("InProgress", "Stopping") for row in started)
    return over and newest in [head(row) for row in started]
