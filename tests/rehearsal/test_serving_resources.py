"""SageMaker's CloudFormation types, through their handlers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.resources import Failed
from rehearsal.service import Caller, Provisioned, ServiceError, Stack
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import BROKEN, IMAGE, ROLE, packed, same_python, upload

CALLER = Caller("000000000000", "us-east-1")


class Template:
    """The handlers of one service, called as CloudFormation calls them."""

    def __init__(self, cloud: Loopback) -> None:
        self._types = cloud.service("sagemaker").resource_types()

    def create(self, kind: str, properties: dict[str, Any]) -> Provisioned:
        return self._types[f"AWS::SageMaker::{kind}"].create(properties, self._stack(kind))

    def update(self, kind: str, made: Provisioned, old: dict[str, Any], new: dict[str, Any]) -> Provisioned:
        return self._types[f"AWS::SageMaker::{kind}"].update(made.physical_id, old, new, self._stack(kind))

    def delete(self, kind: str, made: Provisioned) -> None:
        self._types[f"AWS::SageMaker::{kind}"].delete(made.physical_id, {}, self._stack(kind))

    def _stack(self, kind: str) -> Stack:
        return Stack("Serving", f"Staging{kind}", CALLER, "arn:aws:iam::000000000000:role/update", {"team": "us"})


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    with serve(SageMaker, tmp_path=tmp_path) as running:
        yield running


def configuration(cloud: Loopback, template: Template, name: str, **artefact: Any) -> str:
    """A model and an endpoint configuration of a template; numbers are strings there."""
    url = upload(cloud, f"{name}/model.tar.gz", packed(**artefact))
    environment = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
    model = template.create(
        "Model",
        {
            "ExecutionRoleArn": ROLE,
            "EnableNetworkIsolation": "true",
            "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": url, "Environment": environment},
        },
    )
    config = template.create(
        "EndpointConfig",
        {
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "ModelName": model.attributes["ModelName"],
                    "InstanceType": "ml.m6i.large",
                    "InitialInstanceCount": "1",
                    "InitialVariantWeight": "1",
                }
            ]
        },
    )
    return str(config.attributes["EndpointConfigName"])


def test_generated_names_start_with_the_logical_id_and_refs_are_arns(cloud: Loopback) -> None:
    template = Template(cloud)
    group = template.create("ModelPackageGroup", {"ModelPackageGroupName": "flight-delay"})
    assert group.physical_id.endswith(":model-package-group/flight-delay")
    config = configuration(cloud, template, "doubles")
    assert config.startswith("StagingEndpointConfig-")
    assert len(config) <= 63
    assert (
        cloud.client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0][
            "InitialInstanceCount"
        ]
        == 1
    )


def test_an_endpoint_is_made_updated_in_place_tagged_and_deleted(cloud: Loopback) -> None:
    template, client = Template(cloud), cloud.client("sagemaker")
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": "10"}
    policy = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": "30"}}
    old = {
        "EndpointName": "flight-delay-staging",
        "EndpointConfigName": configuration(cloud, template, "doubles"),
        "DeploymentConfig": policy,
        "RetainAllVariantProperties": "true",
        "Tags": [{"Key": "pushline:model-package", "Value": "1"}],
    }
    new = {
        **old,
        "EndpointConfigName": configuration(cloud, template, "triples", factor=3),
        "Tags": [{"Key": "pushline:model-package", "Value": "2"}],
    }
    made = template.create("Endpoint", old)
    template.update("Endpoint", made, old, new)
    described = client.describe_endpoint(EndpointName="flight-delay-staging")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", new["EndpointConfigName"])
    assert described["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] == 30
    tags = {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=made.physical_id)["Tags"]}
    assert tags | {"team": "us", "pushline:model-package": "2"} == tags
    assert httpx.post(f"{tags['rehearsal:url']}/invocations", json=[1], timeout=60).json() == [3]
    template.delete("Endpoint", made)
    template.delete("Endpoint", made)
    assert client.list_endpoints()["Endpoints"] == []


def test_a_silent_rollback_is_a_success_on_the_old_configuration(cloud: Loopback) -> None:
    template = Template(cloud)
    old = {"EndpointName": "staging", "EndpointConfigName": configuration(cloud, template, "doubles")}
    new = {**old, "EndpointConfigName": configuration(cloud, template, "broken", script=BROKEN)}
    made = template.create("Endpoint", old)
    template.update("Endpoint", made, old, new)
    described = cloud.client("sagemaker").describe_endpoint(EndpointName="staging")
    assert described["EndpointConfigName"] == old["EndpointConfigName"]
    assert "did not pass the ping health check" in described["FailureReason"]


def test_an_endpoint_that_fails_at_first_fails_the_resource_and_leaves_nothing(cloud: Loopback) -> None:
    template = Template(cloud)
    with pytest.raises(Failed, match="did not pass the ping health check"):
        template.create(
            "Endpoint",
            {"EndpointName": "staging", "EndpointConfigName": configuration(cloud, template, "broken", script=BROKEN)},
        )
    assert cloud.client("sagemaker").list_endpoints()["Endpoints"] == []


def test_an_update_that_cannot_start_raises_and_leaves_the_endpoint_alone(cloud: Loopback) -> None:
    template = Template(cloud)
    old = {"EndpointName": "staging", "EndpointConfigName": configuration(cloud, template, "doubles")}
    made = template.create("Endpoint", old)
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        template.update("Endpoint", made, old, {**old, "EndpointConfigName": "nothing"})
    described = cloud.client("sagemaker").describe_endpoint(EndpointName="staging")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", old["EndpointConfigName"])


def test_a_property_that_is_not_rehearsed_is_refused_by_name(cloud: Loopback) -> None:
    with pytest.raises(ServiceError, match="Surprise"):
        Template(cloud).create("ModelPackageGroup", {"ModelPackageGroupName": "a", "Surprise": 1})


def test_a_monitor_wants_its_endpoint_first_and_what_the_api_takes(cloud: Loopback) -> None:
    template = Template(cloud)
    volume = {"InstanceCount": "1", "InstanceType": "ml.m6i.large", "VolumeSizeInGB": "30"}
    stored = {"S3Output": {"S3Uri": "s3://reports/native", "LocalPath": "/opt/ml/processing/output"}}
    asked: dict[str, Any] = {
        "RoleArn": ROLE, "DataQualityAppSpecification": {"ImageUri": IMAGE},
        "DataQualityJobInput": {"EndpointInput": {"EndpointName": "nowhere", "LocalPath": "/opt/ml/processing/input"}},
        "DataQualityJobOutputConfig": {"MonitoringOutputs": [stored]}, "JobResources": {"ClusterConfig": volume},
    }  # fmt: skip
    with pytest.raises(ClientError, match="Could not find endpoint"):
        template.create("DataQualityJobDefinition", asked)
    with pytest.raises(Failed, match='Missing required parameter in input: "RoleArn"'):
        template.create("DataQualityJobDefinition", {key: asked[key] for key in asked if key != "RoleArn"})
    every_day = {"ScheduleConfig": {"ScheduleExpression": "cron(0 0 ? * * *)"}, "MonitoringType": "DataQuality",
                 "MonitoringJobDefinitionName": "made"}  # fmt: skip
    schedule = template.create("MonitoringSchedule", {"MonitoringScheduleName": "daily",
                                                      "MonitoringScheduleConfig": every_day})  # fmt: skip
    assert schedule.physical_id.endswith(":monitoring-schedule/daily")
