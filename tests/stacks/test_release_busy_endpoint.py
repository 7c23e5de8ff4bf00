"""An endpoint that is scaling takes no update: the update waits for it, and no version is blamed for the moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contract.model import Rollout
from stacks.deployment import deployments
from stacks.release_busy_endpoint import ROUNDS, SECONDS, WAIT_FOR_ENDPOINT
from stacks.release_steps import DOUBTS
from stacks.release_workflow import ROLLOUTS, release_workflow
from stacks.serving_rollout import START_SECONDS, longest_seconds
from tests.stacks.release_world import BUSY, MODEL, PRODUCTION, World, package_arn
from tests.stacks.state_machine import Execution

FOR_EVER = 500
LOOKS = 2
"""How often each round of a release asks for the endpoint: to see what is live, and whether it is at rest."""
EVENTS = {"Task": 5, "Pass": 2, "Choice": 2, "Wait": 2, "Succeed": 2, "Fail": 1}
"""What each state adds to an execution's history."""
SHADOWED = MODEL.model_copy(update={"serving": MODEL.serving.model_copy(update={"shadow": True})})


@pytest.fixture
def world(production: World) -> World:
    """Version 1 is live, version 2 is to be released."""
    return with_two_versions(production)


def with_two_versions(world: World) -> World:
    world.register(1, "Approved")
    world.live(1)
    world.register(2, "Approved")
    return world


@pytest.fixture
def shadowed() -> World:
    """Version 1 is live in production, version 2 was accepted by staging as its shadow."""
    world = with_two_versions(World(deployments(SHADOWED)[1]))
    world.decide(2, "PendingManualApproval")
    world.packages[2]["ModelLifeCycle"] = {"Stage": "Staging", "StageStatus": "Accepted", "StageDescription": "-"}
    return world


def scales_as_the_update_begins(world: World, times: int = 1) -> None:
    """Too late to be seen before: CloudFormation makes model and endpoint config first."""

    def scale() -> None:
        world.scaling = 2
        if times > 1:
            scales_as_the_update_begins(world, times - 1)

    world.interrupt["updateStack"] = scale


def when_rejected(world: World, then: Callable[[], None]) -> None:
    world.answer = ""
    world.interrupt["updateModelPackage"] = then


def released(world: World, version: int) -> int:
    """How many updates asked for the version."""
    return sum(update["ModelPackageArn"] == package_arn(version) for update in world.updates)


def events(world: World, execution: Execution) -> int:
    states = release_workflow(world.deployment)["States"]
    return sum(EVENTS[states[name]["Type"]] for name in execution.states)


def test_a_release_waits_until_the_endpoint_has_scaled_and_is_done_with_one_update(world: World) -> None:
    world.scaling = 5

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (world.live_version, world.status(2), released(world, 2), world.told) == (2, "Approved", 1, [])
    assert WAIT_FOR_ENDPOINT in execution.states


def test_a_newer_version_that_is_approved_while_the_endpoint_scales_is_released_instead(world: World) -> None:
    world.scaling = 5
    world.interrupt["describeEndpoint"] = lambda: world.register(3, "Approved")

    assert world.reconcile().status == "SUCCEEDED"
    assert (world.live_version, released(world, 2)) == (3, 0)


def test_scaling_is_paused_at_once_and_what_was_under_way_is_waited_for_before_the_instance_type_changes(
    world: World,
) -> None:
    world.register(3, "Approved", serving_instance_type="ml.m6i.xlarge")
    world.scaling = 5
    scaled: list[int] = []
    world.interrupt["updateStack"] = lambda: scaled.append(world.scaling)

    assert world.reconcile().status == "SUCCEEDED"
    steps = [(update["InstanceType"], update["Autoscaling"]) for update in world.updates]
    assert steps == [("ml.m6i.large", "paused"), ("ml.m6i.xlarge", "paused"), ("ml.m6i.xlarge", "on")]
    assert scaled == [5]
    assert (world.live_version, world.status(3)) == (3, "Approved")


def test_an_update_that_met_a_scaling_endpoint_is_begun_again_and_nobody_is_blamed(world: World) -> None:
    scales_as_the_update_begins(world)

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (world.live_version, world.status(2), released(world, 2), world.told) == (2, "Approved", 2, [])
    assert execution.output["reason"] == "rolled out"


def test_who_met_a_scaling_endpoint_has_not_rolled_the_version_out_if_another_execution_does(world: World) -> None:
    scales_as_the_update_begins(world)

    def another_one_releases_it() -> None:
        world.scaling = 0
        assert world.reconcile("another").output["reason"] == "rolled out"

    world.interrupt["describeStackEvents"] = lambda: world.interrupt.update(listModelPackages=another_one_releases_it)

    assert world.reconcile().output["reason"] == "was live already"
    assert (world.live_version, world.asked, world.told) == (2, 1, [])


def test_an_endpoint_that_scales_at_each_update_stops_the_release_and_rejects_nothing(world: World) -> None:
    scales_as_the_update_begins(world, times=100)

    execution = world.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "ReleaseStopped")
    assert "Cannot update in-progress endpoint" in execution.cause
    assert (world.live_version, world.status(2), released(world, 2)) == (1, "Approved", DOUBTS + 1)
    assert len(world.told) == 1
    world.interrupt.clear()
    assert world.reconcile().status == "SUCCEEDED"
    assert world.live_version == 2


def test_a_rollback_that_met_the_scaling_endpoint_too_is_told_and_rejects_nothing(world: World) -> None:
    world.rolls_back_to = "UPDATE_ROLLBACK_FAILED"
    scales_as_the_update_begins(world)

    execution = world.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "ReleaseStopped")
    assert "(UPDATE_ROLLBACK_FAILED). FlightDelayStagingEndpoint Cannot update in-progress endpoint" in execution.cause
    assert (world.live_version, world.status(2), released(world, 2)) == (1, "Approved", 1)


def test_an_endpoint_that_never_comes_to_rest_stops_the_release_and_rejects_nothing(world: World) -> None:
    world.scaling = FOR_EVER

    execution = world.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "ReleaseStopped")
    assert "The endpoint is still Updating after 60 minutes." in execution.cause
    assert (world.live_version, world.status(2), world.updates, len(world.told)) == (1, "Approved", [], 1)
    assert execution.states.count(WAIT_FOR_ENDPOINT) * SECONDS == START_SECONDS


def test_an_endpoint_that_never_comes_to_rest_after_its_update_stops_the_release_and_rejects_nothing(
    world: World,
) -> None:
    world.bakes = 1
    world.interrupt["invokeEndpoint"] = lambda: setattr(world, "scaling", FOR_EVER)

    execution = world.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "ReleaseStopped")
    assert "The endpoint is still Updating after 60 minutes." in execution.cause
    assert (world.live_version, world.status(2)) == (2, "Approved")


def test_a_version_that_fails_by_itself_after_an_unlucky_update_is_rejected(world: World) -> None:
    world.broken = {2}
    scales_as_the_update_begins(world)

    execution = world.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "VersionFailed")
    assert (world.live_version, world.status(2), released(world, 2)) == (1, "Rejected", 2)
    assert "did not pass the ping health check" in world.packages[2]["ApprovalDescription"]


def test_an_endpoint_that_scales_after_a_version_failed_by_itself_does_not_excuse_it(world: World) -> None:
    world.broken = {2}
    world.interrupt["describeStackEvents"] = lambda: world._roll_back("another's", BUSY)

    assert world.reconcile().error == "VersionFailed"
    assert (world.status(2), released(world, 2)) == ("Rejected", 1)


def test_the_previous_version_is_put_back_once_the_endpoint_has_scaled(world: World) -> None:
    when_rejected(world, lambda: setattr(world, "scaling", 3))

    execution = world.reconcile()

    assert (execution.error, execution.states.count(WAIT_FOR_ENDPOINT)) == ("VersionFailed", 3)
    assert (world.live_version, world.status(2), released(world, 1)) == (1, "Rejected", 1)
    assert "not put back" not in execution.cause


def test_putting_back_is_begun_again_when_it_met_a_scaling_endpoint(world: World) -> None:
    when_rejected(world, lambda: scales_as_the_update_begins(world))

    execution = world.reconcile()

    assert execution.error == "VersionFailed"
    assert (world.live_version, world.status(2), released(world, 1)) == (1, "Rejected", 2)
    assert "not put back" not in execution.cause


def test_putting_back_may_be_as_unlucky_as_the_rollout_was(world: World) -> None:
    scales_as_the_update_begins(world, times=DOUBTS)
    when_rejected(world, lambda: scales_as_the_update_begins(world))

    assert "not put back" not in world.reconcile().cause
    assert (world.live_version, released(world, 2), released(world, 1)) == (1, DOUBTS + 1, 2)


def test_putting_back_that_fails_by_itself_after_an_unlucky_moment_is_told(world: World) -> None:
    def unlucky_and_broken() -> None:
        world.broken = {1}
        scales_as_the_update_begins(world)

    when_rejected(world, unlucky_and_broken)

    assert "It was not put back: the serving stack is in UPDATE_ROLLBACK_COMPLETE" in world.reconcile().cause
    assert released(world, 1) == 2


def test_putting_back_that_leaves_the_stack_stuck_is_told(world: World) -> None:
    world.rolls_back_to = "UPDATE_ROLLBACK_FAILED"
    when_rejected(world, lambda: scales_as_the_update_begins(world))

    assert "It was not put back: the serving stack is in UPDATE_ROLLBACK_FAILED" in world.reconcile().cause


def test_putting_back_has_an_hour_of_its_own_and_says_when_that_was_not_enough(world: World) -> None:
    world.scaling = LOOKS * ROUNDS
    when_rejected(world, lambda: setattr(world, "scaling", FOR_EVER))

    execution = world.reconcile()

    assert execution.error == "VersionFailed"
    assert "It was not put back: The endpoint is still Updating after 60 minutes." in execution.cause
    assert (world.live_version, world.status(2)) == (2, "Rejected")


def test_a_shadow_waits_for_a_scaling_endpoint_and_is_not_blamed_for_it(shadowed: World) -> None:
    shadowed.scaling = 3
    scales_as_the_update_begins(shadowed)

    execution = shadowed.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert shadowed.parameters["ShadowModelPackageArn"] == package_arn(2)
    assert (shadowed.live_version, shadowed.status(2), shadowed.told) == (1, "PendingManualApproval", [])


def test_a_shadow_is_taken_away_once_the_endpoint_has_scaled(shadowed: World) -> None:
    assert shadowed.reconcile().status == "SUCCEEDED"
    shadowed.decide(2, "Approved")
    shadowed.scaling = 3

    assert shadowed.reconcile().status == "SUCCEEDED"
    assert (shadowed.live_version, shadowed.parameters["ShadowModelPackageArn"]) == (2, "")
    assert {reason for _, reason in shadowed.outcomes} == {""}


def test_a_shadow_that_fails_by_itself_is_rejected(shadowed: World) -> None:
    shadowed.broken = {2}

    assert shadowed.reconcile().error == "VersionFailed"
    assert "did not pass the ping health check" in shadowed.packages[2]["ApprovalDescription"]
    assert (shadowed.live_version, shadowed.status(2), shadowed.status(1)) == (1, "Rejected", "Approved")


def test_the_longest_waits_and_the_longest_rollout_fit_into_a_history(shadowed: World) -> None:
    longest = Rollout(type="linear", percent=10, bake_minutes=36)
    deployment = replace(shadowed.deployment, rollout=longest)
    states = release_workflow(deployment)["States"]
    shadowed.deployment, shadowed.scaling = deployment, LOOKS * ROUNDS
    shadowed.decide(2, "Approved")
    shadowed.bakes = longest.minutes * 60 // states["Wait for the update"]["Seconds"]
    asks = iter(range(shadowed.bakes + 1))

    def fails_in_the_end() -> None:
        if next(asks) == shadowed.bakes:
            when_rejected(shadowed, lambda: setattr(shadowed, "scaling", ROUNDS))
        else:
            shadowed.interrupt["invokeEndpoint"] = fails_in_the_end

    shadowed.interrupt["invokeEndpoint"] = fails_in_the_end

    execution = shadowed.reconcile()

    assert (execution.error, shadowed.live_version) == ("VersionFailed", 1)
    assert execution.states.count(WAIT_FOR_ENDPOINT) == 2 * ROUNDS
    assert events(shadowed, execution) < 25_000


def test_an_execution_has_time_for_both_waits_besides_its_rollouts() -> None:
    rollouts = ROLLOUTS * longest_seconds(PRODUCTION.traffic)

    assert release_workflow(PRODUCTION)["TimeoutSeconds"] >= rollouts + 2 * ROUNDS * SECONDS
