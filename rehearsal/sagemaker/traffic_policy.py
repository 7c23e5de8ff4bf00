"""A blue/green deployment's traffic policy: what SageMaker accepts, and the steps in which traffic moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rehearsal.sagemaker.variant_plan import VariantPlan
from rehearsal.service import ServiceError, Unsupported

Document = dict[str, Any]
LARGEST_STEP_PERCENT = 50
LEAST_LINEAR_PERCENT = 10


@dataclass(frozen=True)
class TrafficPolicy:
    """How traffic moves from the old to the new fleet; seconds are AWS's, not yet scaled."""

    steps: list[dict[str, float]]
    """By variant, the share of the new fleet's instances that are switched on; the last step is all of them."""
    bake_seconds: float = 0
    termination_wait_seconds: float = 0
    limit_seconds: float = math.inf
    alarms: tuple[str, ...] = ()


def traffic_policy(config: Document | None, plans: list[VariantPlan], live: list[VariantPlan]) -> TrafficPolicy:
    """The policy that a DeploymentConfig states for these fleets; ValidationException where SageMaker refuses it."""
    config = config or {}
    if config and any(plan.serverless for plan in [*plans, *live]):
        raise _refused("a serverless endpoint takes no DeploymentConfig: its traffic moves all at once")
    if config.get("RollingUpdatePolicy"):
        raise Unsupported("RollingUpdatePolicy is not rehearsed; use BlueGreenUpdatePolicy")
    blue_green = config.get("BlueGreenUpdatePolicy") or {}
    routing = blue_green.get("TrafficRoutingConfiguration") or {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    alarms = [alarm["AlarmName"] for alarm in (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or []]
    shifted = routing["Type"] != "ALL_AT_ONCE"
    if shifted and {plan.name for plan in plans} != {plan.name for plan in live}:
        raise _refused(f"{routing['Type']} needs the same variant names in the old and the new configuration")
    # Copies for a shadow variant follow the fleet that answers: no step of their own.
    plans = [plan for plan in plans if not plan.shadow]
    steps = [*_shifts(routing, plans), {plan.name: 1.0 for plan in plans}]
    policy = TrafficPolicy(
        steps,
        routing.get("WaitIntervalInSeconds", 0),
        blue_green.get("TerminationWaitInSeconds", 0),
        blue_green.get("MaximumExecutionTimeoutInSeconds", math.inf),
        tuple(alarms),
    )
    waited = policy.bake_seconds * len(steps) + policy.termination_wait_seconds
    if policy.limit_seconds <= waited:
        raise _refused(f"MaximumExecutionTimeoutInSeconds must be larger than all waits together, {waited:g}")
    return policy


def _shifts(routing: Document, plans: list[VariantPlan]) -> Iterator[dict[str, float]]:
    """The steps before the last."""
    kind = routing["Type"]
    member = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize", "ALL_AT_ONCE": ""}[kind]
    for other in {"CanarySize", "LinearStepSize"} - {member}:
        if routing.get(other):
            raise _refused(f"{other} can't be given with {kind} traffic routing")
    if not member:
        return
    if not (size := routing.get(member)):
        raise _refused(f"{kind} traffic routing needs {member}")
    on = {plan.name: _instances(member, size, plan) for plan in plans}
    count = 1 if kind == "CANARY" else max(math.ceil(plan.count / on[plan.name]) for plan in plans) - 1
    for step in range(1, count + 1):
        yield {plan.name: min(1.0, step * on[plan.name] / plan.count) for plan in plans}


def _instances(member: str, size: Document, plan: VariantPlan) -> int:
    """The whole instances that one step switches on."""
    where = f"{member} of variant {plan.name} ({plan.count} instance{'s' if plan.count > 1 else ''})"
    given, percent = size["Value"], size["Type"] == "CAPACITY_PERCENT"
    share = given if percent else 100 * given / plan.count
    if plan.count < 2:
        raise _refused(f"{where}: traffic can only be shifted in steps with at least 2 instances")
    if share > LARGEST_STEP_PERCENT:
        raise _refused(f"{where}: {share:g} % is more than {LARGEST_STEP_PERCENT} % of its instances")
    if member == "LinearStepSize" and share < LEAST_LINEAR_PERCENT:
        raise _refused(f"{where}: {share:g} % is less than {LEAST_LINEAR_PERCENT} % of its instances")
    return math.ceil(plan.count * given / 100) if percent else int(given)


def _refused(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)
