"""Sessions of roles, and every decision about them: trust policies, permissions, the audit log."""

from __future__ import annotations

import contextvars
import json
import secrets
import threading
import time
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import request_scope
from ministack.services import iam, sts

from rehearsal.audit import AuditLog
from rehearsal.cloud.embedding import Credentials
from rehearsal.service import Permission, ServiceError

SESSION_SECONDS = 12 * 3600
RENEW_SECONDS = 3600
"""A cached session with less than this to live is made anew."""

SAYS_NOTHING = ("cloudformation.amazonaws.com",)
"""Who tells neither `aws:SourceArn` nor `aws:SourceAccount` when it assumes a role: it is documented for none of the
roles that stacks are given, so a trust policy that asks for them must not pass for one that works."""


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

    def assume(
        self, role: str, by: str, session: str, region: str = "", *, source: str = "", account: str = ""
    ) -> Credentials:
        """Credentials of `role` for `by`, a service principal or another role, if the role's trust policy lets it.

        A service acts for a resource: its ARN is `source`, or it is one without a name in `account`."""
        self.check_trust(role, by, source or _unnamed(by, account or role.split(":")[4], region or self._root.region))
        with self._lock:
            made, expires = self._sessions.get((role, by, session), (None, 0.0))
            if made is None or expires - time.time() < RENEW_SECONDS or made.access_key not in sts._sessions:
                made, expires = _register(role, session), time.time() + SESSION_SECONDS
                self._sessions[role, by, session] = made, expires
        return Credentials(made.access_key, made.secret_key, made.account, region or self._root.region, made.token)

    def check_trust(self, role: str, by: str, source: str) -> None:
        """Raise AccessDenied unless the trust policy of `role` names `by`, and its own policy if that is a role."""
        record = find_role(role)
        trust = record["AssumeRolePolicyDocument"] if record else {}
        allowed, statement = _allows(trust, by, "sts:AssumeRole", role, source)
        if allowed and by.startswith("arn:"):
            self.decide(_register(by, "rehearsal"), Permission("sts:AssumeRole", role))
        self._record(by, Permission("sts:AssumeRole", role), allowed, "trust", source, statement)
        if not allowed:
            why = f"its trust policy does not allow it for {source or by}" if record else "there is no such role"
            raise ServiceError("AccessDenied", f"{by} can't assume {role}: {why}", 403)

    def admits(self, policy: str | dict[str, Any] | None, by: str, permission: Permission, source: str) -> bool:
        """Whether a resource's own policy lets the service `by` act for `source` (an ARN); audited."""
        allowed, statement = _allows(policy or {}, by, permission.action, permission.resource, source)
        self._record(by, permission, allowed, "resource", source, statement)
        return allowed

    def _record(
        self, by: str, asked: Permission, allowed: bool, policy: str, source: str, statement: dict[str, Any] | None
    ) -> None:
        self._audit.record(
            by,
            asked.action,
            asked.resource,
            "Allow" if allowed else "Deny" if statement else "ImplicitDeny",
            policy=policy,
            region=source.split(":")[3] if source else "",
            context=_source_keys(source),
            statement=statement,
        )

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


def _unnamed(by: str, account: str, region: str) -> str:
    """What a service acts for where its adapter does not say: something of the service in that account."""
    return (
        ""
        if by.startswith("arn:") or by in SAYS_NOTHING
        else f"arn:aws:{by.partition('.')[0]}:{region}:{account}:unnamed"
    )


def _source_keys(source: str) -> dict[str, str]:
    """The condition keys that keep a service from being somebody else's deputy."""
    return {"aws:SourceArn": source, "aws:SourceAccount": source.split(":")[4]} if source else {}


def _allows(
    document: str | dict[str, Any], by: str, action: str, resource: str, source: str
) -> tuple[bool, dict[str, Any] | None]:
    """The decision of a policy that names principals, and the statement that made it.

    Decided here, since ministack's own evaluator lets any service in and does not tell the statement."""
    policy = json.loads(document) if isinstance(document, str) else document
    keys = {key.lower(): value for key, value in _source_keys(source).items()}
    kind, of = ("AssumedRole", by) if by.startswith("arn:") else ("Service", source or resource)
    # A service calls over TLS, also from a thread that has no request's origin.
    context = iam_evaluator.EvalContext(
        by, kind, of.split(":")[4], action, resource, "", secure_transport=True, service_context=keys
    )
    statements = policy.get("Statement", [])
    applying = [s for s in ([statements] if isinstance(statements, dict) else statements) if _concerns(s, by, context)]
    denying = [s for s in applying if s.get("Effect") != "Allow"]
    return bool(applying) and not denying, next(iter(denying or applying), None)


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
