"""Alarms and dashboards of templates: ministack's CloudFormation makes them itself and asks no role for permission."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ministack.services.cloudformation import provisioners

from rehearsal.cloud import provisioning
from rehearsal.service import Caller, Params, Permission, Stack

PRINCIPAL = "cloudformation.amazonaws.com"
Made = tuple[str, Params]


class Authorize(Protocol):
    """`Cloud.authorize`."""

    def __call__(self, role: str, by: str, permission: Permission, caller: Caller) -> None: ...


@dataclass(frozen=True)
class _Kind:
    """A CloudFormation type, and the calls that its handler makes."""

    type: str
    name: str
    arn: str
    put: str
    read: str
    delete: str

    def named(self, name: str, caller: Caller) -> str:
        return self.arn.format(name=name, region=caller.region, account=caller.account)


KINDS = (
    _Kind("AWS::CloudWatch::Alarm", "AlarmName", "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
          "PutMetricAlarm", "DescribeAlarms", "DeleteAlarms"),
    _Kind("AWS::CloudWatch::Dashboard", "DashboardName", "arn:aws:cloudwatch::{account}:dashboard/{name}",
          "PutDashboard", "GetDashboard", "DeleteDashboards"),
)  # fmt: skip


def install(authorize: Authorize) -> None:
    """Ask the stack's service role, if it has one, before an alarm or dashboard is made, changed or deleted."""
    for kind in KINDS:
        handlers = provisioners._RESOURCE_HANDLERS[kind.type]
        provisioners._RESOURCE_HANDLERS[kind.type] = {**handlers, **_Asking(kind, authorize, handlers).table()}


@dataclass(frozen=True)
class _Asking:
    """ministack's handlers of one type, behind the permissions that AWS's need."""

    kind: _Kind
    authorize: Authorize
    handlers: dict[str, Callable[..., Any]]

    def table(self) -> dict[str, Any]:
        return {"create": self.create, "update": self.update, "delete": self.delete}

    def create(self, logical_id: str, properties: Params, stack_name: str) -> Made:
        stack = provisioning.stack_of(stack_name, logical_id)
        name = properties.get(self.kind.name) or provisioners._physical_name(stack_name, logical_id, max_len=255)
        tags = _tags(properties, stack)
        self._ask(stack, name, [self.kind.put, self.kind.read, *_changes({}, tags)], tags)
        made: Made = self.handlers["create"](logical_id, {**properties, self.kind.name: name}, stack_name)
        return made

    def update(self, physical_id: str, old: Params, new: Params, stack_name: str, *more: Any) -> Made:
        stack = provisioning.stack_of(stack_name, *(more or (physical_id,)))
        name, tags = new.get(self.kind.name) or physical_id, _tags(new, stack)
        self._ask(stack, name, [self.kind.put, self.kind.read, *_changes(_tags(old, stack), tags)], tags)
        if name != physical_id:
            self._ask(stack, physical_id, [self.kind.delete])
        made: Made = self.handlers["update"](physical_id, old, new, stack_name, *more)
        return made

    def delete(self, physical_id: str, properties: Params) -> None:
        stack = provisioning.stack_of(provisioning.operating(), physical_id)
        self._ask(stack, physical_id, [self.kind.read, self.kind.delete])
        self.handlers["delete"](physical_id, properties)

    def _ask(self, stack: Stack, name: str, actions: Iterable[str], tags: Params | None = None) -> None:
        if not stack.role:
            return
        resource = self.kind.named(name, stack.caller)
        for action in actions:
            context = _condition_keys(tags or {}) if action in ("TagResource", self.kind.put) else {}
            self.authorize(stack.role, PRINCIPAL, Permission(f"cloudwatch:{action}", resource, context), stack.caller)


def _changes(before: Params, after: Params) -> Iterator[str]:
    """Tags are read back, and those that differ set or taken away."""
    if any(before.get(key) != value for key, value in after.items() if not key.startswith("aws:")):
        yield "TagResource"
    if set(before) - set(after):
        yield "UntagResource"
    yield "ListTagsForResource"


def _tags(properties: Params, stack: Stack) -> Params:
    return {**stack.tags, **{tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags") or []}}


def _condition_keys(tags: Params) -> Params:
    """Of the tags that somebody asked for: CloudFormation's own are no part of a request."""
    tags = {key: value for key, value in tags.items() if not key.startswith("aws:")}
    keys = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return {**keys, "aws:TagKeys": [*tags]} if tags else {}
