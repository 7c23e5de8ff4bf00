"""Application Auto Scaling's CloudFormation types, made as the stack's role."""

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.properties import to_api
from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack, Unsupported, model

SERVICE, PRINCIPAL = "application-autoscaling", "cloudformation.amazonaws.com"
_IDENTITY = ("ResourceId", "ScalableDimension", "ServiceNamespace")


class _Made(ResourceType):
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def _client(self, stack: Stack) -> Any:
        return self._cloud.client(
            SERVICE,
            role=stack.role,
            by=PRINCIPAL if stack.role else "",
            account=stack.caller.account,
            region=stack.caller.region,
            session="AWSCloudFormation",
        )


class ScalableTarget(_Made):
    """AWS::ApplicationAutoScaling::ScalableTarget; its Ref is what a policy's ScalingTargetId takes."""

    replacement: ClassVar[frozenset[str]] = frozenset(_IDENTITY)
    attributes: ClassVar[frozenset[str]] = frozenset({"Id"})

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        self._register(properties, stack, Tags=_tags(properties, stack))
        made = "|".join(properties[name] for name in _IDENTITY)
        return Provisioned(made, {"Id": made})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        """Tags of a target that is there have calls of their own."""
        target, before, after = self._register(new, stack), _tags(old, stack), _tags(new, stack)
        client = self._client(stack)
        if changed := {key: value for key, value in after.items() if before.get(key) != value}:
            client.tag_resource(ResourceARN=target, Tags=changed)
        if gone := sorted(set(before) - set(after)):
            client.untag_resource(ResourceARN=target, TagKeys=gone)
        return Provisioned(physical_id, {"Id": physical_id})

    def _register(self, properties: Params, stack: Stack, **tags: Any) -> str:
        if properties.get("ScheduledActions"):
            raise Unsupported(f"{stack.logical_id}: ScheduledActions is not rehearsed")
        given = {key: value for key, value in properties.items() if key not in ("ScheduledActions", "Tags")}
        typed = _typed("RegisterScalableTarget", given | tags, stack)
        return str(self._client(stack).register_scalable_target(**typed)["ScalableTargetARN"])

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        client = self._client(stack)
        try:
            client.deregister_scalable_target(**_identity(physical_id))
        except client.exceptions.ObjectNotFoundException:
            return


class ScalingPolicy(_Made):
    """AWS::ApplicationAutoScaling::ScalingPolicy."""

    replacement: ClassVar[frozenset[str]] = frozenset({*_IDENTITY, "PolicyName", "ScalingTargetId"})
    attributes: ClassVar[frozenset[str]] = frozenset({"Arn"})

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        given = {key: value for key, value in properties.items() if key != "ScalingTargetId"}
        if target := properties.get("ScalingTargetId"):
            given |= _identity(target)
        made = self._client(stack).put_scaling_policy(**_typed("PutScalingPolicy", given, stack))["PolicyARN"]
        return Provisioned(made, {"Arn": made})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        return self.create(new, stack)

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        """The ARN says which policy of which resource it is."""
        client, parts = self._client(stack), physical_id.split(":")
        resource = parts[7].removeprefix("resource/sagemaker/")
        name = parts[8].removeprefix("policyName/")
        try:
            client.delete_scaling_policy(PolicyName=name, ServiceNamespace="sagemaker", ResourceId=resource,
                                         ScalableDimension="sagemaker:variant:DesiredInstanceCount")  # fmt: skip
        except client.exceptions.ObjectNotFoundException:
            return


def resource_types(cloud: Cloud) -> dict[str, ResourceType]:
    kinds = (ScalableTarget, ScalingPolicy)
    return {f"AWS::ApplicationAutoScaling::{kind.__name__}": kind(cloud) for kind in kinds}


def _identity(physical_id: str) -> dict[str, str]:
    """Resource, dimension and namespace out of a target's Ref."""
    return dict(zip(_IDENTITY, physical_id.split("|"), strict=True))


def _tags(properties: Params, stack: Stack) -> dict[str, str]:
    return {**stack.tags, **{tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags", [])}}


def _typed(operation: str, properties: Params, stack: Stack) -> Params:
    shape = model(SERVICE).operation_model(operation).input_shape
    typed: Params = to_api(properties, shape, stack.logical_id)
    if configuration := typed.get("TargetTrackingScalingPolicyConfiguration"):
        configuration["TargetValue"] = float(configuration["TargetValue"])
    return typed
