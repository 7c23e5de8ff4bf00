"""State machines call services under their own role, with the names and errors that AWS gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rehearsal import audit
from rehearsal.cloud import sdk_calls
from rehearsal.cloud.sdk_calls import TaskFailed
from rehearsal.server import Running
from tests.rehearsal.daemon import make_role
from tests.rehearsal.waiting import until

S3_ALL = {"Action": "s3:*", "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*"]}


class Machines:
    """Runs definitions in JSONata on one rehearsal; every machine has a role of its own."""

    def __init__(self, cloud: Running) -> None:
        self.cloud, self.states, self.number = cloud, cloud.client("stepfunctions"), 0
        cloud.client("s3").create_bucket(Bucket="data")

    def make(self, states: dict[str, Any], *statements: dict[str, Any], **more: Any) -> str:
        self.number += 1
        role = make_role(self.cloud, f"machine-{self.number}", "states.amazonaws.com", *statements)
        definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more}
        return str(
            self.states.create_state_machine(name=f"m{self.number}", roleArn=role, definition=json.dumps(definition))[
                "stateMachineArn"
            ]
        )

    def run(self, states: dict[str, Any], *statements: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.finish(self.start(self.make(states, *statements, **more)))

    def start(self, machine: str) -> str:
        return str(self.states.start_execution(stateMachineArn=machine, input="{}")["executionArn"])

    def finish(self, execution: str) -> dict[str, Any]:
        def look() -> Any:
            found = self.states.describe_execution(executionArn=execution)
            return None if found["status"] == "RUNNING" else found

        return dict(until(look, f"{execution} still runs"))


@pytest.fixture(scope="module")
def machines(shared_cloud: Running) -> Machines:
    return Machines(shared_cloud)


def task(resource: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Arguments": arguments, "End": True, **more}


def test_an_object_is_written_and_read_as_json(machines: Machines) -> None:
    put = task("aws-sdk:s3:putObject", {"Bucket": "data", "Key": "k.json", "Body": {"auc": 0.75}}) | {"Next": "Get"}
    del put["End"]
    get = task(
        "aws-sdk:s3:getObject",
        {"Bucket": "data", "Key": "k.json"},
        Output="{% {'auc': $parse($states.result.Body).auc, 'tag': $exists($states.result.ETag)} %}",
    )
    done = machines.run({"Put": put, "Get": get}, S3_ALL)
    assert json.loads(done["output"]) == {"auc": 0.75, "tag": True}


def test_errors_have_the_names_that_a_catch_expects(machines: Machines) -> None:
    missing = machines.run({"Get": task("aws-sdk:s3:getObject", {"Bucket": "data", "Key": "none"})}, S3_ALL)
    assert missing["error"] == "S3.NoSuchKeyException"
    stack = machines.run(
        {"Describe": task("aws-sdk:cloudformation:describeStacks", {"StackName": "none"})},
        {"Action": "cloudformation:DescribeStacks", "Resource": "*"},
    )
    assert stack["error"] == "CloudFormation.CloudFormationException"
    assert "does not exist (Service: CloudFormation, Status Code: 400" in stack["cause"]


def test_a_call_that_the_role_does_not_allow_is_denied_and_audited(machines: Machines) -> None:
    denied = machines.run({"Get": task("aws-sdk:s3:getObject", {"Bucket": "data", "Key": "k"})})
    assert denied["error"] == "S3.S3Exception"
    assert "Status Code: 403" in denied["cause"]
    refused = audit.read(machines.cloud.state_dir, denied=True)[-1]
    assert (refused["action"], refused["resource"]) == ("s3:GetObject", "arn:aws:s3:::data/k")
    assert ":assumed-role/machine-" in refused["principal"]


def test_what_is_not_rehearsed_is_refused_not_passed_through(machines: Machines) -> None:
    batch = machines.run({"A": task("batch:submitJob.sync", {})})
    assert batch["error"] == "States.Runtime"
    assert "is not rehearsed" in batch["cause"]
    unknown = machines.run({"A": task("aws-sdk:nosuch:thing", {})})
    assert "no AWS service is called nosuch" in unknown["cause"]
    field = machines.run({"A": task("aws-sdk:s3:getObject", {"Bucket": "data", "key": "k"})}, S3_ALL)
    assert "has no field key" in field["cause"]


def test_a_nested_execution_is_waited_for_and_needs_the_managed_rule(machines: Machines) -> None:
    child = machines.make({"Fail": {"Type": "Fail", "Error": "Bad", "Cause": "told so"}})
    start = {"Action": ["states:StartExecution", "states:DescribeExecution"], "Resource": "*"}
    step = {"A": task("states:startExecution.sync:2", {"StateMachineArn": child, "Input": {"a": 1}})}
    without = machines.run(step, start)
    assert "not authorized to perform: events:PutTargets" in without["cause"]
    rule = {
        "Action": ["events:PutTargets", "events:PutRule", "events:DescribeRule"],
        "Resource": "arn:aws:events:*:*:rule/StepFunctionsGetEventsForStepFunctionsExecutionRule",
    }
    done = machines.run(step, start, rule)
    assert done["error"] == "States.TaskFailed"
    assert json.loads(done["cause"])["Cause"] == "told so"


def test_a_succeed_state_gives_its_own_output_and_assignments_do_not_see_each_other(machines: Machines) -> None:
    done = machines.run(
        {
            "One": {"Type": "Pass", "Assign": {"a": 1, "b": 2}, "Next": "Swap"},
            "Swap": {"Type": "Pass", "Assign": {"a": "{% $b %}", "b": "{% $a %}"}, "Next": "Done"},
            "Done": {"Type": "Succeed", "Output": {"a": "{% $a %}", "b": "{% $b %}"}},
        }
    )
    assert json.loads(done["output"]) == {"a": 2, "b": 1}


def test_a_parallel_state_takes_arguments_and_gives_output(machines: Machines) -> None:
    branch = {"StartAt": "P", "States": {"P": {"Type": "Pass", "Output": "{% $states.input.n + 1 %}", "End": True}}}
    done = machines.run(
        {
            "Both": {
                "Type": "Parallel",
                "Arguments": {"n": 1},
                "Branches": [branch, branch],
                "Next": "Done",
                "Output": {"sum": "{% $sum($states.result) %}"},
                "Assign": {"first": "{% $states.result[0] %}"},
            },
            "Done": {
                "Type": "Pass",
                "Output": {"sum": "{% $states.input.sum %}", "first": "{% $first %}"},
                "End": True,
            },
        }
    )
    assert json.loads(done["output"]) == {"sum": 4, "first": 2}


def test_an_execution_ends_when_its_time_is_over(machines: Machines) -> None:
    loop = {"Wait": {"Type": "Wait", "Seconds": 6, "Next": "Again"}, "Again": {"Type": "Pass", "Next": "Wait"}}
    assert machines.run(loop, TimeoutSeconds=1)["status"] == "TIMED_OUT"


def test_a_stopped_execution_stops_what_it_waits_for(machines: Machines) -> None:
    child = machines.make({"Wait": {"Type": "Wait", "Seconds": 36_000, "End": True}})
    parent = machines.make(
        {"A": task("states:startExecution.sync", {"StateMachineArn": child})},
        {"Action": ["states:*", "events:*"], "Resource": "*"},
    )
    execution = machines.start(parent)
    started = until(lambda: machines.states.list_executions(stateMachineArn=child)["executions"])
    machines.states.stop_execution(executionArn=execution, cause="enough")
    assert machines.finish(started[0]["executionArn"])["status"] == "ABORTED"
    assert machines.finish(execution)["status"] == "ABORTED"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("RoleARN", "RoleARN"),
        ("KMSKeyId", "KmsKeyId"),
        ("ETag", "ETag"),
        ("SSEKMSKeyId", "SsekmsKeyId"),
        ("s3Bucket", "S3Bucket"),
        ("S3OutputPath", "S3OutputPath"),
        ("SupportedResponseMIMETypes",) * 2,
        ("stateMachineArn", "StateMachineArn"),
        ("DBInstanceIdentifier", "DbInstanceIdentifier"),
    ],
)
def test_members_have_the_names_of_the_java_sdk(ours: str, theirs: str) -> None:
    assert sdk_calls.member(ours) == theirs


def test_services_have_the_names_of_the_java_sdk() -> None:
    names = {
        "sagemaker": "SageMaker",
        "sagemakerruntime": "SageMakerRuntime",
        "s3": "S3",
        "sfn": "Sfn",
        "ssm": "Ssm",
        "cloudformation": "CloudFormation",
        "cloudwatchlogs": "CloudWatchLogs",
        "dynamodb": "DynamoDb",
    }
    assert {name: sdk_calls.prefix(sdk_calls.botocore_name(name)) for name in names} == names
    with pytest.raises(TaskFailed, match="no AWS service is called sagemaker-runtime"):
        sdk_calls.botocore_name("sagemaker-runtime")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counted where the system shows it")
def test_executions_that_have_ended_leave_neither_threads_nor_connections(machines: Machines) -> None:
    """Each has a session of its own, thus clients of its own, and a time limit hours away."""
    put = {"Put": task("aws-sdk:s3:putObject", {"Bucket": "data", "Key": "k", "Body": "x"})}
    machine = machines.make(put, S3_ALL, TimeoutSeconds=3600)
    process = Path(f"/proc/{machines.cloud.pid}")

    def held() -> int:
        return len(list((process / "task").iterdir())) + len(list((process / "fd").iterdir()))

    before = held()
    for execution in [machines.start(machine) for _ in range(90)]:
        assert machines.finish(execution)["status"] == "SUCCEEDED"
    assert held() - before < 180  # else 90 threads, and two ends of 90 connections
