"""Along with a rollout: samples while the new fleet bakes, autoscaling that pauses, leftovers that are collected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contract.model import Rollout
from stacks.release_workflow import release_workflow
from tests.stacks.release_world import PRODUCTION, World, failing


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
