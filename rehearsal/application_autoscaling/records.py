"""What Application Auto Scaling keeps: scalable targets, scaling policies and scaling activities."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from typing import Any

from rehearsal.service import Caller, ServiceError
from rehearsal.store import Store

Document = dict[str, Any]
TARGET, POLICY, ACTIVITY = "autoscaling/target", "autoscaling/policy", "autoscaling/activity"
NAMESPACE, DIMENSION = "sagemaker", "sagemaker:variant:DesiredInstanceCount"
CONDITION_KEYS = {
    "application-autoscaling:service-namespace": NAMESPACE,
    "application-autoscaling:scalable-dimension": DIMENSION,
}
KEPT_ACTIVITIES = 200
_RESOURCE = re.compile(r"endpoint/([a-zA-Z0-9-]+)/variant/([a-zA-Z0-9-]+)")


def variant_of(resource: str) -> tuple[str, str]:
    """(endpoint, variant) of a resource id."""
    found = _RESOURCE.fullmatch(resource)
    if found is None:
        raise ServiceError("ValidationException", f"Unsupported service namespace, resource type or scalable dimension:"
                           f" {resource}; endpoint/<name>/variant/<name> is what {NAMESPACE} scales")  # fmt: skip
    return found[1], found[2]


def resource_of(endpoint: str, variant: str) -> str:
    return f"endpoint/{endpoint}/variant/{variant}"


def target_key(caller: Caller, resource: str) -> str:
    return f"{caller.account}:{caller.region}:{resource}"


def target_arn(caller: Caller, resource: str) -> str:
    """AWS makes up an id; ours is a function of what is scaled, so that it is known before it is registered."""
    made = hashlib.sha256(f"{resource} {DIMENSION}".encode()).hexdigest()[:20]
    return f"arn:aws:application-autoscaling:{caller.region}:{caller.account}:scalable-target/{made}"


def policy_arn(caller: Caller, resource: str, name: str) -> str:
    where = f"arn:aws:autoscaling:{caller.region}:{caller.account}:scalingPolicy"
    return f"{where}:{uuid.uuid4()}:resource/{NAMESPACE}/{resource}:policyName/{name}"


def policies_of(store: Store, key: str) -> list[tuple[str, Document]]:
    """The policies of one target, by ARN."""
    return [(arn, policy) for arn, policy in store.list(POLICY) if policy["target"] == key]


def is_registered(store: Store, account: str, region: str, endpoint: str, variant: str) -> bool:
    """Whether an endpoint's variant is a scalable target."""
    return store.get(TARGET, target_key(Caller(account, region), resource_of(endpoint, variant))) is not None


def begin_activity(store: Store, target: Document, count: int, cause: str) -> str:
    """Note that the number of instances is being changed; the activity's id."""
    made = str(uuid.uuid4())
    document = {"ActivityId": made, "ServiceNamespace": NAMESPACE, "ResourceId": target["ResourceId"],
                "ScalableDimension": DIMENSION, "Description": f"Setting desired instance count to {count}.",
                "Cause": cause, "StartTime": time.time(), "StatusCode": "InProgress", "count": count,
                "StatusMessage": f"Successfully set desired instance count to {count}. Waiting for change to be"
                                 f" fulfilled by {NAMESPACE}.",
                "account": target["account"], "region": target["region"]}  # fmt: skip
    store.put(ACTIVITY, made, document)
    for old, _ in store.list(ACTIVITY)[:-KEPT_ACTIVITIES]:
        store.delete(ACTIVITY, old)
    return made


def end_activity(store: Store, activity: str, status: str, message: str) -> None:
    def change(document: Document) -> None:
        document.update(StatusCode=status, StatusMessage=message, EndTime=time.time())

    store.update(ACTIVITY, activity, change)
