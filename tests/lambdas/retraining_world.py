"""The AWS around `start_retraining`, in memory; questions and answers are checked against botocore's models."""

from __future__ import annotations

import datetime as dt
import io
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from lambdas.start_retraining import handler

ACCOUNT = "000000000000"
ARN = f"arn:aws:codecommit:us-east-1:{ACCOUNT}:pushline"
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:start-retraining"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/schedules"
TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:notifications"
DATA, GROUP = "data-bucket", "schedules"
NEW, OLD, NEXT = "a" * 40, "b" * 40, "c" * 40
NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
DAY, HOUR, MINUTE, SECOND = (dt.timedelta(**{unit: 1}) for unit in ("days", "hours", "minutes", "seconds"))
TRAIN = "model_code/flight_delay/train.py"
ENVIRONMENT = {"SOURCE_ARN": ARN, "BRANCH": "main", "DATA": DATA, "MODELS_PATH": "/pushline/models",
               "ROUTED": "artifacts/source/routed.json", "TOPIC": TOPIC, "SCHEDULE_GROUP": GROUP,
               "SCHEDULE_ROLE": ROLE, "MAXIMUM_PER_DAY": "3",
               "SETTLING_MINUTES": "15", "LONGEST_WAIT_HOURS": "6", "CLEARING_HOURS": "72"}  # fmt: skip
PAGE = 100
SERVICES = ("ssm", "codecommit", "codepipeline", "scheduler", "s3", "sns", "cloudwatch")
Params = dict[str, Any]


def push_event(time: dt.datetime = NOON, **detail: Any) -> Params:
    return {
        "version": "0", "id": "e-1", "detail-type": "CodeCommit Repository State Change", "source": "aws.codecommit",
        "account": ACCOUNT, "time": f"{time:%Y-%m-%dT%H:%M:%SZ}", "region": "us-east-1", "resources": [ARN],
        "detail": {"event": "referenceUpdated", "repositoryName": "pushline", "repositoryId": "r", "commitId": NEW,
                   "oldCommitId": OLD, "referenceType": "branch", "referenceName": "main",
                   "referenceFullName": "refs/heads/main", **detail},
    }  # fmt: skip


def arrival_event(key: str = "raw/flight_delay/dt=2026-11-22/flights.csv", bucket: str = DATA) -> Params:
    return {
        "version": "0", "id": "e-2", "detail-type": "Object Created", "source": "aws.s3", "account": ACCOUNT,
        "time": "2026-11-23T12:00:00Z", "region": "us-east-1", "resources": [f"arn:aws:s3:::{bucket}"],
        "detail": {"version": "0", "bucket": {"name": bucket}, "object": {"key": key, "size": 1, "etag": "e",
                   "sequencer": "0"}, "request-id": "r", "requester": ACCOUNT, "reason": "PutObject"},
    }  # fmt: skip


def alarm_event(name: str = "flight-delay-drift-predictions", state: str = "ALARM") -> Params:
    return {
        "version": "0", "id": "e-3", "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch",
        "account": ACCOUNT, "time": "2026-11-23T12:00:00Z", "region": "us-east-1", "resources": [],
        "detail": {"alarmName": name, "state": {"value": state, "reason": "1 datapoint was over 1.0"},
                   "previousState": {"value": "OK"}},
    }  # fmt: skip


def look_event() -> Params:
    return {"source": "pushline.look", "detail": {}}


def schedule_event(model: str = "flight_delay", time: str = "2026-11-23T03:00:00Z") -> Params:
    return {"source": "pushline.schedule", "time": time, "detail": {"model": model}}


def manual_event(model: str = "flight_delay", **detail: str) -> Params:
    return {"source": "pushline.manual", "detail": {"model": model, **detail}}


@dataclass
class Execution:
    """One of a pipeline's executions."""

    id: str
    started: dt.datetime
    status: str = "InProgress"
    commit: str = ""
    trigger: str = "StartPipelineExecution"
    variables: dict[str, str] = field(default_factory=lambda: {"Trigger": "push", "Reason": "as told", "AsOf": "none"})
    stages: tuple[str, ...] = ("Source", "Verify", "Retrain")


class World:
    """What is deployed, pushed and landed, and what the function did to it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = NOON
        self.models: dict[str, Params] = {}
        self.head: str | None = NEW
        self.alarms: dict[str, str] = {}
        """Alarm to its state."""
        self.commits = {NEW, OLD}
        self.differences: list[Params] = []
        self.between: dict[tuple[str, str], list[Params]] = {}
        """Before and after, where it matters; any other two commits differ by `differences`."""
        self.folders: dict[str, list[str]] = {}
        self.executions: dict[str, list[Execution]] = {}
        self.tokens: dict[str, str] = {}
        self.schedules: dict[str, Params] = {}
        self.objects: set[str] = set()
        self.contents: dict[tuple[str, str], bytes] = {}
        self.reported: list[str] = []
        self.messages: list[Params] = []
        self.calls: Counter[str] = Counter()
        self.refuse: dict[str, list[str]] = {}
        """Operation, or operation and pipeline, to the error codes of its next calls."""
        self.left = 300.0
        """Seconds that an invocation has left."""
        self._one_at_a_time = threading.RLock()
        self.deploy("flight_delay")
        clients = {name: self._client(name) for name in SERVICES}
        patch.setattr(handler, "_client", clients.__getitem__)
        patch.setattr(handler, "_now", lambda: self.now)
        patch.setattr(handler, "_pushed", set())
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)

    # -- what tests do ----------------------------------------------------------------------------------

    def deploy(self, name: str, *watch: str, **values: Any) -> None:
        self.models[name] = {"pipeline": pipeline(name), "watch": [f"model_code/{name}", *watch],
                             "on_new_data": True, "on_drift": True, "cool_down_hours": 6, **values}  # fmt: skip
        self.executions.setdefault(pipeline(name), [])

    def ran(self, ago: dt.timedelta, model: str = "flight_delay", **what: Any) -> Execution:
        """Something ran already."""
        found = self.executions[pipeline(model)]
        made = Execution(**{"id": f"run-{len(found)}", "started": self.now - ago, "status": "Succeeded", **what})
        found.append(made)
        found.sort(key=lambda execution: execution.started, reverse=True)
        return made

    def land(self, day: str, model: str = "flight_delay", name: str = "rows.csv") -> Params:
        """An object lands; the event that tells so."""
        key = f"raw/{model}/dt={day}/{name}"
        self.objects.add(key)
        return arrival_event(key)

    def invoke(self, event: Params, request: str = "request-1") -> list[Params]:
        """The decisions."""
        context = SimpleNamespace(aws_request_id=request, invoked_function_arn=FUNCTION,
                                  get_remaining_time_in_millis=lambda: int(self.left * 1000))  # fmt: skip
        decisions: list[Params] = handler.handle(event, context)["decisions"]
        return decisions

    def pass_time(self, until: dt.datetime) -> list[Params]:
        """Let the clock go on; every schedule that is due comes back, and is then deleted."""
        decisions: list[Params] = []
        while due := min((found for found in self.schedules.values() if found["at"] <= until),
                         key=lambda found: found["at"], default=None):  # fmt: skip
            self.now = max(self.now, due["at"])
            decisions += self.invoke(json.loads(due["input"]), f"request-{due['name']}")
            del self.schedules[due["name"]]
        self.now = until
        return decisions

    def started(self, model: str = "flight_delay") -> list[Execution]:
        """What the function started, oldest first."""
        return [found for found in self.executions[pipeline(model)][::-1] if found.id in self.tokens.values()]

    # -- AWS --------------------------------------------------------------------------------------------

    def _client(self, name: str) -> Any:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        client: Any = boto3.client(name, **keys)  # type: ignore[call-overload]

        def answer(operation: str, params: Params) -> Params:
            shapes = client.meta.service_model.operation_model(operation)
            _check(params, shapes.input_shape)
            if code := self._counted(operation, str(params.get("pipelineName", params.get("name")))):
                raise _error(client, code, operation)
            try:
                made: Params = getattr(self, xform_name(operation))(**params)
            except KeyError as code_of_aws:
                raise _error(client, str(code_of_aws.args[0]), operation) from None
            _check(made, shapes.output_shape)
            return made

        client._make_api_call = answer
        return client

    def _counted(self, operation: str, about: str) -> str:
        """The code that the call is refused with, if it is."""
        with self._one_at_a_time:
            self.calls[operation] += 1
            codes = self.refuse.get(operation) or self.refuse.get(f"{operation} {about}")
            return codes.pop(0) if codes else ""

    def get_parameters_by_path(self, Path: str, NextToken: str = "0") -> Params:
        found = [{"Name": f"{Path}/{name}", "Value": json.dumps(value)} for name, value in self.models.items()]
        return _page(found, "Parameters", 10, NextToken, "NextToken")

    def get_branch(self, repositoryName: str, branchName: str) -> Params:
        if self.head is None:
            raise KeyError("BranchDoesNotExistException")
        return {"branch": {"branchName": branchName, "commitId": self.head}}

    def get_commit(self, repositoryName: str, commitId: str) -> Params:
        if commitId not in self.commits:
            raise KeyError("CommitIdDoesNotExistException")
        return {"commit": {"commitId": commitId}}

    def get_differences(self, repositoryName: str, beforeCommitSpecifier: str, afterCommitSpecifier: str,
                        NextToken: str = "0") -> Params:  # fmt: skip
        assert {beforeCommitSpecifier, afterCommitSpecifier} <= self.commits
        otherwise = self.differences if beforeCommitSpecifier != afterCommitSpecifier else []
        found = self.between.get((beforeCommitSpecifier, afterCommitSpecifier), otherwise)
        return _page(found, "differences", PAGE, NextToken, "NextToken")

    def get_folder(self, repositoryName: str, commitSpecifier: str, folderPath: str) -> Params:
        if folderPath == "model_code":
            folders = [{"relativePath": name, "absolutePath": f"model_code/{name}"} for name in self.folders]
            return {"commitId": NEW, "folderPath": folderPath, "subFolders": folders}
        name = folderPath.removeprefix("model_code/")
        if name not in self.folders:
            raise KeyError("FolderDoesNotExistException")
        return {"commitId": NEW, "folderPath": folderPath, "files": [
            {"relativePath": file, "absolutePath": f"{folderPath}/{file}"} for file in self.folders[name]]}  # fmt: skip

    def list_pipeline_executions(self, pipelineName: str, maxResults: int = 100, nextToken: str = "0") -> Params:
        found = [{"pipelineExecutionId": execution.id, "status": execution.status, "startTime": execution.started,
                  "trigger": {"triggerType": execution.trigger},
                  "sourceRevisions": [{"actionName": "Source", "revisionId": execution.commit}] * bool(
                      execution.commit)}
                 for execution in self.executions[pipelineName]]  # fmt: skip
        return _page(found, "pipelineExecutionSummaries", maxResults, nextToken, "nextToken")

    def list_action_executions(self, pipelineName: str, filter: Params) -> Params:
        (found,) = [run for run in self.executions[pipelineName] if run.id == filter["pipelineExecutionId"]]
        return {"actionExecutionDetails": [{"stageName": stage} for stage in found.stages]}

    def get_pipeline_execution(self, pipelineName: str, pipelineExecutionId: str) -> Params:
        (found,) = [run for run in self.executions[pipelineName] if run.id == pipelineExecutionId]
        variables = [{"name": name, "resolvedValue": value} for name, value in found.variables.items()]
        return {"pipelineExecution": {"pipelineExecutionId": found.id, "variables": variables}}

    def start_pipeline_execution(self, name: str, variables: list[Params], clientRequestToken: str) -> Params:
        key = f"{name} {clientRequestToken}"
        with self._one_at_a_time:
            if key not in self.tokens:
                given = {variable["name"]: variable["value"] for variable in variables}
                made = Execution(f"execution-{len(self.tokens)}", self.now, variables=given, commit=self.head or "")
                self.executions[name].insert(0, made)
                self.tokens[key] = made.id
            return {"pipelineExecutionId": self.tokens[key]}

    def create_schedule(self, Name: str, GroupName: str, ScheduleExpression: str, Target: Params,
                        **rest: Any) -> Params:  # fmt: skip
        at = dt.datetime.fromisoformat(ScheduleExpression[3:-1]).replace(tzinfo=dt.UTC)
        assert at > self.now
        assert (GroupName, Target["RoleArn"], Target["Arn"]) == (GROUP, ROLE, FUNCTION)
        assert rest == {"FlexibleTimeWindow": {"Mode": "OFF"}, "ActionAfterCompletion": "DELETE"}
        if Name in self.schedules:
            raise KeyError("ConflictException")
        self.schedules[Name] = {"name": Name, "at": at, "input": Target["Input"]}
        return {"ScheduleArn": f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/{GroupName}/{Name}"}

    def get_schedule(self, Name: str, GroupName: str) -> Params:
        if Name not in self.schedules:
            raise KeyError("ResourceNotFoundException")
        return {"Name": Name, "GroupName": GroupName}

    def describe_alarms(self, AlarmNames: list[str], StateValue: str) -> Params:
        found = [{"AlarmName": name, "StateValue": state, "StateReason": "2 datapoints were over 1.0"}
                 for name, state in sorted(self.alarms.items())
                 if name in AlarmNames and state == StateValue]  # fmt: skip
        return {"MetricAlarms": found}

    def list_objects_v2(self, Bucket: str, Prefix: str, Delimiter: str = "", MaxKeys: int = 1000,
                        ContinuationToken: str = "0") -> Params:  # fmt: skip
        if not Delimiter:
            keys = sorted(key for bucket, key in self.contents if bucket == Bucket and key.startswith(Prefix))
            return {"Contents": [{"Key": key} for key in keys[:MaxKeys]]}
        assert Bucket == DATA
        rests = sorted({key.removeprefix(Prefix).split(Delimiter)[0] for key in self.objects if key.startswith(Prefix)})
        found = [{"Prefix": f"{Prefix}{rest}{Delimiter}"} for rest in rests]
        return _page(found, "CommonPrefixes", PAGE, ContinuationToken, "NextContinuationToken", "IsTruncated")

    def get_object(self, Bucket: str, Key: str) -> Params:
        if (Bucket, Key) not in self.contents:
            raise KeyError("NoSuchKey")
        return {"Body": io.BytesIO(self.contents[Bucket, Key]), "VersionId": self.head}

    def head_object(self, Bucket: str, Key: str) -> Params:
        if (Bucket, Key) not in self.contents:
            raise KeyError("404")
        return {"VersionId": self.head}

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> Params:
        self.contents[Bucket, Key] = Body
        return {}

    def put_job_success_result(self, jobId: str) -> Params:
        self.reported.append(jobId)
        return {}

    def publish(self, TopicArn: str, Subject: str, Message: str) -> Params:
        assert TopicArn == TOPIC
        self.messages.append({"subject": Subject, "message": Message})
        return {"MessageId": "m"}


def pipeline(model: str) -> str:
    return f"pushline-{model.replace('_', '-')}"


def modified(*paths: str) -> list[Params]:
    return [{"changeType": "M", "beforeBlob": {"path": path}, "afterBlob": {"path": path}} for path in paths]


def added(*paths: str) -> list[Params]:
    return [{"changeType": "A", "afterBlob": {"path": path}} for path in paths]


def deleted(*paths: str) -> list[Params]:
    return [{"changeType": "D", "beforeBlob": {"path": path}} for path in paths]


def _page(rows: list[Any], name: str, size: int, token: str, token_name: str, more: str = "") -> Params:
    start, then = int(token), int(token) + size
    left = then < len(rows)
    return {name: rows[start:then], **({token_name: str(then)} if left else {}), **({more: left} if more else {})}


def _check(values: Params, shape: Any) -> None:
    if shape is None:  # the operation answers nothing
        return
    report = ParamValidator().validate(values, shape)
    assert not report.has_errors(), report.generate_report()


def _error(client: Any, code: str, operation: str) -> ClientError:
    made: ClientError = client.exceptions.from_code(code)({"Error": {"Code": code, "Message": code}}, operation)
    return made


def reasons(decisions: list[Params]) -> dict[str, str]:
    """What became of each model, and why."""
    return {str(made["model"]): f"{made['decision']}: {made['reason']}" for made in decisions}
