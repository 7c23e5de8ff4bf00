"""The actions a pipeline can run, each under its role, through the APIs that AWS's own would call."""

from __future__ import annotations

import io
import json
import logging
import secrets
import string
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from rehearsal import git
from rehearsal.codecommit import repository
from rehearsal.service import Caller, Cloud, Params, Permission, arn

PRINCIPAL = "codepipeline.amazonaws.com"
POLL_SECONDS = 0.25
LOST = "lost when the rehearsal stopped"
log = logging.getLogger("rehearsal")
_THROTTLED = (
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "InternalFailure",
)
_ATTEMPTS = 8


class ActionFailed(Exception):
    """An action that did not succeed: `code` as CodePipeline names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Action:
    """One action of one execution, and what it may use."""

    cloud: Cloud
    caller: Caller
    pipeline: Params
    action: Params
    id: str
    """The action execution's id: it makes what the action starts idempotent."""
    configuration: dict[str, str]
    inputs: list[Params]
    """Artifacts as {"name", "s3location"}, in the declared order."""
    external: str
    """What the action had started before a restart, if anything."""
    started: Callable[[str], object]
    """Keeps the id of what the action starts, so that a restart finds it."""
    going: Callable[[], bool]
    """False when the execution was stopped and its work is to be abandoned."""
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        return str(self.action.get("roleArn") or self.pipeline["roleArn"])

    @property
    def by(self) -> str:
        """An action's own role is assumed by the pipeline's, that one by CodePipeline."""
        return str(self.pipeline["roleArn"]) if self.action.get("roleArn") else PRINCIPAL

    def client(self, service: str) -> Any:
        if service not in self._clients:
            place = {"account": self.caller.account, "region": self.caller.region}
            pipeline = arn("codepipeline", self.caller, self.pipeline["name"])
            if self.by != PRINCIPAL:
                self.cloud.client("sts", role=self.by, by=PRINCIPAL, source=pipeline, **place)
            self._clients[service] = self.cloud.client(
                service, role=self.role, by=self.by, source="" if self.by != PRINCIPAL else pipeline, **place
            )
        return self._clients[service]

    def run(self) -> Params:
        """{"variables", "artifacts", "summary"} of the action; ActionFailed if it fails."""
        provider = self.action["actionTypeId"]["provider"]
        return {"CodeCommit": fetch, "CodeBuild": build, "StepFunctions": invoke}[provider](self)

    # -- artifacts --------------------------------------------------------------------------------------

    @property
    def store(self) -> Params:
        return dict(self.pipeline["artifactStore"])

    @property
    def key(self) -> str | None:
        return (self.store.get("encryptionKey") or {}).get("id")

    def place(self, artifact: str) -> Params:
        """Where an output artifact goes: CodePipeline shortens both names in the key."""
        unique = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(7))
        key = f"{self.pipeline['name'][:20]}/{artifact[:10]}/{unique}"
        return {"name": artifact, "s3location": {"bucket": self.store["location"], "key": key}}

    def allowed(self, permission: Permission) -> None:
        self.cloud.authorize(self.role, self.by, permission, self.caller)

    def put(self, artifact: Params, content: Path) -> None:
        where, encryption = artifact["s3location"], {}
        if self.key:
            self.allowed(Permission("kms:GenerateDataKey", self.key))
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.key}
        with content.open("rb") as body:
            self.call("s3", "put_object", Bucket=where["bucket"], Key=where["key"], Body=body, **encryption)

    def get(self, artifact: Params) -> bytes:
        if self.key:
            self.allowed(Permission("kms:Decrypt", self.key))
        where = artifact["s3location"]
        return bytes(self.call("s3", "get_object", Bucket=where["bucket"], Key=where["key"])["Body"].read())

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        """One API call under the action's role, tried again on throttling and faults of the service."""
        for attempt in range(_ATTEMPTS):
            try:
                return getattr(self.client(service), operation)(**parameters)
            except (ConnectionError, HTTPClientError):
                if attempt + 1 == _ATTEMPTS:
                    raise
            except ClientError as error:
                if error.response["Error"]["Code"] not in _THROTTLED or attempt + 1 == _ATTEMPTS:
                    raise
            time.sleep(min(0.2 * 2**attempt, 10))
        raise AssertionError("not reached")


def fetch(action: Action) -> Params:
    """Source/CodeCommit: the branch's head as a zip."""
    name, branch = action.configuration["RepositoryName"], action.configuration["BranchName"]
    try:
        commit = action.call("codecommit", "get_branch", repositoryName=name, branchName=branch)["branch"]["commitId"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "BranchDoesNotExistException":
            raise ActionFailed(
                "ConfigurationError",
                f"The branch {branch} does not exist in the repository {name}: push something to it",
            ) from None
        raise
    action.started(commit)
    details = action.call("codecommit", "get_commit", repositoryName=name, commitId=commit)["commit"]
    place = arn("codecommit", action.caller, name)
    action.allowed(Permission("codecommit:UploadArchive", place))
    action.allowed(Permission("codecommit:GetUploadArchiveStatus", place))
    made = [action.place(item["name"]) for item in action.action.get("outputArtifacts", [])]
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "source.zip"
        repository(action.cloud, action.caller.account, name).archive(commit, packed)
        for artifact in made:
            action.put(artifact, packed)
    message = details["message"]
    variables = {
        "CommitId": commit,
        "BranchName": branch,
        "RepositoryName": name,
        "CommitMessage": message,
        "AuthorDate": git.iso("x " + details["author"]["date"]),
        "CommitterDate": git.iso("x " + details["committer"]["date"]),
    }
    return {
        "variables": variables,
        "artifacts": made,
        "summary": message.strip().splitlines()[0] if message.strip() else "",
        "revision": commit,
    }


def build(action: Action) -> Params:
    """Build/CodeBuild: start the project's build and wait for its end."""
    outputs = [action.place(item["name"]) for item in action.action.get("outputArtifacts", [])]
    build_id = action.external
    if not build_id:
        build_id = action.call("codebuild", "start_build", **_build_request(action, outputs))["build"]["id"]
        action.started(build_id)
    found = _built(action, build_id)
    if found["buildStatus"] != "SUCCEEDED":
        raise ActionFailed("JobFailed", _build_failure(found))
    exported = {v["name"]: v["value"] for v in found.get("exportedEnvironmentVariables", [])}
    return {"variables": exported, "artifacts": _locations(action, found), "summary": ""}


def _build_request(action: Action, outputs: list[Params]) -> Params:
    try:
        variables = json.loads(action.configuration.get("EnvironmentVariables") or "[]")
    except ValueError as error:
        raise ActionFailed(
            "ConfigurationError",
            "EnvironmentVariables is not JSON once its variables are filled in "
            f"(a quote or a line break in a value?): {error}",
        ) from None
    primary = action.configuration.get("PrimarySource")
    if len(action.inputs) != 1 or primary not in (None, action.inputs[0]["name"]):
        raise ActionFailed("ConfigurationError", "a build with several input artifacts is not rehearsed")
    where = action.inputs[0]["s3location"]
    request: Params = {
        "projectName": action.configuration["ProjectName"],
        "idempotencyToken": action.id,
        "sourceVersion": f"arn:aws:s3:::{where['bucket']}/{where['key']}",
        "environmentVariablesOverride": [{"type": "PLAINTEXT", **variable} for variable in variables],
    }
    if action.key:
        request["encryptionKeyOverride"] = action.key
    wanted = [_wanted(output) for output in outputs]
    if len(wanted) == 1:
        request["artifactsOverride"] = wanted[0]
    else:
        request["artifactsOverride"] = {"type": "NO_ARTIFACTS"}
        request["secondaryArtifactsOverride"] = [
            {**item, "artifactIdentifier": output["name"]} for item, output in zip(wanted, outputs, strict=True)
        ]
    return request


def _wanted(output: Params) -> Params:
    path, _, name = output["s3location"]["key"].rpartition("/")
    return {"type": "CODEPIPELINE", "location": output["s3location"]["bucket"], "path": path, "name": name}


def _built(action: Action, build_id: str) -> Params:
    while True:
        builds = action.call("codebuild", "batch_get_builds", ids=[build_id])["builds"]
        if not builds:
            raise ActionFailed("JobFailed", f"the build {build_id} was {LOST}")
        if builds[0]["buildComplete"]:
            return dict(builds[0])
        if not action.going():
            action.call("codebuild", "stop_build", id=build_id)
        time.sleep(POLL_SECONDS)


def _build_failure(found: Params) -> str:
    failed = [p for p in found["phases"] if p.get("phaseStatus") not in (None, "SUCCEEDED")]
    said = f"Build terminated with state: {found['buildStatus']}"
    if failed:
        context = (failed[0].get("contexts") or [{}])[0]
        said += (
            f". Phase: {failed[0]['phaseType']}, Code: {context.get('statusCode', '')}, "
            f"Message: {context.get('message', '')}"
        )
    return said


def _locations(action: Action, found: Params) -> list[Params]:
    """The artifacts a build made; after a restart their keys are known from the build only."""
    declared = [item["name"] for item in action.action.get("outputArtifacts", [])]
    made = [found["artifacts"]] if len(declared) == 1 else found.get("secondaryArtifacts", [])
    result = []
    for name, item in zip(declared, made, strict=True):
        bucket, _, key = item["location"].removeprefix("arn:aws:s3:::").partition("/")
        result.append({"name": item.get("artifactIdentifier", name), "s3location": {"bucket": bucket, "key": key}})
    return result


def invoke(action: Action) -> Params:
    """Invoke/StepFunctions: start the state machine and wait for its end."""
    machine = action.configuration["StateMachineArn"]
    execution = action.external or _execution(action, machine)
    action.started(execution)
    while True:
        found = _described(action, execution)
        if found["status"] == "SUCCEEDED":
            return {
                "variables": {"StateMachineArn": machine, "ExecutionArn": execution},
                "artifacts": [],
                "summary": "State machine execution succeeded",
            }
        if found["status"] != "RUNNING":
            why = " ".join(f"{found[key]}" for key in ("error", "cause") if found.get(key))
            raise ActionFailed("JobFailed", f"State machine execution {execution} {found['status']}: {why}")
        if not action.going():
            action.call("stepfunctions", "stop_execution", executionArn=execution)
        time.sleep(POLL_SECONDS)


def _execution(action: Action, machine: str) -> str:
    kind = action.call("stepfunctions", "describe_state_machine", stateMachineArn=machine).get("type", "STANDARD")
    if kind != "STANDARD":
        raise ActionFailed("ConfigurationError", f"{machine} is {kind}; only STANDARD is rehearsed")
    prefix = action.configuration.get("ExecutionNamePrefix")
    name = f"{prefix}-{action.id}" if prefix else action.id
    if len(name) > 80:
        raise ActionFailed("ConfigurationError", f"the execution name {name} is longer than 80 characters")
    try:
        return str(
            action.call("stepfunctions", "start_execution", stateMachineArn=machine, name=name, input=_input(action))[
                "executionArn"
            ]
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise
        return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"


def _input(action: Action) -> str:
    given, kind = action.configuration.get("Input", "{}"), action.configuration.get("InputType", "Literal")
    if kind == "FilePath":
        if not action.inputs:
            raise ActionFailed("ConfigurationError", "InputType FilePath needs an input artifact")
        with zipfile.ZipFile(io.BytesIO(action.get(action.inputs[0]))) as artifact:
            if given not in artifact.namelist():
                raise ActionFailed("ConfigurationError", f"there is no {given} in {action.inputs[0]['name']}")
            given = artifact.read(given).decode()
    try:
        json.loads(given)
    except ValueError as error:
        raise ActionFailed("ConfigurationError", f"the state machine's input is not JSON: {error}") from None
    return given


def _described(action: Action, execution: str) -> Params:
    try:
        return dict(action.call("stepfunctions", "describe_execution", executionArn=execution))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
            raise
        raise ActionFailed("JobFailed", f"{execution} was {LOST}") from None
