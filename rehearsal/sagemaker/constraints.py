"""The limits that botocore's models state and its validator ignores: enums, lengths and patterns of strings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from rehearsal.service import ServiceError


def enforce(params: Any, shape: Shape) -> None:
    """ValidationException naming every value that breaks its shape's limits, as AWS words it."""
    errors = list(_violations(params, shape, ""))
    if errors:
        found = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected: "
        raise ServiceError("ValidationException", found + "; ".join(errors))


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _violations(value[name], member, f"{path}.{name}" if path else name)
    elif isinstance(shape, ListShape) and isinstance(value, list):
        yield from _size(len(value), shape, path, f"{len(value)} items")
        for number, item in enumerate(value, 1):
            yield from _violations(item, shape.member, f"{path}.{number}.member")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        yield from _size(len(value), shape, path, f"{len(value)} entries")
        for key, item in value.items():
            yield from _violations(item, shape.value, f"{path}.{key}")
    elif isinstance(value, str):
        yield from _string(value, shape, path)
    elif isinstance(value, int | float) and shape.type_name in ("integer", "long", "float", "double"):
        yield from _bounds(value, shape, path)


def _string(value: str, shape: Shape, path: str) -> Iterator[str]:
    limits = shape.metadata
    if "enum" in limits and value not in limits["enum"]:
        yield _failed(value, path, f"satisfy enum value set: [{', '.join(limits['enum'])}]")
    yield from _size(len(value), shape, path, value)
    pattern = limits.get("pattern", "")
    # Patterns with Unicode classes are Java's; where one matters its operation checks it.
    if pattern and "\\p" not in pattern and not re.fullmatch(pattern, value):
        yield _failed(value, path, f"satisfy regular expression pattern: {pattern}")


def _size(size: int, shape: Shape, path: str, value: str) -> Iterator[str]:
    if size > shape.metadata.get("max", size):
        yield _failed(value, path, f"have length less than or equal to {shape.metadata['max']}")
    if size < shape.metadata.get("min", size):
        yield _failed(value, path, f"have length greater than or equal to {shape.metadata['min']}")


def _bounds(value: float, shape: Shape, path: str) -> Iterator[str]:
    if value > shape.metadata.get("max", value):
        yield _failed(str(value), path, f"have value less than or equal to {shape.metadata['max']}")
    if value < shape.metadata.get("min", value):
        yield _failed(str(value), path, f"have value greater than or equal to {shape.metadata['min']}")


def _failed(value: str, path: str, must: str) -> str:
    return f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {must}"
