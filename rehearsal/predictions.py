"""Asks a live endpoint for a prediction, and says which version and commit answered."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from botocore.exceptions import ClientError

from rehearsal import status
from rehearsal.landscape import ClientOf, Landscape, in_place

ANSWER_SECONDS, POLL_SECONDS = 120, 0.2
"""How long an asynchronous endpoint may take here to answer."""
_CONTENT_TYPES = {".json": "application/json", ".csv": "text/csv"}


class NoPrediction(Exception):
    """The endpoint can't be asked or refused; the message says why."""


@dataclass(frozen=True)
class Payload:
    body: bytes
    content_type: str


def payload_of_file(path: Path) -> Payload:
    if path.suffix not in _CONTENT_TYPES:
        raise NoPrediction(f"{path}: a payload is {' or '.join(sorted(_CONTENT_TYPES))}, by its file name")
    if not path.is_file():
        raise NoPrediction(f"{path}: no such file")
    return Payload(path.read_bytes(), _CONTENT_TYPES[path.suffix])


def sample_payload(client_of: ClientOf, lineage: status.Row) -> Payload:
    """The sample request that was registered with a version."""
    place = urlparse(str(lineage.get("sample_request", "")))
    suffix = Path(place.path).suffix
    if place.scheme != "s3" or suffix not in _CONTENT_TYPES:
        raise NoPrediction("the live version was registered without a sample request; give a FILE")
    body = client_of("s3").get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    return Payload(body, _CONTENT_TYPES[suffix])


def live_version(
    client_of: ClientOf, landscape: Landscape, model: str, environment: str
) -> tuple[status.Row, status.Row]:
    """The (endpoint, model package) rows of what is live; NoPrediction if nothing is."""
    landscape.endpoint(model, environment)
    parts = landscape.model(model)
    packages = status.model_packages(client_of, parts)
    endpoint = next(row for row in status.endpoints(client_of, parts, packages) if row["environment"] == environment)
    if endpoint["version"] is None:
        raise NoPrediction(f"{model} has no version live in {environment} yet (endpoint status {endpoint['status']})")
    return endpoint, next(row for row in packages if row["version"] == endpoint["version"])


def predict(
    client_of: ClientOf, landscape: Landscape, model: str, environment: str, payload: Payload | None
) -> dict[str, Any]:
    """Ask and wait for the answer; {"model", "environment", "version", "commit", "prediction"}."""
    endpoint, package = live_version(client_of, landscape, model, environment)
    payload = payload or sample_payload(client_of, package["metadata"])
    requests = landscape.model(model).requests.get(environment)
    try:
        there = in_place(client_of, landscape.model(model).places[environment])
        if requests:
            answer = _answer_of_queue(there, endpoint["name"], requests, payload)
        else:
            answer = _answer(there, endpoint["name"], payload)
    except ClientError as error:
        raise NoPrediction(f"{endpoint['name']} refused: {error.response['Error']['Message']}") from None
    return {
        "model": model,
        "environment": environment,
        "version": endpoint["version"],
        "commit": endpoint["commit"],
        "prediction": answer.decode().strip(),
    }


def _answer(client_of: ClientOf, endpoint: str, payload: Payload) -> bytes:
    answer = client_of("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, ContentType=payload.content_type, Accept="application/json", Body=payload.body
    )
    return bytes(answer["Body"].read())


def _answer_of_queue(client_of: ClientOf, endpoint: str, requests: str, payload: Payload) -> bytes:
    """Put the payload where the endpoint reads, and wait for what it writes."""
    place = f"{requests}{uuid.uuid4()}"
    bucket, key = _object(place)
    client_of("s3").put_object(Bucket=bucket, Key=key, Body=payload.body, ContentType=payload.content_type)
    accepted = client_of("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=endpoint, ContentType=payload.content_type, Accept="application/json", InputLocation=place
    )
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        if (answer := _content(client_of, accepted["OutputLocation"])) is not None:
            return answer
        if (failure := _content(client_of, accepted["FailureLocation"])) is not None:
            raise NoPrediction(f"{endpoint} failed: {failure.decode(errors='replace').strip()}")
        time.sleep(POLL_SECONDS)
    raise NoPrediction(f"{endpoint}: no answer after {ANSWER_SECONDS} s at {accepted['OutputLocation']}")


def _content(client_of: ClientOf, place: str) -> bytes | None:
    bucket, key = _object(place)
    try:
        return bytes(client_of("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise


def _object(uri: str) -> tuple[str, str]:
    place = urlparse(uri)
    return place.netloc, place.path.lstrip("/")
