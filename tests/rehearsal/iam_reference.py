"""AWS's service authorization reference, as the independent evaluator's package carries it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal import npm_tools

_VARIABLE = re.compile(r"\$\{[A-Za-z]+\}")


@dataclass(frozen=True)
class Reference:
    """What AWS documents of actions: which exist, on which resources, with which condition keys."""

    data: Path

    def complaints(self, action: str, resources: Iterable[str], keys: Iterable[str]) -> list[str]:
        """What AWS's reference does not know of a statement or permission; empty if all is in it."""
        found = self._action(action)
        if found is None:
            return [f"{action} is no action"]
        patterns = self._patterns(action, found)
        unknown = [f"{action} is not checked on {resource}" for resource in resources
                   if not _fits(resource, patterns, found)]  # fmt: skip
        known = [*self._keys(action, found), "aws:*"]
        return unknown + [f"{action} has no condition key {key}" for key in keys if not _named(key, known)]

    def _action(self, action: str) -> dict[str, Any] | None:
        service, _, name = action.partition(":")
        found: dict[str, Any] | None = self._read("actions", service).get(name.lower())
        return found

    def _patterns(self, action: str, found: dict[str, Any]) -> list[str]:
        types = self._read("resourceTypes", action.partition(":")[0])
        return [types[kind["name"].lower()]["arn"] for kind in found["resourceTypes"]]

    def _keys(self, action: str, found: dict[str, Any]) -> list[str]:
        types = self._read("resourceTypes", action.partition(":")[0])
        keys = [*found["conditionKeys"]]
        for kind in found["resourceTypes"]:
            keys += [*kind["conditionKeys"], *types[kind["name"].lower()].get("conditionKeys", [])]
        return keys

    def _read(self, kind: str, service: str) -> dict[str, Any]:
        return _json(self.data / kind / f"{service}.json")


def reference() -> Reference:
    """Of the package that `audit --check` uses, fetched if need be."""
    return Reference(npm_tools.fetch(*npm_tools.IAM_SIMULATE) / "@cloud-copilot" / "iam-data" / "data")


@functools.cache
def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _fits(resource: str, patterns: list[str], found: dict[str, Any]) -> bool:
    if resource == "*":
        return not any(kind["required"] for kind in found["resourceTypes"])
    return any(overlap(_VARIABLE.sub("*", pattern), resource) for pattern in patterns)


@functools.cache
def overlap(one: str, other: str) -> bool:
    """Whether some text fits both patterns, in which `*` stands for any text."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "*":
        return overlap(other, one)
    return one[0] == other[0] and overlap(one[1:], other[1:])


def _named(key: str, known: Iterable[str]) -> bool:
    return any(_regex(name).fullmatch(key) for name in known)


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(_VARIABLE.sub("*", pattern)).replace(r"\*", ".*"), re.IGNORECASE)
