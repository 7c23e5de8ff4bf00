"""IAM checks of AWS that ministack leaves out: passed roles, keys of encrypted data, and resources it does not name."""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import s3, sns

from rehearsal.cloud import resource_policies
from rehearsal.service import Params, Permission

# Where an action of ministack's services is given a role, and to which service the role goes.
_PASSED: dict[str, tuple[str, Callable[[Params], list[Any]]]] = {
    **{
        f"cloudformation:{action}": ("cloudformation", lambda p: [p.get("RoleARN")])
        for action in ("CreateStack", "UpdateStack", "DeleteStack", "CreateChangeSet")
    },
    "states:CreateStateMachine": ("states", lambda p: [p.get("roleArn")]),
    "states:UpdateStateMachine": ("states", lambda p: [p.get("roleArn")]),
    "events:PutTargets": ("events", lambda p: [target.get("RoleArn") for target in p.get("Targets", [])]),
    "lambda:CreateFunction": ("lambda", lambda p: [p.get("Role")]),
    "lambda:UpdateFunctionConfiguration": ("lambda", lambda p: [p.get("Role")]),
    "glue:CreateJob": ("glue", lambda p: [p.get("Role")]),
    "glue:UpdateJob": ("glue", lambda p: [p.get("JobUpdate", {}).get("Role")]),
    "scheduler:CreateSchedule": ("scheduler", lambda p: [p.get("Target", {}).get("RoleArn")]),
    "scheduler:UpdateSchedule": ("scheduler", lambda p: [p.get("Target", {}).get("RoleArn")]),
}
_USES_OF_KEYS = {
    "s3:PutObject": ("kms:GenerateDataKey",),
    "s3:GetObject": ("kms:Decrypt",),
    "sns:Publish": ("kms:GenerateDataKey", "kms:Decrypt"),
}

refused_instead: contextvars.ContextVar[Permission | None] = contextvars.ContextVar("refused_instead", default=None)
"""The implied permission that was refused, when the request's own was allowed; the error then names it."""


def install() -> None:
    """Name resources and condition keys as AWS does, and name the implied permission where that was refused."""
    iam_actions.extract_resource_arn = _with_names(iam_actions.extract_resource_arn)
    iam_actions.request_tag_context = _with_condition_keys(iam_actions.request_tag_context)
    iam_actions.access_denied_response = _naming_the_implied(iam_actions.access_denied_response)


def implied(action: str, resource: str) -> Iterator[Permission]:
    """What else the caller must be allowed for this action on this resource: using the key of encrypted data."""
    uses = _USES_OF_KEYS.get(action, ())
    if not uses or (key := _key_of(action, resource)) is None:
        return
    service = action.partition(":")[0]
    context = {"kms:ViaService": f"{service}.{get_region()}.amazonaws.com"}
    if service == "s3":
        context["kms:EncryptionContext:aws:s3:arn"] = _encrypted_for(resource)
    for use in uses:
        yield Permission(use, key, context)


def passed_roles(action: str, body: bytes) -> list[Permission]:
    """iam:PassRole for every role that a request hands to a service."""
    if action not in _PASSED:
        return []
    service, find = _PASSED[action]
    context = {"iam:PassedToService": f"{service}.amazonaws.com"}
    return [Permission("iam:PassRole", role, context) for role in find(_parameters(body)) if role]


def _parameters(body: bytes) -> Params:
    if body.startswith(b"{"):
        parsed: Params = json.loads(body)
        return parsed
    return {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}


def _key_of(action: str, resource: str) -> str | None:
    if action.startswith("s3:"):
        bucket = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        owner = resource_policies.owner_of_bucket(bucket)
        with request_scope(owner, get_region()):
            key = s3._bucket_default_sse_headers(bucket).get("x-amz-server-side-encryption-aws-kms-key-id")
    else:
        owner = get_account_id()
        topic = sns._topics.get(resource) or {}
        key = (topic.get("attributes") or {}).get("KmsMasterKeyId")
    if not key or key.startswith("alias/aws/"):
        return None
    return key if key.startswith("arn:") else f"arn:aws:kms:{get_region()}:{owner}:key/{key}"


def _encrypted_for(resource: str) -> str:
    """The encryption context: with a bucket key it is the bucket, else the object."""
    bucket = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
    settings = s3._bucket_encryption.get_scoped(resource_policies.owner_of_bucket(bucket), None, bucket) or b""
    text = settings if isinstance(settings, str) else settings.decode()
    return f"arn:aws:s3:::{bucket}" if "<BucketKeyEnabled>true" in text else resource


def _with_names(original: Callable[..., str]) -> Callable[..., str]:
    def extract(
        service: str, method: str, path: str, headers: Params, body: bytes, query: Params, region: str, account: str
    ) -> str:
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        if operation in _NAMELESS:
            return "*"
        name = _NAMED_BY_OPERATION.get(operation) or _NAMED.get(service)
        if name is not None and body.startswith(b"{") and (named := name(json.loads(body))):
            return f"arn:aws:{_IN_ARNS.get(service, service)}:{region}:{account}:{named}"
        return original(service, method, path, headers, body, query, region, account)

    return extract


def _parameter(given: Params) -> str:
    name = given.get("Path") or (given.get("Names") or [""])[0]
    return f"parameter/{name.strip('/')}" if name else ""


def _log_stream(given: Params) -> str:
    """Also for operations on the group: AWS then leaves the stream's name empty."""
    group, stream = given.get("logGroupName"), given.get("logStreamName", "")
    return f"log-group:{group}:log-stream:{stream}" if group else ""


def _rule(given: Params) -> str:
    name, bus = given.get("Rule") or given.get("Name"), given.get("EventBusName", "default").rpartition("/")[2]
    if not name:
        return ""
    return f"rule/{name}" if bus == "default" else f"rule/{bus}/{name}"


def _bus(given: Params) -> str:
    return f"event-bus/{given.get('Name', 'default').rpartition('/')[2]}"


def _alarm(given: Params) -> str:
    """DescribeAlarms for one alarm takes permission on that alarm; for more, on all."""
    names = given.get("AlarmNames") or []
    return f"alarm:{names[0]}" if len(names) == 1 else ""


_NAMELESS = ("CreateSecurityConfiguration", "DeleteSecurityConfiguration", "GetSecurityConfiguration",
             "PutPermission", "RemovePermission")  # fmt: skip
"""Glue and EventBridge check them on no resource; ministack takes the name for a table's, or names the bus."""
_IN_ARNS = {"monitoring": "cloudwatch"}
_NAMED: dict[str, Callable[[Params], str]] = {
    "ssm": _parameter,
    "logs": _log_stream,
    "events": _rule,
    "monitoring": _alarm,
}
_NAMED_BY_OPERATION = dict.fromkeys(("CreateEventBus", "DeleteEventBus", "DescribeEventBus", "UpdateEventBus"), _bus)
"""Resources of services for which ministack has none, or not the one that AWS checks."""


def _with_condition_keys(original: Callable[..., Params]) -> Callable[..., Params]:
    def context(service: str, iam_action: str, body: bytes, params: Params) -> Params:
        found = original(service, iam_action, body, params)
        if service == "cloudformation" and (role := params.get("RoleARN")):
            return {**found, "cloudformation:RoleArn": role[0] if isinstance(role, list) else role}
        if iam_action == "cloudwatch:PutMetricData":
            return {**found, "cloudwatch:namespace": _namespace(body, params)}
        return found

    return context


def _namespace(body: bytes, params: Params) -> str:
    """A metric's namespace; the base speaks CloudWatch's JSON and query protocols."""
    return str({**params, **_parameters(body)}.get("Namespace", ""))


def _naming_the_implied(original: Callable[..., Any]) -> Callable[..., Any]:
    def response(service: str, action: str, principal: str, request_id: str, **options: Any) -> Any:
        permission = refused_instead.get()
        if permission is not None and not options.get("error_code"):
            options |= {
                "resource_arn": permission.resource,
                "message": iam_actions.identity_denial_message(
                    permission.action, principal, permission.resource, options.get("explicit_deny", False)
                ),
            }
        return original(service, action, principal, request_id, **options)

    return response


def check(access_key: str, permission: Permission) -> Any:
    """ministack's decision about a further permission of the request's caller."""
    return iam_evaluator.enforce(
        access_key,
        permission.action,
        permission.action.partition(":")[0],
        get_region(),
        permission.resource,
        dict(permission.context),
    )
