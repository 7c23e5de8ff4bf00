"""InvokeEndpoint: AWS's signed door to the router that answers plain HTTP. InvokeEndpointAsync: into a queue."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import unquote

import httpx

from rehearsal.sagemaker.async_request import KIND as REQUEST
from rehearsal.sagemaker.async_request import queued
from rehearsal.sagemaker.models import ENDPOINT, endpoint_arn
from rehearsal.sagemaker.router import ENDPOINT_HEADER, PAYLOAD_BYTES, VARIANT_HEADER, endpoint_url
from rehearsal.sagemaker.tags import Permissions
from rehearsal.service import Caller, Cloud, Params, Permission, Response, Service, ServiceError, Unsupported

_PATH = re.compile(r"/endpoints/([^/]+)/(async-)?invocations")
_HEADERS = {
    "ContentType": "content-type",
    "Accept": "accept",
    "TargetVariant": VARIANT_HEADER,
    "CustomAttributes": "x-amzn-sagemaker-custom-attributes",
    "InferenceId": "x-amzn-sagemaker-inference-id",
}
_ASYNC_HEADERS = {
    "ContentType": "x-amzn-sagemaker-content-type",
    "Accept": "x-amzn-sagemaker-accept",
    "CustomAttributes": "x-amzn-sagemaker-custom-attributes",
    "InferenceId": "x-amzn-sagemaker-inference-id",
    "InputLocation": "x-amzn-sagemaker-inputlocation",
    "S3OutputPathExtension": "x-amzn-sagemaker-s3outputpathextension",
    "Filename": "x-amzn-sagemaker-filename",
    "RequestTTLSeconds": "x-amzn-sagemaker-requestttlseconds",
    "InvocationTimeoutSeconds": "x-amzn-sagemaker-invocationtimeoutseconds",
}
_SECONDS = ("RequestTTLSeconds", "InvocationTimeoutSeconds")
_REFUSED = {
    "x-amzn-sagemaker-target-model": "TargetModel",
    "x-amzn-sagemaker-session-id": "SessionId",
    "x-amzn-sagemaker-target-container-hostname": "TargetContainerHostname",
    "x-amzn-sagemaker-inference-component": "InferenceComponentName",
    "x-amzn-sagemaker-enable-explanations": "EnableExplanations",
}
ROUTER_SECONDS = 900.0
"""Longer than the router takes to answer: a fleet that is on its way may need minutes, and a model one."""
_SERVING = ("InService", "Updating", "RollingBack", "SystemUpdating")


class ModelError(ServiceError):
    """The model answered with an error; its own message is what the caller reads."""

    def __init__(self, status: int, message: str, variant: str, caller: Caller, endpoint: str) -> None:
        kind, group = "client" if 400 <= status < 500 else "server", f"/aws/sagemaker/Endpoints/{endpoint}"
        super().__init__(
            "ModelError",
            f'Received {kind} error ({status}) from {variant} with message "{message}". '
            f"See CloudWatch log group {group} in account {caller.account} for more information.",
            424,
        )
        self.details = {
            "OriginalStatusCode": status,
            "OriginalMessage": message,
            "LogStreamArn": f"arn:aws:logs:{caller.region}:{caller.account}:log-group:{group}",
        }


class SageMakerRuntime(Service):
    """The data plane of hosting."""

    name = "sagemaker-runtime"
    PERMISSIONS: ClassVar[Permissions] = {
        "InvokeEndpoint": lambda params, caller: [
            Permission("sagemaker:InvokeEndpoint", endpoint_arn(caller, params["EndpointName"]))
        ],
        "InvokeEndpointAsync": lambda params, caller: [
            Permission("sagemaker:InvokeEndpointAsync", endpoint_arn(caller, params["EndpointName"]))
        ],
    }

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._http = httpx.Client(timeout=ROUTER_SECONDS, trust_env=False)

    def stop(self) -> None:
        self._http.close()

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        return list(self.PERMISSIONS[operation](params, caller))

    def parse(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, Params]:
        match = _PATH.fullmatch(path)
        if match is None or method != "POST":
            raise Unsupported(f"{method} {path} of sagemaker-runtime is not rehearsed; InvokeEndpoint and"
                              " InvokeEndpointAsync are")  # fmt: skip
        given = {key.lower(): value for key, value in headers.items()}
        if match[2]:
            return "InvokeEndpointAsync", _async_params(unquote(match[1]), given, body)
        for header, member in _REFUSED.items():
            if header in given:
                raise Unsupported(f"InvokeEndpoint with {member} is not rehearsed")
        members = {member: given[header] for member, header in _HEADERS.items() if header in given}
        return "InvokeEndpoint", {"EndpointName": unquote(match[1]), "Body": body, **members}

    def invoke_endpoint(self, caller: Caller, params: Params) -> Params:
        made, body = endpoint_arn(caller, params["EndpointName"]), params["Body"]
        url = self._address(made, caller, params["EndpointName"], asynchronous=False)
        if len(body) > PAYLOAD_BYTES:
            raise ServiceError("ValidationError", f"the body is larger than {PAYLOAD_BYTES // 1024 // 1024} MB", 413)
        headers = {header: params[member] for member, header in _HEADERS.items() if member in params}
        answer = self._http.post(f"{url}/invocations", content=body, headers={**headers, ENDPOINT_HEADER: made})
        variant = answer.headers.get("x-amzn-invoked-production-variant")
        if variant is None:
            raise _router_error(answer, caller, params["EndpointName"])
        if answer.is_error:
            raise ModelError(answer.status_code, answer.text, variant, caller, params["EndpointName"])
        return {
            "Body": answer.content,
            "ContentType": answer.headers["content-type"],
            "InvokedProductionVariant": variant,
        }

    def invoke_endpoint_async(self, caller: Caller, params: Params) -> Params:
        made = endpoint_arn(caller, params["EndpointName"])
        self._address(made, caller, params["EndpointName"], asynchronous=True)
        if bool(params.get("Body")) == ("InputLocation" in params):
            raise ServiceError("ValidationError", "Give exactly one of Body and InputLocation.")
        if not params.get("InputLocation", "s3://").startswith("s3://"):
            raise Unsupported("InputLocation is rehearsed as s3://bucket/key only")
        request = queued(self.cloud.store.get(ENDPOINT, made) or {}, params)
        self.cloud.store.put(REQUEST, f"{made}/{uuid.uuid4()}", request)
        return {
            "InferenceId": request["InferenceId"],
            "OutputLocation": request["output"],
            "FailureLocation": request["failure"],
        }

    def respond(self, operation: str, result: Params) -> Response:
        if operation == "InvokeEndpointAsync":
            return _accepted(result)
        return (
            200,
            {
                "Content-Type": result["ContentType"],
                "x-Amzn-Invoked-Production-Variant": result["InvokedProductionVariant"],
            },
            result["Body"],
        )

    def respond_error(self, error: ServiceError) -> Response:
        details: dict[str, Any] = error.details if isinstance(error, ModelError) else {}
        body = json.dumps({"Message": error.message, "message": error.message, **details}).encode()
        return error.status, {"Content-Type": "application/json", "x-amzn-ErrorType": error.code}, body

    def _address(self, made: str, caller: Caller, name: str, *, asynchronous: bool) -> str:
        endpoint, url = self.cloud.store.get(ENDPOINT, made), endpoint_url(self.cloud.store, name)
        if endpoint is None or url is None or endpoint["EndpointStatus"] not in _SERVING:
            raise ServiceError("ValidationError", f"Endpoint {name} of account {caller.account} not found.")
        if bool((endpoint["live"] or {}).get("asynchronous")) != asynchronous:
            kind, call = ("real-time", "InvokeEndpoint") if asynchronous else ("asynchronous", "InvokeEndpointAsync")
            raise ServiceError("ValidationError", f"Endpoint {name} is for {kind} inference; use {call}.")
        return url


def _async_params(endpoint: str, headers: Mapping[str, str], body: bytes) -> Params:
    members: Params = {member: headers[header] for member, header in _ASYNC_HEADERS.items() if header in headers}
    for member in _SECONDS:
        if member in members:
            members[member] = int(members[member])
    return {"EndpointName": endpoint, **members, **({"Body": body} if body else {})}


def _accepted(result: Params) -> Response:
    places = {f"X-Amzn-SageMaker-{key}": result[key] for key in ("OutputLocation", "FailureLocation") if key in result}
    body = json.dumps({"InferenceId": result["InferenceId"]}).encode()
    return 202, {"Content-Type": "application/json", **places}, body


def _router_error(answer: httpx.Response, caller: Caller, endpoint: str) -> ServiceError:
    if answer.status_code == 504:
        return ModelError(0, answer.text, "the model", caller, endpoint)
    if answer.status_code == 429:
        return ServiceError("ThrottlingException", answer.text, 400)
    if answer.status_code in (400, 413):
        return ServiceError("ValidationError", answer.text, answer.status_code)
    return ServiceError("ServiceUnavailable", answer.text, 503)
