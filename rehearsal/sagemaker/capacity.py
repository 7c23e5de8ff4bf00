"""An endpoint's capacity while it is live: its variants' instances and weights, and who scales them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rehearsal.application_autoscaling.records import CONDITION_KEYS, is_registered, resource_of, target_arn
from rehearsal.service import Caller, Params, Permission, ServiceError, Unsupported
from rehearsal.store import Store

Document = dict[str, Any]


def desired(endpoint: Document, params: Params) -> dict[str, Document]:
    """By variant, the `count` and `weight` that UpdateEndpointWeightsAndCapacities asks for."""
    live = {plan["name"]: plan for plan in (endpoint["live"] or {"plans": []})["plans"]}
    wanted: dict[str, Document] = {}
    for asked in params["DesiredWeightsAndCapacities"]:
        name = asked["VariantName"]
        if name not in live:
            raise ServiceError("ValidationException", f"Variant {name} not found for endpoint"
                               f" {endpoint['EndpointName']}.")  # fmt: skip
        if asked.get("ServerlessUpdateConfig"):
            raise Unsupported(f"{name}: ServerlessUpdateConfig is not rehearsed")
        serverless = bool(live[name].get("serverless"))
        if serverless and "DesiredInstanceCount" in asked:
            raise ServiceError("ValidationException", f"{name} is serverless: it has no DesiredInstanceCount")
        count = asked.get("DesiredInstanceCount", live[name]["count"])
        least = 0 if serverless or (endpoint["live"] or {}).get("asynchronous") else 1
        if count < least:
            message = f"{name}: DesiredInstanceCount must be at least {least}, not {count}"
            raise ServiceError("ValidationException", message)
        wanted[name] = {"count": count, "weight": asked.get("DesiredWeight", live[name]["weight"])}
    return wanted


def scaled_variants(store: Store, caller: Caller, endpoint: str, variants: list[str]) -> list[str]:
    """Those that are scalable targets."""
    return [name for name in variants if is_registered(store, caller.account, caller.region, endpoint, name)]


def must_keep_scaled(store: Store, caller: Caller, endpoint: str, before: Document, after: Document) -> None:
    """SageMaker neither removes a scalable target nor changes its instance type."""
    types = {one["VariantName"]: one.get("InstanceType") for one in after["ProductionVariants"]}
    changed = [one["VariantName"] for one in before["ProductionVariants"]
               if types.get(one["VariantName"]) != one.get("InstanceType")]  # fmt: skip
    if scaled := scaled_variants(store, caller, endpoint, changed):
        raise ServiceError("ValidationException", f'The variant(s) "[{", ".join(scaled)}]" must be deregistered as'
                           " scalable target with AWS Auto Scaling before they can be removed or have their instance"
                           " type updated.")  # fmt: skip


def deregistering(store: Store, caller: Caller, endpoint: str, variants: list[str]) -> Iterator[Permission]:
    """Who deletes an endpoint deregisters its scalable targets, and must be allowed to."""
    for name in scaled_variants(store, caller, endpoint, variants):
        made = target_arn(caller, resource_of(endpoint, name))
        yield Permission("application-autoscaling:DeregisterScalableTarget", made, CONDITION_KEYS)
