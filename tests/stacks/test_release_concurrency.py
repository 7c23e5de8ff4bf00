"""Two reconcilers at once: what one of them has tried, is trying or has said, the other does not do again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from contract.model import Serving
from stacks.deployment import deployments
from stacks.release_sample import ANSWER_ATTEMPTS, ANSWER_SECONDS
from stacks.release_steps import PATIENCE, POLL_SECONDS, WAIT
from tests.stacks.release_world import MODEL, World, failing, package_arn
from tests.stacks.state_machine import Execution, TaskFailed

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


@pytest.fixture
def manual(staging: World) -> World:
    staging.packages[2]["CustomerMetadataProperties"]["approval"] = "manual"
    return staging


def lost(world: World) -> World:
    """The execution that rolled version 2 out has ended before it tried it."""
    world.live(2)
    world.tags.clear()
    return world


def in_step(world: World, count: int = 2) -> list[Execution]:
    """So many executions at once, which take turns with each call, as duplicates of one event do."""
    ended: list[Execution] = []
    ring, turn, call = deque[threading.Thread](), threading.Condition(), world._call

    def wait_for_turn() -> None:
        turn.wait_for(lambda: ring[0] is threading.current_thread())

    def step(resource: str, arguments: dict[str, Any]) -> Any:
        try:
            return call(resource, arguments)
        finally:
            ring.rotate(-1)
            turn.notify_all()
            wait_for_turn()

    def reconcile(name: str) -> None:
        with turn:
            wait_for_turn()
            try:
                ended.append(world.reconcile(name))
            finally:
                ring.remove(threading.current_thread())
                turn.notify_all()

    ring.extend(threading.Thread(target=reconcile, args=(f"run-{number}",)) for number in range(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "_call", step)
        for thread in (threads := [*ring]):
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ended) == count
    return ended


def test_of_executions_that_find_a_new_version_one_rolls_it_out_tries_it_and_asks(manual: World) -> None:
    executions = in_step(manual, 3)

    assert [execution.status for execution in executions] == ["SUCCEEDED"] * 3
    assert sorted(execution.output["reason"] for execution in executions) == ["rolled out", *["was live already"] * 2]
    assert (manual.asked, len(manual.told), attempts(manual, 2)) == (1, 1, 1)


def test_a_failed_smoke_test_is_told_once_by_who_rolled_the_version_out(manual: World) -> None:
    manual.answer = ""

    executions = in_step(manual)

    assert sorted(execution.status for execution in executions) == ["FAILED", "SUCCEEDED"]
    (message,) = manual.told
    assert "The smoke test failed" in message["Message"]
    assert "It runs until" not in message["Message"]
    assert (manual.status(2), manual.live_version) == ("Rejected", 1)


def test_a_lost_release_is_made_up_for_once(manual: World) -> None:
    executions = in_step(lost(manual))

    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    assert (manual.asked, len(manual.told)) == (1, 1)


def test_one_execution_tells_that_nothing_is_approved(staging: World) -> None:
    for version in (1, 2):
        staging.decide(version, "Rejected")

    executions = in_step(staging, 3)

    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    assert len(staging.told) == 1


def test_a_compared_shadow_is_asked_about_once(manual: World) -> None:
    manual.deployment = deployments(SHADOWED)[0]
    manual.parameters = manual.wanted_parameters(2)
    manual.live(2)
    manual.packages[2]["ModelLifeCycle"] = {"Stage": "Shadow", "StageStatus": "Compared", "StageDescription": "-"}

    executions = in_step(manual)

    assert {execution.status for execution in executions} == {"SUCCEEDED"}
    assert len(manual.told) == 1


def test_an_answer_from_a_queue_is_waited_for_as_long_as_it_may_take() -> None:
    world = World(deployments(MODEL.model_copy(update={"serving": Serving(endpoint="async")}))[1])
    world.register(1, "Approved")
    world.live(1)
    world.tags.clear()
    rounds = PATIENCE + ANSWER_SECONDS * ANSWER_ATTEMPTS // POLL_SECONDS
    later(world, "listTags", rounds, lambda: world.tags.update({"pushline:smoke-tested": package_arn(1)}))

    assert world.reconcile().status == "SUCCEEDED"
    assert world.asked == 0


def test_it_waits_for_a_running_stack_operation_and_then_decides_anew(production: World) -> None:
    production.register(1, "Approved")
    production.stack_status = "UPDATE_IN_PROGRESS"

    def newer() -> None:
        production.register(2, "Approved")
        production.stack_status = "UPDATE_COMPLETE"

    production.interrupt["describeStacks"] = lambda: production.interrupt.update(listModelPackages=newer)

    execution = production.reconcile()

    assert "Wait, then look at the registry anew" in execution.states
    assert execution.status == "SUCCEEDED"
    assert [update["ModelPackageArn"] for update in production.updates] == [package_arn(2)]


@pytest.mark.parametrize(("error", "cause"), [
    ("CloudFormation.CloudFormationException", "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated."),
    ("CloudFormation.TokenAlreadyExistsException", "A client request token already exists."),
], ids=["another's", "its own, whose answer was lost"])  # fmt: skip
def test_an_update_that_meets_another_one_waits_and_decides_anew(production: World, error: str, cause: str) -> None:
    production.register(1, "Approved")
    production.interrupt["updateStack"] = failing(error, cause)

    execution = production.reconcile()

    assert (execution.status, production.live_version) == ("SUCCEEDED", 1)
    assert production.status(1) == "Approved"


def test_an_update_that_somebody_else_has_just_made_counts_as_done(production: World) -> None:
    production.register(1, "Approved")

    def updated() -> None:
        production.live(1)
        production.tags.clear()

    production.interrupt["updateStack"] = updated

    execution = production.reconcile()

    assert (execution.status, production.updates) == ("SUCCEEDED", [])
    assert "Send the sample request" in execution.states
    assert execution.output["reason"] == "was live already"


def test_of_two_executions_only_the_one_whose_update_is_accepted_reports_a_release(production: World) -> None:
    production.register(1, "Approved")

    def the_other_releases_it() -> None:
        assert production.reconcile().output["reason"] == "rolled out"
        raise TaskFailed("CloudFormation.CloudFormationException", "Stack:arn is in UPDATE_IN_PROGRESS state")

    production.interrupt["updateStack"] = the_other_releases_it

    execution = production.reconcile()

    assert (execution.status, execution.output["reason"]) == ("SUCCEEDED", "was live already")
    assert len(production.updates) == 1
