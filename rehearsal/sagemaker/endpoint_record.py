"""An endpoint's record: what is live, what is on its way, and how DescribeEndpoint and events show it."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from dataclasses import asdict
from typing import Any

from rehearsal.sagemaker.variant_plan import VariantPlan
from rehearsal.service import Caller, Params, ServiceError

Document = dict[str, Any]
_MOVABLE = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
_DESCRIBED = (
    "EndpointName",
    "EndpointArn",
    "EndpointStatus",
    "EndpointConfigName",
    "FailureReason",
    "CreationTime",
    "LastModifiedTime",
    "LastDeploymentConfig",
)


def deployment(
    config: str, plans: list[VariantPlan], capture: Document | None, asynchronous: Document | None
) -> Document:
    """What an endpoint runs or is about to run."""
    return {
        "id": secrets.token_hex(6),
        "config": config,
        "plans": [asdict(plan) for plan in plans],
        "capture": capture,
        "asynchronous": asynchronous,
        "since": time.time(),
    }


def plans(deployment: Document) -> list[VariantPlan]:
    """The variants of a deployment."""
    return [VariantPlan(**plan) for plan in deployment["plans"]]


def described(endpoint: Document) -> Params:
    """The endpoint as DescribeEndpoint answers."""
    shown = {key: endpoint[key] for key in _DESCRIBED if key in endpoint}
    if endpoint["live"]:
        shown.update(_shown(endpoint["live"], endpoint.get("desired")))
        shown["AsyncInferenceConfig"] = endpoint["live"].get("asynchronous")
    if endpoint["pending"]:
        shown["PendingDeploymentSummary"] = {
            "EndpointConfigName": endpoint["pending"]["config"],
            "StartTime": endpoint["pending"]["since"],
            **_shown(endpoint["pending"]),
        }
    return shown


def event_detail(endpoint: Document, tags: list[dict[str, str]]) -> Params:
    """The endpoint as its state change events tell it."""
    detail = {key: endpoint[key] for key in _DESCRIBED if key in endpoint and key != "LastDeploymentConfig"}
    for key in ("CreationTime", "LastModifiedTime"):
        detail[key] = int(detail[key] * 1000)
    detail["EndpointStatus"] = _event_status(endpoint["EndpointStatus"])
    detail.update(_shown(endpoint["live"], times=False) if endpoint["live"] else {"ProductionVariants": []})
    detail["Tags"] = {tag["Key"]: tag["Value"] for tag in tags}
    return detail


def must_be_movable(endpoint: Document, verb: str) -> None:
    """ValidationException unless the endpoint is at rest and can be changed."""
    if endpoint["EndpointStatus"] not in _MOVABLE or (verb == "update" and endpoint["EndpointStatus"] == "Failed"):
        raise ServiceError(
            "ValidationException",
            f'Cannot {verb} in-progress endpoint "{endpoint["EndpointArn"]}".'
            if endpoint["EndpointStatus"] != "Failed"
            else f'Cannot update failed endpoint "{endpoint["EndpointArn"]}"; delete and create it.',
        )


def owner(endpoint: Document) -> Caller:
    """AWS itself, in the endpoint's account."""
    account = endpoint["account"]
    return Caller(account, endpoint["region"], f"arn:aws:iam::{account}:root")


def _shown(deployment: Document, desired: Document | None = None, *, times: bool = True) -> Document:
    shadows = _variants(deployment, desired or {}, shadow=True, times=times)
    return {
        "ProductionVariants": _variants(deployment, desired or {}, shadow=False, times=times),
        **({"ShadowProductionVariants": shadows} if shadows else {}),
    }


def _variants(deployment: Document, desired: Document, *, shadow: bool, times: bool) -> list[Document]:
    return [
        {
            "VariantName": plan["name"],
            "DeployedImages": [
                {
                    "SpecifiedImage": plan["image"],
                    "ResolvedImage": plan["image"],
                    "ResolutionTime": deployment["since"] if times else _iso(deployment["since"]),
                }
            ],
            "CurrentWeight": plan["weight"],
            "DesiredWeight": desired.get(plan["name"], plan)["weight"],
            **_capacity(plan, desired.get(plan["name"], plan)),
        }
        for plan in deployment["plans"]
        if plan.get("shadow", False) is shadow
    ]


def _capacity(plan: Document, desired: Document) -> Document:
    if serverless := plan.get("serverless"):
        return {"CurrentServerlessConfig": serverless, "DesiredServerlessConfig": serverless}
    return {"CurrentInstanceCount": plan["count"], "DesiredInstanceCount": desired["count"]}


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _event_status(status: str) -> str:
    """Events spell a status in capitals: IN_SERVICE, ROLLING_BACK."""
    return "".join(f"_{c}" if c.isupper() and number else c for number, c in enumerate(status)).upper()
