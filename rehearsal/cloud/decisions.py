"""The audit log around ministack's decisions: who asked what, in which context, and which statement decided."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import get_region

from rehearsal.audit import AuditLog
from rehearsal.cloud import implied_checks, resource_policies

ADMINISTRATOR_ARN = "arn:aws:iam::aws:policy/AdministratorAccess"
ADMINISTRATOR = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
"""The CDK's bootstrap gives this to CloudFormation; no other policy of AWS's own allows anything here."""

ASSUMED = ":assumed-role/"
_NAMED_BY_IAM = {
    "budgets:CreateBudget": "budgets:ModifyBudget",
    "budgets:UpdateBudget": "budgets:ModifyBudget",
    "budgets:DeleteBudget": "budgets:ModifyBudget",
    "budgets:DescribeBudget": "budgets:ViewBudget",
    "budgets:DescribeBudgets": "budgets:ViewBudget",
}
"""Actions that IAM calls otherwise than the API."""


@dataclass(frozen=True)
class _Evaluation:
    """One policy set's verdict: the caller's own policies first, then the resource's."""

    context: Any
    decision: str
    statement: Any


_evaluations: contextvars.ContextVar[list[_Evaluation] | None] = contextvars.ContextVar("evaluations", default=None)
_matched: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("matched_statements", default=None)


def install(audit: AuditLog) -> None:
    """Audit every decision, check signatures of root keys as well, and refuse anonymous readers."""
    original: Callable[..., Any] = iam_evaluator.enforce

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        _evaluations.set([])
        iam_action = _NAMED_BY_IAM.get(iam_action, iam_action)
        implied_checks.refused_instead.set(None)
        denied = original(access_key_id, iam_action, service, region, resource_arn, service_context)
        if denied is None and not access_key_id and service == "s3":  # ministack lets anonymous callers read S3
            denied = iam_evaluator.EvalResult("ImplicitDeny", "anonymous")
        if denied is None:
            denied = resource_policies.refuses_root(access_key_id, iam_action, resource_arn, service)
        decision = _decision(denied)
        audit.record(
            _principal(access_key_id),
            iam_action,
            resource_arn,
            decision,
            policy="identity",
            role=_role(access_key_id),
            region=region or get_region(),
            context=_context(service_context or {}),
            statement=_deciding(decision),
        )
        return denied if denied is not None else _implied(access_key_id, iam_action, resource_arn)

    managed: Callable[[str, str], Any] = iam_evaluator._resolve_managed_policy_document
    iam_evaluator._resolve_managed_policy_document = lambda arn, account: (
        ADMINISTRATOR if arn == ADMINISTRATOR_ARN else managed(arn, account)
    )
    iam_evaluator._first_match = _remembering_matches(iam_evaluator._first_match)
    iam_evaluator.evaluate = _remembering_verdicts(iam_evaluator.evaluate)
    iam_evaluator.enforce = enforce
    # ministack believes whoever claims a root key; with this its signature is checked like any other's.
    iam_evaluator._is_root_key = lambda access_key_id: not access_key_id


def statement(parsed: Any) -> dict[str, Any]:
    """A parsed statement as the log shows it."""
    shown = {"Sid": parsed.sid, "Effect": parsed.effect, "Action": parsed.actions, "Resource": parsed.resources}
    return shown | ({"Condition": parsed.conditions} if parsed.conditions else {})


def _remembering_matches(original: Callable[..., Any]) -> Callable[..., Any]:
    def first_match(context: Any, statements: Any, effect: str) -> Any:
        found = original(context, statements, effect)
        if found is not None and (matched := _matched.get()) is not None:
            matched.append(found)
        return found

    return first_match


def _remembering_verdicts(original: Callable[..., Any]) -> Callable[..., Any]:
    def evaluate(context: Any, policies: Any, *limits: Any) -> Any:
        token = _matched.set([])
        try:
            result, matched = original(context, policies, *limits), _matched.get() or []
        finally:
            _matched.reset(token)
        if (evaluations := _evaluations.get()) is not None:
            evaluations.append(_Evaluation(context, result.decision, _decisive(result.decision, matched)))
        return result

    return evaluate


def _decisive(decision: str, matched: list[Any]) -> Any:
    """A deny is the last that matched; an allow the first, since a boundary's own match comes after it."""
    if decision == "ImplicitDeny" or not matched:
        return None
    return matched[-1] if decision == "Deny" else matched[0]


def _deciding(decision: str) -> dict[str, Any] | None:
    """The statement behind the final decision: the caller's own policies before the resource's."""
    for evaluation in _evaluations.get() or []:
        if evaluation.decision == decision and evaluation.statement is not None:
            return statement(evaluation.statement)
    return None


def _context(given: dict[str, Any]) -> dict[str, Any]:
    """Every condition key that the decision could see, apart from those that follow from principal and resource."""
    shown = {key: value for key, value in given.items() if value is not None}
    evaluated = next(iter(_evaluations.get() or []), None)
    if evaluated is None:
        return shown
    known = {key.lower() for key in shown}
    found = {**evaluated.context.service_context, **evaluated.context.principal_keys}
    shown |= {key: value for key, value in found.items() if value is not None and key not in known}
    return shown | {"aws:SecureTransport": str(evaluated.context.secure_transport).lower()}


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


def _principal(access_key_id: str) -> str:
    identity = iam_evaluator.resolve_caller_identity(access_key_id)
    if identity is not None:
        return str(identity["userArn"])
    return "root" if iam_evaluator.is_root_access_key(access_key_id) and access_key_id else "anonymous"


def _role(access_key_id: str) -> str:
    """The ARN of the role whose session it is, or an empty text."""
    from ministack.services import iam

    arn = _principal(access_key_id)
    if ASSUMED not in arn:
        return ""
    account, name = arn.split(":")[4], arn.partition(ASSUMED)[2].partition("/")[0]
    record: dict[str, Any] | None = iam._roles.get_scoped(account, None, name)
    return str(record["Arn"]) if record else f"arn:aws:iam::{account}:role/{name}"
