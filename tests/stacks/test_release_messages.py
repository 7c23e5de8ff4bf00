"""What people are asked and told, how often, and what the dashboard is told."""

from __future__ import annotations

from stacks.deployment import Deployment
from tests.stacks.release_world import ENVIRONMENTS, World, failing, package_arn


def test_manual_approval_asks_with_the_numbers_and_the_command_and_approves_nothing(staging: World) -> None:
    staging.register(1, "PendingManualApproval", approval="manual")

    assert staging.reconcile().status == "SUCCEEDED"
    assert (staging.live_version, staging.status(1)) == (1, "PendingManualApproval")
    message = staging.told[0]["Message"]
    assert "auc: 0.71, champion: 0.70" in message
    assert (f"aws sagemaker update-model-package --model-package-arn {package_arn(1)} "
            "--model-approval-status Approved") in message  # fmt: skip
    assert staging.reconcile().status == "SUCCEEDED"
    assert len(staging.told) == 1, "it asks once"


def test_the_question_says_where_to_look_and_how_to_decide_on_both_sides(staging: World) -> None:
    staging.register(3, "PendingManualApproval", approval="manual")

    staging.reconcile()

    message = staging.told[0]["Message"]
    for told in ("s3://artifacts/evaluation/flight-delay/run/", "endpoint flight-delay-staging",
                 "Retrained by drift: it drifts",
                 "./pushline approve flight_delay 3", "./pushline reject flight_delay 3",
                 f"--model-package-arn {package_arn(3)} --model-approval-status Approved",
                 f"--model-package-arn {package_arn(3)} --model-approval-status Rejected",
                 "./pushline invoke flight_delay --environment staging"):  # fmt: skip
        assert told in message


@ENVIRONMENTS
def test_people_are_told_once_that_nothing_is_approved_any_more(deployment: Deployment) -> None:
    world = World(deployment)
    world.register(7, "Rejected")
    world.live(7)

    assert world.reconcile().status == world.reconcile().status == "SUCCEEDED"
    (message,) = world.told
    assert "What is live stays live" in message["Message"]
    assert "./pushline approve flight_delay 7" in message["Message"]
    assert world.live_version == 7


def test_nobody_is_told_when_there_never_was_a_version(production: World) -> None:
    assert production.reconcile().status == "SUCCEEDED"
    assert production.told == []


def test_the_dashboard_is_told_what_runs_and_what_was_rejected_and_a_lost_mark_fails_nothing(production: World) -> None:
    production.register(1, "Approved")
    production.interrupt["putMetricData"] = failing("CloudWatch.CloudWatchException", "busy")
    assert production.reconcile().status == "SUCCEEDED"
    production.reconcile()
    production.register(2, "Approved")
    production.broken.add(2)
    production.reconcile()
    production.reconcile()

    assert production.marks == [("ReleasedVersion", 1), ("RejectedVersion", 2), ("ReleasedVersion", 1)]
