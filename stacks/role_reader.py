"""Reads roles out of synthesized templates, in words short enough for a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Template = dict[str, Any]
_HASH = re.compile(r"[0-9A-F]{8}$")


@dataclass(frozen=True)
class Statement:
    """What is allowed, on what, and when."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[str, ...]


@dataclass
class Role:
    """Who assumes it, and what it may do."""

    by: str
    statements: list[Statement] = field(default_factory=list)


def read_roles(assembly: Path) -> dict[str, Role]:
    """Every role by `stack/name`, in the order of the templates; what all models have alike is told once."""
    found: dict[str, Role] = {}
    for file in sorted(assembly.glob("*.template.json")):
        template, stack = json.loads(file.read_text()), file.name.removesuffix(".template.json")
        model = template.get("Outputs", {}).get("Model", {}).get("Value")
        for name, role in _roles(stack, template).items():
            told = _alike(name, stack, model), _alike_role(role, stack, model)
            if found.get(told[0], told[1]) != told[1]:
                told = name, role
            found.setdefault(*told)
    return found


def _alike(text: str, stack: str, model: str | None) -> str:
    """The text with the model's names, in all their spellings, as `<model>`."""
    if model is None:
        return text
    slug = model.replace("_", "-")
    prefix = stack.partition("-")[0]
    # CodePipeline's store takes the first 20 characters of the pipeline's name.
    names = (prefix, prefix.lower(), model, f"pushline-{slug}"[:20].removeprefix("pushline-"), slug)
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "<model>")
    return text


def _alike_role(role: Role, stack: str, model: str | None) -> Role:
    def each(items: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_alike(item, stack, model) for item in items)

    statements = [Statement(s.actions, each(s.resources), each(s.conditions)) for s in role.statements]
    return Role(_alike(role.by, stack, model), statements)


def _roles(stack: str, template: Template) -> dict[str, Role]:
    resources = template["Resources"]
    roles = {name: _role(found) for name, found in resources.items() if found["Type"] == "AWS::IAM::Role"}
    for found in resources.values():
        if found["Type"] == "AWS::IAM::Policy":
            for attached in found["Properties"]["Roles"]:
                roles[attached["Ref"]].statements += _statements(found["Properties"]["PolicyDocument"])
    return {f"{stack}/{_HASH.sub('', name)}": role for name, role in roles.items()}


def _role(found: Template) -> Role:
    properties = found["Properties"]
    (trust,) = properties["AssumeRolePolicyDocument"]["Statement"]
    principal = trust["Principal"]
    by = f"`{principal['Service']}`" if "Service" in principal else f"the role `{_text(principal['AWS'])}`"
    conditions = [*_conditions(trust.get("Condition", {}))]
    policies = [s for policy in properties.get("Policies", []) for s in _statements(policy["PolicyDocument"])]
    return Role(f"{by} when {' '.join(f'`{c}`' for c in conditions)}" if conditions else by, policies)


def _statements(document: Template) -> Iterator[Statement]:
    for statement in document["Statement"]:
        actions = tuple(_listed(statement["Action"]))
        resources = tuple(dict.fromkeys(_short(_text(one)) for one in _listed(statement["Resource"])))
        yield Statement(actions, resources, tuple(_conditions(statement.get("Condition", {}))))


def _conditions(conditions: Template) -> Iterator[str]:
    for operator, compared in conditions.items():
        for key, value in compared.items():
            values = " or ".join(_short(_text(one)) for one in _listed(value))
            yield f"{operator} {key} = {values}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    """A value with what only the deployment knows named in angle brackets."""
    if not isinstance(value, dict):
        return str(value)
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return str(argument[0]).join(_text(part) for part in argument[1])
    if function == "Fn::GetAtt":
        return f"<{_HASH.sub('', argument[0])}>"
    if function == "Fn::ImportValue":
        return f"<{_exported(str(argument))}>"
    if function == "Ref":
        return "<…>" if str(argument).startswith("AWS::") else f"<{_HASH.sub('', str(argument))}>"
    return f"<{function}>"


def _exported(name: str) -> str:
    """`Pushline-Foundation:ExportsOutputFnGetAttKey961B73FDArn5A860C43` names `Key`."""
    stack, _, output = name.partition(":")
    found = re.fullmatch(r"ExportsOutput(?:FnGetAtt|Ref)(.+?)[0-9A-F]{8}.*", output)
    return f"{stack}/{found[1]}" if found else name


def _short(text: str) -> str:
    """An ARN without partition, region and account: what comes after says what it is."""
    found = re.fullmatch(r"arn:[^:]*:([a-z0-9-]+):[^:]*:[^:]*:(.+)", text)
    return f"{found[1]}:{found[2]}" if found else text
