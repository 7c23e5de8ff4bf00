"""Two reconcilers at once: what one of them has tried, is trying or has said, the other does not do again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from config import load_settings
from contract import load_models
from stacks.deployment import deployments
from stacks.release_steps import PATIENCE, WAIT
from tests.conftest import ROOT
from tests.stacks.release_world import World, package_arn

MODEL = next(model for model in load_models(ROOT, load_settings().guardrails) if model.name == "flight_delay")
SHADOWED = MODEL.model_copy(update={"serving": MODEL.serving.model_copy(update={"shadow": True})})


@pytest.fixture
def staging() -> World:
    """Version 1 is live, version 2 waits for approval."""
    world = World(deployments(MODEL)[0])
    world.register(1, "Approved")
    world.live(1)
    world.register(2, "PendingManualApproval")
    return world


@pytest.fixture
def shadowed() -> World:
    """Version 1 is live in production, version 2 was accepted by staging as its shadow."""
    world = World(deployments(SHADOWED)[1])
    world.register(1, "Approved")
    world.live(1)
    world.register(2, "PendingManualApproval")
    world.packages[2]["ModelLifeCycle"] = {"Stage": "Staging", "StageStatus": "Accepted", "StageDescription": "-"}
    return world


def later(world: World, operation: str, calls: int, then: Callable[[], Any]) -> None:
    """`then` is done right before the `calls`-th call of `operation`."""
    world.interrupt[operation] = lambda: later(world, operation, calls - 1, then) if calls > 1 else then()


def attempts(world: World, version: int) -> int:
    return sum(package_arn(version) in update.values() for update in world.updates)


@pytest.mark.parametrize("world", ["staging", "shadowed"])
def test_a_version_that_has_just_rolled_back_is_not_tried_again_before_it_is_rejected(
    world: str, request: pytest.FixtureRequest
) -> None:
    found: World = request.getfixturevalue(world)
    found.rolled_back()
    later(found, "describeStacks", 3, lambda: found.decide(2, "Rejected"))

    execution = found.reconcile()

    assert execution.status == "SUCCEEDED"
    assert execution.states.count(WAIT) == 3
    assert (found.updates, found.live_version, found.told) == ([], 1, [])


@pytest.mark.parametrize("world", ["staging", "shadowed"])
def test_a_version_that_nobody_rejects_is_tried_again_in_the_end(world: str, request: pytest.FixtureRequest) -> None:
    found: World = request.getfixturevalue(world)
    found.rolled_back()

    execution = found.reconcile()

    assert (execution.status, execution.states.count(WAIT)) == ("SUCCEEDED", PATIENCE)
    assert attempts(found, 2) == 1


def test_a_version_registered_or_approved_again_after_another_one_failed_is_tried_at_once(staging: World) -> None:
    staging.rolled_back()
    staging.decide(2, "Rejected")
    staging.register(3, "PendingManualApproval")

    assert WAIT not in staging.reconcile().states
    assert staging.status(3) == "Approved"
    staging.rolled_back()
    staging.decide(3, "Rejected")
    staging.decide(2, "Approved")
    assert WAIT not in staging.reconcile().states
    assert staging.live_version == 2
