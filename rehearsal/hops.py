"""One push followed hop by hop: the pipeline's actions, the retraining's states and the releases, with seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.landscape import ClientOf, ModelParts
from rehearsal.status import Row, action_executions, created_by_aws, json_object

RUNNING, DONE, FAILED = "running", "done", "failed"
_STATUS = {"InProgress": RUNNING, "RUNNING": RUNNING, "Succeeded": DONE, "SUCCEEDED": DONE}
_WORTH_SHOWING = 0.5
"""Seconds; quicker states (choices, look-ups) would only hide the ones that matter."""


@dataclass(frozen=True)
class Hop:
    """A step of the push: `status` is running, done or failed; `seconds` so far or in all; `began` since the epoch."""

    model: str
    name: str
    status: str
    began: float
    seconds: float


def follow(client_of: ClientOf, parts: ModelParts, since: float) -> list[Hop]:
    """Every hop of the model's newest pipeline execution and of the releases that began at or after `since`."""
    found = [*_pipeline_hops(client_of, parts, since), *_release_hops(client_of, parts, since)]
    return sorted(found, key=lambda hop: hop.began)


def _pipeline_hops(client_of: ClientOf, parts: ModelParts, since: float) -> Iterator[Hop]:
    if not parts.pipeline:
        return
    client = client_of("codepipeline")
    newest = client.list_pipeline_executions(pipelineName=parts.pipeline, maxResults=1)["pipelineExecutionSummaries"]
    if not newest or newest[0]["startTime"].timestamp() < since:
        return
    if created_by_aws(newest[0]):
        return
    for action in action_executions(client, parts.pipeline, newest[0]["pipelineExecutionId"]):
        execution = action.get("output", {}).get("executionResult", {}).get("externalExecutionId", "")
        if ":states:" in execution:
            yield from _state_hops(client_of("stepfunctions"), parts.name, execution)
        else:
            began = action["startTime"].timestamp()
            ended = action["lastUpdateTime"].timestamp()
            yield _hop(
                parts.name, str(action["stageName"]).lower(), _STATUS.get(action["status"], FAILED), began, ended
            )


def _release_hops(client_of: ClientOf, parts: ModelParts, since: float) -> Iterator[Hop]:
    """One hop per reconciler execution that changes something; those that find all well come and go unseen."""
    for environment in parts.environments:
        client, arn = client_of("stepfunctions", parts.places[environment]), parts.reconcilers.get(environment)
        for execution in client.list_executions(stateMachineArn=arn, maxResults=20)["executions"] if arn else ():
            began = execution["startDate"].timestamp()
            if began >= since and (execution["status"] != "SUCCEEDED" or _changed(client, execution)):
                status = _STATUS.get(execution["status"], FAILED)
                ended = execution["stopDate"].timestamp() if "stopDate" in execution else began
                yield from _shown(_hop(parts.name, f"release to {environment}", status, began, ended))


def _changed(client: Any, execution: Row) -> bool:
    output = client.describe_execution(executionArn=execution["executionArn"]).get("output")
    return bool(json_object(output).get("released", True))


def _state_hops(client: Any, model: str, execution: str) -> Iterator[Hop]:
    """The task states of an execution that take long enough to be seen."""
    try:
        events: list[Row] = (
            client.get_paginator("get_execution_history").paginate(executionArn=execution).build_full_result()["events"]
        )
    except ClientError:
        return
    entered: dict[str, float] = {}
    for event in events:
        moment = event["timestamp"].timestamp()
        if event["type"] == "TaskStateEntered":
            entered[event["stateEnteredEventDetails"]["name"]] = moment
        elif event["type"] == "TaskStateExited":
            name = event["stateExitedEventDetails"]["name"]
            yield from _shown(_hop(model, name, DONE, entered.pop(name, moment), moment))
    last: Row = events[-1] if events else {"type": "", "timestamp": datetime.now(UTC)}
    over = last["type"].startswith("Execution") and last["type"] != "ExecutionStarted"
    for name, began in entered.items():
        status = FAILED if over else RUNNING
        yield from _shown(_hop(model, name, status, began, last["timestamp"].timestamp()))


def _shown(hop: Hop) -> Iterator[Hop]:
    if hop.seconds >= _WORTH_SHOWING or hop.status == FAILED:
        yield hop


def _hop(model: str, name: str, status: str, began: float, ended: float) -> Hop:
    until = datetime.now(UTC).timestamp() if status == RUNNING else ended
    return Hop(model, name, status, began, max(0.0, until - began))
