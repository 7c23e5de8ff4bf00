"""What people are told of releases, and how often: executions of the reconcilers run at the same time, and slowly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console

from rehearsal.assembly import deploy
from tests.conftest import Assembly
from tests.rehearsal.daemon import open_queue, running
from tests.rehearsal.registry import OTHER_SHAPE, Registry, patient
from tests.rehearsal.waiting import until

TIME_SCALE = 10
"""So slow that an execution which the end of an update starts looks before the one that waits for that end."""
ENVIRONMENTS = ("Staging", "Production")
DUPLICATES = 3


@dataclass
class People:
    """What arrives from each environment's topic."""

    registry: Registry
    queues: dict[str, str]

    def told(self, environment: str) -> list[dict[str, Any]]:
        """The messages since the last look."""
        sqs, messages = self.registry.at.client("sqs"), []
        while found := sqs.receive_message(QueueUrl=self.queues[environment], MaxNumberOfMessages=10).get("Messages"):
            for one in found:
                messages.append(json.loads(one["Body"]))
                sqs.delete_message(QueueUrl=self.queues[environment], ReceiptHandle=one["ReceiptHandle"])
        return messages


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Iterator[People]:
    """The synthesized stacks with one version live, and a subscriber of what people are told from then on."""
    with running(tmp_path_factory.mktemp("at-once") / "state", time_scale=TIME_SCALE) as at:
        deploy(at, patient(assembly, tmp_path_factory.mktemp("patient") / "cdk.out"), Console(quiet=True))
        registry = Registry(at)
        registry.settle(registry.register(), "Approved")
        yield People(registry, {environment: subscribe(registry, environment) for environment in ENVIRONMENTS})


def subscribe(registry: Registry, environment: str) -> str:
    """A queue that gets what the environment's topic publishes."""
    at = registry.at
    pages = at.client("cloudformation").get_paginator("list_stack_resources").paginate(
        StackName=f"Pushline-{environment}")  # fmt: skip
    (topic,) = [one["PhysicalResourceId"] for page in pages for one in page["StackResourceSummaries"]
                if one["ResourceType"] == "AWS::SNS::Topic"]  # fmt: skip
    queue = open_queue(at, f"people-{environment}", "sns.amazonaws.com")
    arn = at.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    at.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return queue


def duplicate(registry: Registry, environment: str = "Staging") -> None:
    """One event is delivered several times."""
    for _ in range(DUPLICATES):
        registry.at.client("stepfunctions").start_execution(stateMachineArn=registry.reconciler(environment))


def looked(registry: Registry, since: float) -> None:
    """Wait until both environments have begun to look since then: nothing runs before an event has arrived."""
    states = registry.at.client("stepfunctions")

    def began(environment: str) -> bool:
        found = states.list_executions(stateMachineArn=registry.reconciler(environment))["executions"]
        return any(one["startDate"].timestamp() >= since for one in found)

    until(lambda: all(began(environment) for environment in ENVIRONMENTS))


def rest(registry: Registry) -> None:
    """Nothing runs, and nothing is started by what has just ended."""
    quiet = 0
    while quiet < 5:
        until(registry.rests)
        time.sleep(0.2)
        quiet = quiet + 1 if registry.rests() else 0


def entered(registry: Registry, since: float) -> list[str]:
    """The states that staging's executions entered since then."""
    states = registry.at.client("stepfunctions")
    started = states.list_executions(stateMachineArn=registry.reconciler("Staging"))["executions"]
    histories = [
        states.get_paginator("get_execution_history").paginate(executionArn=one["executionArn"])
        for one in started
        if one["startDate"].timestamp() >= since
    ]
    return [
        event["stateEnteredEventDetails"]["name"]
        for history in histories
        for page in history
        for event in page["events"]
        if "stateEnteredEventDetails" in event
    ]


def test_manual_approval_asks_once(people: People) -> None:
    began = time.time()
    version = people.registry.register(approval="manual", trigger="push", reason="a new feature", evaluation="s3://e/")
    duplicate(people.registry)
    until(lambda: people.registry.live("staging") == version)
    rest(people.registry)
    (question,) = people.told("Staging")
    assert question["Subject"] == f"flight_delay: version {version} waits for approval"
    assert f"./pushline approve flight_delay {version}" in question["Message"]
    states = entered(people.registry, began)
    assert (states.count("Send the sample request"), states.count("Ask people for approval")) == (1, 1)
    assert came_to(people.registry, "UPDATE_COMPLETE", began) == 1
    assert states.count("Look at the registry") > DUPLICATES + 2, "others looked meanwhile"
    assert people.registry.live("production") != version
    rejected = time.time()
    people.registry.decide(version, "Rejected")
    looked(people.registry, rejected)
    rest(people.registry)


def test_a_version_that_fails_its_smoke_test_is_told_once(people: People) -> None:
    version = people.registry.register(OTHER_SHAPE)
    duplicate(people.registry)
    assert "the answer has another shape" in people.registry.rejected(version)
    rest(people.registry)
    (told,) = people.told("Staging")
    assert told["Subject"] == f"flight_delay in staging: version {version} was rejected"
    assert "It runs until" not in told["Message"]


def test_a_version_that_rolled_back_is_not_tried_again_by_those_that_waited_for_the_stack(people: People) -> None:
    began = time.time()
    version = people.registry.register(instance_type="ml.p4d.24xlarge")
    for _ in range(2 * DUPLICATES):  # so that one of them looks as soon as the stack has rolled back
        duplicate(people.registry)
        time.sleep(0.25)
    assert "The update of the serving stack rolled back" in people.registry.rejected(version)
    rest(people.registry)
    assert came_to(people.registry, "UPDATE_ROLLBACK_COMPLETE", began) == 1
    (told,) = people.told("Staging")
    assert told["Subject"] == f"flight_delay in staging: version {version} was rejected"


def came_to(registry: Registry, status: str, since: float) -> int:
    """How often staging's stack has come to that status since then."""
    name = "FlightDelay-Serving-Staging"
    events = registry.at.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return sum(one["LogicalResourceId"] == name and one["ResourceStatus"] == status
               and one["Timestamp"].timestamp() >= since for one in events)  # fmt: skip


def test_people_of_each_environment_are_told_once_that_every_version_is_rejected(people: People) -> None:
    live, rejected = people.registry.live(), time.time()
    for _ in range(DUPLICATES):
        people.registry.decide(live, "Rejected")
    looked(people.registry, rejected)
    rest(people.registry)
    for environment in ENVIRONMENTS:
        (told,) = people.told(environment)
        assert told["Subject"] == f"flight_delay in {environment.lower()}: no version is approved"
        assert f"./pushline approve flight_delay {live}" in told["Message"]
        duplicate(people.registry, environment)
    rest(people.registry)
    assert [people.told(environment) for environment in ENVIRONMENTS] == [[], []]
    assert (people.registry.live("staging"), people.registry.live()) == (live, live)
