"""The moving of traffic from an endpoint's old fleet to its new one, watched by the alarms of its deployment."""

from __future__ import annotations

import threading
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.sagemaker.container import SAGEMAKER
from rehearsal.sagemaker.fleet import Fleet
from rehearsal.sagemaker.router import Router
from rehearsal.sagemaker.traffic_policy import TrafficPolicy
from rehearsal.service import Caller, Cloud, ServiceError

Document = dict[str, Any]
WATCH_SECONDS, LEAST_WATCH_SECONDS = 10.0, 0.1


class RolledBack(Exception):
    """The deployment ended on its old fleet, which has all traffic again; the message is the FailureReason."""


def check_alarms(cloud: Cloud, alarms: tuple[str, ...], role: str, caller: Caller) -> None:
    """Raise ValidationException unless every alarm is there and the execution role may look at it."""
    for name in alarms:
        _state(cloud, name, role, caller)


def roll_out(
    cloud: Cloud,
    router: Router,
    endpoint: Document,
    green: Fleet,
    policy: TrafficPolicy,
    began: float,
    stopping: threading.Event,
) -> None:
    """Shift traffic to `green` step by step, each followed by its bake; RolledBack when an alarm goes off or the
    deployment takes too long. When it returns, the new fleet has all traffic and has passed its last bake."""
    arn = endpoint["EndpointArn"]
    caller, role = Caller(endpoint["account"], endpoint["region"]), green.variants[0].plan.role
    if not policy.bake_seconds and len(policy.steps) == 1:
        return  # all at once and nothing to wait for: the switch itself is the rollout
    for shares in policy.steps:
        router.shift(arn, green, shares)
        try:
            _bake(cloud, policy, role, caller, began, stopping)
        except (RolledBack, ServiceError) as error:
            router.shift_back(arn)
            raise RolledBack(str(error)) from None


def _bake(
    cloud: Cloud, policy: TrafficPolicy, role: str, caller: Caller, began: float, stopping: threading.Event
) -> None:
    until = time.monotonic() + policy.bake_seconds / cloud.time_scale
    pause = max(LEAST_WATCH_SECONDS, WATCH_SECONDS / cloud.time_scale)
    over = False
    while not over:
        over = stopping.wait(max(0.0, min(pause, until - time.monotonic()))) or time.monotonic() >= until
        tripped = [name for name in policy.alarms if _state(cloud, name, role, caller) == "ALARM"]
        if tripped:
            raise RolledBack(
                f"Deployment rolled back: the alarm{'s' if len(tripped) > 1 else ''} {', '.join(tripped)} "
                "went to ALARM during the baking period."
            )
        # A limit, not a wait: it is never scaled, and servers need the time they need.
        if time.monotonic() - began > policy.limit_seconds:
            raise RolledBack(f"Deployment rolled back: it took longer than {policy.limit_seconds:g} s.")


def _state(cloud: Cloud, name: str, role: str, caller: Caller) -> str:
    """The alarm's state, as the endpoint's execution role sees it."""
    try:
        alarms = cloud.client("cloudwatch", role=role, by=SAGEMAKER, account=caller.account, region=caller.region)
        found = alarms.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    except (ClientError, BotoCoreError, ServiceError) as error:
        raise ServiceError(
            "ValidationException",
            f'The role "{role}" can\'t look at the alarm {name}: it needs cloudwatch:DescribeAlarms. ({error})',
        ) from None
    described = [*found["MetricAlarms"], *found.get("CompositeAlarms", [])]
    if not described:
        raise ServiceError("ValidationException", f"Could not find the alarm {name} of the deployment configuration.")
    return str(described[0]["StateValue"])
