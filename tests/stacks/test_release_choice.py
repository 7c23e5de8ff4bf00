"""Which version goes live: the newest that may, by what the registry says at that moment."""

from __future__ import annotations

from stacks.deployment import Deployment
from tests.stacks.release_world import ENVIRONMENTS, World


def test_staging_rolls_out_what_waits_for_approval_on_one_instance_tries_it_and_approves_it(staging: World) -> None:
    staging.register(1, "Approved")
    staging.register(2, "PendingManualApproval")

    execution = staging.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (staging.live_version, staging.status(2)) == (2, "Approved")
    assert staging.parameters == staging.wanted_parameters(2)
    assert staging.parameters["MinimumInstances"] == "1"
    assert execution.output == {"model": "flight_delay", "environment": "staging", "version": 2, "released": True,
                                "reason": "rolled out"}  # fmt: skip


def test_production_takes_the_newest_approved_version_and_the_size_that_travels_with_it(production: World) -> None:
    for version, status in enumerate(["Approved", "Approved", "Rejected", "PendingManualApproval"], start=1):
        production.register(version, status)

    execution = production.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert production.live_version == 2
    assert (production.parameters["MinimumInstances"], production.parameters["MaximumInstances"]) == ("2", "4")
    assert production.status(4) == "PendingManualApproval"


def test_the_newest_is_the_highest_number_not_the_highest_text(production: World) -> None:
    for version in (9, 10):
        production.register(version, "Approved")

    production.reconcile()

    assert production.live_version == 10


def test_a_version_behind_pages_of_others_is_found(production: World) -> None:
    production.page_size = 2
    production.register(1, "Approved")
    for version in range(2, 8):
        production.register(version, "Rejected")

    production.reconcile()

    assert production.live_version == 1


@ENVIRONMENTS
def test_when_nothing_may_go_live_what_is_live_stays_live(deployment: Deployment) -> None:
    world = World(deployment)
    world.register(1, "Rejected")
    world.live(1)

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED"
    assert (world.live_version, world.updates, execution.output["released"]) == (1, [], False)


@ENVIRONMENTS
def test_what_is_right_already_is_left_alone(deployment: Deployment) -> None:
    world = World(deployment)
    world.register(1, "Approved")
    world.live(1)

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED"
    assert (world.updates, world.told, execution.output["released"]) == ([], [], False)
    assert "Send the sample request" not in execution.states


def test_an_interrupted_release_is_tried_and_approved_without_a_second_update(staging: World) -> None:
    staging.register(1, "PendingManualApproval")
    staging.live(1)

    assert staging.reconcile().status == "SUCCEEDED"
    assert (staging.updates, staging.status(1)) == ([], "Approved")


def test_rejecting_the_live_version_brings_back_the_newest_approved_one(production: World) -> None:
    for version in (1, 2, 3):
        production.register(version, "Approved")
    production.live(3)
    production.packages[3]["ModelApprovalStatus"] = "Rejected"

    execution = production.reconcile()

    assert execution.status == "SUCCEEDED"
    assert production.live_version == 2


def test_a_rejection_during_the_rollout_is_not_overruled(staging: World) -> None:
    staging.register(1, "PendingManualApproval")
    staging.interrupt["invokeEndpoint"] = lambda: staging.packages[1].update(ModelApprovalStatus="Rejected")

    staging.reconcile()

    assert staging.status(1) == "Rejected"


def test_a_live_version_that_was_deleted_from_the_registry_gives_way_to_the_newest_approved(production: World) -> None:
    for version in (1, 2):
        production.register(version, "Approved")
    production.live(2)
    del production.packages[2]

    assert production.reconcile().status == "SUCCEEDED"
    assert production.live_version == 1


def test_the_only_version_stays_live_when_it_is_deleted_from_the_registry(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.packages.clear()

    assert production.reconcile().status == "SUCCEEDED"
    assert (production.live_version, len(production.told)) == (1, 1)


def test_a_version_deleted_while_it_is_looked_at_is_looked_for_anew(production: World) -> None:
    for version in (1, 2):
        production.register(version, "Approved")
    production.interrupt["describeModelPackage"] = lambda: production.packages.pop(2)

    assert production.reconcile().status == "SUCCEEDED"
    assert production.live_version == 1
