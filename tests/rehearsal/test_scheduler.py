"""Schedules fire once at their time, under the target's role, and never again after a restart."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import audit, server
from rehearsal.scheduler.expression import InvalidExpression, first_time, next_time
from rehearsal.scheduler.invocation import retry_at
from rehearsal.server import Running
from tests.rehearsal.daemon import kept, make_role, running
from tests.rehearsal.waiting import until

ACCOUNT = "000000000000"
PRINCIPAL = "scheduler.amazonaws.com"
OFF = {"Mode": "OFF"}


@pytest.fixture(scope="module")
def cloud(shared_cloud: Running) -> Running:
    return shared_cloud


def machine(cloud: Running, name: str) -> str:
    """A state machine that ends at once; its executions tell what reached it."""
    role = make_role(cloud, f"{name}-machine", "states.amazonaws.com")
    definition = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
    made = cloud.client("stepfunctions").create_state_machine(
        name=name, roleArn=role, definition=json.dumps(definition)
    )
    return str(made["stateMachineArn"])


def target(cloud: Running, name: str, **more: Any) -> dict[str, Any]:
    """A state machine with a role that may start it."""
    arn = machine(cloud, name)
    role = make_role(cloud, f"{name}-caller", PRINCIPAL, {"Action": "states:StartExecution", "Resource": arn})
    return {"Arn": arn, "RoleArn": role, **more}


def inputs(cloud: Running, arn: str) -> list[Any]:
    states = cloud.client("stepfunctions")
    found = states.list_executions(stateMachineArn=arn)["executions"]
    return [json.loads(states.describe_execution(executionArn=row["executionArn"])["input"]) for row in found]


def starts(cloud: Running, arn: str) -> list[dt.datetime]:
    """When its executions began, the first one first."""
    found = cloud.client("stepfunctions").list_executions(stateMachineArn=arn)["executions"]
    return sorted(row["startDate"] for row in found)


def at(seconds: float) -> str:
    moment = dt.datetime.fromtimestamp(time.time() + seconds, dt.UTC)
    return f"at({moment:%Y-%m-%dT%H:%M:%S})"


def create(cloud: Running, name: str, expression: str, goal: dict[str, Any], **more: Any) -> str:
    made = cloud.client("scheduler").create_schedule(
        Name=name, ScheduleExpression=expression, FlexibleTimeWindow=OFF, Target=goal, **more
    )
    return str(made["ScheduleArn"])


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return str(error.value.response["Error"]["Code"])


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_one_time_schedule_fires_once_with_its_context_and_is_gone(cloud: Running) -> None:
    goal = target(
        cloud, "once", Input='{"time": "<aws.scheduler.scheduled-time>", "of": "<aws.scheduler.schedule-arn>"}'
    )
    expression = at(60)  # a second at time scale 60
    arn = create(cloud, "once", expression, goal, ActionAfterCompletion="DELETE")
    assert until(lambda: inputs(cloud, goal["Arn"])) == [{"time": expression[3:-1] + "Z", "of": arn}]
    assert dt.datetime.now(dt.UTC) < dt.datetime.fromisoformat(expression[3:-1] + "Z"), "the clock is not scaled"
    scheduler = cloud.client("scheduler")
    until(lambda: not scheduler.list_schedules(NamePrefix="once")["Schedules"])
    assert refused(scheduler.get_schedule, Name="once") == "ResourceNotFoundException"
    entries = [entry for entry in audit.read(cloud.state_dir) if entry["resource"] == goal["Arn"]]
    assert [entry["principal"] for entry in entries if entry["action"] == "states:StartExecution"] == [
        f"arn:aws:sts::{ACCOUNT}:assumed-role/once-caller/once"
    ]


def test_a_one_time_schedule_that_is_kept_does_not_fire_again(cloud: Running) -> None:
    goal = target(cloud, "kept")
    create(cloud, "kept", at(30), goal)
    (sent,) = until(lambda: inputs(cloud, goal["Arn"]))
    assert (sent["source"], sent["detail-type"]) == ("aws.scheduler", "Scheduled Event")
    time.sleep(0.5)
    assert len(inputs(cloud, goal["Arn"])) == 1
    with pytest.raises(ClientError) as error:
        create(cloud, "kept", at(60), goal)
    assert code(error) == "ConflictException"


def test_the_same_client_token_makes_nothing_twice(cloud: Running) -> None:
    goal = target(cloud, "token")
    first = create(cloud, "token", "rate(30 days)", goal, ClientToken="abc", State="DISABLED")
    assert create(cloud, "token", "rate(30 days)", goal, ClientToken="abc", State="DISABLED") == first


def test_a_rate_fires_at_once_and_again_on_the_scaled_clock(cloud: Running) -> None:
    goal = target(cloud, "rate")
    create(cloud, "rate", "rate(1 minute)", goal)
    first, second, *_ = until(lambda: len(found := starts(cloud, goal["Arn"])) >= 2 and found)
    assert second - first < dt.timedelta(minutes=1), "the clock is not scaled"
    cloud.client("scheduler").update_schedule(
        Name="rate", ScheduleExpression="rate(1 minute)", FlexibleTimeWindow=OFF, Target=goal, State="DISABLED"
    )

    def quiet(seconds: float) -> bool:
        count = len(starts(cloud, goal["Arn"]))
        time.sleep(seconds)
        return len(starts(cloud, goal["Arn"])) == count

    until(lambda: quiet(1.5), "it fires on")  # what was due before may be on its way still
    assert quiet(3)


def test_a_function_is_invoked_and_an_event_put_by_the_targets_role(cloud: Running) -> None:
    """Both through what the role may do: the function is missing, so its dead-letter queue tells of it."""
    bus = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"
    role = make_role(cloud, "bus-caller", PRINCIPAL, {"Action": "events:PutEvents", "Resource": bus})
    arn = machine(cloud, "from-bus")
    events = cloud.client("events")
    starter = make_role(cloud, "bus-rule", "events.amazonaws.com", {"Action": "states:StartExecution", "Resource": arn})
    events.put_rule(Name="ticks", EventPattern=json.dumps({"source": ["ours.clock"]}))
    events.put_targets(Rule="ticks", Targets=[{"Id": "1", "Arn": arn, "RoleArn": starter, "InputPath": "$.detail"}])
    goal = {"Arn": bus, "RoleArn": role, "EventBridgeParameters": {"Source": "ours.clock", "DetailType": "tick"}}
    create(cloud, "bus", at(30), {**goal, "Input": '{"n": 1}'})
    assert until(lambda: inputs(cloud, arn)) == [{"n": 1}]


def test_what_can_not_be_invoked_goes_to_the_dead_letter_queue(cloud: Running) -> None:
    queues = cloud.client("sqs")
    url, queue = queues.create_queue(QueueName="missed")["QueueUrl"], f"arn:aws:sqs:us-east-1:{ACCOUNT}:missed"
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:none"
    role = make_role(
        cloud,
        "missed",
        PRINCIPAL,
        {"Action": "lambda:InvokeFunction", "Resource": function},
        {"Action": "sqs:SendMessage", "Resource": queue},
    )
    arn = create(
        cloud,
        "missed",
        at(30),
        {"Arn": function, "RoleArn": role, "Input": '{"a": 1}', "DeadLetterConfig": {"Arn": queue}},
    )
    (message,) = until(lambda: queues.receive_message(QueueUrl=url, MessageAttributeNames=["All"]).get("Messages"))
    told = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert message["Body"] == '{"a": 1}'
    assert (told["SCHEDULE_ARN"], told["TARGET_ARN"]) == (arn, function)
    assert told["ERROR_CODE"] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("trusted", "action", "denied"),
    [(PRINCIPAL, "states:StopExecution", "states:StartExecution"),
     ("lambda.amazonaws.com", "states:StartExecution", "sts:AssumeRole")],
)  # fmt: skip
def test_a_role_that_may_not_is_refused_and_audited(cloud: Running, trusted: str, action: str, denied: str) -> None:
    name = f"denied-{trusted.partition('.')[0]}"
    arn = machine(cloud, name)
    role = make_role(cloud, f"{name}-caller", trusted, {"Action": action, "Resource": arn})
    create(cloud, name, at(30), {"Arn": arn, "RoleArn": role})

    def seen() -> list[Any]:
        return [entry for entry in audit.read(cloud.state_dir, denied=True) if name in json.dumps(entry)]

    assert [entry["action"] for entry in until(seen)] == [denied]
    assert inputs(cloud, arn) == []


@pytest.mark.parametrize(("group", "reached"), [("trusted-group", True), ("default", False)])
def test_a_trust_policy_can_name_the_group_of_the_schedules(cloud: Running, group: str, reached: bool) -> None:
    scheduler, goal = cloud.client("scheduler"), target(cloud, f"of-{group}")
    if group != "default":
        scheduler.create_schedule_group(Name=group)
    source = {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnEquals": {"aws:SourceArn": f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/trusted-group"},
    }
    allowed = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": PRINCIPAL}, "Condition": source}
    cloud.client("iam").update_assume_role_policy(
        RoleName=f"of-{group}-caller", PolicyDocument=json.dumps({"Statement": [allowed]})
    )
    create(cloud, f"of-{group}", at(30), goal, GroupName=group, ActionAfterCompletion="DELETE")
    until(lambda: not scheduler.list_schedules(NamePrefix=f"of-{group}")["Schedules"])
    if reached:
        until(lambda: inputs(cloud, goal["Arn"]))
    else:
        time.sleep(2)
        assert not inputs(cloud, goal["Arn"])


def test_creating_takes_permission_on_the_schedule_and_on_passing_the_role(cloud: Running) -> None:
    goal = target(cloud, "passed")
    own = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/default/mine-*"
    allowed = {"Action": "scheduler:CreateSchedule", "Resource": own}
    passing = {
        "Action": "iam:PassRole",
        "Resource": goal["RoleArn"],
        "Condition": {"StringEquals": {"iam:PassedToService": PRINCIPAL}},
    }
    make_role(cloud, "maker-both", "lambda.amazonaws.com", allowed, passing)
    make_role(cloud, "maker-one", "lambda.amazonaws.com", allowed)
    asked = {"ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": OFF, "Target": goal, "State": "DISABLED"}
    both, one = acting(cloud, "maker-both"), acting(cloud, "maker-one")
    assert both.create_schedule(Name="mine-1", **asked)["ScheduleArn"] == own.replace("*", "1")
    assert refused(both.create_schedule, Name="other", **asked) == "AccessDeniedException"
    assert refused(one.create_schedule, Name="mine-2", **asked) == "AccessDeniedException"


def acting(cloud: Running, role: str) -> Any:
    """The scheduler as a session of the role; its trust policy is opened to the account for that."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    trust = {
        "Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
        ]
    }
    cloud.client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
    made = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    return cloud.client(
        "scheduler",
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
        aws_session_token=made["SessionToken"],
    )


def test_groups_hold_schedules_and_lists_filter_by_group_prefix_and_state(cloud: Running) -> None:
    scheduler, goal = cloud.client("scheduler"), target(cloud, "grouped")
    group = scheduler.create_schedule_group(Name="team", Tags=[{"Key": "a", "Value": "1"}])["ScheduleGroupArn"]
    for name in ("a-1", "a-2", "b-1"):
        create(cloud, name, "rate(1 day)", goal, GroupName="team", State="DISABLED")

    def names(**asked: Any) -> list[str]:
        return [row["Name"] for row in scheduler.list_schedules(GroupName="team", **asked)["Schedules"]]

    assert names() == ["a-1", "a-2", "b-1"]
    assert names(NamePrefix="a") == ["a-1", "a-2"]
    assert names(State="ENABLED") == []
    pages = scheduler.get_paginator("list_schedules").paginate(GroupName="team", PaginationConfig={"PageSize": 2})
    assert [len(page["Schedules"]) for page in pages] == [2, 1]
    found = scheduler.get_schedule(Name="a-1", GroupName="team")
    assert found["Arn"] == f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/team/a-1"
    assert refused(scheduler.get_schedule, Name="a-1") == "ResourceNotFoundException"  # not in the default group
    assert scheduler.list_tags_for_resource(ResourceArn=group)["Tags"] == [{"Key": "a", "Value": "1"}]
    scheduler.delete_schedule_group(Name="team")
    assert refused(scheduler.get_schedule, Name="a-1", GroupName="team") == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "change",
    [
        {"ScheduleExpression": "at(2020-01-01T00:00:00)"},
        {"ScheduleExpression": "rate(1 days)"},
        {"ScheduleExpression": "cron(0 3 * * *)"},
        {"ScheduleExpressionTimezone": "Mars/Olympus"},
        {"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}},
        {"Name": "a b"},
        {"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r"}},
        {"Target": {"Arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f", "RoleArn": "x", "Input": "{"}},
    ],
)
def test_what_aws_or_the_rehearsal_would_not_run_is_refused_when_it_is_made(
    cloud: Running, change: dict[str, Any]
) -> None:
    function = {"Arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r"}
    asked = {"Name": "bad", "ScheduleExpression": "rate(1 day)", "FlexibleTimeWindow": OFF, "Target": function}
    assert refused(cloud.client("scheduler").create_schedule, **{**asked, **change}) in (
        "ValidationException",
        "UnsupportedByRehearsal",
    )
    assert refused(cloud.client("scheduler").get_schedule, Name="bad") == "ResourceNotFoundException"


def test_cloudformation_makes_changes_and_deletes_schedules(cloud: Running) -> None:
    goal, stacks, scheduler = target(cloud, "stacked"), cloud.client("cloudformation"), cloud.client("scheduler")

    def template(expression: str) -> str:
        group = {"Type": "AWS::Scheduler::ScheduleGroup", "Properties": {"Name": "stacked"}}
        schedule = {
            "Type": "AWS::Scheduler::Schedule",
            "Properties": {
                "GroupName": {"Ref": "Group"},
                "ScheduleExpression": expression,
                "ScheduleExpressionTimezone": "America/New_York",
                "State": "DISABLED",
                "FlexibleTimeWindow": OFF,
                "Target": {**goal, "RetryPolicy": {"MaximumRetryAttempts": "3"}},
            },
        }
        outputs = {
            "Name": {"Value": {"Ref": "Schedule"}},
            "Arn": {"Value": {"Fn::GetAtt": ["Schedule", "Arn"]}},
        }
        return json.dumps({"Resources": {"Group": group, "Schedule": schedule}, "Outputs": outputs})

    stacks.create_stack(StackName="sched", TemplateBody=template("rate(1 day)"))
    stacks.get_waiter("stack_create_complete").wait(StackName="sched", WaiterConfig={"Delay": 1})
    outputs = {
        o["OutputKey"]: o["OutputValue"] for o in stacks.describe_stacks(StackName="sched")["Stacks"][0]["Outputs"]
    }
    name = outputs["Name"]
    assert outputs["Arn"].endswith(f":schedule/stacked/{name}")
    stacks.update_stack(StackName="sched", TemplateBody=template("cron(0 3 * * ? *)"))
    stacks.get_waiter("stack_update_complete").wait(StackName="sched", WaiterConfig={"Delay": 1})
    found = scheduler.get_schedule(Name=name, GroupName="stacked")
    assert (found["ScheduleExpression"], found["Target"]["RetryPolicy"]) == (
        "cron(0 3 * * ? *)",
        {"MaximumRetryAttempts": 3},
    )
    stacks.delete_stack(StackName="sched")
    stacks.get_waiter("stack_delete_complete").wait(StackName="sched", WaiterConfig={"Delay": 1})
    assert scheduler.list_schedules(GroupName="stacked")["Schedules"] == []


def test_a_kill_neither_fires_a_schedule_again_nor_loses_one(tmp_path: Path) -> None:
    """One fired before the kill and stays fired; one becomes due while nothing runs, and fires once at the start."""
    state = tmp_path / "state"
    with running(state, time_scale=20) as cloud:
        goal, missed = target(cloud, "before"), target(cloud, "while-down")
        create(cloud, "before", at(20), goal)
        until(lambda: inputs(cloud, goal["Arn"]))
        kept(cloud, "iam", "before-caller", "while-down-caller")
        kept(cloud, "stepfunctions", "stateMachine:while-down", "execution:before:")
        # Schedules are on disk as soon as they are made: it has ten seconds until it is due.
        create(cloud, "while-down", at(200), missed)
        os.kill(cloud.pid, signal.SIGKILL)
        killed = time.time()
        server._reap(state)
        time.sleep(11)
        with running(state, time_scale=20) as again:
            (began,) = until(lambda: starts(again, missed["Arn"]))
            assert began.timestamp() > killed
            time.sleep(0.5)
            assert len(inputs(again, missed["Arn"])) == 1
            assert len(inputs(again, goal["Arn"])) == 1


# -- when -----------------------------------------------------------------------------------------------


def epoch(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("expression", "zone", "now", "due"),
    [
        ("at(2026-07-01T12:00:00)", "America/New_York", "2026-01-01T00:00:00", "2026-07-01T16:00:00"),
        ("rate(2 hours)", "UTC", "2026-01-01T00:00:00", "2026-01-01T00:00:00"),
        ("cron(0 3 * * ? *)", "UTC", "2026-01-01T03:00:00", "2026-01-01T03:00:00"),
        ("cron(0 3 * * ? *)", "Europe/Berlin", "2026-01-01T03:00:00", "2026-01-02T02:00:00"),
        ("cron(30 9 ? * MON-FRI *)", "UTC", "2026-01-03T00:00:00", "2026-01-05T09:30:00"),
        ("cron(0 0 L * ? *)", "UTC", "2026-02-01T00:00:00", "2026-02-28T00:00:00"),
        ("cron(0 8 ? * 2#1 *)", "UTC", "2026-01-06T00:00:00", "2026-02-02T08:00:00"),
        # spring takes 02:30 of 29 March away; autumn's second 02:30 of 25 October does not count
        ("cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-28T12:00:00", "2026-03-30T00:30:00"),
        ("cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-25T00:31:00", "2026-10-26T01:30:00"),
    ],
)
def test_a_schedule_is_due_first(expression: str, zone: str, now: str, due: str) -> None:
    found = first_time(expression, zone, epoch(now), None)
    assert found is not None
    assert dt.datetime.fromtimestamp(found, dt.UTC).replace(tzinfo=None).isoformat() == due


def test_times_that_passed_meanwhile_are_left_out() -> None:
    assert next_time("rate(10 minutes)", "UTC", 0.0, 3601.0) == 4200.0
    assert next_time("rate(10 minutes)", "UTC", 0.0, 1.0) == 600.0
    assert next_time("cron(0 * * * ? *)", "UTC", 0.0, 7300.0) == 10800.0
    assert next_time("at(1970-01-01T00:00:00)", "UTC", 0.0, 1.0) is None


def test_a_year_that_is_over_is_never_due() -> None:
    assert first_time("cron(0 0 1 1 ? 2020)", "UTC", epoch("2026-01-01T00:00:00"), None) is None


@pytest.mark.parametrize(
    "expression", ["rate(0 days)", "rate(1 week)", "cron(* * * * * *)", "at(2026-02-30T00:00:00)", "x"]
)
def test_an_expression_that_is_none_says_so(expression: str) -> None:
    with pytest.raises(InvalidExpression, match="Invalid Schedule Expression"):
        first_time(expression, "UTC", 0.0, None)


@pytest.mark.parametrize(
    ("attempts", "age", "policy", "wait"),
    [
        (1, 0, {}, 0.5),
        (4, 0, {}, 4.0),
        (30, 0, {}, 450.0),  # a quarter of an hour at most
        (186, 0, {}, None),
        (3, 0, {"MaximumRetryAttempts": 2}, None),
        (1, 60, {"MaximumEventAgeInSeconds": 100}, None),  # 120 s have passed at time scale 2
    ],
)
def test_what_failed_is_tried_again_as_the_retry_policy_says(
    attempts: int, age: float, policy: dict[str, int], wait: float | None
) -> None:
    invocation = {"target": {"RetryPolicy": policy}, "attempts": attempts, "began": 1000.0 - age}
    again = retry_at(invocation, 1000.0, 2.0)
    assert (again is None and wait is None) or again == pytest.approx(1000.0 + (wait or 0))
