"""Drift alarms, as CloudWatch tells them when it is asked: an event tells only that one went on or off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lambdas.start_retraining.events import why_alarmed
from lambdas.start_retraining.route import Model, alarmed


def still_on(cloudwatch: Any, model: Model, models: Sequence[Model]) -> str | None:
    """Why the model drifts, by the first of its alarms that are on; None if none is."""
    pages = cloudwatch.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix=f"{model.slug}-drift-", StateValue="ALARM"
    )
    for alarm in (alarm for page in pages for alarm in page["MetricAlarms"]):
        if alarmed(alarm["AlarmName"], models) == model:
            return why_alarmed(alarm["AlarmName"], alarm.get("StateReason"))
    return None
