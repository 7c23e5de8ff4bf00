"""What roles are granted and never used: every allowed action on every resource pattern, against the audit log."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rehearsal.policies import Role, listed


@dataclass(frozen=True, order=True)
class Grant:
    """One action that a role may do on resources of one pattern."""

    role: str
    action: str
    resource: str

    def row(self) -> dict[str, str]:
        return asdict(self)


def unused(roles: Iterable[Role], entries: Iterable[dict[str, Any]]) -> list[Grant]:
    """The grants that no allowed call of the role needed, whichever statement allowed it."""
    called: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for entry in entries:
        if entry["decision"] == "Allow" and entry.get("role"):
            called[entry["role"]].add((entry["action"], entry["resource"]))
    return sorted({
        grant for role in roles for grant in _grants(role)
        if not any(_covers(grant, *call) for call in called[role.arn])
    })  # fmt: skip


def _grants(role: Role) -> Iterator[Grant]:
    for policy in role.policies.values():
        for statement in listed(policy["Statement"]):
            if statement["Effect"] != "Allow":
                continue
            for action in listed(statement.get("Action", [])):
                yield from (Grant(role.name, action, resource) for resource in listed(statement.get("Resource", [])))


def _covers(grant: Grant, action: str, resource: str) -> bool:
    return _like(grant.action, action, re.IGNORECASE) and _like(grant.resource, resource)


def _like(pattern: str, value: str, flags: int = 0) -> bool:
    translated = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(translated, value, flags | re.DOTALL) is not None
