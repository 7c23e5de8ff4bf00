"""Between two looks another execution may have updated the serving stack: each judges its own update by its own events,
and never a version by what another one did."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stacks.release_steps import OWN_DOUBTS
from tests.stacks.release_world import UNHEALTHY, World, package_arn
from tests.stacks.state_machine import TaskFailed
from tests.stacks.test_release_concurrency import in_step, later

UPDATE_ENDED, ENDPOINT_READ_BACK = ("describeStacks", 2), ("describeEndpoint", 3)
"""The calls that tell an execution what its first update has done."""


@pytest.fixture
def world(production: World) -> World:
    """Version 1 is live, version 2 is to be released."""
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    return production


def rejected_elsewhere(world: World) -> Callable[[], None]:
    """A person has rejected version 2, and the execution that this started has put version 1 back."""

    def reject() -> None:
        world.decide(2, "Rejected")
        assert world.reconcile("another").status == "SUCCEEDED"
        assert world.live_version == 1

    return reject


def changed_by_hand(world: World) -> None:
    """An update of nothing but the largest number of instances."""
    target = world.parameters | {"MaximumInstances": "3"}
    pairs = [{"ParameterKey": name, "ParameterValue": value} for name, value in target.items()]
    world._update_stack({"UsePreviousTemplate": True, "Parameters": pairs, "ClientRequestToken": "a-person",
                         "RoleARN": "arn:aws:iam::000000000000:role/update"})  # fmt: skip


def test_a_version_is_not_blamed_for_the_next_ones_update_that_rolled_back(world: World) -> None:
    def newer_fails() -> None:
        world.broken = {3}
        world.register(3, "Approved")
        assert world.reconcile("another").error == "VersionFailed"

    later(world, *UPDATE_ENDED, newer_fails)

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (world.live_version, world.status(2), world.status(3)) == (2, "Approved", "Rejected")
    assert len(world.told) == 1


def test_a_version_whose_update_rolled_back_is_rejected_for_it_though_another_update_has_followed(
    world: World,
) -> None:
    world.broken = {2}
    later(world, *UPDATE_ENDED, lambda: changed_by_hand(world))

    execution = world.reconcile()

    assert (execution.error, world.live_version, world.status(2)) == ("VersionFailed", 1, "Rejected")
    reason = world.packages[2]["ApprovalDescription"]
    assert reason.startswith("The update of the serving stack rolled back (UPDATE_ROLLBACK_COMPLETE). ")
    assert UNHEALTHY.replace("\n", " ") in reason
    assert sum(package_arn(2) in update.values() for update in world.updates) == 1


@pytest.mark.parametrize("moment", [UPDATE_ENDED, ENDPOINT_READ_BACK], ids=["after the update", "at the endpoint"])
def test_a_version_that_was_rejected_and_replaced_meanwhile_is_not_judged_again(
    world: World, moment: tuple[str, int]
) -> None:
    later(world, *moment, rejected_elsewhere(world))

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (world.live_version, world.status(2), world.told) == (1, "Rejected", [])
    assert "ApprovalDescription" not in world.packages[2]


def test_what_an_execution_doubted_before_its_own_update_does_not_make_it_judge_sooner(world: World) -> None:
    """It has seen another one's silent rollback twice, and then releases the version itself."""
    live = world.parameters
    world.parameters = world.wanted_parameters(2)
    later(world, "describeStacks", OWN_DOUBTS + 1, lambda: setattr(world, "parameters", live))
    looks_before_its_update = OWN_DOUBTS + ENDPOINT_READ_BACK[1]
    later(world, "describeEndpoint", looks_before_its_update, rejected_elsewhere(world))

    assert world.reconcile().status == "SUCCEEDED"
    assert (world.live_version, world.status(2), world.told) == (1, "Rejected", [])
    assert "ApprovalDescription" not in world.packages[2]


def test_a_first_version_that_was_rejected_and_taken_away_meanwhile_is_not_judged_again(production: World) -> None:
    def taken_away() -> None:
        production.decide(1, "Rejected")
        production.parameters, production.endpoint = production.no_model, None

    production.register(1, "Approved")
    production.interrupt["describeEndpoint"] = taken_away

    assert production.reconcile().status == "SUCCEEDED"
    assert "ApprovalDescription" not in production.packages[1]
    assert production.told == []


def test_what_was_put_back_is_not_called_otherwise_for_another_update_that_rolled_back(world: World) -> None:
    def next_one_fails() -> None:
        world.broken = {3}
        world.register(3, "Approved")
        assert world.reconcile("another").error == "VersionFailed"

    world.answer = ""
    # After the rejection: what does it carry now, and how does putting it back stand?
    world.interrupt["updateModelPackage"] = lambda: later(world, "describeStacks", 2, next_one_fails)

    execution = world.reconcile()

    assert (execution.error, world.live_version, world.status(2)) == ("VersionFailed", 1, "Rejected")
    assert "not put back" not in execution.cause


def test_of_executions_that_see_an_endpoint_roll_back_unseen_the_one_that_tried_the_version_says_so(
    world: World,
) -> None:
    world.silent = {2}

    executions = in_step(world, 3)

    assert sorted(execution.error for execution in executions) == ["", "", "VersionFailed"]
    assert (world.live_version, world.status(2), len(world.told)) == (1, "Rejected", 1)
    assert "rolled back silently" in world.packages[2]["ApprovalDescription"]


def test_a_version_is_not_judged_by_the_answer_of_the_one_that_has_replaced_it(world: World) -> None:
    def newer_goes_live() -> None:
        world.register(3, "Approved")
        assert world.reconcile("another").status == "SUCCEEDED"
        world.answer = '{"predictions": [7.0]}'

    world.interrupt["invokeEndpoint"] = newer_goes_live

    execution = world.reconcile()

    assert (execution.status, execution.output["version"]) == ("SUCCEEDED", 3)
    assert (world.live_version, world.status(2), world.told) == (3, "Approved", [])


def test_an_answer_that_came_while_the_endpoint_changed_is_asked_for_again(world: World) -> None:
    def scales_and_stumbles() -> None:
        world.scaling = 2
        raise TaskFailed("SageMakerRuntime.ModelErrorException", "the container ended")

    world.interrupt["invokeEndpoint"] = scales_and_stumbles

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (world.live_version, world.status(2), world.asked) == (2, "Approved", 1)
