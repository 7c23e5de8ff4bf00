"""Autoscaling of one endpoint: as many instances as its load wants, between what the live version asks for."""

from __future__ import annotations

from aws_cdk import CfnCondition, CfnParameter
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from stacks.deployment import Deployment
from stacks.serving_alarms import NAMESPACE

DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def resource_id(endpoint: str, variant: str) -> str:
    """What Application Auto Scaling calls an endpoint's variant."""
    return f"endpoint/{endpoint}/variant/{variant}"


class EndpointScaling(Construct):
    """Target tracking on each instance's invocations, or on what waits for each instance of an asynchronous endpoint;
    under a condition, since a change of instance type needs it off."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, variant: str,
                 endpoint: sagemaker.CfnEndpoint, minimum: CfnParameter, maximum: CfnParameter,
                 condition: CfnCondition) -> None:  # fmt: skip
        super().__init__(scope, id)
        # Without a role of its own it is the one that AWS keeps for the service.
        target = scaling.CfnScalableTarget(
            self, "Target", service_namespace="sagemaker", scalable_dimension=DIMENSION,
            resource_id=resource_id(deployment.endpoint, variant),
            min_capacity=minimum.value_as_number, max_capacity=maximum.value_as_number)  # fmt: skip
        target.cfn_options.condition = condition
        target.add_resource_dependency(endpoint)
        self._policy(deployment, target, condition)

    def _policy(self, deployment: Deployment, target: scaling.CfnScalableTarget, condition: CfnCondition) -> None:
        asked, policy = deployment.model.serving.scaling, scaling.CfnScalingPolicy
        queued = deployment.kind == "async"
        tracking = policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=asked.backlog_per_instance if queued else asked.invocations_per_minute,
            predefined_metric_specification=None if queued else policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type="SageMakerVariantInvocationsPerInstance"),
            customized_metric_specification=_backlog(deployment.endpoint) if queued else None,
            scale_out_cooldown=asked.grow_after_seconds, scale_in_cooldown=asked.shrink_after_seconds)  # fmt: skip
        name = f"{deployment.endpoint}-{'backlog' if queued else 'invocations'}"
        made = policy(
            self, "Policy", policy_name=name, policy_type="TargetTrackingScaling", scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=tracking)  # fmt: skip
        made.cfn_options.condition = condition


def _backlog(endpoint: str) -> scaling.CfnScalingPolicy.CustomizedMetricSpecificationProperty:
    """The requests in the queue and at work, for each instance; there is no predefined metric for it."""
    policy = scaling.CfnScalingPolicy
    return policy.CustomizedMetricSpecificationProperty(
        namespace=NAMESPACE, metric_name="ApproximateBacklogSizePerInstance", statistic="Average",
        dimensions=[policy.MetricDimensionProperty(name="EndpointName", value=endpoint)])  # fmt: skip
