"""The reconciler, run expression by expression against a registry, a stack and an endpoint in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from config import load_settings
from contract import load_models
from contract.model import Rollout, Serving
from stacks.deployment import Deployment, deployments
from stacks.release_workflow import SUBSTITUTIONS, release_workflow
from tests.conftest import ROOT
from tests.stacks.release_world import ENDPOINT, World, package_arn
from tests.stacks.state_machine import TaskFailed

MODEL = next(model for model in load_models(ROOT, load_settings().guardrails) if model.name == "flight_delay")
STAGING, PRODUCTION = deployments(MODEL)
ENVIRONMENTS = pytest.mark.parametrize("deployment", [STAGING, PRODUCTION], ids=lambda found: found.environment)


@pytest.fixture
def staging() -> World:
    return World(STAGING)


@pytest.fixture
def production() -> World:
    return World(PRODUCTION)


def failing(error: str, cause: str) -> Callable[[], None]:
    def fail() -> None:
        raise TaskFailed(error, cause)

    return fail


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


def test_a_rejection_during_the_rollout_is_not_overruled(staging: World) -> None:
    staging.register(1, "PendingManualApproval")
    staging.interrupt["invokeEndpoint"] = lambda: staging.packages[1].update(ModelApprovalStatus="Rejected")

    staging.reconcile()

    assert staging.status(1) == "Rejected"


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


def test_an_update_that_meets_another_one_waits_and_decides_anew(production: World) -> None:
    production.register(1, "Approved")

    production.interrupt["updateStack"] = failing(
        "CloudFormation.CloudFormationException", "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated."
    )

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


@pytest.mark.parametrize("operation", ["updateStack", "invokeEndpoint", "describeEndpointConfig", "listModelPackages"])
def test_a_denied_call_stops_and_is_told_but_is_not_blamed_on_the_version(production: World, operation: str) -> None:
    production.register(1, "Approved")

    production.interrupt[operation] = failing("SageMaker.SageMakerException", "AccessDenied: not authorized")

    execution = production.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "ReleaseStopped")
    assert "not authorized" in execution.cause
    assert (production.status(1), len(production.told)) == ("Approved", 1)


def test_a_value_that_the_stack_refuses_rejects_the_version(production: World) -> None:
    production.register(1, "Approved")

    production.interrupt["updateStack"] = failing(
        "CloudFormation.CloudFormationException", "Parameter 'MinimumInstances' must be a number not greater than 8"
    )

    assert "must be a number not greater than 8" in production.reconcile().cause
    assert production.status(1) == "Rejected"


def test_an_endpoint_deleted_by_hand_is_made_anew(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.endpoint = None

    execution = production.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (production.live_version, len(production.updates)) == (1, 2)


def test_an_endpoint_changed_by_hand_is_told_and_the_version_not_blamed(production: World) -> None:
    production.register(1, "Approved")
    production.register(2, "Approved")
    production.live(1)
    production.parameters = production.wanted_parameters(2)

    execution = production.reconcile()

    assert execution.error == "ReleaseStopped"
    assert (production.status(2), production.live_version, len(production.told)) == ("Approved", 1, 1)


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


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_can_not_be_updated_is_told(production: World, status: str) -> None:
    production.register(1, "Approved")
    production.stack_status = status

    execution = production.reconcile()

    assert status in execution.cause
    assert (production.status(1), len(production.told)) == ("Approved", 1)


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


def test_an_endpoint_that_is_changing_is_waited_for(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.endpoint_status = "SystemUpdating"

    def settle() -> None:
        production.endpoint_status = "InService"

    production.interrupt["describeEndpoint"] = lambda: production.interrupt.update(listModelPackages=settle)

    assert production.reconcile().status == "SUCCEEDED"
    assert production.updates == []


@pytest.mark.parametrize("broken", [set(), {0}])
def test_a_failed_endpoint_that_nobody_is_releasing_is_made_anew_or_told(production: World, broken: set[int]) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.endpoint_status, production.broken = "Failed", broken
    production.interrupt["updateStack"] = lambda: setattr(production, "endpoint_status", "InService")

    execution = production.reconcile()

    assert execution.status == ("FAILED" if broken else "SUCCEEDED"), execution.cause
    assert (production.live_version, production.status(1)) == (1, "Approved")


def test_a_stack_that_can_not_be_read_after_a_failure_is_told(production: World) -> None:
    with_a_failing_second_version(production).interrupt["updateModelPackage"] = (
        lambda: production.interrupt.update(describeStacks=failing("CloudFormation.X", "gone")))  # fmt: skip

    assert "The serving stack could not be read: gone" in production.reconcile().cause


@ENVIRONMENTS
def test_it_never_reads_what_started_it(deployment: Deployment) -> None:
    text = json.dumps(release_workflow(deployment))

    assert "$states.input" not in text
    assert "Execution.Input" not in text


@ENVIRONMENTS
def test_only_staging_can_approve(deployment: Deployment) -> None:
    approvals = [state for state in release_workflow(deployment)["States"].values()
                 if isinstance(arguments := state.get("Arguments"), dict)
                 and arguments.get("ModelApprovalStatus") == "Approved"]  # fmt: skip

    assert len(approvals) == (1 if deployment.approves else 0)


@ENVIRONMENTS
def test_every_state_is_reached_and_every_call_says_what_happens_when_it_fails(deployment: Deployment) -> None:
    definition = release_workflow(deployment)
    states: dict[str, dict[str, Any]] = definition["States"]
    reached, waiting = set(), [definition["StartAt"]]
    while waiting:
        if (name := waiting.pop()) not in reached:
            reached.add(name)
            waiting += _successors(states[name])

    assert reached == set(states)
    assert all(state["Catch"] for state in states.values() if state["Type"] == "Task")
    assert all(len(name) <= 80 for name in states), "the longest name Step Functions takes"


def _successors(state: dict[str, Any]) -> list[str]:
    rules = [*state.get("Choices", []), *state.get("Catch", []), state]
    return [rule["Next"] for rule in rules if "Next" in rule] + ([state["Default"]] if "Default" in state else [])


@ENVIRONMENTS
def test_what_cloudformation_fills_in_is_what_the_definition_leaves_open(deployment: Deployment) -> None:
    text = json.dumps(release_workflow(deployment))

    assert {name for name in ("UpdateRole", "Topic", "Group") if f"${{{name}}}" in text} == set(SUBSTITUTIONS)
    assert text == json.dumps(release_workflow(deployment))


# A rollout that bakes, scales and is tried


def test_while_a_new_fleet_bakes_it_gets_sample_requests_steadily(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.bakes = 7

    execution = production.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.states.count("Send a sample while it bakes") == 7
    assert production.asked == 7 + 1, "and the smoke test"
    assert release_workflow(PRODUCTION)["States"]["Wait for the update"]["Seconds"] <= 5


def test_a_failing_sample_is_the_alarms_business_as_long_as_it_bakes(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.bakes = 3
    production.interrupt["invokeEndpoint"] = failing("SageMakerRuntime.ModelErrorException", "row 1")

    assert production.reconcile().status == "SUCCEEDED"
    assert production.live_version == 2


def test_there_is_no_sample_before_there_is_an_endpoint(production: World) -> None:
    production.register(1, "Approved")
    production.bakes = 3

    assert "Send a sample while it bakes" not in production.reconcile().states
    assert production.live_version == 1


def test_the_history_of_the_longest_rollout_stays_within_its_limit() -> None:
    longest = Rollout(type="linear", percent=10, bake_minutes=36)
    states = release_workflow(replace(PRODUCTION, rollout=longest))["States"]
    events_of_a_round = 20

    assert longest.minutes * 60 / states["Wait for the update"]["Seconds"] * events_of_a_round < 25_000


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


def test_leftover_configs_and_models_are_collected_but_never_the_live_or_the_previous_one(production: World) -> None:
    for version in (1, 2, 3, 4):
        production.register(version, "Approved")
        production.live(version)
    production.register(5, "Approved")

    assert production.reconcile().status == "SUCCEEDED"

    title = PRODUCTION.title
    assert production.deleted == [f"{title}{kind}-{number}" for kind in ("EndpointConfig", "Model")
                                  for number in (0, 1, 2)]  # fmt: skip


@pytest.mark.parametrize("operation", ["listModels", "deleteEndpointConfig", "listEndpointConfigs", "deleteModel"])
def test_a_leftover_that_can_not_be_collected_is_left_for_the_next_release(production: World, operation: str) -> None:
    for version in (1, 2, 3):
        production.register(version, "Approved")
        production.live(version)
    production.register(4, "Approved")
    production.interrupt[operation] = failing("SageMaker.SageMakerException", "busy")

    assert production.reconcile().status == "SUCCEEDED"
    assert production.live_version == 4


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


def test_a_version_deleted_during_its_rollout_is_put_back_from_its_artefact(production: World) -> None:
    for version in (1, 2):
        production.register(version, "Approved")
    production.live(1)
    production.answer = ""
    production.interrupt["updateModelPackage"] = failing("SageMaker.SageMakerException", "does not exist")

    assert "could not be rejected" in production.reconcile().cause
    assert production.live_version == 1


def test_a_changed_instance_type_goes_autoscaling_off_change_on(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved", serving_instance_type="ml.m6i.xlarge")

    assert production.reconcile().status == "SUCCEEDED"

    steps = [(update["InstanceType"], update["Autoscaling"]) for update in production.updates]
    assert steps == [("ml.m6i.large", "paused"), ("ml.m6i.xlarge", "paused"), ("ml.m6i.xlarge", "on")]
    assert production.status(2) == "Approved"


def test_autoscaling_that_was_left_paused_is_resumed(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.parameters["Autoscaling"] = "paused"

    assert production.reconcile().status == "SUCCEEDED"
    assert [update["Autoscaling"] for update in production.updates] == ["on"]


def test_a_failed_change_of_instance_type_is_put_back_and_scales_again(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved", serving_instance_type="ml.m6i.xlarge")
    production.answer = ""

    assert production.reconcile().status == "FAILED"
    production.answer = production.recorded
    assert production.reconcile().status == "SUCCEEDED"
    assert production.parameters == production.wanted_parameters(1)
    assert (production.live_version, production.parameters["Autoscaling"]) == (1, "on")


def test_a_raised_minimum_takes_effect_without_a_pause(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved", serving_minimum_instances="3")

    assert production.reconcile().status == "SUCCEEDED"
    assert [(update["MinimumInstances"], update["Autoscaling"]) for update in production.updates] == [("3", "on")]


def test_a_fixed_number_of_instances_does_not_scale(production: World) -> None:
    production.register(1, "Approved", serving_minimum_instances="4")

    assert production.reconcile().status == "SUCCEEDED"
    assert production.parameters["Autoscaling"] == "off"


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


def test_an_alarm_that_rolled_back_is_the_reason_of_the_rejection(production: World) -> None:
    production.register(1, "Approved")
    production.live(1)
    production.register(2, "Approved")
    production.silent = {2}

    production.reconcile()

    assert "The alarm rang." in production.packages[2]["ApprovalDescription"]


ASYNC = replace(PRODUCTION, model=MODEL.model_copy(update={"serving": Serving(endpoint="async")}))


class Queue(World):
    """An asynchronous endpoint whose answer comes after a few looks."""

    looks = 3
    failure = ""

    def _invoke_endpoint_async(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        assert request["InputLocation"].startswith("s3://")
        place = "s3://data/async/flight-delay/production"
        return {"OutputLocation": f"{place}/answers/1.out", "FailureLocation": f"{place}/failures/1-error.out"}

    def _get_object(self, query: dict[str, Any]) -> dict[str, Any]:
        if not query["Key"].startswith("async/"):
            return super()._get_object(query)
        if "/failures/" in query["Key"]:
            if not self.failure:
                raise TaskFailed("S3.NoSuchKeyException", "The specified key does not exist.")
            return {"Body": self.failure}
        self.looks -= 1
        if self.looks >= 0:
            raise TaskFailed("S3.NoSuchKeyException", "The specified key does not exist.")
        return {"Body": self.answer}


def test_an_asynchronous_endpoint_is_tried_through_its_queue() -> None:
    world = Queue(ASYNC)
    world.register(1, "Approved")

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.states.count("Look for the answer") == 4


def test_an_asynchronous_endpoint_that_never_answers_fails_its_smoke_test() -> None:
    world = Queue(ASYNC)
    world.looks = 1000
    world.register(1, "Approved")

    assert "there was no answer after 600 seconds" in world.reconcile().cause
    assert world.status(1) == "Rejected"


def test_an_asynchronous_endpoint_whose_model_refuses_fails_its_smoke_test_at_once() -> None:
    world = Queue(ASYNC)
    world.looks, world.failure = 1000, "thirteen is not a number we like"
    world.register(1, "Approved")

    execution = world.reconcile()

    assert "The smoke test failed: thirteen is not a number we like" in execution.cause
    assert execution.states.count("Look for the answer") == 1
    assert world.status(1) == "Rejected"


def test_a_serverless_endpoint_is_released_without_a_size() -> None:
    serverless = MODEL.model_copy(update={"serving": Serving(endpoint="serverless")})
    world = World(replace(PRODUCTION, model=serverless))
    world.register(1, "Approved")

    assert world.reconcile().status == "SUCCEEDED"
    assert set(world.parameters) == {"Image", "ModelDataUrl", "ModelPackageArn"}


class NoEndpoint(World):
    """What goes live is a SageMaker model, which its stack puts out and which carries the tags."""

    model_is_gone = False

    def _describe_stacks(self, query: dict[str, Any]) -> dict[str, Any]:
        answer = super()._describe_stacks(query)
        live = {"LiveModel": self.configs[self.config]} if self.endpoint else {}
        outputs = {"Model": "flight_delay", "Endpoint": "none"} | live
        answer["Stacks"][0]["Outputs"] = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
        return answer

    def _update_stack(self, update: dict[str, Any]) -> dict[str, Any]:
        self.model_is_gone = False
        return super()._update_stack(update)

    def _describe_model(self, query: dict[str, Any]) -> dict[str, Any]:
        assert query["ModelName"] == self.configs[self.config]
        if self.model_is_gone:
            raise TaskFailed("SageMaker.SageMakerException", 'Could not find model "arn:...".')
        return super()._describe_model(query) | {"ModelArn": ENDPOINT}


def without_endpoint(deployment: Deployment) -> NoEndpoint:
    model = MODEL.model_copy(update={"serving": Serving(endpoint="none")})
    return NoEndpoint(replace(deployment, model=model))


def test_without_an_endpoint_staging_approves_by_the_evaluation_and_asks_nothing() -> None:
    world = without_endpoint(STAGING)
    world.register(1, "PendingManualApproval")

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert (world.live_version, world.status(1), world.asked) == (1, "Approved", 0)
    assert "no endpoint to try it on" in world.packages[1]["ApprovalDescription"]
    assert set(world.parameters) == {"Image", "ModelDataUrl", "ModelPackageArn"}


def test_without_an_endpoint_people_are_asked_once_and_told_no_address() -> None:
    world = without_endpoint(STAGING)
    world.register(1, "PendingManualApproval", approval="manual")

    world.reconcile()
    world.reconcile()

    (question,) = world.told
    assert "./pushline approve flight_delay 1" in question["Message"]
    assert "invoke" not in question["Message"]


def test_without_an_endpoint_a_rejection_brings_the_approved_version_back_and_old_models_go() -> None:
    world = without_endpoint(PRODUCTION)
    world.register(1, "Approved")
    world.reconcile()
    world.register(2, "Approved")
    world.reconcile()
    world.packages[2]["ModelApprovalStatus"] = "Rejected"

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert world.live_version == 1
    assert world.deleted, "the first model of all, which is neither live nor was live before"
    assert all("Model-" in name for name in world.deleted)


def test_without_an_endpoint_nothing_approved_leaves_what_is_live_and_tells_once() -> None:
    world = without_endpoint(PRODUCTION)
    world.register(1, "Approved")
    world.reconcile()
    world.packages[1]["ModelApprovalStatus"] = "Rejected"

    world.reconcile()
    world.reconcile()

    assert world.live_version == 1
    assert len(world.told) == 1


def test_without_an_endpoint_a_model_that_was_deleted_by_hand_is_made_again() -> None:
    world = without_endpoint(PRODUCTION)
    world.register(1, "Approved")
    world.reconcile()
    world.model_is_gone = True

    execution = world.reconcile()

    assert execution.status == "SUCCEEDED", execution.cause
    assert world.live_version == 1
    assert [update["ModelPackageArn"] for update in world.updates] == [package_arn(1), "", package_arn(1)]
