"""A shadow, from staging's acceptance to the comparison that approval waits for, run expression by expression."""

from __future__ import annotations

import json

import pytest

from stacks.deployment import deployments
from stacks.release_workflow import release_workflow
from tests.stacks.release_world import MODEL, World, failing, package_arn

SHADOWED = MODEL.model_copy(update={"serving": MODEL.serving.model_copy(update={"shadow": True})})
STAGING, PRODUCTION = deployments(SHADOWED)

ACCEPTED = {"Stage": "Staging", "StageStatus": "Accepted", "StageDescription": "It answered."}
COMPARED = {"Stage": "Shadow", "StageStatus": "Compared", "StageDescription": "3.0 % of the answers differ"}


@pytest.fixture
def staging() -> World:
    world = World(STAGING)
    world.register(1, "Approved")
    world.register(2, "PendingManualApproval")
    return world


@pytest.fixture
def production() -> World:
    """Version 1 is live, version 2 was accepted by staging."""
    world = World(PRODUCTION)
    world.register(1, "Approved")
    world.register(2, "PendingManualApproval")
    world.live(1)
    world.packages[2]["ModelLifeCycle"] = ACCEPTED
    return world


def shadow_of(world: World) -> str:
    return world.parameters["ShadowModelPackageArn"]


def test_staging_hands_an_accepted_version_on_and_does_not_approve_it_yet(staging: World) -> None:
    assert staging.reconcile().status == "SUCCEEDED"
    assert staging.status(2) == "PendingManualApproval"
    assert staging.packages[2]["ModelLifeCycle"]["StageStatus"] == "Accepted"
    asked = staging.asked
    staging.reconcile()
    assert staging.status(2) == "PendingManualApproval"
    assert staging.asked == asked + 1


def test_staging_approves_once_the_shadow_was_compared_and_says_how(staging: World) -> None:
    staging.reconcile()
    staging.packages[2]["ModelLifeCycle"] = COMPARED
    assert staging.reconcile().status == "SUCCEEDED"
    assert staging.status(2) == "Approved"
    assert "3.0 % of the answers differ" in staging.packages[2]["ApprovalDescription"]


def test_people_are_asked_once_and_are_told_what_the_shadow_answered(staging: World) -> None:
    staging.packages[2]["CustomerMetadataProperties"]["approval"] = "manual"
    staging.reconcile()
    assert staging.told == []
    staging.packages[2]["ModelLifeCycle"] = COMPARED
    for _ in range(3):
        assert staging.reconcile().status == "SUCCEEDED"
    (message,) = staging.told
    assert "As the shadow of production: 3.0 % of the answers differ" in message["Message"]
    assert staging.packages[2]["ModelLifeCycle"]["StageStatus"] == "Reported"
    assert staging.status(2) == "PendingManualApproval"


def test_a_first_version_has_nothing_to_stand_beside_and_is_approved_at_once() -> None:
    world = World(STAGING)
    world.register(1, "PendingManualApproval")
    assert world.reconcile().status == "SUCCEEDED"
    assert world.status(1) == "Approved"


def test_production_puts_up_the_accepted_version_waits_and_compares(production: World) -> None:
    execution = production.reconcile()
    assert execution.status == "SUCCEEDED", execution.cause
    assert (production.live_version, shadow_of(production)) == (1, package_arn(2))
    (update,) = production.updates
    assert update["Rollout"] == "at_once"
    assert update["ModelPackageArn"] == package_arn(1)
    (job,) = production.jobs
    assert [found["InputName"] for found in job["ProcessingInputs"]] == ["challenger", "production-0", "shadow-1"]
    assert job["ProcessingInputs"][1]["S3Input"]["S3Uri"] == (
        "s3://traffic/capture/flight-delay/production/flight-delay-production/AllTraffic/2013/03/01/"
    )
    assert job["ProcessingInputs"][2]["S3Input"]["LocalPath"] == "/opt/ml/processing/input/shadow/1"
    assert len(job["ProcessingJobName"]) <= 63
    measured = {"requests": 42, "errors": 0, "p99_ms": 5.5}
    assert json.loads(job["Environment"]["MEASURED"]) == {"production": measured, "shadow": measured}
    assert len(job["Environment"]["MEASURED"]) <= 256
    assert production.packages[2]["ModelLifeCycle"] == {
        "Stage": "Shadow", "StageStatus": "Compared",
        "StageDescription": "3.0 % of the answers differ. Report: s3://traffic/shadow/flight-delay/2/"}  # fmt: skip
    assert production.status(2) == "PendingManualApproval"
    assert [(m["MetricName"], m["Value"]) for m in production.metrics] == [("ShadowRequestsCompared", 42)]
    assert execution.output["released"] is False


def test_a_compared_shadow_stays_up_and_is_compared_once(production: World) -> None:
    production.reconcile()
    for _ in range(2):
        assert production.reconcile().status == "SUCCEEDED"
    assert (len(production.updates), len(production.jobs)) == (1, 1)
    assert shadow_of(production) == package_arn(2)


def test_of_two_executions_that_waited_one_compares(production: World) -> None:
    production.reconcile()
    production.packages[2]["ModelLifeCycle"] = ACCEPTED  # as the second one saw it before it waited
    assert production.reconcile().status == "SUCCEEDED"
    assert (len(production.jobs), len(production.metrics)) == (1, 1)


def test_a_comparison_that_fails_is_told_and_decides_nothing(production: World) -> None:
    production.interrupt = {"createProcessingJob": failing("States.TaskFailed", "none of them can be read")}
    execution = production.reconcile()
    assert execution.error == "ReleaseStopped"
    assert "none of them can be read" in production.told[0]["Message"]
    assert (production.status(2), production.packages[2]["ModelLifeCycle"]) == ("PendingManualApproval", ACCEPTED)


def test_an_approved_shadow_goes_first_and_then_is_rolled_out_as_asked(production: World) -> None:
    production.reconcile()
    production.packages[2]["ModelApprovalStatus"] = "Approved"
    execution = production.reconcile()
    assert execution.status == "SUCCEEDED", execution.cause
    _, gone, released = production.updates
    assert (gone["ModelPackageArn"], gone["ShadowModelDataUrl"], gone["Rollout"]) == (package_arn(1), "", "at_once")
    assert (released["ModelPackageArn"], released["Rollout"]) == (package_arn(2), "as_asked")
    assert (production.live_version, shadow_of(production)) == (2, "")


def test_a_rejected_shadow_is_taken_away_and_what_is_live_stays(production: World) -> None:
    production.reconcile()
    production.packages[2]["ModelApprovalStatus"] = "Rejected"
    assert production.reconcile().status == "SUCCEEDED"
    assert (production.live_version, shadow_of(production), production.updates[-1]["Rollout"]) == (1, "", "at_once")
    before = len(production.updates)
    assert production.reconcile().status == "SUCCEEDED"
    assert len(production.updates) == before, "how traffic moved last time is no difference"


def test_a_version_that_staging_did_not_accept_is_no_shadow(production: World) -> None:
    del production.packages[2]["ModelLifeCycle"]
    production.packages[1]["ModelLifeCycle"] = COMPARED
    assert production.reconcile().status == "SUCCEEDED"
    assert (production.updates, production.jobs) == ([], [])


def test_the_newest_accepted_version_behind_pages_of_others_is_found(production: World) -> None:
    production.page_size = 1
    for version in (3, 4, 5):
        production.register(version, "PendingManualApproval")
    production.reconcile()
    assert shadow_of(production) == package_arn(2)


def test_a_shadow_that_does_not_come_up_is_rejected_and_what_is_live_stays(production: World) -> None:
    production.broken = {2}
    execution = production.reconcile()
    assert (execution.status, execution.error) == ("FAILED", "VersionFailed")
    assert production.status(2) == "Rejected"
    assert "did not pass the ping health check" in production.packages[2]["ApprovalDescription"]
    assert (production.live_version, shadow_of(production)) == (1, "")


def test_a_decision_while_it_waits_is_followed_and_nothing_is_compared(production: World) -> None:
    waited = "Let production's requests pass"
    production.reconcile()
    production.jobs.clear()
    production.packages[2]["ModelLifeCycle"] = ACCEPTED
    production.interrupt = {"describeModel": lambda: production.packages[2].update(ModelApprovalStatus="Approved")}
    execution = production.reconcile()
    assert waited in execution.states
    assert (production.jobs, production.live_version) == ([], 2)


def test_nothing_captured_is_said_and_does_not_block_the_release(production: World) -> None:
    production.captured = ("AllTraffic",)
    assert production.reconcile().status == "SUCCEEDED"
    assert production.jobs == []
    said = production.packages[2]["ModelLifeCycle"]
    assert (said["StageStatus"], said["StageDescription"]) == (
        "Compared", "No request was captured of both variants.")  # fmt: skip


def test_an_endpoint_that_lost_its_shadow_unseen_is_told(production: World) -> None:
    production.reconcile()
    production.packages[2]["ModelLifeCycle"] = ACCEPTED
    assert production.endpoint
    production.endpoint["ShadowModelDataUrl"] = ""
    execution = production.reconcile()
    assert execution.error == "ReleaseStopped"
    assert "has no shadow variant" in execution.cause


def test_models_of_shadows_are_collected_with_the_next_release(production: World) -> None:
    production.reconcile()
    production.packages[2]["ModelApprovalStatus"] = "Approved"
    execution = production.reconcile()
    assert "List each shadow model of this endpoint" in execution.states


def test_a_model_without_the_key_has_no_state_for_it() -> None:
    for deployment in deployments(MODEL):
        definition = release_workflow(deployment)
        assert not [name for name in definition["States"] if "hadow" in name]
        assert "ModelLifeCycle" not in json.dumps(definition)
