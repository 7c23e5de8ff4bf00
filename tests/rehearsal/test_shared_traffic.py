"""Which variant answers, and which fleet: two variants by their weights, and a canary only from the first update on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.runtime import SageMakerRuntime
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import configure, packed, same_python, settled
from tests.rehearsal.waiting import until

REQUESTS, TOLERANCE = 200, 20
LONGEST_BAKE_SECONDS = 3600
"""A minute in this rehearsal, and as long as an endpoint is waited for."""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as running:
        yield running


def created(cloud: Loopback, name: str, **more: Any) -> str:
    """An endpoint in service on the configuration of the same name; its address."""
    sagemaker = cloud.client("sagemaker")
    made = sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, **more)["EndpointArn"]
    assert settled(cloud, name)["EndpointStatus"] == "InService"
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=made)["Tags"]}
    return str(tags["rehearsal:url"])


def answered(url: str, requests: int = REQUESTS) -> Counter[tuple[str, str]]:
    """How many requests each variant said it answered, and with what."""
    with httpx.Client(timeout=30) as client:
        answers = [client.post(f"{url}/invocations", json=[1]).raise_for_status() for _ in range(requests)]
    return Counter((answer.headers["x-amzn-invoked-production-variant"], answer.text) for answer in answers)


def test_two_variants_share_the_requests_by_their_weights(cloud: Loopback) -> None:
    weights = {"First": 3.0, "Second": 1.0}
    for name, factor in zip(weights, (2, 3), strict=True):
        configure(cloud, name, packed(factor))
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_endpoint_config(
        EndpointConfigName="both",
        ProductionVariants=[{"VariantName": name, "ModelName": name, "InstanceType": "ml.m5.large",
                             "InitialInstanceCount": 1, "InitialVariantWeight": weight}
                            for name, weight in weights.items()])  # fmt: skip
    url = created(cloud, "both")
    shares(answered(url), first=3 / 4)
    wanted = [{"VariantName": "First", "DesiredWeight": 1}, {"VariantName": "Second", "DesiredWeight": 4}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="both", DesiredWeightsAndCapacities=wanted)
    settled(cloud, "both")
    shares(answered(url), first=1 / 5)


def shares(counted: Counter[tuple[str, str]], *, first: float) -> None:
    """Each variant answered with its own model, and about its share of all requests."""
    assert counted.keys() == {("First", "[2.0]"), ("Second", "[3.0]")}
    assert abs(counted["First", "[2.0]"] - first * REQUESTS) <= TOLERANCE


def test_a_deployment_config_counts_from_the_first_update_on(cloud: Loopback) -> None:
    """There is no fleet whose traffic could move, when an endpoint is created."""
    canary = {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
              "WaitIntervalInSeconds": LONGEST_BAKE_SECONDS}  # fmt: skip
    deployment = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary}}
    for name, factor in (("doubles", 2), ("triples", 3)):
        configure(cloud, name, packed(factor), instances=2)
    url = created(cloud, "doubles", DeploymentConfig=deployment)
    assert answered(url, 20) == {("AllTraffic", "[2.0]"): 20}
    sagemaker = cloud.client("sagemaker")
    sagemaker.update_endpoint(EndpointName="doubles", EndpointConfigName="triples", DeploymentConfig=deployment)
    until(lambda: answered(url, 4) == {("AllTraffic", "[2.0]"): 2, ("AllTraffic", "[3.0]"): 2})
    assert sagemaker.describe_endpoint(EndpointName="doubles")["EndpointStatus"] == "Updating"
