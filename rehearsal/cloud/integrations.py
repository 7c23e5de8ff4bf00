"""The optimized integrations of Step Functions, and how `.sync` tasks wait for the job they started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rehearsal.cloud import sdk_calls
from rehearsal.cloud.sdk_calls import Client, TaskFailed
from rehearsal.service import Params

POLL_SECONDS = 0.3
Gone = Callable[[], bool]
"""Whether nobody waits for the task any more: its execution was stopped, or its time is over."""
ARN = "arn:aws:states:::"

# AWS answers these under the names of its older SDK.
_OLD_NAMES = {
    "sagemaker": "AmazonSageMakerException",
    "glue": "AWSGlueException",
    "sns": "AmazonSNSException",
    "sqs": "AmazonSQSException",
    "events": "AmazonEventBridgeException",
}
_PLAIN = {
    "sns:publish": ("sns", "publish"),
    "sqs:sendMessage": ("sqs", "sendMessage"),
    "events:putEvents": ("eventbridge", "putEvents"),
    "glue:startJobRun": ("glue", "startJobRun"),
    **{
        f"sagemaker:{action}": ("sagemaker", action)
        for action in (
            "createTrainingJob",
            "createProcessingJob",
            "createTransformJob",
            "createModel",
            "createEndpointConfig",
            "createEndpoint",
            "updateEndpoint",
        )
    },
}


@dataclass(frozen=True)
class Job:
    """How a `.sync` task follows what it started; `started` gives the describe call's arguments."""

    service: str
    describe: str
    stop: str
    started: Callable[[Params, Params], Params]
    stopping: Callable[[Params], Params]
    status: str
    within: str | None
    succeeded: frozenset[str]
    failed: frozenset[str]
    rule: str | None = None
    """The managed EventBridge rule that Step Functions keeps to learn of the job's end."""


def _sagemaker(kind: str) -> Job:
    name = f"{kind}JobName"
    return Job(
        "sagemaker",
        f"describe{kind}Job",
        f"stop{kind}Job",
        lambda asked, _: {name: asked[name]},
        lambda found: {name: found[name]},
        f"{kind}JobStatus",
        None,
        frozenset({"Completed"}),
        frozenset({"Failed", "Stopped"}),
        f"StepFunctionsGetEventsForSageMaker{kind}JobsRule",
    )


SYNC = {
    "glue:startJobRun": Job(
        "glue",
        "getJobRun",
        "batchStopJobRun",
        lambda asked, answer: {"JobName": asked["JobName"], "RunId": answer["JobRunId"]},
        lambda found: {"JobName": found["JobName"], "JobRunIds": [found["RunId"]]},
        "JobRunState",
        "JobRun",
        frozenset({"SUCCEEDED"}),
        frozenset({"FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED"}),
    ),
    "sagemaker:createTrainingJob": _sagemaker("Training"),
    "sagemaker:createProcessingJob": _sagemaker("Processing"),
    "sagemaker:createTransformJob": _sagemaker("Transform"),
    "states:startExecution": Job(
        "sfn",
        "describeExecution",
        "stopExecution",
        lambda _, answer: {"ExecutionArn": answer["ExecutionArn"]},
        lambda found: found,
        "Status",
        None,
        frozenset({"SUCCEEDED"}),
        frozenset({"FAILED", "TIMED_OUT", "ABORTED"}),
        "StepFunctionsGetEventsForStepFunctionsExecutionRule",
    ),
}


def run(client: Client, may_keep_rule: Callable[[str], None], resource: str, arguments: Params, gone: Gone) -> Any:
    """Do the task `resource`; `may_keep_rule` refuses where the role may not manage the rule that `.sync` needs."""
    if resource.startswith("arn:aws:lambda:"):
        return invoke_lambda(client, {"FunctionName": resource, "Payload": arguments})["Payload"]
    if not resource.startswith(ARN):
        raise TaskFailed("States.Runtime", f"{resource} is no integration that the rehearsal runs")
    name = resource.removeprefix(ARN)
    if name.startswith("aws-sdk:"):
        _, service, action = name.split(":", 2)
        return sdk_calls.call(client, service, action, arguments)
    if name == "lambda:invoke":
        return invoke_lambda(client, arguments)
    base, _, pattern = name.partition(".")
    if base in SYNC and pattern in ("sync", "sync:2"):
        return _sync(client, may_keep_rule, base, arguments, gone, parsed=pattern == "sync:2")
    if pattern or (base not in _PLAIN and base != "states:startExecution"):
        raise TaskFailed("States.Runtime", f"{resource} is not rehearsed; docs/fidelity.md lists what is")
    return _start(client, base, arguments)


def invoke_lambda(client: Client, arguments: Params) -> Params:
    """`lambda:invoke`: the payload travels as JSON, a function's error becomes the task's."""
    payload = json.dumps(arguments.get("Payload", {}))
    answer = sdk_calls.call(client, "lambda", "invoke", {**arguments, "Payload": payload})
    returned = _json(answer.get("Payload", ""))
    if "FunctionError" in answer:
        error = returned.get("errorType") if isinstance(returned, dict) else None
        raise TaskFailed(error or "Lambda.Unknown", json.dumps(returned))
    return {**answer, "Payload": returned}


def _start(client: Client, base: str, arguments: Params) -> Params:
    if base == "states:startExecution":
        sent = {**arguments, "Input": _dumped(arguments.get("Input", {}))}
        return sdk_calls.call(client, "sfn", "startExecution", sent)
    service, action = _PLAIN[base]
    return sdk_calls.call(client, service, action, arguments, _OLD_NAMES.get(sdk_calls.botocore_name(service), ""))


def _sync(
    client: Client, may_keep_rule: Callable[[str], None], base: str, arguments: Params, gone: Gone, *, parsed: bool
) -> Params:
    job = SYNC[base]
    if job.rule is not None:
        may_keep_rule(job.rule)
    where = job.started(arguments, _start(client, base, arguments))
    while True:
        found = sdk_calls.call(client, job.service, job.describe, where)
        found = found[job.within] if job.within else found
        if found[job.status] in job.succeeded:
            return {**found, "Output": _json(found["Output"])} if parsed and "Output" in found else found
        if found[job.status] in job.failed:
            raise TaskFailed("States.TaskFailed", json.dumps(found))
        if gone():
            sdk_calls.call(client, job.service, job.stop, job.stopping(where))
            raise TaskFailed("States.Timeout", f"{base} was stopped: its time was over or its execution was stopped")
        time.sleep(POLL_SECONDS)


def _dumped(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text
