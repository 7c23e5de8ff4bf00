"""Events reach a rule's targets under the target's role or the resource's policy, and nothing else."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from rehearsal import audit
from rehearsal.server import Running
from tests.rehearsal.daemon import make_role
from tests.rehearsal.waiting import until

ACCOUNT = "000000000000"
EVENTS = "events.amazonaws.com"


@pytest.fixture(scope="module")
def cloud(shared_cloud: Running) -> Running:
    return shared_cloud


def rule(cloud: Running, name: str, target: dict[str, Any], schedule: str = "") -> str:
    events = cloud.client("events")
    when = {"ScheduleExpression": schedule} if schedule else {"EventPattern": json.dumps({"source": [f"test.{name}"]})}
    arn = events.put_rule(Name=name, **when)["RuleArn"]
    events.put_targets(Rule=name, Targets=[{"Id": "1", **target}])
    return str(arn)


def send(cloud: Running, name: str, detail: dict[str, Any]) -> None:
    event = {"Source": f"test.{name}", "DetailType": "t", "Detail": json.dumps(detail)}
    cloud.client("events").put_events(Entries=[event])


def queue(cloud: Running, name: str, *, open_to: str = EVENTS) -> tuple[str, str]:
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"
    rules = {"ArnLike": {"aws:SourceArn": f"arn:aws:events:us-east-1:{ACCOUNT}:rule/*"}}
    policy = {
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Principal": {"Service": open_to},
                "Condition": rules,
            }
        ]
    }
    url = cloud.client("sqs").create_queue(QueueName=name, Attributes={"Policy": json.dumps(policy)})["QueueUrl"]
    return url, arn


def received(cloud: Running, url: str) -> list[Any]:
    """What a queue has now; it has it no longer."""
    queues = cloud.client("sqs")
    messages = queues.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    for message in messages:
        queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages]


def machine(cloud: Running, name: str) -> str:
    role = make_role(cloud, f"{name}-machine", "states.amazonaws.com")
    definition = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
    return str(
        cloud.client("stepfunctions").create_state_machine(name=name, roleArn=role, definition=json.dumps(definition))[
            "stateMachineArn"
        ]
    )


def executions(cloud: Running, arn: str) -> list[Any]:
    return list(cloud.client("stepfunctions").list_executions(stateMachineArn=arn)["executions"])


def refusals(cloud: Running, action: str) -> list[str]:
    return [entry["principal"] for entry in audit.read(cloud.state_dir, denied=True) if entry["action"] == action]


def test_a_state_machine_is_started_by_the_targets_role(cloud: Running) -> None:
    arn = machine(cloud, "started")
    role = make_role(cloud, "starter", EVENTS, {"Action": "states:StartExecution", "Resource": arn})
    rule(
        cloud,
        "start",
        {
            "Arn": arn,
            "RoleArn": role,
            "InputTransformer": {"InputPathsMap": {"who": "$.detail.who"}, "InputTemplate": '{"model": "<who>"}'},
        },
    )
    send(cloud, "start", {"who": "flight_delay"})
    started = until(lambda: executions(cloud, arn))
    described = cloud.client("stepfunctions").describe_execution(executionArn=started[0]["executionArn"])
    assert json.loads(described["input"]) == {"model": "flight_delay"}


@pytest.mark.parametrize(
    ("trusted", "action"), [(EVENTS, "states:StopExecution"), ("lambda.amazonaws.com", "states:StartExecution")]
)
def test_a_target_whose_role_may_not_is_not_called(cloud: Running, trusted: str, action: str) -> None:
    name = f"refused-{trusted.partition('.')[0]}"
    arn = machine(cloud, name)
    role = make_role(cloud, f"{name}-role", trusted, {"Action": action, "Resource": arn})
    rule(cloud, name, {"Arn": arn, "RoleArn": role})
    wanted = "states:StartExecution" if trusted == EVENTS else "sts:AssumeRole"
    send(cloud, name, {})
    until(lambda: refusals(cloud, wanted))
    assert executions(cloud, arn) == []


def test_a_queue_takes_events_only_as_its_policy_says(cloud: Running) -> None:
    url, arn = queue(cloud, "open")
    rule(cloud, "open", {"Arn": arn, "InputPath": "$.detail"})
    closed_url, closed = queue(cloud, "closed", open_to="sns.amazonaws.com")
    rule(cloud, "closed", {"Arn": closed})
    send(cloud, "open", {"a": 1})
    send(cloud, "closed", {"a": 1})
    assert until(lambda: received(cloud, url)) == [{"a": 1}]
    until(lambda: EVENTS in refusals(cloud, "sqs:SendMessage"))
    assert received(cloud, closed_url) == []


def test_what_can_not_be_delivered_goes_to_the_dead_letter_queue(cloud: Running) -> None:
    url, dead = queue(cloud, "dead")
    rule(
        cloud,
        "lost",
        {
            "Arn": f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:none",
            "Input": '{"b": 2}',
            "RoleArn": make_role(cloud, "lost", EVENTS),
            "DeadLetterConfig": {"Arn": dead},
        },
    )
    send(cloud, "lost", {})
    assert until(lambda: received(cloud, url)) == [{"b": 2}]


def test_a_target_that_is_not_rehearsed_is_refused_in_the_log(cloud: Running) -> None:
    rule(cloud, "batch", {"Arn": f"arn:aws:batch:us-east-1:{ACCOUNT}:job-queue/q"})
    send(cloud, "batch", {})
    log = cloud.state_dir / "server.log"
    until(lambda: "targets like arn:aws:batch:us-east-1:000000000000:job-queue/q are not rehearsed" in log.read_text())


def test_a_schedule_fires_on_the_scaled_clock_and_not_again_at_once(cloud: Running) -> None:
    url, arn = queue(cloud, "minutes")
    rule(cloud, "minutes", {"Arn": arn}, "rate(5 minutes)")  # 5 s at time scale 60
    events: list[Any] = []
    until(lambda: events.extend(received(cloud, url)) or len(events) >= 2)
    assert {event["detail-type"] for event in events} == {"Scheduled Event"}
    first, second, *_ = sorted(dt.datetime.fromisoformat(event["time"]) for event in events)
    assert dt.timedelta(seconds=1) <= second - first < dt.timedelta(minutes=5)
