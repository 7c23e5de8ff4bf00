"""CloudFormation: our resource types, the stack's service role, status events, and a rollback that never hangs."""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudformation
from ministack.services.cloudformation import changesets, engine, handlers, provisioners, stacks

from rehearsal.cloud import busy_stacks
from rehearsal.service import Caller, Params, Provisioned, ResourceType, Stack

log = logging.getLogger("rehearsal")
Emit = Callable[[str, str, Params, list[str], Caller], None]
_operation: contextvars.ContextVar[str] = contextvars.ContextVar("stack_of_the_operation", default="")
"""The name of the stack whose resources are being made in this context."""

_ROLE_ACTIONS = (
    "CreateStack",
    "UpdateStack",
    "DeleteStack",
    "CreateChangeSet",
    "ContinueUpdateRollback",
    "RollbackStack",
)
_LIFECYCLE = ("_deploy_stack_async", "_delete_stack_async", "_continue_update_rollback_async", "_roll_back_operation")


MAKING = "_making"
"""On a stack's record: the resources that its operation began to create or change, as a rollback would find them."""


def install(types: dict[str, ResourceType], emit: Emit, save: Callable[[], None]) -> None:
    """Teach ministack's CloudFormation our types, service roles and events; `save` writes the stacks' records."""
    _provision(types, save)
    _remember_operations()
    _remember_roles()
    busy_stacks.install()
    _announce(emit)
    _join_in_conditions()


# -- our types ----------------------------------------------------------------------------------------


def _provision(types: dict[str, ResourceType], save: Callable[[], None]) -> None:
    for name, kind in types.items():
        provisioners._RESOURCE_HANDLERS[name] = _Handler(name, kind, save).table()
    on_threads, recreation = stacks._runs_on_worker_thread, provisioners._property_recreation

    def property_recreation(resource_type: str, name: str) -> str:
        if resource_type in types:
            return "Always" if name in types[resource_type].replacement else "Never"
        return str(recreation(resource_type, name))

    stacks._runs_on_worker_thread = lambda name: name in types or on_threads(name)
    stacks._property_recreation = provisioners._property_recreation = property_recreation


@dataclass(frozen=True)
class _Handler:
    """A ResourceType in the shape of ministack's handler table."""

    name: str
    kind: ResourceType
    save: Callable[[], None]

    def table(self) -> dict[str, Any]:
        return {
            "create": self.create,
            "update": self.update,
            "update_with_logical_id": True,
            "delete": self.delete,
            "delete_with_logical_id": True,
        }

    def create(self, logical_id: str, properties: Params, stack_name: str) -> tuple[str, Params]:
        with self._remembered(stack_name, logical_id, self.kind.expected_id(properties), properties):
            return _made(self.kind.create(properties, stack_of(stack_name, logical_id)))

    def update(
        self, physical_id: str, old: Params, new: Params, stack_name: str, logical_id: str
    ) -> tuple[str, Params]:
        takes_long = self.kind.expected_id(new) and not _rolls_back(stack_name)  # a rollback goes where none starts
        with self._remembered(stack_name, logical_id, physical_id if takes_long else "", new):
            return _made(self.kind.update(physical_id, old, new, stack_of(stack_name, logical_id)))

    def delete(self, physical_id: str, properties: Params, logical_id: str | None) -> None:
        self.kind.delete(physical_id, properties, stack_of(operating(), logical_id or ""))

    @contextlib.contextmanager
    def _remembered(self, stack_name: str, logical_id: str, physical_id: str, properties: Params) -> Iterator[None]:
        """A change that a kill may interrupt is on disk before it begins, until its stack's operation ends."""
        if not physical_id:
            yield
            return
        making = (cloudformation._stacks.get(stack_name) or {}).setdefault(MAKING, {})
        making[logical_id] = {
            "PhysicalResourceId": physical_id,
            "ResourceType": self.name,
            "LogicalResourceId": logical_id,
            "Properties": properties,
        }
        self.save()
        try:
            yield
        except BaseException:
            making.pop(logical_id, None)  # not there, someone else's, or as it was
            raise


def _rolls_back(stack_name: str) -> bool:
    return "ROLLBACK" in (cloudformation._stacks.get(stack_name) or {}).get("StackStatus", "")


def _made(provisioned: Provisioned) -> tuple[str, Params]:
    return provisioned.physical_id, {"Id": provisioned.physical_id, **provisioned.attributes}


def stack_of(name: str, logical_id: str) -> Stack:
    """The stack as handlers know it: on whose behalf, under which service role, with which tags."""
    record = cloudformation._stacks.get(name) or {}
    role = record.get("_role")
    tags = {tag["Key"]: tag["Value"] for tag in record.get("Tags") or []}
    by = role or f"arn:aws:iam::{get_account_id()}:root"
    return Stack(name, logical_id, Caller(get_account_id(), get_region(), by), role, tags)


def operating() -> str:
    """The name of the stack whose resources are being made in this context."""
    return _operation.get()


# -- operations ---------------------------------------------------------------------------------------


def _remember_operations() -> None:
    """Every lifecycle task knows its stack, and one that breaks leaves the stack failed, not in progress for ever."""
    for name in _LIFECYCLE:
        wrapped = _lifecycle(getattr(stacks, name))
        for module in (stacks, handlers, changesets):
            if hasattr(module, name):
                setattr(module, name, wrapped)


def _lifecycle(original: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    async def run(stack_name: str, stack_id: str, *args: Any, **options: Any) -> None:
        token = _operation.set(stack_name)
        try:
            await original(stack_name, stack_id, *args, **options)
        except Exception as error:
            log.exception("the operation on stack %s broke", stack_name)
            settle(stack_name, cloudformation._stacks.get(stack_name) or {}, f"{type(error).__name__}: {error}")
        finally:
            _operation.reset(token)

    return run


def settle(name: str, stack: Params, reason: str) -> None:
    """End an operation that will not end by itself: the stack gets the failed status of what it was doing."""
    status = stack.get("StackStatus", "")
    if not status.endswith("_IN_PROGRESS"):
        return
    if status.startswith("UPDATE_COMPLETE"):
        stack["StackStatus"] = "UPDATE_COMPLETE"
    elif status.startswith("UPDATE") and stack.get("_resources"):
        stack["StackStatus"] = "UPDATE_ROLLBACK_COMPLETE"
    elif status.startswith("DELETE"):
        stack["StackStatus"] = "DELETE_FAILED"
    else:
        stack["StackStatus"] = "ROLLBACK_COMPLETE"
    stack["StackStatusReason"] = reason
    stacks._add_event(
        stack["StackId"], name, name, "AWS::CloudFormation::Stack", stack["StackStatus"], reason, stack["StackId"]
    )


# -- service roles ------------------------------------------------------------------------------------


def _remember_roles() -> None:
    """`RoleARN` stays with the stack, as in AWS: later operations that name none use it again."""
    for action in _ROLE_ACTIONS:
        handlers._ACTION_HANDLERS[action] = _with_role(handlers._ACTION_HANDLERS[action])


def _with_role(original: Callable[[Params], Any]) -> Callable[[Params], Any]:
    def handle(params: Params) -> Any:
        answer = original(params)
        stack = cloudformation._stacks.get(_named(params)) or handlers._resolve_stack(_named(params))
        role = (params.get("RoleARN") or [""])[0]
        if stack is not None and role and answer[0] == 200:
            stack["_role"] = role
        return answer

    return handle


def _named(params: Params) -> str:
    name = params.get("StackName") or [""]
    return str(name[0])


# -- conditions ---------------------------------------------------------------------------------------


def _join_in_conditions() -> None:
    """Fn::Join in a condition (the CDK's bootstrap has some); ministack compares it unresolved."""
    original: Callable[[Params, Params], Params] = engine._evaluate_conditions

    def evaluate(template: Params, params: Params) -> Params:
        joined = _joined(template.get("Conditions", {}), template.get("Mappings", {}), params)
        return original({**template, "Conditions": joined}, params)

    for module in (engine, stacks, handlers, changesets, provisioners):
        if hasattr(module, "_evaluate_conditions"):
            module._evaluate_conditions = evaluate


def _joined(node: Any, mappings: Params, params: Params) -> Any:
    if isinstance(node, dict) and "Fn::Join" in node:
        return engine._resolve_refs(node, {}, params, {}, mappings, "", "")
    if isinstance(node, dict):
        return {key: _joined(item, mappings, params) for key, item in node.items()}
    return [_joined(item, mappings, params) for item in node] if isinstance(node, list) else node


# -- events -------------------------------------------------------------------------------------------


def _announce(emit: Emit) -> None:
    original = stacks._add_event

    def add_event(
        stack_id: str,
        stack_name: str,
        logical_id: str,
        resource_type: str,
        status: str,
        reason: str = "",
        physical_id: str = "",
        detailed_status: str = "",
    ) -> None:
        original(stack_id, stack_name, logical_id, resource_type, status, reason, physical_id, detailed_status)
        if resource_type == "AWS::CloudFormation::Stack" and logical_id == stack_name:
            detail = {
                "stack-id": stack_id,
                "status-details": {"status": status, "status-reason": reason},
                "client-request-token": stacks.CLIENT_REQUEST_TOKEN.get(),
            }
            emit(
                "aws.cloudformation",
                "CloudFormation Stack Status Change",
                detail,
                [stack_id],
                Caller(get_account_id(), get_region()),
            )

    for module in (stacks, handlers, changesets):
        module._add_event = add_event
