"""One request to an asynchronous endpoint, from InvokeEndpointAsync to its answer in S3 and its notification."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.sagemaker.artifact import ArtifactError, location
from rehearsal.sagemaker.container import SAGEMAKER
from rehearsal.service import Caller, Cloud, Params, ServiceError, Unsupported

Document = dict[str, Any]
KIND = "sagemaker/async-request"
TTL_SECONDS, INVOCATION_SECONDS = 21_600, 900
FAULTS = (ClientError, BotoCoreError, ServiceError, ArtifactError)
_S3 = re.compile(r"s3://[^/]+(/.*)?$")
_REQUEST_PARAMETERS = {
    "Accept": "accept",
    "ContentType": "contentType",
    "CustomAttributes": "customAttributes",
    "InputLocation": "inputLocation",
}


@dataclass(frozen=True)
class Answer:
    """What the model answered."""

    status: int
    content_type: str
    content: bytes


def check_asynchronous(config: Document) -> None:
    """Refuse an endpoint configuration whose AsyncInferenceConfig can't be served."""
    output = (config.get("AsyncInferenceConfig") or {}).get("OutputConfig")
    if output is None:
        return
    where = f"endpoint configuration {config['EndpointConfigName']}"
    if "S3OutputPath" not in output:
        raise Unsupported(f"{where}: OutputConfig without S3OutputPath is not rehearsed")
    if (output.get("NotificationConfig") or {}).get("IncludeInferenceResponseIn"):
        raise Unsupported(f"{where}: IncludeInferenceResponseIn is not rehearsed")
    wrong = [key for key in ("S3OutputPath", "S3FailurePath") if key in output and not _S3.match(output[key])]
    if wrong:
        raise ServiceError("ValidationException", f"{where}: {' and '.join(wrong)} must be s3://bucket/prefix")


def queued(endpoint: Document, params: Params) -> Document:
    """The request as it waits in the store, with the places where its answer or its failure will be."""
    output = endpoint["live"]["asynchronous"]["OutputConfig"]
    name, folder = str(uuid.uuid4()), params.get("S3OutputPathExtension", "").strip("/")
    answer, failure = params.get("Filename", f"{name}.out"), params.get("Filename", f"{name}-error.out")
    failures = output.get("S3FailurePath")
    return {
        "endpoint": endpoint["EndpointArn"],
        "InferenceId": params.get("InferenceId") or str(uuid.uuid4()),
        "received": time.time(),
        "ttl": params.get("RequestTTLSeconds", TTL_SECONDS),
        "limit": params.get("InvocationTimeoutSeconds", INVOCATION_SECONDS),
        "params": {key: value for key, value in params.items() if key != "Body"},
        "body": base64.b64encode(params["Body"]).decode() if params.get("Body") else None,
        "output": _under(output["S3OutputPath"], folder, answer),
        "failure": _under(failures, folder, failure) if failures else None,
    }


class Exchange:
    """S3 and SNS on behalf of one request, as the model's execution role."""

    def __init__(self, cloud: Cloud, caller: Caller, role: str, config: Document, request: Document) -> None:
        self._cloud, self._caller, self._role = cloud, caller, role
        self._output, self._request = config["OutputConfig"], request

    def payload(self) -> bytes:
        """What the model is asked."""
        if self._request["body"]:
            return base64.b64decode(self._request["body"])
        bucket, key = location(self._request["params"]["InputLocation"])
        content: bytes = self._client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def put(self, place: str, answer: Answer) -> None:
        """Write what the model answered."""
        bucket, key = location(place)
        kms = self._output.get("KmsKeyId")
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms} if kms else {}
        self._client("s3").put_object(
            Bucket=bucket, Key=key, Body=answer.content, ContentType=answer.content_type, **encryption
        )

    def notify(self, *, content_type: str = "", failure: str = "") -> None:
        """Tell the topic for this outcome, if there is one."""
        topics = self._output.get("NotificationConfig") or {}
        topic = topics.get("ErrorTopic" if failure else "SuccessTopic")
        if topic:
            message = self._message(content_type, failure)
            self._client("sns").publish(TopicArn=topic, Message=json.dumps(message, separators=(",", ":")))

    def _message(self, content_type: str, failure: str) -> Document:
        params = self._request["params"]
        asked = {name: params[key] for key, name in _REQUEST_PARAMETERS.items() if key in params}
        answered = {"contentType": content_type, "outputLocation": self._request["output"]}
        return {
            "awsRegion": self._caller.region,
            "eventTime": _iso(time.time()),
            "receivedTime": _iso(self._request["received"]),
            "invocationStatus": "Failed" if failure else "Completed",
            **({"failureReason": failure} if failure else {}),
            "requestParameters": {**asked, "endpointName": params["EndpointName"]},
            **({} if failure else {"responseParameters": answered}),
            "inferenceId": self._request["InferenceId"],
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }

    def _client(self, service: str) -> Any:
        caller = self._caller
        return self._cloud.client(service, role=self._role, by=SAGEMAKER, account=caller.account, region=caller.region)


def _under(path: str, *parts: str) -> str:
    return "/".join([path.rstrip("/"), *(part for part in parts if part)])


def _iso(seconds: float) -> str:
    at = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
