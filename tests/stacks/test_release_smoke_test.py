"""The smoke test: what an answer has to be, and a test that was lost is made up for."""

from __future__ import annotations

import pytest

from stacks.deployment import Deployment
from tests.stacks.release_world import ENVIRONMENTS, World, failing, package_arn
from tests.stacks.state_machine import TaskFailed


@ENVIRONMENTS
def test_a_failed_smoke_test_rejects_the_version_and_puts_the_previous_one_back(deployment: Deployment) -> None:
    world = World(deployment, answer=TaskFailed("SageMakerRuntime.ModelErrorException", "could not parse row 1"))
    world.register(1, "Approved")
    world.live(1)
    world.register(2, "Approved")

    execution = world.reconcile()

    assert execution.status == "FAILED"
    assert (world.live_version, world.parameters) == (1, world.wanted_parameters(1))
    assert world.status(2) == "Rejected"
    assert "could not parse row 1" in execution.cause


def test_a_version_without_a_sample_request_does_not_stay_live(staging: World) -> None:
    staging.register(1, "PendingManualApproval", sample_request="")

    assert "no sample request" in staging.reconcile().cause
    assert staging.endpoint is None


@pytest.mark.parametrize("operation", ["getObject", "invokeEndpoint"])
def test_a_sample_request_or_an_answer_too_large_to_carry_is_a_failure(staging: World, operation: str) -> None:
    staging.register(1, "PendingManualApproval")
    staging.interrupt[operation] = failing("States.DataLimitExceeded", "larger than 262144 bytes")

    assert "larger than 262144 bytes" in staging.reconcile().cause
    assert (staging.status(1), staging.endpoint) == ("Rejected", None)


@pytest.mark.parametrize(("answer", "told"), [
    ('{"predictions": [0.42, 0.1]}', "another shape"), ('{"predictions": 0.42}', "another shape"),
    ('{"predictions": ["0.42"]}', "another shape"), ('{"prediction": [0.42]}', "another shape"),
    ('{"predictions": [NaN]}', "another shape"), ("0.42", "another shape"),
    ('{"predictions": [0.43]}', "differs"), ('{"predictions": [-0.42]}', "differs"),
])  # fmt: skip
def test_an_answer_that_is_not_the_recorded_one_rejects_the_version(production: World, answer: str, told: str) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.answer = answer

    execution = production.reconcile()

    assert told in execution.cause
    assert (production.status(2), production.live_version) == ("Rejected", 1)


@pytest.mark.parametrize("answer", ['{"predictions":[0.42000001]}', '{"predictions": [4.2e-1]}\n'])
def test_rounding_and_spelling_of_numbers_make_no_other_answer(production: World, answer: str) -> None:
    production.register(1, "Approved")
    production.answer = answer

    assert production.reconcile().status == "SUCCEEDED"


def test_numbers_are_compared_one_by_one(production: World) -> None:
    production.register(1, "Approved")
    production.recorded = '{"predictions": [1, 2.5, -3e-2, 100]}'
    production.answer = '{"predictions": [1.0, 2.5001, -0.03, 99]}'

    assert "differs" in production.reconcile().cause


def test_a_version_from_before_answers_were_recorded_can_still_be_rolled_back_to(production: World) -> None:
    production.register(1, "Approved", sample_answer="")

    assert production.reconcile().status == "SUCCEEDED"


def test_a_production_run_that_was_lost_between_update_and_smoke_test_is_made_up_for(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.tags.clear()

    execution = production.reconcile()

    assert execution.status == "SUCCEEDED"
    assert (production.updates, production.asked) == ([], 1)
    assert production.tags["pushline:smoke-tested"] == package_arn(1)
    production.reconcile()
    assert production.asked == 1, "once it has passed it is not repeated"


def test_a_smoke_test_that_is_made_up_for_and_fails_brings_back_the_newest_approved_version(production: World) -> None:
    for version in (1, 2):
        production.register(version, "Approved")
    production.live(2)
    production.tags.clear()
    production.answer = ""

    assert production.reconcile().status == "FAILED"
    assert production.status(2) == "Rejected"
    production.answer = production.recorded
    assert production.reconcile().status == "SUCCEEDED"
    assert production.live_version == 1


def test_people_are_told_when_the_live_version_fails_a_repeated_test_and_nothing_else_is_approved(
    production: World,
) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.tags.clear()
    production.answer = ""

    assert production.reconcile().status == "FAILED"
    assert production.reconcile().status == "SUCCEEDED", "the rejection starts it again"
    production.reconcile()

    failed, unapproved = production.told
    assert "The smoke test failed: the answer is empty." in failed["Message"]
    assert "if there is none, it stays" in failed["Message"]
    assert "What is live stays live" in unapproved["Message"]
    assert (production.status(1), production.live_version) == ("Rejected", 1)
