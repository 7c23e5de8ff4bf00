"""A YAML file with the line of every key, and validation whose errors name file, line, key, value and what is allowed.

Invalid
└── carries every Problem at once; `str()` is the message to print.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
Validated = TypeVar("Validated", bound=BaseModel)
MAXIMUM_BYTES = 65_536
MAXIMUM_DEPTH = 20


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to correct: where it is, what is wrong, and what would be right."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class Invalid(Exception):
    """Everything that is wrong, in the order of the files' lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and on which line."""

    file: str
    data: dict[str, Any]
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """The line of a key, or of the nearest key around it when it is missing."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def problem(self, location: Location, text: str) -> Problem:
        return Problem(self.file, self.line(location), dotted(location), text)


class _Refused(yaml.YAMLError):
    """Legal YAML that a settings file has no use for (aliases, duplicate keys, deep nesting)."""

    def __init__(self, text: str, mark: object) -> None:
        super().__init__(text)
        self.problem, self.problem_mark = text, mark


def read(path: Path, name: str) -> Document:
    """Read one YAML mapping; `name` is how messages call the file."""
    try:
        source = path.read_bytes()
        if len(source) > MAXIMUM_BYTES:
            raise Invalid([Problem(name, 0, "", f"has {len(source)} bytes; allowed: at most {MAXIMUM_BYTES}")])
        _refuse_what_can_explode(source)
        node = yaml.compose(source, Loader=yaml.SafeLoader)
        data = yaml.safe_load(source)
    except OSError as error:
        raise Invalid([Problem(name, 0, "", f"can't be read: {error.strerror}")]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid([_syntax_problem(error, name)]) from None
    if node is None or not isinstance(data, dict):
        raise Invalid([Problem(name, 1, "", f"found {shown(data)}; allowed: a mapping of keys to values")])
    lines, duplicates = _lines(node, name)
    if duplicates:
        raise Invalid(duplicates)
    return Document(name, data, lines)


def validated(document: Document, model: type[Validated], context: Any = None) -> Validated:
    """The document as a `model`, or Invalid with every problem in it."""
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        raise Invalid([_problem(document, model, details) for details in error.errors()]) from None


def salvaged(document: Document, model: type[Validated]) -> Validated | None:
    """The document as a `model` without what is refused in it, so that later checks can tell what else is wrong.

    None if too little is left: a required key is missing or wrong.
    """
    data = copy.deepcopy(document.data)
    for _ in range(MAXIMUM_DEPTH):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            refused = [details["loc"] for details in reversed(error.errors())]
            if sum(_leave_out(data, location) for location in refused) == 0:
                return None
    return None


def _leave_out(data: Any, location: Location) -> bool:
    """Delete the innermost key of `location` that the data has; False if it has none of them."""
    owners: list[tuple[Any, Any]] = []
    for part in location:
        if part in (data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()):
            owners.append((data, part))
            data = data[part]
    if not owners:
        return False
    owner, key = owners[-1]
    del owner[key]
    return True


def dotted(location: Location) -> str:
    """A location as people write it: `evaluation.guards[0].metric`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") if text.isprintable() else repr(text.lstrip("."))


def shown(value: object) -> str:
    """A value found, shortened, with control characters escaped."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_what_can_explode(source: bytes) -> None:
    depth = 0
    for event in yaml.parse(source, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors and aliases are not allowed; write the value out", event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAXIMUM_DEPTH:
            raise _Refused(f"nested deeper than {MAXIMUM_DEPTH} levels", event.start_mark)


def _syntax_problem(error: Exception, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(name, mark.line + 1 if mark else 0, "", f"is not valid YAML: {text}")


def _lines(node: yaml.Node, name: str) -> tuple[dict[Location, int], list[Problem]]:
    lines: dict[Location, int] = {}
    duplicates: list[Problem] = []

    def visit(node: yaml.Node, location: Location) -> None:
        lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                visit(item, (*location, index))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*location, str(key.value))
                if inner in lines:
                    text = f"found twice, first on line {lines[inner]}; allowed: once"
                    duplicates.append(Problem(name, key.start_mark.line + 1, dotted(inner), text))
                lines[inner] = key.start_mark.line + 1
                visit(value, inner)

    visit(node, ())
    return lines, duplicates


def _problem(document: Document, model: type[BaseModel], details: ErrorDetails) -> Problem:
    found = tuple(part for part in details["loc"] if part != "[key]")
    location, _ = _walk(model, found)
    if details["type"] == "extra_forbidden":
        return document.problem(location, _unknown_key(model, found))
    if details["type"] == "missing":
        return document.problem(location, "is required, and missing")
    text = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if details["type"] == "value_error":
        return document.problem(location, text)
    return document.problem(location, f"found {shown(details['input'])}; allowed: {text}")


def _unknown_key(model: type[BaseModel], location: Location) -> str:
    allowed = sorted(_section(model, location[:-1]).model_fields)
    close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"found an unknown key; allowed: {', '.join(allowed)}{hint}"


def _section(model: type[BaseModel], location: Location) -> type[BaseModel]:
    return _walk(model, location)[1]


def _walk(model: type[BaseModel], location: Location) -> tuple[Location, type[BaseModel]]:
    """The location as the file has it, where the tag of a union is no key; and the section at its end."""
    keys: Location = ()
    parts = iter(location)
    for part in parts:
        keys = (*keys, part)
        field = model.model_fields.get(part) if isinstance(part, str) else None
        if field is None:
            continue
        inner = _model_in(field.annotation)
        if isinstance(field.discriminator, str) and (tag := next(parts, None)) is not None:
            inner = _tagged(field.annotation, field.discriminator, tag)
        model = inner or model
    return keys, model


def _tagged(union: Any, discriminator: str, tag: object) -> type[BaseModel] | None:
    members = (member for member in get_args(union) if issubclass(member, BaseModel))
    return next((one for one in members if tag in get_args(one.model_fields[discriminator].annotation)), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
