"""How a serving stack's endpoint moves traffic: SageMaker's blue/green deployment config, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_sagemaker as sagemaker

from contract.model import Rollout

TYPES = {"all_at_once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}
DRAIN_SECONDS = 10
"""How long the old fleet keeps answering what it has begun, once it gets no new requests."""
START_SECONDS = 3600
"""For the new fleet's instances to come up, before anything is watched."""


def longest_seconds(rollout: Rollout) -> int:
    """When SageMaker gives up a rollout and goes back."""
    return START_SECONDS + rollout.minutes * 60


def deployment_config(
    rollout: Rollout, alarms: Sequence[str]
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:  # fmt: skip
    """Blue/green as model.yaml asks; any of the named alarms brings the old fleet back."""
    endpoint = sagemaker.CfnEndpoint
    step = endpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=rollout.percent)
    routing = endpoint.TrafficRoutingConfigProperty(
        type=TYPES[rollout.type], wait_interval_in_seconds=rollout.bake_minutes * 60,
        canary_size=step if rollout.type == "canary" else None,
        linear_step_size=step if rollout.type == "linear" else None)  # fmt: skip
    policy = endpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=routing, termination_wait_in_seconds=DRAIN_SECONDS,
        maximum_execution_timeout_in_seconds=longest_seconds(rollout))  # fmt: skip
    rollback = [endpoint.AlarmProperty(alarm_name=name) for name in alarms]
    return endpoint.DeploymentConfigProperty(
        blue_green_update_policy=policy,
        auto_rollback_configuration=endpoint.AutoRollbackConfigProperty(alarms=rollback) if rollback else None,
    )
