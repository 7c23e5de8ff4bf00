"""Resources' own policies, also those of other accounts: across accounts both sides have to allow.

ministack asks the policies of the caller's own account's buckets and keys only, lets another account's bucket be read
by whoever its account's root may, and knows no policies of event buses and of our services.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.iam_actions import _s3_action, s3_service_context
from ministack.core.responses import get_account_id, get_region, json_response, request_scope
from ministack.services import eventbridge, kms, s3

from rehearsal.service import Params, Service

Found = tuple[str | dict[str, Any], str] | None
"""A resource's policy ("" if it has none) and its account; None for a resource that can't have one."""


def install(services: Sequence[Service]) -> None:
    """Let every IAM decision see the resource's policy, whichever account has the resource."""
    ours = {service.name: service for service in services}
    known: Callable[[str, str], Found] = iam_evaluator._resource_policy

    def resource_policy(service: str, resource: str) -> Found:
        if not resource.startswith("arn:"):
            return None
        if service in _OF_ANY_ACCOUNT:
            return _OF_ANY_ACCOUNT[service](resource)
        own = ours[service].resource_policy(resource) if service in ours else None
        return (own, resource.split(":")[4]) if own is not None else known(service, resource)

    iam_evaluator._resource_policy = resource_policy
    iam_evaluator._resolve_condition_key = _with_role(iam_evaluator._resolve_condition_key)
    s3._foreign_bucket_allows = _foreign_bucket_allows(s3._foreign_bucket_allows)
    eventbridge._put_permission = _put_whole_policies(eventbridge._put_permission)


def refuses_root(access_key: str, action: str, resource: str, service: str) -> Any:
    """An account's root may do everything there, and in another account what a policy says; ministack asks none."""
    account = get_account_id()
    found = iam_evaluator._resource_policy(service, resource) if iam_evaluator.is_root_access_key(access_key) else None
    if found is None or found[1] in (None, account):
        return None
    root = f"arn:aws:iam::{account}:root"
    context = iam_evaluator.EvalContext(root, "Root", account, action, resource, get_region())
    allowed = iam_evaluator.evaluate_resource_policy(found[0], context).decision == "Allow"
    return None if allowed else iam_evaluator.EvalResult("ImplicitDeny", root)


def owner_of_bucket(bucket: str) -> str:
    """The account of a bucket; the caller's own if there is no such bucket."""
    return s3._bucket_owner_account(bucket) or str(get_account_id())


def _bucket_policy(resource: str) -> Found:
    bucket = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
    owner = owner_of_bucket(bucket)
    if not s3._buckets.contains_scoped(owner, None, bucket):
        return None
    return s3._bucket_policies.get_scoped(owner, None, bucket) or "", owner


def _key_policy(resource: str) -> Found:
    if ":key/" not in resource:
        known: Found = kms.key_policy_for_arn(resource)
        return known
    _, _, _, region, account, _ = resource.split(":", 5)
    key = kms._keys.get_scoped(account, region, resource.rpartition("/")[2])
    return (key.get("Policy") or "", account) if key else None


def _bus_policy(resource: str) -> Found:
    if ":event-bus/" not in resource:
        return None
    _, _, _, region, account, _ = resource.split(":", 5)
    return eventbridge._event_bus_policies.get_scoped(account, region, resource.rpartition("/")[2]) or "", account


_OF_ANY_ACCOUNT: dict[str, Callable[[str], Found]] = {"s3": _bucket_policy, "kms": _key_policy, "events": _bus_policy}


def _with_role(original: Callable[..., Any]) -> Callable[..., Any]:
    """`aws:PrincipalArn` of a session is its role's ARN."""

    def resolve(key: str, context: Any) -> Any:
        found = original(key, context)
        if key.lower() != "aws:principalarn" or ":assumed-role/" not in str(found):
            return found
        account, role = found.split(":")[4], found.split("/")[1]
        return f"arn:aws:iam::{account}:role/{role}"

    return resolve


def _foreign_bucket_allows(original: Callable[..., bool]) -> Callable[..., bool]:
    """Whether another account's bucket lets in who really asks, and not its account's root."""

    def allows(owner: str, bucket: str, key: str, method: str, query: Params, caller: str,
               headers: Mapping[str, str] | None = None) -> bool:  # fmt: skip
        if original(owner, bucket, key, method, query, caller, headers):
            return True
        principal = iam_evaluator.caller_arn()
        if not caller or principal.split(":")[4] != caller:
            return False
        path = f"/{bucket}/{key}" if key else f"/{bucket}"
        action = f"s3:{_s3_action(method, path, query) or ('PutObject' if method == 'PUT' else 'GetObject')}"
        with request_scope(owner, get_region()):
            keys = s3_service_context(action, query, path, dict(headers or {}))
        context = iam_evaluator.EvalContext(
            principal, "AssumedRole", caller, action, f"arn:aws:s3:::{path[1:]}", get_region(),
            service_context={name.lower(): value for name, value in keys.items()})  # fmt: skip
        policy = s3._bucket_policies.get_scoped(owner, None, bucket)
        return bool(iam_evaluator.evaluate_resource_policy(policy, context).decision == "Allow")

    return allows


def _put_whole_policies(original: Callable[[Params], Any]) -> Callable[[Params], Any]:
    """PutPermission with `Policy`, which replaces the bus's whole policy."""

    def put_permission(given: Params) -> Any:
        if "Policy" not in given:
            return original(given)
        eventbridge._event_bus_policies[given.get("EventBusName", "default")] = json.loads(given["Policy"])
        return json_response({})

    return put_permission
