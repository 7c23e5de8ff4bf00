"""A model's recent pipeline executions, as CodePipeline tells them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from lambdas.start_retraining.decide import BUDGET_PERIOD, Limits, Run
from lambdas.start_retraining.events import NONE, Request
from lambdas.start_retraining.route import Model

PAGE = 100
RETRAIN_STAGE = "Retrain"


def recent(codepipeline: Any, model: Model, request: Request, limits: Limits, now: dt.datetime) -> list[Run]:
    """The executions that the budget, a cool-down or the request itself looks back to, newest first."""
    longest = max(BUDGET_PERIOD, dt.timedelta(hours=model.cool_down_hours),
                  limits.clearing if request.trigger == "drift" else dt.timedelta())  # fmt: skip
    since = min(now - longest, request.asked)
    return [_run(codepipeline, model, summary) for summary in _summaries(codepipeline, model, since)]


def _summaries(codepipeline: Any, model: Model, since: dt.datetime) -> Iterator[Mapping[str, Any]]:
    """Newest first, as the API lists them, and no page more than needed."""
    pages = codepipeline.get_paginator("list_pipeline_executions").paginate(
        pipelineName=model.pipeline, PaginationConfig={"PageSize": PAGE}
    )
    for summary in (summary for page in pages for summary in page["pipelineExecutionSummaries"]):
        if summary["startTime"] < since:
            return
        yield summary


def _run(codepipeline: Any, model: Model, summary: Mapping[str, Any]) -> Run:
    id = summary["pipelineExecutionId"]
    commit = next((str(revision["revisionId"]) for revision in summary.get("sourceRevisions", ())), "")
    trained = _trained(codepipeline, model, summary)
    variables = _variables(codepipeline, model, id) if trained else {}
    trigger = variables.get("Trigger", NONE)
    # Whoever releases a change by hand gives no reason, and without one the pipeline ends before it trains.
    return Run(id, summary["startTime"], summary["status"], trained and trigger != NONE, commit=commit, trigger=trigger,
               as_of=variables.get("AsOf", NONE))  # fmt: skip


def _trained(codepipeline: Any, model: Model, summary: Mapping[str, Any]) -> bool:
    """Whether it came, or will come, as far as a retraining; one that Verify refused does not."""
    if summary.get("trigger", {}).get("triggerType") == "CreatePipeline" or summary["status"] == "Superseded":
        return False
    if summary["status"] in ("InProgress", "Succeeded"):
        return True
    pages = codepipeline.get_paginator("list_action_executions").paginate(
        pipelineName=model.pipeline, filter={"pipelineExecutionId": summary["pipelineExecutionId"]}
    )
    return any(action["stageName"] == RETRAIN_STAGE for page in pages for action in page["actionExecutionDetails"])


def _variables(codepipeline: Any, model: Model, id: str) -> dict[str, str]:
    found = codepipeline.get_pipeline_execution(pipelineName=model.pipeline, pipelineExecutionId=id)
    return {item["name"]: item["resolvedValue"] for item in found["pipelineExecution"].get("variables", ())}
