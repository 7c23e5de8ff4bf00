"""A pipeline with real sources, builds and state machines, through boto3 and git."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.codebuild import CodeBuild
from rehearsal.codecommit import CodeCommit
from rehearsal.codepipeline import CodePipeline
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.test_codebuild import ENVIRONMENT
from tests.rehearsal.test_codecommit import commit, git
from tests.rehearsal.waiting import until

ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/pipeline"
BUILDSPEC = """
version: 0.2
env: {exported-variables: [SAID]}
phases:
  build:
    commands:
      - test -z "$(cat fail 2>/dev/null)" || { echo "bad model" >&2; exit 3; }
      - while [ -e "$GATE" ]; do sleep 0.05; done
      - export SAID="$TRIGGER"
      - |
        printf '{"commit": "%s", "execution": "%s"}' "$COMMIT" "$EXECUTION" > retraining.json
artifacts: {files: [retraining.json]}
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Loopback]:
    with serve(CodeCommit, CodeBuild, CodePipeline, tmp_path=tmp_path / "state") as running:
        running.client("codecommit").create_repository(repositoryName="pushline")
        running.client("s3").create_bucket(Bucket="artifacts")
        running.client("codebuild").create_project(
            name="verify",
            source={"type": "CODEPIPELINE"},
            artifacts={"type": "CODEPIPELINE"},
            serviceRole=ROLE,
            environment={**ENVIRONMENT, "environmentVariables": [{"name": "GATE", "value": str(tmp_path / "gate")}]},
        )
        yield running


@pytest.fixture
def work(tmp_path: Path, cloud: Loopback) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    service: Any = cloud.service("codecommit")
    git(folder, "remote", "add", "origin", service.git_url("pushline"))
    commit(folder, "first", buildspec_dot_yml=BUILDSPEC)
    git(folder, "push", "-q", "origin", "main")
    return folder


def action(name: str, category: str, provider: str, configuration: dict[str, str], **more: Any) -> dict[str, Any]:
    kind = {"category": category, "owner": "AWS", "provider": provider, "version": "1"}
    return {"name": name, "actionTypeId": kind, "configuration": configuration, **more}


def declaration(name: str, *, retrain: str | None = None) -> dict[str, Any]:
    variables = {
        "COMMIT": "#{Source.CommitId}",
        "TRIGGER": "#{variables.Trigger}",
        "EXECUTION": "#{codepipeline.PipelineExecutionId}",
    }
    stages = [
        {
            "name": "Source",
            "actions": [
                action(
                    "Source",
                    "Source",
                    "CodeCommit",
                    {"RepositoryName": "pushline", "BranchName": "main", "PollForSourceChanges": "false"},
                    namespace="Source",
                    outputArtifacts=[{"name": "Source"}],
                )
            ],
        },
        {
            "name": "Verify",
            "actions": [
                action(
                    "Verify",
                    "Build",
                    "CodeBuild",
                    {
                        "ProjectName": "verify",
                        "EnvironmentVariables": json.dumps([{"name": k, "value": v} for k, v in variables.items()]),
                    },
                    namespace="Verify",
                    inputArtifacts=[{"name": "Source"}],
                    outputArtifacts=[{"name": "Retraining"}],
                )
            ],
        },
    ]
    if retrain:
        stages.append(
            {
                "name": "Retrain",
                "actions": [
                    action(
                        "Retrain",
                        "Invoke",
                        "StepFunctions",
                        {
                            "StateMachineArn": retrain,
                            "ExecutionNamePrefix": "flight-delay",
                            "InputType": "FilePath",
                            "Input": "retraining.json",
                        },
                        inputArtifacts=[{"name": "Retraining"}],
                    )
                ],
            }
        )
    return {
        "name": name,
        "roleArn": ROLE,
        "pipelineType": "V2",
        "stages": stages,
        "artifactStore": {"type": "S3", "location": "artifacts"},
        "variables": [{"name": "Trigger", "defaultValue": "none"}],
    }


def machine(cloud: Loopback, name: str, state: dict[str, Any]) -> str:
    definition = {"StartAt": "Only", "States": {"Only": state}}
    made = cloud.client("stepfunctions").create_state_machine(
        name=name, roleArn=ROLE, definition=json.dumps(definition)
    )
    return str(made["stateMachineArn"])


def execution(cloud: Loopback, pipeline: str, execution_id: str) -> dict[str, Any]:
    found = cloud.client("codepipeline").get_pipeline_execution(pipelineName=pipeline, pipelineExecutionId=execution_id)
    return dict(found["pipelineExecution"])


def ended(cloud: Loopback, pipeline: str, execution_id: str) -> str:
    def look() -> Any:
        status = execution(cloud, pipeline, execution_id)["status"]
        return None if status in ("InProgress", "Stopping") else status

    return str(until(look, f"{pipeline} still runs"))


def created(cloud: Loopback, pipeline: dict[str, Any]) -> str:
    """Create it, and the id of the execution that creation starts."""
    client = cloud.client("codepipeline")
    client.create_pipeline(pipeline=pipeline)
    [first] = client.list_pipeline_executions(pipelineName=pipeline["name"])["pipelineExecutionSummaries"]
    assert first["trigger"]["triggerType"] == "CreatePipeline"
    return str(first["pipelineExecutionId"])


def actions(cloud: Loopback, pipeline: str, execution_id: str) -> dict[str, dict[str, Any]]:
    rows = cloud.client("codepipeline").list_action_executions(
        pipelineName=pipeline, filter={"pipelineExecutionId": execution_id}
    )["actionExecutionDetails"]
    return {row["actionName"]: row for row in rows}


def test_source_build_and_state_machine_hand_on_the_commit(cloud: Loopback, work: Path) -> None:
    target = machine(cloud, "retrain", {"Type": "Pass", "End": True})
    ended(cloud, "p", created(cloud, declaration("p", retrain=target)))
    started = cloud.client("codepipeline").start_pipeline_execution(
        name="p", variables=[{"name": "Trigger", "value": "push"}]
    )["pipelineExecutionId"]
    assert ended(cloud, "p", started) == "Succeeded", actions(cloud, "p", started)
    ran = actions(cloud, "p", started)
    head = git(work, "rev-parse", "HEAD")
    assert ran["Source"]["output"]["outputVariables"]["CommitId"] == head
    assert ran["Verify"]["output"]["outputVariables"] == {"SAID": "push"}
    arn = ran["Retrain"]["output"]["executionResult"]["externalExecutionId"]
    assert arn.endswith(f":flight-delay-{ran['Retrain']['actionExecutionId']}")
    given = cloud.client("stepfunctions").describe_execution(executionArn=arn)["input"]
    assert json.loads(given) == {"commit": head, "execution": started}
    newest, _ = cloud.client("codepipeline").list_pipeline_executions(pipelineName="p")["pipelineExecutionSummaries"]
    assert (newest["pipelineExecutionId"], newest["sourceRevisions"][0]["revisionId"]) == (started, head)

    def told() -> list[str]:
        return [
            e["detail"]["state"]
            for e in cloud.events
            if e["detail-type"].startswith("CodePipeline Pipeline") and e["detail"]["execution-id"] == started
        ]

    until(lambda: len(told()) > 1, "its end was not told")
    assert told() == ["STARTED", "SUCCEEDED"]


def test_a_missing_branch_fails_the_source_with_a_clear_reason(cloud: Loopback) -> None:
    first = created(cloud, declaration("empty"))
    assert ended(cloud, "empty", first) == "Failed"
    error = actions(cloud, "empty", first)["Source"]["output"]["executionResult"]["errorDetails"]
    assert "branch main does not exist in the repository pushline" in error["message"]


def test_a_failing_build_says_why_and_the_next_stage_does_not_run(cloud: Loopback, work: Path) -> None:
    commit(work, "broken", fail="yes")
    git(work, "push", "-q", "origin", "main")
    target = machine(cloud, "never", {"Type": "Pass", "End": True})
    first = created(cloud, declaration("broken", retrain=target))
    assert ended(cloud, "broken", first) == "Failed"
    ran = actions(cloud, "broken", first)
    assert set(ran) == {"Source", "Verify"}
    error = ran["Verify"]["output"]["executionResult"]["errorDetails"]
    assert error["code"] == "JobFailed"
    assert "Reason: exit status 3\nbad model" in error["message"]
    state = cloud.client("codepipeline").get_pipeline_state(name="broken")["stageStates"]
    assert [stage.get("latestExecution", {}).get("status") for stage in state] == ["Succeeded", "Failed", None]


def test_a_failing_state_machine_names_error_and_cause(cloud: Loopback, work: Path) -> None:
    target = machine(cloud, "failing", {"Type": "Fail", "Error": "BadData", "Cause": "rows without a date"})
    first = created(cloud, declaration("sad", retrain=target))
    assert ended(cloud, "sad", first) == "Failed"
    message = actions(cloud, "sad", first)["Retrain"]["output"]["executionResult"]["errorDetails"]["message"]
    assert "BadData rows without a date" in message


def test_a_newer_execution_supersedes_the_one_that_waits(cloud: Loopback, work: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    first = created(cloud, declaration("busy"))
    client = cloud.client("codepipeline")

    def start() -> str:
        return str(client.start_pipeline_execution(name="busy")["pipelineExecutionId"])

    second = start()
    until(lambda: inbound(cloud, "busy", "Verify") == [second])
    third = start()
    until(lambda: inbound(cloud, "busy", "Verify") == [third])
    assert ended(cloud, "busy", second) == "Superseded"
    assert execution(cloud, "busy", first)["status"] == "InProgress"
    gate.unlink()
    assert ended(cloud, "busy", first) == "Succeeded"
    assert ended(cloud, "busy", third) == "Succeeded"


def inbound(cloud: Loopback, pipeline: str, stage: str) -> list[str]:
    """The executions that wait for a stage."""
    found = cloud.client("codepipeline").get_pipeline_state(name=pipeline)["stageStates"]
    [state] = [each for each in found if each["stageName"] == stage]
    return [each["pipelineExecutionId"] for each in state.get("inboundExecutions", [])]


def test_no_execution_passes_an_older_one_whose_thread_comes_late(
    cloud: Loopback, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Any = cloud.service("codepipeline")
    late: list[str] = []
    launch = service.engine.launch
    monkeypatch.setattr(service.engine, "launch", late.append)
    first, client = created(cloud, declaration("late")), cloud.client("codepipeline")
    second, third = (client.start_pipeline_execution(name="late")["pipelineExecutionId"] for _ in range(2))
    launch(late[1])
    launch(late[2])
    until(lambda: actions(cloud, "late", second) or inbound(cloud, "late", "Source") == [second, third])
    assert not actions(cloud, "late", second)
    launch(late[0])
    # The first is in the stage now, and of those that wait for it the newest stays.
    assert [ended(cloud, "late", each) for each in (first, second, third)] == ["Succeeded", "Superseded", "Succeeded"]
    older, newer = (actions(cloud, "late", each)["Source"] for each in (first, third))
    assert older["lastUpdateTime"] < newer["startTime"]


def test_the_same_token_starts_one_execution(cloud: Loopback, work: Path) -> None:
    created(cloud, declaration("once"))
    client = cloud.client("codepipeline")
    started = {
        client.start_pipeline_execution(name="once", clientRequestToken="t")["pipelineExecutionId"] for _ in range(3)
    }
    assert len(started) == 1
    assert ended(cloud, "once", started.pop()) == "Succeeded"


def test_an_abandoned_execution_stops_its_build(cloud: Loopback, work: Path, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    first = created(cloud, declaration("stopped"))
    while not actions(cloud, "stopped", first).get("Verify", {}).get("output", {}).get("executionResult"):
        time.sleep(0.02)
    cloud.client("codepipeline").stop_pipeline_execution(
        pipelineName="stopped", pipelineExecutionId=first, abandon=True, reason="enough"
    )
    assert ended(cloud, "stopped", first) == "Stopped"
    [build] = cloud.client("codebuild").list_builds_for_project(projectName="verify")["ids"]
    assert cloud.client("codebuild").batch_get_builds(ids=[build])["builds"][0]["buildStatus"] == "STOPPED"


def test_an_execution_goes_on_after_a_restart(tmp_path: Path, cloud: Loopback, work: Path) -> None:
    states = cloud.client("stepfunctions")
    gate = states.create_activity(name="gate")["activityArn"]
    target = machine(cloud, "slow", {"Type": "Task", "Resource": gate, "End": True})
    first = created(cloud, declaration("again", retrain=target))
    while "Retrain" not in actions(cloud, "again", first):
        time.sleep(0.02)
    before: Any = cloud.service("codepipeline")
    before.stop()
    assert execution(cloud, "again", first)["status"] == "InProgress"
    after = CodePipeline(cloud)
    after.start()
    token = until(lambda: states.get_activity_task(activityArn=gate).get("taskToken"))
    states.send_task_success(taskToken=token, output="{}")
    assert ended(cloud, "again", first) == "Succeeded"
    after.stop()
    assert len(states.list_executions(stateMachineArn=target)["executions"]) == 1


def test_a_build_lost_in_a_restart_fails_its_execution(tmp_path: Path, cloud: Loopback, work: Path) -> None:
    (tmp_path / "gate").touch()
    first = created(cloud, declaration("lost"))
    while not actions(cloud, "lost", first).get("Verify", {}).get("output", {}).get("executionResult"):
        time.sleep(0.02)
    cloud.service("codebuild").stop()
    cloud.service("codepipeline").stop()
    assert execution(cloud, "lost", first)["status"] == "InProgress"
    cloud.service("codebuild").start()
    after = CodePipeline(cloud)
    after.start()
    assert ended(cloud, "lost", first) == "Failed"
    error = actions(cloud, "lost", first)["Verify"]["output"]["executionResult"]["errorDetails"]
    assert "lost when the rehearsal stopped" in error["message"]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ([{"name": "Other", "value": "x"}], "no variable Other"),
        ([{"name": "Trigger", "value": "x" * 1001}], "1 to 1000"),
    ],
)
def test_wrong_variables_are_refused(cloud: Loopback, variables: list[dict[str, str]], named: str) -> None:
    created(cloud, declaration("strict"))
    with pytest.raises(ClientError, match=named):
        cloud.client("codepipeline").start_pipeline_execution(name="strict", variables=variables)


def _manual(pipeline: dict[str, Any]) -> None:
    pipeline["stages"][1]["actions"] = [action("Ask", "Approval", "Manual", {})]


def _unknown_variable(pipeline: dict[str, Any]) -> None:
    pipeline["stages"][1]["actions"][0]["configuration"]["EnvironmentVariables"] = "#{variables.Nothing}"


def _unknown_artifact(pipeline: dict[str, Any]) -> None:
    pipeline["stages"][1]["actions"][0]["inputArtifacts"] = [{"name": "Nothing"}]


def _queued(pipeline: dict[str, Any]) -> None:
    pipeline["executionMode"] = "QUEUED"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_manual, "stage Verify, action Ask: Approval/AWS/Manual"),
        (_unknown_variable, "variables.Nothing"),
        (_unknown_artifact, "artifact Nothing"),
        (_queued, "QUEUED"),
    ],
)
def test_what_is_not_rehearsed_or_wrong_is_refused_at_creation(cloud: Loopback, change: Any, named: str) -> None:
    pipeline = declaration("refused")
    change(pipeline)
    with pytest.raises(ClientError, match=named):
        cloud.client("codepipeline").create_pipeline(pipeline=pipeline)
