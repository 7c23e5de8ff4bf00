"""A release to an asynchronous endpoint, to a serverless one and to none at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from contract.model import Serving
from stacks.deployment import Deployment
from tests.stacks.release_world import ENDPOINT, MODEL, PRODUCTION, STAGING, World, package_arn
from tests.stacks.state_machine import TaskFailed

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
