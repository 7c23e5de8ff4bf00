"""How a serving stack's endpoint moves traffic: SageMaker's blue/green deployment config, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import CfnCondition, Fn, IResolvable
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
    rollout: Rollout, alarms: Sequence[str], at_once: CfnCondition | None = None
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:  # fmt: skip
    """Blue/green as model.yaml asks, or all at once under a condition; any of the alarms brings the old fleet back."""
    endpoint = sagemaker.CfnEndpoint
    policy = endpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=_conditional(rollout, at_once) if at_once else _routing(rollout),
        termination_wait_in_seconds=DRAIN_SECONDS,
        maximum_execution_timeout_in_seconds=longest_seconds(rollout),
    )
    rollback = [endpoint.AlarmProperty(alarm_name=name) for name in alarms]
    return endpoint.DeploymentConfigProperty(
        blue_green_update_policy=policy,
        auto_rollback_configuration=endpoint.AutoRollbackConfigProperty(alarms=rollback) if rollback else None,
    )


def _routing(rollout: Rollout) -> sagemaker.CfnEndpoint.TrafficRoutingConfigProperty:
    endpoint = sagemaker.CfnEndpoint
    step = endpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=rollout.percent)
    return endpoint.TrafficRoutingConfigProperty(
        type=TYPES[rollout.type], wait_interval_in_seconds=rollout.bake_minutes * 60,
        canary_size=step if rollout.type == "canary" else None,
        linear_step_size=step if rollout.type == "linear" else None)  # fmt: skip


def _conditional(rollout: Rollout, at_once: CfnCondition) -> IResolvable:
    step = {"Type": "CAPACITY_PERCENT", "Value": rollout.percent}
    size = {"canary": {"CanarySize": step}, "linear": {"LinearStepSize": step}}.get(rollout.type, {})
    asked = {"Type": TYPES[rollout.type], "WaitIntervalInSeconds": rollout.bake_minutes * 60, **size}
    # What answers people stays as it is when a shadow comes or goes: nothing has to bake.
    immediately = {"Type": TYPES["all_at_once"], "WaitIntervalInSeconds": 0}
    return Fn.condition_if(at_once.logical_id, immediately, asked)
