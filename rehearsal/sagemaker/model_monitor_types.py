"""CloudFormation's types of SageMaker Model Monitor: checked as the API checks them, recorded, and never run.

What they would run is AWS's analyzer image, whose code is not public; docs/fidelity.md says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from botocore.validate import ParamValidator

from rehearsal.sagemaker.resources import PRINCIPAL, Failed, as_parameters, generated_name
from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack, arn, model

SCHEDULE = "MonitoringSchedule"


class _Recorded(ResourceType):
    """A resource that only CloudFormation knows of, once the API would have taken it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def _check(self, operation: str, parameters: Params, stack: Stack) -> None:
        shape = model("sagemaker").operation_model(operation).input_shape
        report = ParamValidator().validate(as_parameters(parameters, operation), shape)
        if report.has_errors():
            raise Failed(f"{stack.logical_id}: {report.generate_report()}")
        caller, by = stack.caller, PRINCIPAL if stack.role else ""
        client = self._cloud.client("sagemaker", role=stack.role, by=by, account=caller.account,
                                    region=caller.region)  # fmt: skip
        for endpoint in _endpoints(parameters):
            client.describe_endpoint(EndpointName=endpoint)  # as AWS does: the endpoint is there before its monitors

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        """There is nothing but the record."""


class JobDefinition(_Recorded):
    """AWS::SageMaker::DataQualityJobDefinition or -ModelQualityJobDefinition; every change replaces it."""

    def __init__(self, cloud: Cloud, kind: str, path: str) -> None:
        super().__init__(cloud)
        self._kind, self._path = kind, path
        shape: Any = model("sagemaker").operation_model(f"Create{kind}").input_shape
        self.replacement = frozenset(shape.members) - {"Tags"}  # type: ignore[misc]

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        name = properties.get("JobDefinitionName") or generated_name(stack.logical_id)
        self._check(f"Create{self._kind}", {**properties, "JobDefinitionName": name}, stack)
        made = arn("sagemaker", stack.caller, f"{self._path}/{name}")
        return Provisioned(made, {"JobDefinitionArn": made})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        return Provisioned(physical_id, {"JobDefinitionArn": physical_id})


class Schedule(_Recorded):
    """AWS::SageMaker::MonitoringSchedule."""

    replacement: ClassVar[frozenset[str]] = frozenset({"MonitoringScheduleName"})

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        self._check(f"Create{SCHEDULE}", properties, stack)
        made = arn("sagemaker", stack.caller, f"monitoring-schedule/{properties['MonitoringScheduleName'].lower()}")
        return Provisioned(made, {"MonitoringScheduleArn": made})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        self._check(f"Update{SCHEDULE}", {name: value for name, value in new.items() if name != "Tags"}, stack)
        return Provisioned(physical_id, {"MonitoringScheduleArn": physical_id})


def model_monitor_types(cloud: Cloud) -> dict[str, ResourceType]:
    """The types by name."""
    return {
        "AWS::SageMaker::DataQualityJobDefinition":
            JobDefinition(cloud, "DataQualityJobDefinition", "data-quality-job-definition"),
        "AWS::SageMaker::ModelQualityJobDefinition":
            JobDefinition(cloud, "ModelQualityJobDefinition", "model-quality-job-definition"),
        f"AWS::SageMaker::{SCHEDULE}": Schedule(cloud),
    }  # fmt: skip


def _endpoints(value: Any) -> Iterator[str]:
    """Every endpoint that the parameters name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "EndpointInput":
                yield inner["EndpointName"]
            else:
                yield from _endpoints(inner)
