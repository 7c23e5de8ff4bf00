"""Step Functions' view of any AWS API: PascalCase members in and out, its own names for services and errors."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError
from botocore.exceptions import ConnectionError as EndpointError
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape
from botocore.validate import ParamValidator

from rehearsal.service import Params, model

# Step Functions calls services as the AWS SDK for Java does: by their service id without spaces.
_BOTOCORE_NAMES = {
    "sfn": "stepfunctions",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "sagemakerruntime": "sagemaker-runtime",
    "applicationautoscaling": "application-autoscaling",
    "secretsmanager": "secretsmanager",
    "resourcegroupstaggingapi": "resourcegroupstaggingapi",
}
LARGEST_RESULT = 262_144
Client = Callable[[str], Any]
"""Gives the boto3 client of a botocore service name, signing as the state machine's role."""


class TaskFailed(Exception):
    """A task's failure as the state machine sees it."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error, cause


def call(client: Client, service: str, action: str, arguments: Params, unmodelled: str = "") -> Params:
    """Call `aws-sdk:{service}:{action}`; `unmodelled` names the errors that the service's model does not."""
    name = botocore_name(service)
    operation = _operation(name, action)
    parameters = _parameters(operation, arguments)
    made = client(name)
    try:
        answer = getattr(made, _method(made, operation.name))(**parameters)
    except ClientError as error:
        raise TaskFailed(_error_name(name, operation, error, unmodelled), _cause(name, error)) from None
    except EndpointError as error:
        raise TaskFailed(f"{prefix(name)}.SdkClientException", str(error)) from None
    return _sized(_from_api({k: v for k, v in answer.items() if k != "ResponseMetadata"}, operation.output_shape))


def botocore_name(service: str) -> str:
    """botocore's name of a service in a Step Functions ARN; States.Runtime if there is none such."""
    name = _BOTOCORE_NAMES.get(service, service)
    try:
        known = model(name).service_id.replace(" ", "").lower()
    except Exception:
        known = ""
    if known != service:
        raise TaskFailed("States.Runtime", f"no AWS service is called {service} in Step Functions")
    return name


@functools.cache
def prefix(name: str) -> str:
    """How error names of a service begin: `SageMaker`, `S3`, `CloudFormation`, `DynamoDb`."""
    return "".join(_words(word) for word in model(name).service_id.split(" "))


def _words(word: str) -> str:
    """`SFN` becomes `Sfn`, `DynamoDB` becomes `DynamoDb`, `SageMaker` and `S3` stay."""
    made = ""
    for before, letter, after in zip(" " + word, word, word[1:] + " ", strict=False):
        inside = before.isupper() and letter.isupper() and not after.islower()
        made += letter.lower() if inside else letter
    return made


def member(name: str) -> str:
    """A member's name in Step Functions: the Java SDK's, capitalized (`KMSKeyId` is `KmsKeyId`, `RoleARN` stays)."""
    length = 1
    while length < len(name) and name[length].isupper() and not name[length + 1 : length + 2].islower():
        length += 1
    lowered = name[:length].lower() + name[length:]
    return lowered[0].upper() + lowered[1:]


def _operation(name: str, action: str) -> OperationModel:
    operation = action[:1].upper() + action[1:]
    if operation not in model(name).operation_names:
        raise TaskFailed("States.Runtime", f"{name} has no API action {action}")
    return model(name).operation_model(operation)


def _method(client: Any, operation: str) -> str:
    return next(str(method) for method, name in client.meta.method_to_api_mapping.items() if name == operation)


def _parameters(operation: OperationModel, arguments: Params) -> Params:
    shape = operation.input_shape
    if shape is None:
        return {}
    parameters: Params = _to_api(arguments, shape)
    report = ParamValidator().validate(parameters, shape)
    if report.has_errors():
        raise TaskFailed("States.Runtime", f"{operation.name}: {report.generate_report()}")
    return parameters


def _to_api(value: Any, shape: Shape) -> Any:
    """Arguments as botocore takes them; a name that the operation does not have is refused, as Step Functions does."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        names = {member(name): name for name in shape.members}
        if unknown := value.keys() - names.keys():
            raise TaskFailed("States.Runtime", f"{shape.name} has no field {', '.join(sorted(unknown))}")
        return {names[key]: _to_api(item, shape.members[names[key]]) for key, item in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_to_api(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _to_api(item, shape.value) for key, item in value.items()}
    if shape.type_name == "blob":
        return (value if isinstance(value, str) else json.dumps(value)).encode()
    if shape.type_name in ("integer", "long") and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _from_api(value: Any, shape: Shape | None) -> Any:
    if hasattr(value, "read"):
        value = value.read()
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        return {member(k): _from_api(v, shape.members.get(k)) for k, v in value.items() if v is not None}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_from_api(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _from_api(item, shape.value) for key, item in value.items()}
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return _text(value) if isinstance(value, bytes) else value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _sized(result: Params) -> Params:
    if (size := len(json.dumps(result).encode())) > LARGEST_RESULT:
        raise TaskFailed("States.DataLimitExceeded", f"the result has {size} bytes, {LARGEST_RESULT} are passed on")
    return result


def _error_name(name: str, operation: OperationModel, error: ClientError, unmodelled: str) -> str:
    code = error.response["Error"].get("Code", "")
    shapes = {shape.metadata.get("error", {}).get("code", shape.name): shape.name for shape in operation.error_shapes}
    shapes |= {shape.name: shape.name for shape in operation.error_shapes}
    if code not in shapes:
        return f"{prefix(name)}.{unmodelled or prefix(name) + 'Exception'}"
    named = shapes[code].removesuffix("Fault")
    return f"{prefix(name)}.{named if named.endswith('Exception') else named + 'Exception'}"


def _cause(name: str, error: ClientError) -> str:
    metadata: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    return (
        f"{error.response['Error'].get('Message', '')} (Service: {prefix(name)}, "
        f"Status Code: {metadata.get('HTTPStatusCode', 0)}, Request ID: {metadata.get('RequestId', '')})"
    )
