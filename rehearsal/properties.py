"""CloudFormation properties in the spelling and types of the API that the resource is made through."""

from __future__ import annotations

import json
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from rehearsal.service import Unsupported


def to_api(value: Any, shape: Shape, where: str) -> Any:
    """`value` (PascalCase, scalars possibly as strings) as `shape` spells it; Unsupported names what it lacks."""
    if isinstance(shape, StructureShape):
        members = {name.lower(): name for name in shape.members}
        unknown = [name for name in value if name.lower() not in members]
        if unknown:
            raise Unsupported(f"{where}: {', '.join(sorted(unknown))} is not rehearsed")
        spelled = {members[name.lower()]: item for name, item in value.items() if item is not None}
        return {name: to_api(item, shape.members[name], f"{where}.{name}") for name, item in spelled.items()}
    if isinstance(shape, ListShape):
        return [to_api(item, shape.member, where) for item in value]
    if isinstance(shape, MapShape):
        return {key: to_api(item, shape.value, where) for key, item in value.items()}
    return _scalar(value, shape.type_name)


def _scalar(value: Any, kind: str) -> Any:
    if kind in ("integer", "long"):
        return int(value)
    if kind == "boolean":
        return str(value).lower() == "true"
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
