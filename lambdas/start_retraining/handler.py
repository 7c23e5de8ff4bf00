"""Parse the event, decide which models it retrains, start their pipelines; each decision is one JSON log line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from lambdas.start_retraining.decide import Model, Start, decide
from lambdas.start_retraining.events import Ignored, Manual, Push, Watched, parse

_RETRIES = Config(retries={"mode": "adaptive", "total_max_attempts": 8})
_GONE = {"CommitIdDoesNotExistException", "CommitDoesNotExistException", "InvalidCommitIdException"}


@dataclass(frozen=True)
class Environment:
    """The function's environment variables, read once."""

    repository_arn: str
    branch: str
    models_path: str

    @classmethod
    def read(cls) -> Environment:
        return cls(*(os.environ[name] for name in ("REPOSITORY_ARN", "BRANCH", "MODELS_PATH")))


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Lambda's entry point; returns what was decided, for a caller who waits."""
    environment = Environment.read()
    watched = Watched(environment.repository_arn, environment.branch)
    try:
        request = parse(event, watched, str(context.aws_request_id))
        starts = decide(request, list(_models(environment.models_path)), _changed(request, watched))
    except Ignored as ignored:
        return _log(event, {"decision": "ignore", "why": str(ignored)})
    return {"decisions": [_act(event, start) for start in starts]}


def _models(path: str) -> Iterator[Model]:
    pages = _client("ssm").get_paginator("get_parameters_by_path").paginate(Path=path)
    for parameter in (parameter for page in pages for parameter in page["Parameters"]):
        value = json.loads(parameter["Value"])
        yield Model(parameter["Name"].rsplit("/", 1)[-1], value["pipeline"], tuple(value["watch"]))


def _changed(request: Push | Manual, watched: Watched) -> list[str] | None:
    """The paths that a push changed; None where no old commit is left to compare with."""
    if isinstance(request, Manual):
        return None
    # A forged event may name a commit that was never pushed; after a forced push the old one may be gone.
    if not _exists(watched.repository, request.commit):
        raise Ignored(f"commit {request.commit} is not in repository {watched.repository}")
    if not request.old_commit or not _exists(watched.repository, request.old_commit):
        return None
    return sorted(_differences(watched.repository, request.old_commit, request.commit))


def _exists(repository: str, commit: str) -> bool:
    try:
        _client("codecommit").get_commit(repositoryName=repository, commitId=commit)
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return False
        raise
    return True


def _differences(repository: str, before: str, after: str) -> set[str]:
    pages = (
        _client("codecommit")
        .get_paginator("get_differences")
        .paginate(repositoryName=repository, beforeCommitSpecifier=before, afterCommitSpecifier=after)
    )
    found = [
        blob
        for page in pages
        for entry in page["differences"]
        for blob in (entry.get("beforeBlob"), entry.get("afterBlob"))
        if blob
    ]
    return {blob["path"] for blob in found}


def _act(event: Mapping[str, Any], start: Start) -> dict[str, Any]:
    answer = _client("codepipeline").start_pipeline_execution(
        name=start.pipeline, variables=start.variables, clientRequestToken=start.token
    )
    return _log(event, {"decision": "start", **asdict(start), "execution": answer["pipelineExecutionId"]})


def _log(event: Mapping[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps({"event": event.get("id"), **decision}, sort_keys=True), flush=True)
    return decision


def _client(service: str) -> Any:
    return boto3.client(service, config=_RETRIES)
