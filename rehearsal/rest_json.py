"""AWS's REST protocol with JSON bodies: the operation is in method and path, parameters in path, query and body."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from botocore.model import ListShape, OperationModel, Shape

from rehearsal.service import Params, Response, Service, ServiceError, model


class RestJsonService(Service):
    """A service of ours whose requests follow botocore's `rest-json`; operations see plain parameters."""

    def parse(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, Params]:
        path, _, query = path.partition("?")
        for pattern, operation in _routes(self.name):
            if operation.http["method"] == method and (match := pattern.fullmatch(path)):
                return operation.name, _parameters(operation, match.groupdict(), parse_qs(query), body)
        raise ServiceError("UnknownOperationException", f"{self.name} has no operation {method} {path}", 404)

    def respond(self, operation: str, result: Params) -> Response:
        _, _, content = super().respond(operation, result)
        code = int(model(self.name).operation_model(operation).http.get("responseCode", 200))
        return code, {"Content-Type": "application/json"}, content


@functools.cache
def _routes(service: str) -> list[tuple[re.Pattern[str], OperationModel]]:
    """Path patterns with the operation they mean; a group's name is the label's, and only the last may hold a /."""
    described = [model(service).operation_model(name) for name in model(service).operation_names]
    return [(_pattern(operation.http["requestUri"].partition("?")[0]), operation) for operation in described]


def _pattern(uri: str) -> re.Pattern[str]:
    """A label is one segment as it was sent, or, at the end, an ARN whose slashes may come unquoted."""
    middle = re.sub(r"\\{(\w+)\\}(?=/)", r"(?P<\1>[^/]+)", re.escape(uri))
    return re.compile(re.sub(r"\\{(\w+)\\}$", r"(?P<\1>.+)", middle))


def _parameters(operation: OperationModel, labels: Params, query: dict[str, list[str]], body: bytes) -> Params:
    try:
        given: Params = json.loads(body or b"{}")
    except ValueError as error:
        raise ServiceError("SerializationException", f"the request body is not JSON: {error}") from None
    shape = operation.input_shape
    for name, member in shape.members.items() if shape is not None else ():
        where, wire = member.serialization.get("location"), member.serialization.get("name", name)
        if where == "uri":
            given[name] = unquote(labels[wire])
        elif where == "querystring" and wire in query:
            given[name] = _from_query(query[wire], member)
    return given


def _from_query(values: list[str], shape: Shape) -> Any:
    if isinstance(shape, ListShape):
        return values
    if shape.type_name in ("integer", "long"):
        return int(values[0]) if values[0].lstrip("-").isdecimal() else values[0]
    return values[0]
