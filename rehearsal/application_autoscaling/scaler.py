"""The scaling itself: looks at every target's alarms, and gives its variant as many instances as its policies want.

CloudWatch repeats a scaling policy's action every minute for as long as its alarm rings; looking at the alarms on
a scaled tick is the same. Nothing is changed while the endpoint is: auto scaling is blocked during an update.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.application_autoscaling import records, service_role, tracking
from rehearsal.application_autoscaling.records import ACTIVITY, TARGET, Document
from rehearsal.repeater import Repeater
from rehearsal.service import Caller, Cloud, ServiceError

log = logging.getLogger("rehearsal")
LEAST_PERIOD_SECONDS = 0.2
TICKS_A_PERIOD = 2
FURTHER_BACK = 3
"""Periods that are looked at for the newest value of a metric: the last one may not have been published yet."""


@dataclass(frozen=True)
class Wish:
    """What one policy wants, and the alarm that made it want that."""

    count: int
    cause: str


class Scaler:
    """One thread for all targets; what it is about to do is in the store, so that a restart goes on with it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._period = max(tracking.PERIOD_SECONDS / cloud.time_scale, LEAST_PERIOD_SECONDS)
        self._thread = Repeater("scaling", self._run, lambda: self._period / TICKS_A_PERIOD)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _run(self) -> None:
        for key, target in self._cloud.store.list(TARGET):
            try:
                self._look(key, target)
            except (ClientError, BotoCoreError, ServiceError) as error:
                if not self._thread.stopping.is_set():
                    log.warning("%s could not be scaled: %s", target["ResourceId"], error)
            except Exception:
                log.exception("%s could not be scaled", target["ResourceId"])

    def _look(self, key: str, target: Document) -> None:
        caller = Caller(target["account"], target["region"])
        endpoint = self._describe(target, caller)
        if endpoint is None or endpoint["EndpointStatus"] != "InService":
            return
        count = endpoint["count"]
        if activity := target.get("activity"):
            self._finish(key, activity, count)
            return
        wish = _within(target, count) or self._wish(key, target, caller, count)
        if wish is not None and wish.count != count:
            self._scale(key, target, caller, count, wish)

    def _describe(self, target: Document, caller: Caller) -> Document | None:
        """The endpoint with the `count` of its variant's instances; None if it is gone."""
        name, variant = records.variant_of(target["ResourceId"])
        try:
            found = service_role.acting(self._cloud, "sagemaker", caller).describe_endpoint(EndpointName=name)
        except ClientError as error:
            if "Could not find" in str(error):
                return None
            raise
        counts = [v["CurrentInstanceCount"] for v in found.get("ProductionVariants", []) if v["VariantName"] == variant]
        return {**found, "count": counts[0]} if counts else None

    # -- what is wanted -------------------------------------------------------------------------------------

    def _wish(self, key: str, target: Document, caller: Caller, count: int) -> Wish | None:
        """More instances if any policy wants more; fewer only if every policy that takes any away agrees."""
        policies = [policy for _, policy in records.policies_of(self._cloud.store, key)]
        now = time.time()
        grow = [wish for policy in policies if (wish := self._more(policy, target, caller, count, now))]
        if grow:
            return max(grow, key=lambda wish: wish.count)
        shrinking = [p for p in policies if not p["TargetTrackingScalingPolicyConfiguration"].get("DisableScaleIn")]
        fewer = [self._fewer(policy, target, caller, count, now) for policy in shrinking]
        agreed = [wish for wish in fewer if wish is not None]
        return max(agreed, key=lambda wish: wish.count) if agreed and len(agreed) == len(fewer) else None

    def _more(self, policy: Document, target: Document, caller: Caller, count: int, now: float) -> Wish | None:
        if _suspended(target, "DynamicScalingOutSuspended"):
            return None
        alarm = self._ringing(policy, caller, high=True)
        wish = self._tracked(policy, caller, alarm, count, newest=True, at_least=target["MinCapacity"],
                             at_most=target["MaxCapacity"]) if alarm else None  # fmt: skip
        if wish is None or wish.count <= count:
            return None
        # Within the cooldown only what is larger than the scale-out before it.
        cooling = now < target.get("out_at", 0.0) + self._cooldown(policy, "ScaleOutCooldown")
        return None if cooling and wish.count <= target.get("out_to", 0) else wish

    def _fewer(self, policy: Document, target: Document, caller: Caller, count: int, now: float) -> Wish | None:
        last = max(target.get("out_at", 0.0), target.get("in_at", 0.0))
        if now < last + self._cooldown(policy, "ScaleInCooldown") or _suspended(target, "DynamicScalingInSuspended"):
            return None
        alarm = self._ringing(policy, caller, high=False)
        wish = self._tracked(policy, caller, alarm, count, newest=False, at_least=target["MinCapacity"],
                             at_most=target["MaxCapacity"]) if alarm else None  # fmt: skip
        return wish if wish is not None and wish.count < count else None

    def _cooldown(self, policy: Document, kind: str) -> float:
        seconds = policy["TargetTrackingScalingPolicyConfiguration"].get(kind, tracking.COOLDOWN_SECONDS)
        return float(seconds) / self._cloud.time_scale

    def _ringing(self, policy: Document, caller: Caller, *, high: bool) -> str:
        """The policy's alarm of that kind, if it is in ALARM."""
        names = [alarm["AlarmName"] for alarm in policy["Alarms"] if tracking.is_high(alarm["AlarmName"]) == high]
        if not names:
            return ""
        alarms = service_role.acting(self._cloud, "cloudwatch", caller)
        found = alarms.describe_alarms(AlarmNames=names, StateValue="ALARM")["MetricAlarms"]
        return str(found[0]["AlarmName"]) if found else ""

    def _tracked(self, policy: Document, caller: Caller, alarm: str, count: int, *, newest: bool, at_least: int,
                 at_most: int) -> Wish | None:  # fmt: skip
        """How many instances the metric asks for: its newest value to grow, its highest one to shrink."""
        configuration = policy["TargetTrackingScalingPolicyConfiguration"]
        values = self._values(tracking.metric(configuration, policy["ResourceId"]), caller,
                              FURTHER_BACK if newest else tracking.LOW_PERIODS)  # fmt: skip
        if not values:
            return None
        wanted = tracking.wanted(values[-1] if newest else max(values), configuration["TargetValue"], count)
        cause = f"monitor alarm {alarm} in state ALARM triggered policy {policy['PolicyName']}"
        return Wish(min(max(wanted, at_least), at_most), cause)

    def _values(self, tracked: tracking.Metric, caller: Caller, periods: int) -> list[float]:
        """The metric's values in the last whole periods that have any, oldest first."""
        # As AWS itself: no role of ours is asked for metrics.
        metrics = self._cloud.client("cloudwatch", account=caller.account, region=caller.region)
        end = math.floor((time.time() - self._period / 2) / self._period)
        found = (self._value(metrics, tracked, slot) for slot in range(end - periods, end))
        return [value for value in found if value is not None]

    def _value(self, metrics: Any, tracked: tracking.Metric, slot: int) -> float | None:
        """The statistic over one scaled period; CloudWatch's own periods are not scaled, so points are put together."""
        began = slot * self._period
        points = metrics.get_metric_statistics(
            **tracked.query(),
            Period=86400,
            StartTime=dt.datetime.fromtimestamp(began - self._period * 1e-3, dt.UTC),
            EndTime=dt.datetime.fromtimestamp(began + self._period * 0.999, dt.UTC),
            Statistics=["SampleCount", "Sum", "Minimum", "Maximum"],
        )["Datapoints"]
        if not points:
            return None
        count, total = sum(p["SampleCount"] for p in points), sum(p["Sum"] for p in points)
        return float({"SampleCount": count, "Sum": total, "Average": total / count,
                      "Minimum": min(p["Minimum"] for p in points),
                      "Maximum": max(p["Maximum"] for p in points)}[tracked.statistic])  # fmt: skip

    # -- what is done ---------------------------------------------------------------------------------------

    def _scale(self, key: str, target: Document, caller: Caller, count: int, wish: Wish) -> None:
        activity = records.begin_activity(self._cloud.store, target, wish.count, wish.cause)
        name, variant = records.variant_of(target["ResourceId"])
        try:
            service_role.acting(self._cloud, "sagemaker", caller).update_endpoint_weights_and_capacities(
                EndpointName=name,
                DesiredWeightsAndCapacities=[{"VariantName": variant, "DesiredInstanceCount": wish.count}],
            )
        except ClientError as error:
            message = f"Failed to set desired instance count to {wish.count}. Reason: {error}"
            records.end_activity(self._cloud.store, activity, "Failed", message)
            return
        grows = wish.count > count
        self._note(key, activity=activity, **({"out_to": wish.count} if grows else {}))

    def _finish(self, key: str, activity: str, count: int) -> None:
        """The endpoint is in service again: with the instances that were asked for, or without."""
        asked = (self._cloud.store.get(ACTIVITY, activity) or {}).get("count")
        if asked == count:
            done = f"Successfully set desired instance count to {asked}. Change successfully fulfilled by sagemaker."
            records.end_activity(self._cloud.store, activity, "Successful", done)
        elif asked is not None:
            failed = f"Failed to set desired instance count to {asked}: there are {count}."
            records.end_activity(self._cloud.store, activity, "Failed", failed)
        target = self._cloud.store.get(TARGET, key) or {}
        self._note(key, activity=None, **{"out_at" if target.get("out_to") == asked else "in_at": time.time()})

    def _note(self, key: str, **changes: Any) -> None:
        if self._cloud.store.get(TARGET, key) is not None:
            self._cloud.store.update(TARGET, key, lambda target: target.update(changes))


def _within(target: Document, count: int) -> Wish | None:
    """A minimum that was raised, or a maximum that was lowered, takes effect without any alarm."""
    if count < target["MinCapacity"]:
        return Wish(target["MinCapacity"], f"minimum capacity was set to {target['MinCapacity']}")
    if count > target["MaxCapacity"]:
        return Wish(target["MaxCapacity"], f"maximum capacity was set to {target['MaxCapacity']}")
    return None


def _suspended(target: Document, what: str) -> bool:
    return bool((target.get("SuspendedState") or {}).get(what))
