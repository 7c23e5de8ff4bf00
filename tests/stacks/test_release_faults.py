"""Whose fault a failure is: a version is rejected for good, a fault of AWS is over in an hour."""

from __future__ import annotations

import functools

import botocore.session
import pytest

from contract.model import Serving
from stacks.deployment import Deployment, deployments
from stacks.release_workflow import release_workflow
from tests.stacks.release_world import BOTOCORE_NAMES, MODEL, World, failing

EVERY_KIND = [
    pytest.param(deployment, id=f"{kind}-{deployment.environment}")
    for kind in ("instance", "serverless", "async")
    for deployment in deployments(MODEL.model_copy(update={"serving": Serving(endpoint=kind)}))
]
PREFIXES = {"sns": "SNS", "sagemakerruntime": "SageMakerRuntime", "cloudwatch": "CloudWatch"}
RUNTIME = "SageMakerRuntime"


@pytest.fixture
def staging() -> World:
    """A version that is rolled out, and whose smoke test is still to be made."""
    world = World(deployments(MODEL)[0])
    world.register(1, "PendingManualApproval")
    world.live(1)
    world.tags.clear()
    return world


@pytest.mark.parametrize(("operation", "error", "cause"), [
    ("invokeEndpoint", f"{RUNTIME}.ModelErrorException", "Received server error (500) from primary"),
    ("invokeEndpoint", f"{RUNTIME}.ValidationErrorException", "the body is larger than 6 MB"),
    ("invokeEndpoint", "States.DataLimitExceeded", "larger than 262144 bytes"),
    ("getObject", "S3.NoSuchKeyException", "The specified key does not exist."),
])  # fmt: skip
def test_what_only_another_version_heals_is_a_rejection(staging: World, operation: str, error: str, cause: str) -> None:
    staging.interrupt[operation] = failing(error, cause)

    assert f"The smoke test failed: {error}: {cause}" in staging.reconcile().cause
    assert staging.status(1) == "Rejected"


@pytest.mark.parametrize(("operation", "error", "cause"), [
    ("invokeEndpoint", f"{RUNTIME}.InternalFailureException", "An internal failure occurred."),
    ("invokeEndpoint", f"{RUNTIME}.InternalDependencyException", "Contact customer support."),
    ("invokeEndpoint", f"{RUNTIME}.ModelNotReadyException", "Wait and try your request again."),
    ("invokeEndpoint", f"{RUNTIME}.ServiceUnavailableException", "Try your call again."),
    ("invokeEndpoint", f"{RUNTIME}.SageMakerRuntimeException", "Rate exceeded"),
    ("invokeEndpoint", f"{RUNTIME}.ValidationErrorException", "Endpoint flight-delay-staging of account 1 not found."),
    ("invokeEndpoint", "States.Timeout", "no word of a ModelError"),
    ("getObject", "S3.S3Exception", "We encountered an internal error. Please try again."),
    ("getObject", "S3.S3Exception", "The key is disabled. (Service: Kms, Error Code: KMS.DisabledException)"),
    ("getObject", "S3.S3Exception", "Access Denied"),
])  # fmt: skip
def test_a_fault_of_aws_stops_and_is_told_and_the_version_is_tried_again(
    staging: World, operation: str, error: str, cause: str
) -> None:
    staging.interrupt[operation] = failing(error, cause)

    execution = staging.reconcile()

    assert (execution.status, execution.error) == ("FAILED", "ReleaseStopped")
    assert (staging.status(1), staging.live_version, len(staging.told)) == ("PendingManualApproval", 1, 1)
    assert staging.reconcile().status == "SUCCEEDED"
    assert staging.status(1) == "Approved"


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


@pytest.mark.parametrize("deployment", EVERY_KIND)
def test_every_fault_that_a_service_has_a_name_for_is_tried_again(deployment: Deployment) -> None:
    asked = 0
    for name, state in release_workflow(deployment)["States"].items():
        # No retry where another call follows anyway: of leftovers, and of samples while a fleet bakes.
        if state["Type"] == "Task" and state["Retry"]:
            named = faults(state["Resource"])
            tried = {error for rule in state["Retry"] for error in rule["ErrorEquals"]}
            asked += bool(named)
            assert named <= tried, name
    assert asked >= 2, "people are told, and the sample is sent"


@functools.cache
def faults(resource: str) -> set[str]:
    """What a service says by its own model that it is to blame for, as Step Functions names it."""
    service, operation = resource.removeprefix("arn:aws:states:::").removeprefix("aws-sdk:").split(":")
    model = botocore.session.get_session().get_service_model(BOTOCORE_NAMES.get(service, service))
    errors = model.operation_model(operation[0].upper() + operation[1:]).error_shapes
    blamed = [error.name for error in errors if error.metadata.get("error", {}).get("httpStatusCode", 0) >= 500
              or error.metadata.get("fault") or "Throttl" in error.name or "NotReady" in error.name]  # fmt: skip
    return {f"{PREFIXES[service]}.{name.removesuffix('Fault').removesuffix('Exception')}Exception" for name in blamed}
