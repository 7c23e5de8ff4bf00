"""SageMaker's CloudFormation types. Every call is made as the stack's role, so that a narrow role really is one."""

from __future__ import annotations

import json
import secrets
import string
import time
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape

from rehearsal.service import Cloud, Params, Provisioned, ResourceType, ServiceError, Stack, Unsupported, model

PRINCIPAL = "cloudformation.amazonaws.com"
POLL_SECONDS = 0.2
_GONE = ("Could not find", "does not exist")


class Failed(Exception):
    """The resource did not become what the template says; the message is the stack event's reason."""


def generated_name(logical_id: str, limit: int = 63) -> str:
    """The name CloudFormation gives a SageMaker resource without one: logical id and twelve random characters."""
    alphabet = string.ascii_letters + string.digits
    return f"{logical_id[: limit - 13]}-{''.join(secrets.choice(alphabet) for _ in range(12))}"


class Named(ResourceType):
    """A resource with a Create, a Describe and a Delete by name, whose only change in place is its tags."""

    kind: ClassVar[str]

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @property
    def _name(self) -> str:
        return f"{self.kind}Name"

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        params = {self._name: generated_name(stack.logical_id), **properties}
        made = self._call(stack, f"Create{self.kind}", {**params, "Tags": _tags(properties, stack)})
        return self._provisioned(made[f"{self.kind}Arn"], params[self._name])

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        self._retag(physical_id, old, new, stack)
        return self._provisioned(physical_id, self._name_of(physical_id, stack))

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        try:
            self._call(stack, f"Delete{self.kind}", {self._name: physical_id.rpartition("/")[2]})
        except ClientError as error:
            if not _is_gone(error):
                raise

    def _provisioned(self, physical_id: str, name: str) -> Provisioned:
        return Provisioned(physical_id, {self._name: name, f"{self.kind}Arn": physical_id})

    def _name_of(self, physical_id: str, stack: Stack) -> str:
        described = self._call(stack, f"Describe{self.kind}", {self._name: physical_id.rpartition("/")[2]})
        return str(described[self._name])

    def _retag(self, physical_id: str, old: Params, new: Params, stack: Stack) -> None:
        before, after = _tags(old, stack), _tags(new, stack)
        if changed := [tag for tag in after if tag not in before]:
            self._call(stack, "AddTags", {"ResourceArn": physical_id, "Tags": changed})
        if gone := {tag["Key"] for tag in before} - {tag["Key"] for tag in after}:
            self._call(stack, "DeleteTags", {"ResourceArn": physical_id, "TagKeys": sorted(gone)})

    def _call(self, stack: Stack, operation: str, params: Params) -> Params:
        caller = stack.caller
        client = self._cloud.client(
            "sagemaker",
            role=stack.role,
            by=PRINCIPAL if stack.role else "",
            account=caller.account,
            region=caller.region,
            session="AWSCloudFormation",
        )
        method = client.meta.method_to_api_mapping
        name = next(name for name, api in method.items() if api == operation)
        answer: Params = getattr(client, name)(**as_parameters(params, operation))
        return answer


class Model(Named):
    kind = "Model"
    replacement = frozenset(
        {
            "Containers",
            "EnableNetworkIsolation",
            "ExecutionRoleArn",
            "InferenceExecutionConfig",
            "ModelName",
            "PrimaryContainer",
            "VpcConfig",
        }
    )
    attributes = frozenset({"ModelName"})


class EndpointConfig(Named):
    kind = "EndpointConfig"
    replacement = frozenset(
        {
            "AsyncInferenceConfig",
            "DataCaptureConfig",
            "EnableNetworkIsolation",
            "EndpointConfigName",
            "ExecutionRoleArn",
            "ExplainerConfig",
            "KmsKeyId",
            "ProductionVariants",
            "ShadowProductionVariants",
            "VpcConfig",
        }
    )
    attributes = frozenset({"EndpointConfigName"})


_POLICY = "ModelPackageGroupPolicy"


class ModelPackageGroup(Named):
    kind = "ModelPackageGroup"
    replacement = frozenset({"ModelPackageGroupName", "ModelPackageGroupDescription"})
    attributes = frozenset({"ModelPackageGroupArn", "ModelPackageGroupStatus", "CreationTime"})

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        own = {name: value for name, value in properties.items() if name != _POLICY}
        made = super().create(own, stack)
        if properties.get(_POLICY):
            self._allow(properties[_POLICY], stack, made.physical_id)
        return made

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        if old.get(_POLICY) != new.get(_POLICY):
            self._allow(new.get(_POLICY), stack, physical_id)
        return super().update(physical_id, old, new, stack)

    def _allow(self, policy: Any, stack: Stack, physical_id: str) -> None:
        """Put the resource policy, or take it away; a group that never had one has none to take."""
        group = {self._name: physical_id.rpartition("/")[2]}
        if policy:
            document = policy if isinstance(policy, str) else json.dumps(policy)
            self._call(stack, "PutModelPackageGroupPolicy", {**group, "ResourcePolicy": document})
            return
        try:
            self._call(stack, "DeleteModelPackageGroupPolicy", group)
        except ClientError as error:
            if not _is_gone(error):
                raise

    def _provisioned(self, physical_id: str, name: str) -> Provisioned:
        return Provisioned(
            physical_id,
            {
                "ModelPackageGroupArn": physical_id,
                "ModelPackageGroupStatus": "Completed",
                "ModelPackageGroupName": name,
            },
        )


class Endpoint(Named):
    """Waits until the endpoint is InService. An update that SageMaker itself rolled back is a success, as in
    CloudFormation: the endpoint is InService, on its old configuration; whoever updates must read it back."""

    kind = "Endpoint"
    replacement = frozenset({"EndpointName"})
    attributes = frozenset({"EndpointName"})
    _UPDATE_ONLY = ("RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "RetainDeploymentConfig")

    def expected_id(self, properties: Params) -> str:
        return str(properties.get(self._name) or "")

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        given = {key: value for key, value in properties.items() if key not in self._UPDATE_ONLY}
        made = super().create(given, stack)
        try:
            self._settled(made.physical_id, stack)
        except Failed:
            self.delete(made.physical_id, properties, stack)
            raise
        return made

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        name = physical_id.rpartition("/")[2]
        live = self._describe(name, stack).get("EndpointConfigName")
        # Taking back an update that was interrupted before it switched has nothing to deploy.
        is_back = live == new.get("EndpointConfigName") != old.get("EndpointConfigName")
        if _deployment(old) != _deployment(new) and not is_back:
            try:
                self._deploy(name, new, stack)
                self._settled(physical_id, stack)
            except (ClientError, Failed, ServiceError):
                self._restore(name, live, old, stack)
                raise
        self._retag(physical_id, old, new, stack)
        return self._provisioned(physical_id, self._name_of(physical_id, stack))

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        name = physical_id.rpartition("/")[2]
        try:
            while self._describe(name, stack)["EndpointStatus"] in ("Creating", "Updating", "RollingBack"):
                time.sleep(POLL_SECONDS)
            super().delete(physical_id, properties, stack)
            while self._describe(name, stack):
                time.sleep(POLL_SECONDS)
        except ClientError as error:
            if not _is_gone(error):
                raise

    def _deploy(self, name: str, properties: Params, stack: Stack) -> None:
        given = {key: value for key, value in properties.items() if key not in ("Tags", "EndpointName")}
        self._call(stack, "UpdateEndpoint", {"EndpointName": name, **given})

    def _restore(self, name: str, live: str | None, old: Params, stack: Stack) -> None:
        """CloudFormation does not send back the resource that failed: leave it on the configuration it was on."""
        now = self._describe(name, stack)
        if live and (now.get("EndpointConfigName") != live or now["EndpointStatus"] != "InService"):
            self._deploy(name, {**old, "EndpointConfigName": live}, stack)
            self._settled(name, stack)

    def _settled(self, physical_id: str, stack: Stack) -> None:
        name = physical_id.rpartition("/")[2]
        while (endpoint := self._describe(name, stack))["EndpointStatus"] not in (
            "InService",
            "Failed",
            "UpdateRollbackFailed",
        ):
            time.sleep(POLL_SECONDS)
        if endpoint["EndpointStatus"] != "InService":
            raise Failed(endpoint.get("FailureReason", f"the endpoint is {endpoint['EndpointStatus']}"))

    def _describe(self, name: str, stack: Stack) -> Params:
        return self._call(stack, "DescribeEndpoint", {"EndpointName": name})


def resource_types(cloud: Cloud) -> dict[str, ResourceType]:
    kinds = (Model, EndpointConfig, Endpoint, ModelPackageGroup)
    return {f"AWS::SageMaker::{kind.__name__}": kind(cloud) for kind in kinds}


def as_parameters(properties: Params, operation: str) -> Params:
    """A template's properties as the parameters of an operation of SageMaker's API."""
    shape = model("sagemaker").operation_model(operation).input_shape
    assert shape is not None
    parameters: Params = _as_shape(properties, shape, operation)
    return parameters


def _deployment(properties: Params) -> Params:
    return {key: value for key, value in properties.items() if key != "Tags"}


def _tags(properties: Params, stack: Stack) -> list[dict[str, str]]:
    """The stack's tags, and over them the resource's own."""
    own = {tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags") or []}
    return [{"Key": key, "Value": value} for key, value in {**stack.tags, **own}.items()]


def _is_gone(error: ClientError) -> bool:
    message = error.response["Error"].get("Message", "")
    return any(said in message for said in _GONE)


def _as_shape(value: Any, shape: Shape, where: str) -> Any:
    """A template's property as the API takes it: numbers and booleans may be strings there."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        unknown = sorted(set(value) - set(shape.members))
        if unknown:
            raise Unsupported(f"{where}: {', '.join(unknown)} is not rehearsed")
        return {
            key: _as_shape(item, shape.members[key], f"{where}.{key}")
            for key, item in value.items()
            if item is not None
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_as_shape(item, shape.member, where) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _as_shape(item, shape.value, where) for key, item in value.items()}
    return _as_scalar(value, shape.type_name)


def _as_scalar(value: Any, kind: str) -> Any:
    if kind in ("integer", "long"):
        return int(float(value))
    if kind in ("float", "double"):
        return float(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else str(value).lower() == "true"
    return value if not isinstance(value, int | float | bool) else str(value)
