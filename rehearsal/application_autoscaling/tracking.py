"""Target tracking: the two alarms that AWS makes for a policy, and the number of instances that a policy wants."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any

from rehearsal.application_autoscaling.records import variant_of
from rehearsal.service import ServiceError, Unsupported

Document = dict[str, Any]
PERIOD_SECONDS, HIGH_PERIODS, LOW_PERIODS = 60, 3, 15
LOW_SHARE = 0.9
"""Capacity is taken away only below this share of the target, so that it does not come and go."""
COOLDOWN_SECONDS = 300
PREDEFINED = "SageMakerVariantInvocationsPerInstance"
STATISTICS = ("Average", "Minimum", "Maximum", "SampleCount", "Sum")


@dataclass(frozen=True)
class Metric:
    """The CloudWatch metric that a policy tracks."""

    namespace: str
    name: str
    statistic: str
    dimensions: list[dict[str, str]]

    def query(self) -> Document:
        return {"Namespace": self.namespace, "MetricName": self.name, "Dimensions": self.dimensions}


def metric(configuration: Document, resource: str) -> Metric:
    """What a target tracking configuration tracks; Unsupported or ValidationException names what is wrong with it."""
    predefined = configuration.get("PredefinedMetricSpecification")
    customized = configuration.get("CustomizedMetricSpecification")
    if (predefined is None) == (customized is None):
        raise ServiceError("ValidationException", "Exactly one of PredefinedMetricSpecification and"
                           " CustomizedMetricSpecification is required")  # fmt: skip
    if configuration["TargetValue"] <= 0:
        raise ServiceError("ValidationException", "TargetValue must be greater than 0")
    if predefined:
        return _predefined(predefined["PredefinedMetricType"], resource)
    return _customized(customized or {})


def _predefined(kind: str, resource: str) -> Metric:
    if kind != PREDEFINED:
        raise Unsupported(f"the predefined metric {kind} is not rehearsed; {PREDEFINED} is")
    endpoint, variant = variant_of(resource)
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    return Metric("AWS/SageMaker", "InvocationsPerInstance", "Sum", dimensions)


def _customized(given: Document) -> Metric:
    if given.get("Metrics"):
        raise Unsupported("metric math in a scaling policy is not rehearsed: name MetricName and Namespace")
    missing = [key for key in ("MetricName", "Namespace", "Statistic") if not given.get(key)]
    if missing:
        raise ServiceError("ValidationException", f"CustomizedMetricSpecification needs {', '.join(missing)}")
    if given["Statistic"] not in STATISTICS:
        raise ServiceError("ValidationException", f"Statistic must be one of {', '.join(STATISTICS)}")
    dimensions = [{"Name": one["Name"], "Value": one["Value"]} for one in given.get("Dimensions") or []]
    return Metric(given["Namespace"], given["MetricName"], given["Statistic"], dimensions)


def alarm_names(resource: str, configuration: Document) -> list[str]:
    kinds = ["AlarmHigh"] if configuration.get("DisableScaleIn") else ["AlarmHigh", "AlarmLow"]
    return [f"TargetTracking-{resource}-{kind}-{uuid.uuid4()}" for kind in kinds]


def is_high(alarm: str) -> bool:
    return "-AlarmHigh-" in alarm


def alarm(name: str, policy: str, configuration: Document, tracked: Metric) -> Document:
    """The arguments of PutMetricAlarm for one of a policy's alarms."""
    high, target = is_high(name), float(configuration["TargetValue"])
    return {
        "AlarmName": name,
        "AlarmDescription": f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {policy}.",
        "AlarmActions": [policy],
        **tracked.query(),
        "Statistic": tracked.statistic,
        "Period": PERIOD_SECONDS,
        "EvaluationPeriods": HIGH_PERIODS if high else LOW_PERIODS,
        "Threshold": target if high else target * LOW_SHARE,
        "ComparisonOperator": "GreaterThanThreshold" if high else "LessThanThreshold",
    }


def wanted(value: float, target: float, count: int) -> int:
    """As many instances as bring a value that is shared by `count` of them down to the target."""
    return max(1, math.ceil(count * value / target - 1e-9))
