"""The seam of the rehearsal's own AWS services: operations named, checked and answered by botocore's models.

A service is a class with one method per operation (`create_training_job(caller, params) -> dict`),
a table of the IAM permissions each operation needs, and the CloudFormation types it provides.
`cloud.py` puts it behind the embedded AWS's front door; nothing here knows that AWS.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import botocore.session
from botocore import xform_name
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

from rehearsal.store import Store

Params = dict[str, Any]
Response = tuple[int, dict[str, str], bytes]
Route = Callable[[str, str, str, Mapping[str, str], bytes], Response]
"""(method, path, query string, headers in lower case, body) -> response; called on a worker thread, unauthenticated."""
log = logging.getLogger("rehearsal")


class ServiceError(Exception):
    """An error that the AWS API itself would answer: `code` as botocore spells it, HTTP `status`."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class Unsupported(ServiceError):
    """The rehearsal can't do this faithfully, so it refuses; the message names the resource and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__("UnsupportedByRehearsal", message, 400)


@dataclass(frozen=True)
class Caller:
    """Who signed the request: `arn` is the assumed role's session ARN, or the account's root for AWS itself."""

    account: str
    region: str
    arn: str = ""
    access_key: str = ""


@dataclass(frozen=True)
class Permission:
    """One IAM check that AWS makes for an operation; `context` holds the service's own condition keys."""

    action: str
    resource: str = "*"
    context: Mapping[str, Any] = field(default_factory=dict)


class Logs(Protocol):
    """A CloudWatch log stream, opened for writing."""

    def write(self, line: str) -> None: ...


class Cloud(Protocol):
    """What a service may use of the embedded AWS around it (implemented in `cloud.py`, doubled in tests)."""

    store: Store
    state_dir: Path
    """Where the service keeps its files: `state_dir / "<service>" / …`."""
    endpoint: str
    """The loopback endpoint of every AWS API, e.g. `http://127.0.0.1:4566`."""
    time_scale: float
    """Waits, bake times and schedules last `seconds / time_scale`; job limits are never scaled."""

    def client(
        self,
        service: str,
        *,
        role: str | None = None,
        by: str = "",
        account: str = "",
        region: str = "",
        session: str = "rehearsal",
        source: str = "",
    ) -> Any:
        """A boto3 client over loopback. With `role` it carries that role's session, assumed as the service
        principal `by` (e.g. "glue.amazonaws.com") for the resource `source` (its ARN; default: something of that
        service in `account`): the trust policy is evaluated with both, ServiceError AccessDenied if it refuses.
        Without, it is AWS itself acting (root of `account`)."""

    def environment(
        self, role: str, by: str, *, region: str = "", session: str = "rehearsal", source: str = ""
    ) -> dict[str, str]:
        """AWS_* variables for a process that runs under `role`: credentials, region and endpoint."""

    def emit(self, source: str, detail_type: str, detail: Params, resources: list[str], caller: Caller) -> None:
        """Put one event of an AWS service on the account's default bus."""

    def authorize(self, role: str, by: str, permission: Permission, caller: Caller) -> None:
        """Decide (and audit) a call that AWS makes under `role` and that has no API of ours, such as pulling an
        image from ECR; ServiceError AccessDeniedException if the role's policies do not allow it."""

    def logs(
        self, group: str, stream: str, caller: Caller, *, role: str | None = None, by: str = "", source: str = ""
    ) -> Logs:
        """Open (creating if need be) a CloudWatch log stream; with `role`, written as that role."""


@dataclass(frozen=True)
class Provisioned:
    """What a CloudFormation resource became: `Ref` gives `physical_id`, `Fn::GetAtt` reads `attributes`."""

    physical_id: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """The stack on whose behalf a resource is made. `tags` are the stack's, to be put on the resource too.

    `role` is the stack's CloudFormation service role, if the operation named one: make the calls under it."""

    name: str
    logical_id: str
    caller: Caller
    role: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


class ResourceType:
    """One CloudFormation type. Methods may block (they run on a worker thread) and raise to fail the resource.

    `replacement` names the properties whose change replaces the resource (as AWS documents it):
    CloudFormation then calls `create` and later `delete`, not `update`.
    """

    replacement: ClassVar[frozenset[str]] = frozenset()
    attributes: ClassVar[frozenset[str]] = frozenset()

    def expected_id(self, properties: Params) -> str:
        """What `delete` takes for a `create` that has not returned; empty for a type that is made at once.

        With it, a stack whose operation was killed in the middle of `create` deletes what is there of it, and one
        killed in the middle of `update` changes it back."""
        return ""

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        raise NotImplementedError

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        """Change in place. Called again with `old` and `new` swapped when the stack rolls back; a type whose
        own update fails half-way restores itself before it raises (CloudFormation does not send it back)."""
        raise NotImplementedError

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        """Delete; a resource that is already gone is no error."""
        raise NotImplementedError


class Service:
    """An AWS service of ours. Subclasses set `name` (botocore's) and add a method per operation they run.

    An operation without a method is refused as `Unsupported`, or left to the embedded AWS when
    `falls_through` is set (Glue: ours are the job runs, the catalog is the embedded AWS's).
    """

    name: ClassVar[str]
    falls_through: ClassVar[bool] = False

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def start(self) -> None:
        """Called once when the endpoint answers: pick up what an earlier process left running."""

    def stop(self) -> None:
        """Called before the process ends: end child processes, leave the state so that `start` can resume."""

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        """Every IAM check AWS makes for this operation (also iam:PassRole), or an empty list if it makes none.

        Each operation the service runs must be listed: one that is not raises, so nothing is silently allowed."""
        raise NotImplementedError

    def resource_policy(self, arn: str) -> str | None:
        """The policy of a resource of ours, "" if it has none; None for one that only its own account can use."""
        return None

    def resource_types(self) -> dict[str, ResourceType]:
        """CloudFormation types this service provides, e.g. {"AWS::SageMaker::Model": …}."""
        return {}

    def http_routes(self) -> dict[str, Route]:
        """Path prefixes that this service answers itself, outside the AWS protocols (git over HTTP)."""
        return {}

    # -- the protocol ---------------------------------------------------------------------------------

    def runs(self, operation: str) -> bool:
        return callable(getattr(self, xform_name(operation), None))

    def parse(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, Params]:
        """(operation, parameters) of a request in the JSON protocol; override for REST services.

        `path` is as it was sent, with its query string if there is one."""
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        try:
            params = json.loads(body or b"{}")
        except ValueError as error:
            raise ServiceError("SerializationException", f"the request body is not JSON: {error}") from None
        return operation, params

    def check(self, operation: str, params: Params) -> None:
        """Raise ValidationException listing everything in `params` that the operation's input shape refuses."""
        shape = model(self.name).operation_model(operation).input_shape
        if shape is None:
            return
        report = _validator().validate(_typed(params, shape), shape)
        if report.has_errors():
            raise ServiceError("ValidationException", report.generate_report())

    def call(self, operation: str, params: Params, caller: Caller) -> Params:
        """Check the input, run the operation, check the output. IAM has been decided by whoever calls this."""
        if operation not in model(self.name).operation_names:
            raise ServiceError("UnknownOperationException", f"{self.name} has no operation {operation}", 404)
        if not self.runs(operation):
            raise Unsupported(f"{self.name}:{operation} is not rehearsed; docs/fidelity.md lists what is")
        self.check(operation, params)
        run: Callable[[Caller, Params], Params | None] = getattr(self, xform_name(operation))
        result = run(caller, params) or {}
        shape = model(self.name).operation_model(operation).output_shape
        return _known(result, shape) if shape is not None else {}

    def respond(self, operation: str, result: Params) -> Response:
        """The HTTP response of a successful operation in the JSON protocol; override for REST services."""
        version = model(self.name).metadata.get("jsonVersion", "1.1")
        return 200, {"Content-Type": f"application/x-amz-json-{version}"}, _json(result)

    def respond_error(self, error: ServiceError) -> Response:
        body = _json({"__type": error.code, "message": error.message, "Message": error.message})
        return error.status, {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": error.code}, body


def arn(service: str, caller: Caller, resource: str) -> str:
    return f"arn:aws:{service}:{caller.region}:{caller.account}:{resource}"


@functools.cache
def model(service: str) -> ServiceModel:
    session = botocore.session.get_session()
    return ServiceModel(session.get_component("data_loader").load_service_model(service, "service-2"), service)


@functools.cache
def _validator() -> ParamValidator:
    return ParamValidator()


def _typed(value: Any, shape: Shape) -> Any:
    """`value` with wire forms (epoch seconds, base64) turned into what botocore's validator expects."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {k: _typed(v, shape.members[k]) if k in shape.members else v for k, v in value.items() if v is not None}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_typed(v, shape.member) for v in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {k: _typed(v, shape.value) for k, v in value.items()}
    if shape.type_name == "timestamp" and isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    return value


def _known(value: Any, shape: Shape) -> Any:
    """`value` if the output shape knows every key in it; a key it does not know is our bug, so raise."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        unknown = set(value) - set(shape.members)
        if unknown:
            raise TypeError(f"{shape.name} has no member {sorted(unknown)}")
        return {k: _known(v, shape.members[k]) for k, v in value.items() if v is not None}
    if isinstance(shape, ListShape) and isinstance(value, list | tuple):
        return [_known(v, shape.member) for v in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {k: _known(v, shape.value) for k, v in value.items()}
    return value


def _json(value: Any) -> bytes:
    def encode(item: Any) -> Any:
        if isinstance(item, dt.datetime):
            return item.timestamp()
        if isinstance(item, bytes):
            return base64.b64encode(item).decode()
        raise TypeError(f"{type(item).__name__} can't be sent as JSON")

    return json.dumps(value, default=encode).encode()
