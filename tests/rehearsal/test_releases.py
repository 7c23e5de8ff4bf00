"""Releases of tiny models in the whole rehearsal: the synthesized reconciler, stacks and roles; hands; kills."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from rehearsal import server
from rehearsal.assembly import deploy
from rehearsal.traffic import Tally, Traffic
from tests.conftest import Assembly
from tests.rehearsal.daemon import kept, running
from tests.rehearsal.registry import GOOD, GROUP, REQUEST, Registry, patient
from tests.rehearsal.serving import gated, held
from tests.rehearsal.waiting import until

STACK, ENDPOINT, TIME_SCALE = "FlightDelay-Serving-Production", f"{GROUP}-production", 120
REQUESTS, RATE = 1000, 120
OLDEST = 1
WAIT = "Wait, then look at the registry anew"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Iterator[Registry]:
    """The synthesized stacks, with one version live that scales between two and three instances."""
    with running(tmp_path_factory.mktemp("releases") / "state", time_scale=TIME_SCALE) as at:
        deploy(at, patient(assembly, tmp_path_factory.mktemp("patient") / "cdk.out"), Console(quiet=True))
        registry = Registry(at)
        registry.settle(registry.register(instances=(2, 3)), "Approved")
        yield registry


def instances(registry: Registry) -> int:
    return int(registry.endpoint()["ProductionVariants"][0]["CurrentInstanceCount"])


def steady(registry: Registry) -> int:
    """Wait until autoscaling leaves the endpoint alone: in service, with the fewest instances that its version asks
    for; the version that is live. One that comes back takes its minimum with it only after it is live."""

    def look() -> int:
        fewest = [target["MinCapacity"] for target in registry.targets()]
        return registry.live() if [instances(registry)] == fewest else 0

    return int(until(look))


def waiting(go: Path) -> str:
    """A version whose servers come up in production once that file is there."""
    return gated(go, GOOD, f"/{ENDPOINT}/")


def test_production_scales_as_the_version_asks(registry: Registry) -> None:
    (target,) = registry.targets()
    assert (target["ResourceId"], target["MinCapacity"], target["MaxCapacity"]) == (
        f"endpoint/{ENDPOINT}/variant/AllTraffic", 2, 3)  # fmt: skip


def test_another_instance_type_goes_autoscaling_off_change_on(registry: Registry) -> None:
    done = len(scaling_calls(registry))
    version = registry.register(instances=(2, 3), instance_type="ml.m6i.xlarge")
    registry.settle(version, "Approved")
    off, change, on = "DeregisterScalableTarget", "UpdateEndpoint", "RegisterScalableTarget"
    assert scaling_calls(registry)[done:] == [off, change, on]
    assert registry.parameters()["InstanceType"] == "ml.m6i.xlarge"
    assert len(registry.targets()) == 1


def test_a_raised_minimum_takes_effect(registry: Registry) -> None:
    kind = registry.parameters()["InstanceType"]
    registry.settle(registry.register(instances=(3, 4), instance_type=kind), "Approved")
    until(lambda: instances(registry) == 3)
    assert [target["MinCapacity"] for target in registry.targets()] == [3]


def test_no_request_fails_and_only_approved_versions_answer_while_versions_come_and_go(registry: Registry) -> None:
    before, kind = steady(registry), registry.parameters()["InstanceType"]
    with asking(registry) as rollout:
        better = registry.register(instances=(2, 3), instance_type=kind)
        registry.settle(better, "Approved")
    with asking(registry) as refusal:
        refused = registry.register(instances=(2, 3), instance_type=kind, approval="manual")
        until(lambda: registry.live("staging") == refused and registry.rests())
        registry.decide(refused, "Rejected")
        registry.settle(better, "Approved")
    with asking(registry) as rollback:
        registry.decide(better, "Rejected")
        registry.settle(before, "Approved")
    tallies = (rollout, refusal, rollback)
    assert [(tally.failed, tally.errors[:3]) for tally in tallies] == [(0, [])] * 3
    assert all(tally.sent >= REQUESTS for tally in tallies)
    answered = [{int(arn.rpartition("/")[2]) for arn in tally.answers} for tally in tallies]
    assert answered == [{before, better}, {better}, {before, better}]


@contextmanager
def asking(registry: Registry) -> Iterator[Tally]:
    """At least REQUESTS requests to production, RATE of them a second, until the block has ended."""
    with Traffic(registry.url(), REQUEST.encode(), "application/json", per_second=RATE, workers=8) as tally:
        yield tally
        until(lambda: tally.sent >= REQUESTS)


def test_an_endpoint_that_was_deleted_by_hand_is_made_again(registry: Registry) -> None:
    live = steady(registry)
    registry.at.client("sagemaker").delete_endpoint(EndpointName=ENDPOINT)
    until(lambda: registry.live() == 0)
    wake(registry)
    registry.settle(live, "Approved")
    assert len(registry.targets()) == 1


def test_a_release_waits_for_a_running_deployment_of_its_stack(registry: Registry, tmp_path: Path) -> None:
    """Somebody updates the stack to another version, as a `cdk deploy` might; the reconciler's update comes after."""
    go = tmp_path / "go"
    by_hand = registry.register(waiting(go), instances=(2, 3), status="Rejected")
    steady(registry)
    deploy_by_hand(registry, by_hand)
    before = executions(registry)
    version = registry.register(instances=(2, 3), status="Approved")
    first = until(lambda: since(registry, before))[-1]
    until(lambda: WAIT in states_of(registry, first["executionArn"]))
    assert not settled("Production", registry)
    go.touch()
    registry.settle(version, "Approved")
    assert outcomes(registry, before) == {"SUCCEEDED"}


def test_a_deployment_during_a_release_is_refused_and_breaks_nothing(registry: Registry, tmp_path: Path) -> None:
    go = tmp_path / "go"
    steady(registry)
    before = executions(registry)
    version = registry.register(waiting(go), instances=(2, 3), status="Approved")
    until(lambda: not settled("Production", registry))
    for deploys in (deploy_by_hand, make_change_set):
        with pytest.raises(ClientError, match="is in UPDATE_IN_PROGRESS state and can not be updated"):
            deploys(registry, OLDEST)
    assert not settled("Production", registry)
    go.touch()
    registry.settle(version, "Approved")
    assert outcomes(registry, before) == {"SUCCEEDED"}


def deploy_by_hand(registry: Registry, version: int) -> None:
    """Update the stack to what it would be with that version."""
    stacks = registry.at.client("cloudformation")
    stacks.update_stack(StackName=STACK, UsePreviousTemplate=True, Parameters=carrying(registry, version))


def make_change_set(registry: Registry, version: int) -> None:
    """What the CDK's command line asks for first."""
    stacks = registry.at.client("cloudformation")
    stacks.create_change_set(StackName=STACK, ChangeSetName="by-hand", UsePreviousTemplate=True,
                             Parameters=carrying(registry, version))  # fmt: skip


def carrying(registry: Registry, version: int) -> list[dict[str, str]]:
    """The stack's parameters with another version."""
    package = registry.package(version)
    (container,) = package["InferenceSpecification"]["Containers"]
    wanted = registry.parameters() | {
        "ModelPackageArn": package["ModelPackageArn"], "ModelDataUrl": container["ModelDataUrl"]}  # fmt: skip
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in wanted.items()]


def test_a_live_package_that_is_deleted_gives_way_to_the_newest_approved(registry: Registry) -> None:
    before = steady(registry)
    version = registry.register(instances=(2, 3))
    registry.settle(version, "Approved")
    registry.at.client("sagemaker").delete_model_package(ModelPackageName=registry.package(version)["ModelPackageArn"])
    wake(registry)
    registry.settle(before, "Approved")
    assert registry.live("staging") == before


def test_nothing_was_denied(registry: Registry) -> None:
    assert [row for row in audited(registry) if row["decision"] != "Allow"] == []


def test_a_stack_that_settled_just_before_a_kill_keeps_its_endpoint(registry: Registry) -> None:
    live = steady(registry)
    version = registry.register(instances=(2, 3))
    until(lambda: registry.live("staging") == version and settled("Staging", registry))
    # State files follow within a second, or later on a busy machine.
    until(lambda: saved("Staging", registry, version, "UPDATE_COMPLETE"))
    kill_and_start(registry)
    until(lambda: serves(registry))
    assert (registry.live("staging"), settled("Staging", registry)) == (version, True)
    wake(registry)
    registry.settle(version, "Approved")
    assert registry.package(live)["ModelApprovalStatus"] == "Approved"


def test_a_release_that_is_killed_while_its_fleet_starts_is_told_and_made_up_for(
    registry: Registry, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    steady(registry)
    before = registry.endpoint()["EndpointConfigName"]
    version = registry.register(waiting(go), instances=(2, 3))
    until(lambda: registry.endpoint()["EndpointStatus"] == "Updating")
    began = [row["executionArn"] for row in executions(registry) if row["status"] == "RUNNING"]
    kept(registry.at, "stepfunctions", *began)
    until(lambda: saved("Production", registry, version, "UPDATE_IN_PROGRESS"))
    killed = kill_and_start(registry)
    until(lambda: serves(registry) and rolled_back(registry, killed))
    told = [registry.at.client("stepfunctions").describe_execution(executionArn=arn) for arn in began]
    lost = ("FAILED", "the execution was lost when the rehearsal stopped")
    assert lost in [(one["status"], one.get("cause")) for one in told], "the one that released; others only looked"
    assert registry.endpoint()["EndpointConfigName"] == before
    go.touch()
    with asking(registry) as tally:
        wake(registry)
        registry.settle(version, "Approved")
    assert (tally.failed, tally.errors[:3]) == (0, [])


def test_a_kill_between_an_endpoints_switch_and_its_stacks_end_leaves_both_on_one_version(
    registry: Registry, tmp_path: Path
) -> None:
    """The stack goes back to what it was, and takes the endpoint, which had switched already, with it."""
    go, answer = tmp_path / "go", tmp_path / "answer"
    registry.settle(registry.register(held(answer, GOOD), instances=(2, 3)), "Approved")
    steady(registry)
    before = registry.endpoint()["EndpointConfigName"]
    version = registry.register(waiting(go), instances=(2, 3))
    until(lambda: registry.endpoint()["EndpointStatus"] == "Updating")
    with by_itself(registry), in_flight(registry.url(), answer):
        go.touch()
        until(lambda: registry.endpoint()["EndpointConfigName"] != before)
        # What the old fleet still answers keeps the update from its end.
        until(lambda: saved("Production", registry, version, "UPDATE_IN_PROGRESS"))
        assert not settled("Production", registry)
        killed = kill_and_start(registry)
        until(lambda: rolled_back(registry, killed))
        assert settled("Production", registry)
        assert registry.endpoint()["EndpointConfigName"] == before
    with asking(registry) as tally:
        wake(registry)
        registry.settle(version, "Approved")
    assert (tally.failed, tally.errors[:3]) == (0, [])


@contextmanager
def in_flight(address: str, answer: Path) -> Iterator[None]:
    """A request that a `held` version has begun with, and answers when the block has ended, if it lives so long."""

    def ask() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{address}/invocations", json=[99], timeout=70)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            until(answer.with_name("asked").exists)
            yield
        finally:
            answer.touch()
    assert asking.result() is None


@contextmanager
def by_itself(registry: Registry) -> Iterator[None]:
    """Production's reconciler does not look every hour: nobody but the stack itself makes up for a kill."""
    rules = registry.at.client("events").list_rules()["Rules"]
    (name,) = [rule["Name"] for rule in rules if rule["Name"].startswith("FlightDelay-Release-Production-SelfHeal")]
    registry.at.client("events").disable_rule(Name=name)
    kept(registry.at, "eventbridge", "DISABLED")
    try:
        yield
    finally:
        registry.at.client("events").enable_rule(Name=name)


def settled(environment: str, registry: Registry) -> bool:
    stacks = registry.at.client("cloudformation")
    (stack,) = stacks.describe_stacks(StackName=STACK.replace("Production", environment))["Stacks"]
    return not stack["StackStatus"].endswith("_IN_PROGRESS")


def saved(environment: str, registry: Registry, version: int, status: str) -> bool:
    """Whether the state files, too, have a stack in that status with that version."""
    name, arn = STACK.replace("Production", environment), registry.package(version)["ModelPackageArn"]
    found: list[dict[str, Any]] = []
    content = (registry.at.state_dir / "ministack" / "cloudformation.json").read_text()
    json.loads(content, object_hook=lambda made: found.append(made) or made)
    return any(made.get("StackName") == name and made.get("StackStatus") == status
               and arn in json.dumps(made["Parameters"]) for made in found)  # fmt: skip


def rolled_back(registry: Registry, since: float) -> bool:
    """Whether production's stack has gone back to what it was since then, whatever has become of it afterwards."""
    events = registry.at.client("cloudformation").describe_stack_events(StackName=STACK)["StackEvents"]
    return any((one["LogicalResourceId"], one["ResourceStatus"]) == (STACK, "UPDATE_ROLLBACK_COMPLETE")
               and one["Timestamp"].timestamp() >= since for one in events)  # fmt: skip


def kill_and_start(registry: Registry) -> float:
    """When it was killed."""
    killed = time.time()
    os.kill(registry.at.pid, signal.SIGKILL)
    server._reap(registry.at.state_dir)
    registry.at = server.up(registry.at.state_dir, port=0, time_scale=TIME_SCALE)
    return killed


def serves(registry: Registry) -> bool:
    # What is in service waits for its fleet.
    return httpx.get(f"{registry.url()}/ping", timeout=70).status_code == 200


def audited(registry: Registry) -> list[dict[str, Any]]:
    lines = (registry.at.state_dir / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def scaling_calls(registry: Registry) -> list[str]:
    """What was called about production's autoscaling and rollouts, in order."""
    wanted = {"DeregisterScalableTarget", "RegisterScalableTarget", "UpdateEndpoint"}
    return [action for row in audited(registry) if (action := row["action"].rpartition(":")[2]) in wanted
            and ("scalable-target" in row["resource"] or row["resource"].endswith(f"endpoint/{ENDPOINT}"))]  # fmt: skip


def executions(registry: Registry) -> list[dict[str, Any]]:
    """Production's, the newest first."""
    machine = registry.reconciler("Production")
    found = registry.at.client("stepfunctions").list_executions(stateMachineArn=machine, maxResults=100)
    return list(found["executions"])


def since(registry: Registry, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Production's executions that have begun meanwhile, the newest first."""
    known = {row["executionArn"] for row in before}
    return [row for row in executions(registry) if row["executionArn"] not in known]


def outcomes(registry: Registry, before: list[dict[str, Any]]) -> set[str]:
    """How those have ended, once none of them runs: one more may have begun to look."""

    def look() -> set[str]:
        found = {row["status"] for row in since(registry, before)}
        return set() if "RUNNING" in found else found

    return set(until(look))


def states_of(registry: Registry, execution: str) -> list[str]:
    """The states that an execution has entered, in order."""
    pages = registry.at.client("stepfunctions").get_paginator("get_execution_history")
    return [event["stateEnteredEventDetails"]["name"] for page in pages.paginate(executionArn=execution)
            for event in page["events"] if "stateEnteredEventDetails" in event]  # fmt: skip


def wake(registry: Registry) -> None:
    """What the hourly schedule does."""
    for environment in ("Staging", "Production"):
        registry.at.client("stepfunctions").start_execution(stateMachineArn=registry.reconciler(environment))
