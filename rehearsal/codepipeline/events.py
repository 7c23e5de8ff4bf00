"""The state-change events that CodePipeline puts on the account's bus."""

from __future__ import annotations

import datetime as dt

from rehearsal.service import Caller, Cloud, Params

_STAGE = {"InProgress": "STARTED", "Succeeded": "SUCCEEDED", "Failed": "FAILED", "Stopped": "STOPPED"}


def pipeline(cloud: Cloud, caller: Caller, execution: Params, status: str) -> None:
    state = "STARTED" if status == "InProgress" else status.upper()
    trigger = {
        "trigger-type": execution["trigger"]["triggerType"],
        "trigger-detail": execution["trigger"]["triggerDetail"],
    }
    _emit(cloud, caller, "Pipeline", execution, {"state": state, "execution-trigger": trigger})


def stage(cloud: Cloud, caller: Caller, execution: Params, name: str, status: str) -> None:
    _emit(cloud, caller, "Stage", execution, {"stage": name, "state": _STAGE[status]})


def action(cloud: Cloud, caller: Caller, execution: Params, document: Params, state: str) -> None:
    detail: Params = {
        "stage": document["stage"],
        "action": document["action"],
        "state": state,
        "region": caller.region,
        "action-execution-id": document["id"],
        "type": document["declared"]["actionTypeId"],
        "input-artifacts": document["inputs"],
        "output-artifacts": document.get("outputs", []),
    }
    result = {
        "external-execution-id": document["external"],
        "external-execution-summary": document.get("summary") or document.get("error", {}).get("message"),
        "error-code": document.get("error", {}).get("code"),
    }
    if state != "STARTED":
        detail["execution-result"] = {key: value for key, value in result.items() if value}
    _emit(cloud, caller, "Action", execution, detail)


def _emit(cloud: Cloud, caller: Caller, kind: str, execution: Params, detail: Params) -> None:
    started = dt.datetime.fromtimestamp(execution["started"], dt.UTC).isoformat(timespec="milliseconds")
    common = {
        "pipeline": execution["declaration"]["name"],
        "execution-id": execution["id"],
        "start-time": started.replace("+00:00", "Z"),
        "version": float(execution["version"]),
        "pipeline-execution-attempt": 1.0,
    }
    cloud.emit(
        "aws.codepipeline",
        f"CodePipeline {kind} Execution State Change",
        {**common, **detail},
        [execution["pipeline"]],
        caller,
    )
