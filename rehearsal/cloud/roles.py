"""Sessions of roles, and every decision about them: trust policies, permissions, the audit log."""

from __future__ import annotations

import contextvars
import json
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import request_scope
from ministack.services import iam, sts

from rehearsal.audit import AuditLog
from rehearsal.cloud import implied_checks, resource_policies
from rehearsal.cloud.embedding import Credentials
from rehearsal.service import Permission, ServiceError

SESSION_SECONDS = 12 * 3600
RENEW_SECONDS = 3600
"""A cached session with less than this to live is made anew."""

ADMINISTRATOR_ARN = "arn:aws:iam::aws:policy/AdministratorAccess"
ADMINISTRATOR = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
"""The CDK's bootstrap gives this to CloudFormation; no other policy of AWS's own allows anything here."""

_matched: contextvars.ContextVar[Any] = contextvars.ContextVar("matched_statement", default=None)


class Roles:
    """Assumes roles as AWS services do, and decides what their sessions may do."""

    def __init__(self, root: Credentials, audit: AuditLog) -> None:
        self._root, self._audit = root, audit
        self._sessions: dict[tuple[str, str, str], tuple[Credentials, float]] = {}
        self._lock = threading.Lock()

    def root(self, account: str = "", region: str = "") -> Credentials:
        """AWS itself acting in `account`: ministack takes an account's id as the access key of its root."""
        key = self._root.access_key if account in ("", self._root.account) else account
        return Credentials(key, self._root.secret_key, account or self._root.account, region or self._root.region)

    def assume(self, role: str, by: str, session: str, region: str = "", source: str = "") -> Credentials:
        """Credentials of `role` for `by`, a service principal or another role, if the role's trust policy lets it.

        `source` is the ARN of the resource that a service acts for."""
        self.check_trust(role, by, source)
        with self._lock:
            made, expires = self._sessions.get((role, by, session), (None, 0.0))
            if made is None or expires - time.time() < RENEW_SECONDS or made.access_key not in sts._sessions:
                made, expires = _register(role, session), time.time() + SESSION_SECONDS
                self._sessions[role, by, session] = made, expires
        return Credentials(made.access_key, made.secret_key, made.account, region or self._root.region, made.token)

    def check_trust(self, role: str, by: str, source: str = "") -> None:
        """Raise AccessDenied unless the trust policy of `role` names `by`, and its own policy if that is a role."""
        record = find_role(role)
        allowed = record is not None and _trusts(record["AssumeRolePolicyDocument"], by, role, source)
        if allowed and by.startswith("arn:"):
            self.decide(_register(by, "rehearsal"), Permission("sts:AssumeRole", role))
        self._audit.record(by, "sts:AssumeRole", role, "Allow" if allowed else "Deny")
        if not allowed:
            why = "its trust policy does not allow it" if record else "there is no such role"
            raise ServiceError("AccessDenied", f"{by} can't assume {role}: {why}", 403)

    def admits(self, policy: str | dict[str, Any] | None, by: str, permission: Permission, source: str) -> bool:
        """Whether a resource's own policy lets the service `by` act for `source` (an ARN); audited."""
        allowed = policy is not None and _allows(policy, by, permission.action, permission.resource, source)
        self._audit.record(by, permission.action, permission.resource, "Allow" if allowed else "ImplicitDeny")
        return allowed

    def decide(self, who: Credentials, permission: Permission) -> None:
        """Raise AccessDeniedException unless `who` may do this; decided outside of any request."""

        def check() -> Any:
            iam_evaluator.pin_request_origin("127.0.0.1", True)
            with request_scope(who.account, who.region):
                return iam_evaluator.enforce(
                    who.access_key,
                    permission.action,
                    permission.action.partition(":")[0],
                    who.region,
                    permission.resource,
                    dict(permission.context),
                )

        denied = contextvars.Context().run(check)
        if denied is not None:
            raise denial(denied, permission)


def denial(denied: Any, permission: Permission, status: int = 400) -> ServiceError:
    """AWS's wording of a refusal, as the JSON protocols send it."""
    if isinstance(denied, iam_evaluator.AuthError):
        return ServiceError(denied.code, denied.message, 403)
    reason = (
        "with an explicit deny in an identity-based policy"
        if denied.decision == "Deny"
        else f"because no identity-based policy allows the {permission.action} action"
    )
    return ServiceError(
        "AccessDeniedException",
        f"User: {denied.principal_arn} is not authorized to perform: "
        f"{permission.action} on resource: {permission.resource} {reason}",
        status,
    )


def find_role(arn: str) -> dict[str, Any] | None:
    """The role's record, or None; the account comes from the ARN."""
    parts = arn.split(":")
    if len(parts) < 6 or not parts[5].startswith("role/"):
        return None
    record: dict[str, Any] | None = iam._roles.get_scoped(parts[4], None, arn.rpartition("/")[2])
    return record


def install(audit: AuditLog) -> None:
    """Put the audit log around ministack's decisions, and check signatures of root keys as well."""
    original: Callable[..., Any] = iam_evaluator.enforce
    first_match: Callable[..., Any] = iam_evaluator._first_match

    def remembering(ctx: Any, statements: Any, effect: str) -> Any:
        statement = first_match(ctx, statements, effect)
        if statement is not None:
            _matched.set(statement)
        return statement

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        _matched.set(None)
        implied_checks.refused_instead.set(None)
        denied = original(access_key_id, iam_action, service, region, resource_arn, service_context)
        if denied is None and not access_key_id and service == "s3":  # ministack lets anonymous callers read S3
            denied = iam_evaluator.EvalResult("ImplicitDeny", "anonymous")
        if denied is None:
            denied = resource_policies.refuses_root(access_key_id, iam_action, resource_arn, service)
        audit.record(_principal(access_key_id), iam_action, resource_arn, _decision(denied), _statement())
        return denied if denied is not None else _implied(access_key_id, iam_action, resource_arn)

    managed: Callable[[str, str], Any] = iam_evaluator._resolve_managed_policy_document
    iam_evaluator._resolve_managed_policy_document = lambda arn, account: (
        ADMINISTRATOR if arn == ADMINISTRATOR_ARN else managed(arn, account)
    )
    iam_evaluator._first_match = remembering
    iam_evaluator.enforce = enforce
    # ministack believes whoever claims a root key; with this its signature is checked like any other's.
    iam_evaluator._is_root_key = lambda access_key_id: not access_key_id


def _implied(access_key_id: str, action: str, resource: str) -> Any:
    for permission in implied_checks.implied(action, resource):
        if (denied := implied_checks.check(access_key_id, permission)) is not None:
            implied_checks.refused_instead.set(permission)
            return denied
    return None


def _decision(denied: Any) -> str:
    if denied is None:
        return "Allow"
    return denied.code if isinstance(denied, iam_evaluator.AuthError) else str(denied.decision)


def _statement() -> dict[str, Any] | None:
    matched = _matched.get()
    if matched is None:
        return None
    return {"Sid": matched.sid, "Effect": matched.effect, "Action": matched.actions, "Resource": matched.resources}


def _principal(access_key_id: str) -> str:
    identity = iam_evaluator.resolve_caller_identity(access_key_id)
    if identity is not None:
        return str(identity["userArn"])
    return "root" if iam_evaluator.is_root_access_key(access_key_id) and access_key_id else "anonymous"


def _register(role: str, session: str) -> Credentials:
    account, name = role.split(":")[4], role.rpartition("/")[2]
    record = find_role(role) or {}
    made = Credentials(
        "ASIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30), account, token=secrets.token_urlsafe(48)
    )
    sts.register_session(
        made.access_key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
            "UserId": f"{record.get('RoleId', 'AROA')}:{session}",
            "SecretAccessKey": made.secret_key,
            "SessionToken": made.token,
            "Expiration": time.time() + SESSION_SECONDS,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
        },
    )
    return made


def _trusts(document: str | dict[str, Any], by: str, role: str, source: str) -> bool:
    """Whether the trust policy lets the service principal in; ministack's own evaluator lets any service in."""
    if by.startswith("arn:"):
        return bool(iam_evaluator.evaluate_trust_policy(document, by))
    return _allows(document, by, "sts:AssumeRole", role, source)


def _allows(document: str | dict[str, Any], by: str, action: str, resource: str, source: str) -> bool:
    policy = json.loads(document) if isinstance(document, str) else document
    account = (source or resource).split(":")[4]
    keys = {"aws:sourceaccount": account, **({"aws:sourcearn": source} if source else {})}
    # A service calls over TLS, also from a thread that has no request's origin.
    context = iam_evaluator.EvalContext(
        by, "Service", account, action, resource, "", secure_transport=True, service_context=keys
    )
    statements = policy.get("Statement", [])
    effects = {
        s.get("Effect")
        for s in ([statements] if isinstance(statements, dict) else statements)
        if _concerns(s, by, context)
    }
    return effects == {"Allow"}


def _concerns(statement: dict[str, Any], by: str, context: Any) -> bool:
    principal, resources = statement.get("Principal"), _list(statement.get("Resource", "*"))
    return bool(
        (principal == "*" or _is(principal, by))
        and iam_evaluator._action_matches(context.action, _list(statement.get("Action", [])), [])
        and iam_evaluator._resource_matches(context.resource_arn, resources, [])
        and iam_evaluator._conditions_met(statement.get("Condition", {}), context)
    )


def _is(principal: Any, by: str) -> bool:
    if by.startswith("arn:"):
        return bool(iam_evaluator._principal_matches(principal, by))
    return bool(iam_evaluator._service_principal_matches(principal, by))


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
