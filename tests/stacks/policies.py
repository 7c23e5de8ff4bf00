"""Reads IAM policies out of templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from tests.conftest import Assembly

POLICY_TYPES = ("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")


@dataclass(frozen=True)
class Statement:
    """One statement of an identity policy, with the logical id of the role that has it."""

    holder: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: dict[str, Any]


def statements(assembly: Assembly, stack: str | None = None) -> Iterator[Statement]:
    """Every statement of every role's policies; resources as text, intrinsic functions as JSON."""
    # Stack by stack: the release stacks of all environments have the same logical ids.
    for kind, name in product(POLICY_TYPES, [stack] if stack else assembly.templates):
        for holder, found in assembly.resources(kind, name).items():
            for document in _documents(found["Properties"]):
                for statement in _listed(document["Statement"]):
                    for role in found["Properties"].get("Roles", [{"Ref": holder}]):
                        yield _statement(role["Ref"], statement)


def of_endpoints(assembly: Assembly) -> Iterator[Statement]:
    """Every statement of every VPC endpoint's policy."""
    for stack in assembly.templates:
        for holder, found in assembly.resources("AWS::EC2::VPCEndpoint", stack).items():
            for statement in _listed(found["Properties"]["PolicyDocument"]["Statement"]):
                yield _statement(holder, statement)


def of(assembly: Assembly, holder: str, stack: str | None = None) -> list[Statement]:
    """The statements of the role whose logical id begins so."""
    return [statement for statement in statements(assembly, stack) if statement.holder.startswith(holder)]


def actions(assembly: Assembly, holder: str) -> set[str]:
    return {action for statement in of(assembly, holder) for action in statement.actions}


def _documents(properties: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "PolicyDocument" in properties:
        yield properties["PolicyDocument"]
    for policy in properties.get("Policies", []):
        yield policy["PolicyDocument"]


def _statement(holder: str, statement: dict[str, Any]) -> Statement:
    resources = tuple(item if isinstance(item, str) else json.dumps(item) for item in _listed(statement["Resource"]))
    return Statement(holder, tuple(_listed(statement["Action"])), resources, statement.get("Condition", {}))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
