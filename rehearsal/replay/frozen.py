"""The first champion, served beside the live model for as long as the replay runs: same artifact, same serving code."""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.landscape import ClientOf
from rehearsal.replay.plan import Refused
from rehearsal.service import Params

READY_SECONDS = 300.0
_URL = "rehearsal:url"


def champion(client_of: ClientOf, endpoint: str) -> Params:
    """What serving the endpoint's live model takes: container, role, instance type."""
    sagemaker = client_of("sagemaker")
    config = sagemaker.describe_endpoint_config(
        EndpointConfigName=sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    )
    variant = config["ProductionVariants"][0]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    container = model.get("PrimaryContainer") or model["Containers"][0]
    kept = {key: container[key] for key in ("Image", "ModelDataUrl", "Environment") if key in container}
    package = kept["Environment"].get("MODEL_PACKAGE_ARN", "")
    return {
        "version": package.rpartition("/")[2],
        "container": kept,
        "role": model["ExecutionRoleArn"],
        "instance_type": variant.get("InstanceType", "ml.m5.large"),
    }


def serve(client_of: ClientOf, name: str, first: Params) -> str:
    """The address of an endpoint `name` that serves the first champion; it is made if it is not there."""
    sagemaker = client_of("sagemaker")
    if _status(sagemaker, name) is None:
        _make(sagemaker, name, first)
    deadline = time.monotonic() + READY_SECONDS
    while (status := _status(sagemaker, name)) in ("Creating", "Updating"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if status != "InService":
        raise Refused(f"the frozen first champion is not served: endpoint {name} is {status}")
    arn = sagemaker.describe_endpoint(EndpointName=name)["EndpointArn"]
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
    return str(tags[_URL])


def remove(client_of: ClientOf, name: str) -> None:
    """Delete the endpoint and what it was made of; what is gone already is no error."""
    sagemaker = client_of("sagemaker")
    for delete, argument in (
        (sagemaker.delete_endpoint, "EndpointName"),
        (sagemaker.delete_endpoint_config, "EndpointConfigName"),
        (sagemaker.delete_model, "ModelName"),
    ):
        try:
            delete(**{argument: name})
        except ClientError:
            continue


def _make(sagemaker: Any, name: str, first: Params) -> None:
    remove(lambda service, place=None, /: sagemaker, name)  # a model or configuration that an interrupted start left
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=first["role"], PrimaryContainer=first["container"])
    variant = {
        "VariantName": "Frozen",
        "ModelName": name,
        "InstanceType": first["instance_type"],
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def _status(sagemaker: Any, name: str) -> str | None:
    try:
        return str(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])
    except ClientError:
        return None
