"""Drift alarms, as CloudWatch tells them when it is asked: an event tells only that one went on or off."""

from __future__ import annotations

from typing import Any

from lambdas.start_retraining.events import why_alarmed
from lambdas.start_retraining.route import Model

KINDS = ("features", "predictions", "quality")
"""What the alarms `<slug>-drift-<kind>` of a model are about."""


def still_on(cloudwatch: Any, model: Model) -> str | None:
    """Why the model drifts, by the first of its alarms that are on; None if none is."""
    for kind in KINDS:  # one by one: for several names at once CloudWatch asks for permission on all alarms
        asked = cloudwatch.describe_alarms(AlarmNames=[f"{model.slug}-drift-{kind}"], StateValue="ALARM")
        for alarm in asked["MetricAlarms"]:
            return why_alarmed(alarm["AlarmName"], alarm.get("StateReason"))
    return None
