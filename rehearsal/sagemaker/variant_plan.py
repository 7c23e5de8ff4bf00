"""A production variant, whole: what an endpoint keeps of configuration and model, whatever becomes of those."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rehearsal.service import Params

Document = dict[str, Any]
STARTUP_SECONDS = 600.0
"""SageMaker's default time for an instance to pass its health check."""
SERVERLESS_STARTUP_SECONDS = 180.0
"""SageMaker's time for a serverless container to do so."""


@dataclass(frozen=True)
class VariantPlan:
    """One production variant, whole: what is left of configuration and model once an endpoint has them."""

    name: str
    weight: float
    count: int
    image: str
    model_data_url: str | None
    environment: dict[str, str]
    role: str
    startup_seconds: float
    serverless: Document | None = None
    """The ServerlessConfig of a variant without instances."""
    shadow: bool = False
    """Whether it gets copies of requests only, and its answers go to nobody."""

    @property
    def package(self) -> str:
        return self.environment.get("MODEL_PACKAGE_ARN", "")


def variant_plan(variant: Document, model: Document, *, shadow: bool = False) -> VariantPlan:
    """The plan of a configuration's variant and its model."""
    container, serverless = container_of(model), variant.get("ServerlessConfig")
    startup = SERVERLESS_STARTUP_SECONDS if serverless else STARTUP_SECONDS
    return VariantPlan(
        name=variant["VariantName"],
        weight=variant.get("InitialVariantWeight", 1.0),
        count=0 if serverless else variant["InitialInstanceCount"],
        image=container["Image"],
        model_data_url=container.get("ModelDataUrl"),
        environment=container.get("Environment") or {},
        role=model["ExecutionRoleArn"],
        startup_seconds=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", startup),
        serverless=serverless,
        shadow=shadow,
    )


def container_of(model: Document) -> Document:
    """The one container of a model."""
    container: Document = model.get("PrimaryContainer") or model["Containers"][0]
    return container


def retained(plans: list[VariantPlan], endpoint: Document, params: Params) -> list[VariantPlan]:
    """The plans with what RetainAllVariantProperties keeps of the live variants of the same name."""
    if not params.get("RetainAllVariantProperties") or not endpoint["live"]:
        return plans
    excluded = {p["VariantPropertyType"] for p in params.get("ExcludeRetainedVariantProperties") or []}
    live = {plan["name"]: plan for plan in endpoint["live"]["plans"] if not plan.get("serverless")}
    kept = {"count": "DesiredInstanceCount", "weight": "DesiredWeight"}

    def retain(plan: VariantPlan) -> VariantPlan:
        before = live.get(plan.name, {}) if plan.serverless is None else {}
        return VariantPlan(
            **{
                **asdict(plan),
                **{key: before[key] for key, kind in kept.items() if key in before and kind not in excluded},
            }
        )

    return [retain(plan) for plan in plans]
