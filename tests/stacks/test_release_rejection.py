"""A version that fails is rejected, what was live before is put back, and people are told what went wrong."""

from __future__ import annotations

import pytest

from tests.stacks.release_world import World, failing


def test_a_version_whose_rollout_rolled_back_is_rejected_with_the_first_failure(staging: World) -> None:
    staging.register(1, "Approved")
    staging.live(1)
    staging.register(2, "PendingManualApproval")
    staging.broken = {2}

    execution = staging.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "VersionFailed")
    assert (staging.live_version, staging.status(2), len(staging.updates)) == (1, "Rejected", 1)
    assert "FlightDelayStagingEndpoint did not pass the ping health check" in staging.packages[2]["ApprovalDescription"]
    assert "Version 2 of flight_delay in staging failed and was rejected." in execution.cause
    assert execution.cause in staging.told[0]["Message"]
    assert staging.reconcile().status == "SUCCEEDED"
    assert len(staging.updates) == 1, "a rejected version is never tried again"


def test_it_is_rejected_before_the_stack_is_put_back_so_that_nobody_tries_it_again(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.answer = " "

    states = production.reconcile().states

    assert states.index("Reject the version") < states.index("Prepare to put the previous version back")


def test_a_failed_first_version_empties_the_parameters_again(staging: World) -> None:
    staging.register(1, "PendingManualApproval")
    staging.answer = ""

    assert staging.reconcile().status == "FAILED"
    assert (staging.endpoint, staging.parameters, staging.status(1)) == (None, staging.no_model, "Rejected")


def test_a_silent_rollback_of_the_endpoint_is_seen_and_the_stack_is_put_back(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.silent = {2}

    execution = production.reconcile()

    assert "rolled back silently" in execution.cause
    assert (production.status(2), production.parameters) == ("Rejected", production.wanted_parameters(1))


def test_a_version_that_does_not_say_how_to_serve_it_is_rejected_before_anything_is_touched(staging: World) -> None:
    staging.register(1, "PendingManualApproval", serving_instance_type="")

    assert staging.reconcile().status == "FAILED"
    assert (staging.updates, staging.status(1)) == ([], "Rejected")


def test_a_newer_version_that_went_live_meanwhile_is_not_put_back(staging: World) -> None:
    staging.register(1, "Approved")
    staging.live(1)
    staging.register(2, "PendingManualApproval")
    staging.answer = ""

    def another_execution_releases_3() -> None:
        staging.register(3, "Approved")
        staging.live(3)

    staging.interrupt["updateModelPackage"] = another_execution_releases_3

    assert staging.reconcile().status == "FAILED"
    assert (staging.status(2), staging.live_version) == ("Rejected", 3)


def test_what_failed_has_failed_even_if_nobody_can_be_told(staging: World) -> None:
    staging.register(1, "PendingManualApproval")
    staging.answer = ""

    staging.interrupt["publish"] = failing("SNS.SnsException", "no such topic")

    assert staging.reconcile().error == "VersionFailed"


def with_a_failing_second_version(world: World) -> World:
    world.register(1, "Approved")
    world.live(1)
    world.register(2, "Approved")
    world.answer = ""
    return world


def test_a_version_that_can_not_be_rejected_is_put_back_all_the_same(production: World) -> None:
    with_a_failing_second_version(production).interrupt["updateModelPackage"] = failing("SageMaker.X", "conflict")

    execution = production.reconcile()

    assert "It could not be rejected: conflict" in execution.cause
    assert production.live_version == 1


@pytest.mark.parametrize(("cause", "told"), [
    ("not authorized to perform UpdateStack", "It could not be put back"),
    ("Stack is in UPDATE_IN_PROGRESS state and can not be updated", "the answer is empty"),
])  # fmt: skip
def test_putting_back_waits_for_others_and_says_when_it_is_refused(production: World, cause: str, told: str) -> None:
    refuse = failing("CloudFormation.CloudFormationException", cause)
    # The second update of the execution is the one that puts the previous version back.
    with_a_failing_second_version(production).interrupt["updateModelPackage"] = (
        lambda: production.interrupt.update(updateStack=refuse))  # fmt: skip

    execution = production.reconcile()

    assert told in execution.cause
    assert production.live_version == (2 if "authorized" in cause else 1)
    assert production.status(2) == "Rejected"


def test_an_update_whose_putting_back_rolled_back_is_told(production: World) -> None:
    with_a_failing_second_version(production).interrupt["updateModelPackage"] = lambda: production.broken.add(1)

    assert "It was not put back: the serving stack is in UPDATE_ROLLBACK_COMPLETE" in production.reconcile().cause


def test_a_rollback_whose_events_can_not_be_read_is_still_a_rejection(staging: World) -> None:
    staging.register(1, "PendingManualApproval")
    staging.broken = {1}
    staging.interrupt["describeStackEvents"] = failing("States.DataLimitExceeded", "too large")

    assert "UPDATE_ROLLBACK_COMPLETE" in staging.reconcile().cause
    assert staging.status(1) == "Rejected"


def test_an_endpoint_that_is_not_in_service_after_the_update_is_a_failure(production: World) -> None:
    production.register(1, "Approved")
    production.endpoint_status = "OutOfService"

    assert "The endpoint is OutOfService after the update." in production.reconcile().cause
    assert (production.status(1), production.parameters) == ("Rejected", production.no_model)


def test_a_stack_that_can_not_be_read_after_a_failure_is_told(production: World) -> None:
    with_a_failing_second_version(production).interrupt["updateModelPackage"] = (
        lambda: production.interrupt.update(describeStacks=failing("CloudFormation.X", "gone")))  # fmt: skip

    assert "The serving stack could not be read: gone" in production.reconcile().cause


def test_a_version_deleted_during_its_rollout_is_put_back_from_its_artefact(production: World) -> None:
    for version in (1, 2):
        production.register(version, "Approved")
    production.live(1)
    production.answer = ""
    production.interrupt["updateModelPackage"] = failing("SageMaker.SageMakerException", "does not exist")

    assert "could not be rejected" in production.reconcile().cause
    assert production.live_version == 1


def test_an_alarm_that_rolled_back_is_the_reason_of_the_rejection(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.silent = {2}

    production.reconcile()

    assert "The alarm rang." in production.packages[2]["ApprovalDescription"]
