"""Application Auto Scaling's API, for the number of instances of endpoints' variants."""

from __future__ import annotations

import base64
import time
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.application_autoscaling import records, service_role, tracking
from rehearsal.application_autoscaling.records import ACTIVITY, DIMENSION, NAMESPACE, POLICY, TARGET, Document
from rehearsal.application_autoscaling.resources import resource_types
from rehearsal.application_autoscaling.scaler import Scaler
from rehearsal.application_autoscaling.tags import TAGGING, Tags, tagging
from rehearsal.service import (
    Caller,
    Cloud,
    Params,
    Permission,
    ResourceType,
    ServiceError,
    Unsupported,
    arn,
)

PAGE = 50
_CHANGES = ("RegisterScalableTarget", "DeregisterScalableTarget", "PutScalingPolicy", "DeleteScalingPolicy")
_LIMITS: tuple[str, ...] = ("MinCapacity", "MaxCapacity", "SuspendedState")
_HIDDEN = ("account", "region", "target", "count", "activity", "out_at", "out_to", "in_at")


class ApplicationAutoScaling(Tags):
    name = "application-autoscaling"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._scaler = Scaler(cloud)

    def start(self) -> None:
        self._scaler.start()

    def stop(self) -> None:
        self._scaler.stop()

    def resource_types(self) -> dict[str, ResourceType]:
        return resource_types(self.cloud)

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        """The operation's own, and what it does in the caller's name (AWS asks for both)."""
        action = f"application-autoscaling:{operation}"
        if not self.runs(operation):
            raise Unsupported(f"{action} is not rehearsed")
        if operation in TAGGING:
            return self.tag_permissions(operation, params)
        if operation not in _CHANGES:
            return [Permission(action)]
        _must_be_a_variant(params)
        target = records.target_arn(caller, params["ResourceId"])
        own = Permission(action, target, records.CONDITION_KEYS)
        return [own, *tagging(target, params.get("Tags", {})), *self._implied(operation, params["ResourceId"], caller)]

    def _implied(self, operation: str, resource: str, caller: Caller) -> list[Permission]:
        endpoint = arn("sagemaker", caller, f"endpoint/{records.variant_of(resource)[0]}")
        alarms = arn("cloudwatch", caller, f"alarm:TargetTracking-{resource}-Alarm")
        implied: dict[str, list[Permission]] = {
            "RegisterScalableTarget": [
                Permission("sagemaker:DescribeEndpoint", endpoint),
                Permission("sagemaker:UpdateEndpointWeightsAndCapacities", endpoint),
                *service_role.needed(self.cloud.store, caller),
            ],
            "PutScalingPolicy": [Permission("cloudwatch:PutMetricAlarm", alarms)],
            "DeleteScalingPolicy": [Permission("cloudwatch:DeleteAlarms", alarms)],
        }
        return implied.get(operation, [])

    # -- scalable targets -----------------------------------------------------------------------------------

    def register_scalable_target(self, caller: Caller, params: Params) -> Params:
        resource = _must_be_a_variant(params)
        key, made = records.target_key(caller, resource), records.target_arn(caller, resource)
        before = self.cloud.store.get(TARGET, key)
        if before is None:
            self._must_be_scalable(caller, resource)
            service_role.ensure(self.cloud, caller)
        elif params.get("Tags"):
            raise ServiceError("ValidationException", "The scalable target that you tried to tag already exists. To"
                               " update tags on an existing scalable target, use the TagResource API.")  # fmt: skip
        target: Document = {
            **(before or {"CreationTime": time.time()}),
            **{name: params[name] for name in _LIMITS if name in params},
            "ServiceNamespace": NAMESPACE,
            "ResourceId": resource,
            "ScalableDimension": DIMENSION,
            "RoleARN": service_role.role_arn(caller),
            "ScalableTargetARN": made,
            "account": caller.account,
            "region": caller.region,
        }
        _must_have_a_range(target)
        self.cloud.store.put(TARGET, key, target)
        self.tag(made, params.get("Tags", {}))
        return {"ScalableTargetARN": made}

    def describe_scalable_targets(self, caller: Caller, params: Params) -> Params:
        wanted = params.get("ResourceIds")
        found = [target for target in self._own(TARGET, caller, params)
                 if not wanted or target["ResourceId"] in wanted]  # fmt: skip
        return _paged("ScalableTargets", found, params)

    def deregister_scalable_target(self, caller: Caller, params: Params) -> Params:
        """With a target go its policies and their alarms."""
        resource = _must_be_a_variant(params)
        key = self._registered(caller, resource)
        for made, policy in records.policies_of(self.cloud.store, key):
            self._delete_policy(made, policy, caller)
        self.cloud.store.delete(TARGET, key)
        self.untag_all(records.target_arn(caller, resource))
        return {}

    # -- scaling policies -----------------------------------------------------------------------------------

    def put_scaling_policy(self, caller: Caller, params: Params) -> Params:
        resource = _must_be_a_variant(params)
        key = self._registered(caller, resource)
        kind = params.get("PolicyType", "StepScaling")
        if kind != "TargetTrackingScaling":
            raise Unsupported(f"PolicyType {kind} is not rehearsed; TargetTrackingScaling is")
        configuration = params.get("TargetTrackingScalingPolicyConfiguration")
        if not configuration:
            raise ServiceError("ValidationException", "TargetTrackingScalingPolicyConfiguration is required")
        tracked = tracking.metric(configuration, resource)
        made, before = self._policy(key, params["PolicyName"])
        made = made or records.policy_arn(caller, resource, params["PolicyName"])
        names = [alarm["AlarmName"] for alarm in before["Alarms"]] if before else []
        if len(names) != (1 if configuration.get("DisableScaleIn") else 2):
            self._delete_alarms(names, caller)
            names = tracking.alarm_names(resource, configuration)
        alarms = service_role.acting(self.cloud, "cloudwatch", caller)
        for name in names:
            alarms.put_metric_alarm(**tracking.alarm(name, made, configuration, tracked))
        described = [{"AlarmName": name, "AlarmARN": arn("cloudwatch", caller, f"alarm:{name}")} for name in names]
        policy = {"PolicyARN": made, "PolicyName": params["PolicyName"], "PolicyType": kind,
                  "ServiceNamespace": NAMESPACE, "ResourceId": resource, "ScalableDimension": DIMENSION,
                  "TargetTrackingScalingPolicyConfiguration": configuration, "Alarms": described,
                  "CreationTime": before["CreationTime"] if before else time.time(),
                  "account": caller.account, "region": caller.region, "target": key}  # fmt: skip
        self.cloud.store.put(POLICY, made, policy)
        return {"PolicyARN": made, "Alarms": described}

    def describe_scaling_policies(self, caller: Caller, params: Params) -> Params:
        names = params.get("PolicyNames")
        found = [policy for policy in self._own(POLICY, caller, params)
                 if not names or policy["PolicyName"] in names]  # fmt: skip
        return _paged("ScalingPolicies", found, params)

    def delete_scaling_policy(self, caller: Caller, params: Params) -> Params:
        resource = _must_be_a_variant(params)
        made, policy = self._policy(records.target_key(caller, resource), params["PolicyName"])
        if policy is None:
            raise ServiceError("ObjectNotFoundException", f"No scaling policy found for service namespace: {NAMESPACE},"
                               f" resource ID: {resource}, scalable dimension: {DIMENSION}")  # fmt: skip
        self._delete_policy(made, policy, caller)
        return {}

    # -- scaling activities ---------------------------------------------------------------------------------

    def describe_scaling_activities(self, caller: Caller, params: Params) -> Params:
        """Newest first."""
        return _paged("ScalingActivities", [*reversed(self._own(ACTIVITY, caller, params))], params)

    # -- state ----------------------------------------------------------------------------------------------

    def _own(self, kind: str, caller: Caller, params: Params) -> list[Document]:
        """The caller's documents of a kind, of the resource that is asked for."""
        if params["ServiceNamespace"] != NAMESPACE:
            raise Unsupported(f"the service namespace {params['ServiceNamespace']} is not rehearsed; {NAMESPACE} is")
        resource = params.get("ResourceId")
        return [document for _, document in self.cloud.store.list(kind)
                if (document["account"], document["region"]) == (caller.account, caller.region)
                and resource in (None, document["ResourceId"])]  # fmt: skip

    def _registered(self, caller: Caller, resource: str) -> str:
        key = records.target_key(caller, resource)
        if self.cloud.store.get(TARGET, key) is None:
            raise ServiceError("ObjectNotFoundException", f"No scalable target registered for service namespace:"
                               f" {NAMESPACE}, resource ID: {resource}, scalable dimension: {DIMENSION}")  # fmt: skip
        return key

    def _policy(self, key: str, name: str) -> tuple[str, Document | None]:
        for made, policy in records.policies_of(self.cloud.store, key):
            if policy["PolicyName"] == name:
                return made, policy
        return "", None

    def _delete_policy(self, made: str, policy: Document, caller: Caller) -> None:
        self._delete_alarms([alarm["AlarmName"] for alarm in policy["Alarms"]], caller)
        self.cloud.store.delete(POLICY, made)

    def _delete_alarms(self, names: list[str], caller: Caller) -> None:
        alarms = service_role.acting(self.cloud, "cloudwatch", caller)
        for name in names:  # one by one: the embedded IAM checks a resource only where a request names one
            alarms.delete_alarms(AlarmNames=[name])

    def _must_be_scalable(self, caller: Caller, resource: str) -> None:
        """A variant that is there, on instances."""
        name, variant = records.variant_of(resource)
        sagemaker = self.cloud.client("sagemaker", account=caller.account, region=caller.region)
        try:
            endpoint = sagemaker.describe_endpoint(EndpointName=name)
            config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        except ClientError as error:
            raise _not_scalable(resource, error.response["Error"]["Message"]) from None
        found = [one for one in config["ProductionVariants"] if one["VariantName"] == variant]
        if not found:
            raise _not_scalable(resource, f"the endpoint has no variant {variant}")
        if found[0].get("ServerlessConfig"):
            raise _not_scalable(resource, "a serverless variant has no instances")
        if found[0].get("InstanceType", "").startswith("ml.t2."):
            raise _not_scalable(resource, "burstable instances such as ml.t2 are not scaled")


def _not_scalable(resource: str, why: str) -> ServiceError:
    return ServiceError("ValidationException", f"Validation failed for resource ID {resource}: {why}")


def _must_be_a_variant(params: Params) -> str:
    """The resource id, if it is something that is scaled here."""
    if params["ServiceNamespace"] != NAMESPACE:
        raise Unsupported(f"the service namespace {params['ServiceNamespace']} is not rehearsed; {NAMESPACE} is")
    if params["ScalableDimension"] != DIMENSION:
        raise Unsupported(f"the scalable dimension {params['ScalableDimension']} is not rehearsed; {DIMENSION} is")
    records.variant_of(params["ResourceId"])
    return str(params["ResourceId"])


def _must_have_a_range(target: Document) -> None:
    low, high = target.get("MinCapacity"), target.get("MaxCapacity")
    if low is None or high is None:
        raise ServiceError("ValidationException", "MinCapacity and MaxCapacity are required for a new scalable target")
    if not 0 <= low <= high:
        raise ServiceError("ValidationException", f"MinCapacity {low} must be between 0 and MaxCapacity {high}")
    if low == 0:
        raise Unsupported("MinCapacity 0 is not rehearsed: an endpoint keeps at least one instance")


def _paged(member: str, found: list[Document], params: Params) -> Params:
    first = int(base64.urlsafe_b64decode(params["NextToken"]).decode()) if params.get("NextToken") else 0
    size = params.get("MaxResults", PAGE)
    shown = [{key: value for key, value in one.items() if key not in _HIDDEN} for one in found[first : first + size]]
    token: dict[str, Any] = {}
    if len(found) > first + size:
        token = {"NextToken": base64.urlsafe_b64encode(str(first + size).encode()).decode()}
    return {member: shown, **token}
