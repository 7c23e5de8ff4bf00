"""The part of model.yaml that takes effect with `cdk deploy`, not with a push."""

from __future__ import annotations

from collections.abc import Mapping

from config.document import shown
from config.settings import Section
from contract.model import Model

Deployed = dict[str, bool | int | float | str | list[str] | None]


def deployed(model: Model) -> Deployed:
    """What the stacks were made from, by model.yaml's dotted keys; the stacks give it to Verify as JSON."""
    return {
        "framework.name": model.framework.name,
        "framework.version": model.framework.version,
        "retraining.schedule": model.retraining.schedule,
        "retraining.on_new_data": model.retraining.on_new_data,
        "retraining.on_drift": model.retraining.on_drift,
        "retraining.cool_down_hours": model.retraining.cool_down_hours,
        "serving.endpoint": model.serving.endpoint,
        "serving.rollout.type": model.serving.rollout.type,
        "serving.rollout.percent": model.serving.rollout.percent,
        "serving.rollout.bake_minutes": model.serving.rollout.bake_minutes,
        **_section("serving.alarms", model.serving.alarms),
        **_section("serving.scaling", model.serving.scaling),
        **_section("serving.serverless", model.serving.serverless),
        "serving.capture_percent": model.serving.capture_percent,
        "serving.shadow": model.serving.shadow,
        **_section("monitoring", model.monitoring),
        "watch": list(model.watch),
    }


def _section(key: str, section: Section) -> Deployed:
    return {f"{key}.{name}": value for name, value in section.model_dump(mode="json").items()}


def differences(model: Model, before: Mapping[str, object]) -> list[tuple[str, str]]:
    """The dotted keys that were changed since the last deployment, each with what to do."""
    return [
        (key, f"found {shown(value)}, deployed is {shown(before.get(key))}; this change needs a cdk deploy")
        for key, value in deployed(model).items()
        if before.get(key) != value
    ]
