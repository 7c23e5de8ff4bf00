"""What runs, what was registered and what is live: the report behind `status`, as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlparse

from botocore.exceptions import ClientError
from rich.console import Group
from rich.table import Table

from rehearsal.landscape import ClientOf, Landscape, ModelParts
from rehearsal.triggers import triggers

SCHEMA = 1
Row = dict[str, Any]
_NOTHING_LIVE = ("Creating", "Failed", "Deleting", "OutOfService")
"""Where an endpoint names the configuration that it was made with, and answers nobody."""
_REASON_LINES = 6
_NEWEST_TRIGGERS = 20
_COLOUR = {
    "Succeeded": "green",
    "SUCCEEDED": "green",
    "InService": "green",
    "Approved": "green",
    "Failed": "red",
    "FAILED": "red",
    "Rejected": "yellow",
    "Superseded": "yellow",
    "InProgress": "cyan",
    "RUNNING": "cyan",
    "PendingManualApproval": "cyan",
    "start": "green",
    "defer": "cyan",
    "ignore": "yellow",
    "failed": "red",
}


def report(client_of: ClientOf, landscape: Landscape) -> Row:
    """The document of `status --json`: every list newest first, times in ISO 8601."""
    packages = [row for parts in landscape.models.values() for row in model_packages(client_of, parts)]
    return {
        "pipelines": _newest(row for parts in landscape.models.values() for row in pipelines(client_of, parts)),
        "model_packages": sorted(packages, key=lambda row: (row["created"], row["version"]), reverse=True),
        "releases": _newest(row for parts in landscape.models.values() for row in releases(client_of, parts)),
        "endpoints": [row for parts in landscape.models.values() for row in endpoints(client_of, parts, packages)],
        "triggers": triggers(client_of, landscape.start_retraining_log),
        "schema": SCHEMA,
    }


def pipelines(client_of: ClientOf, parts: ModelParts) -> list[Row]:
    """The model's pipeline executions; a failed one says at which stage and why."""
    if not parts.pipeline:
        return []
    client = client_of("codepipeline")
    pages = client.get_paginator("list_pipeline_executions").paginate(pipelineName=parts.pipeline)
    return [_pipeline_row(client, parts, summary) for page in pages for summary in page["pipelineExecutionSummaries"]]


def _pipeline_row(client: Any, parts: ModelParts, summary: Row) -> Row:
    execution = summary["pipelineExecutionId"]
    details = client.get_pipeline_execution(pipelineName=parts.pipeline, pipelineExecutionId=execution)
    variables = {v["name"]: v["resolvedValue"] for v in details["pipelineExecution"].get("variables", ())}
    row = {
        "model": parts.name,
        "execution": execution,
        "status": summary["status"],
        "trigger": "creation" if created_by_aws(summary) else variables.get("Trigger", "none"),
        "commit": next((revision["revisionId"] for revision in summary.get("sourceRevisions", ())), None),
        "started": iso(summary["startTime"]),
        "stage": None,
        "reason": None,
    }
    if summary["status"] == "Failed":
        row["stage"], row["reason"] = _failure(client, parts.pipeline, execution)
    return row


def created_by_aws(summary: Row) -> bool:
    """Whether this is the execution that AWS starts when a pipeline is created; it retrains nothing."""
    return bool(summary.get("trigger", {}).get("triggerType") == "CreatePipeline")


def _failure(client: Any, pipeline: str, execution: str) -> tuple[str | None, str | None]:
    for action in action_executions(client, pipeline, execution):
        if action["status"] == "Failed":
            result = action.get("output", {}).get("executionResult", {})
            error = result.get("errorDetails", {})
            return action["stageName"], error.get("message") or result.get("externalExecutionSummary")
    return None, None


def action_executions(client: Any, pipeline: str, execution: str) -> list[Row]:
    """The actions of one pipeline execution, newest first."""
    pages = client.get_paginator("list_action_executions").paginate(
        pipelineName=pipeline, filter={"pipelineExecutionId": execution}
    )
    return [action for page in pages for action in page["actionExecutionDetails"]]


def model_packages(client_of: ClientOf, parts: ModelParts) -> list[Row]:
    """The model's registered versions with metrics and lineage as the registry's lineage document has them."""
    if not parts.group:
        return []
    client = client_of("sagemaker")
    pages = client.get_paginator("list_model_packages").paginate(ModelPackageGroupName=parts.group)
    arns = [summary["ModelPackageArn"] for page in pages for summary in page["ModelPackageSummaryList"]]
    return [_package_row(client_of, parts, client.describe_model_package(ModelPackageName=arn)) for arn in arns]


def _package_row(client_of: ClientOf, parts: ModelParts, package: Row) -> Row:
    metadata = package.get("CustomerMetadataProperties", {})
    lineage = _lineage(client_of, metadata.get("lineage", ""))
    return {
        "model": parts.name,
        "version": package["ModelPackageVersion"],
        "arn": package["ModelPackageArn"],
        "approval_status": package["ModelApprovalStatus"],
        "reason": package.get("ApprovalDescription") or "; ".join(lineage.get("decision", {}).get("reasons", ())),
        "metrics": lineage.get("metrics", {}).get("challenger") or {},
        "champion_metrics": lineage.get("metrics", {}).get("champion"),
        "lineage": lineage or metadata,
        "metadata": metadata,
        "created": iso(package["CreationTime"]),
    }


def _lineage(client_of: ClientOf, address: str) -> Row:
    place = urlparse(address)
    if place.scheme != "s3":
        return {}
    try:
        body = client_of("s3").get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    except ClientError:
        return {}
    return dict(json.loads(body))


def releases(client_of: ClientOf, parts: ModelParts) -> list[Row]:
    """The reconcilers' executions that had something to do or failed; those that found all well are left out."""
    return [
        row
        for environment, arn in parts.reconcilers.items()
        for row in _release_rows(client_of("stepfunctions", parts.places[environment]), parts.name, environment, arn)
    ]


def _release_rows(client: Any, model: str, environment: str, arn: str) -> Iterator[Row]:
    for page in client.get_paginator("list_executions").paginate(stateMachineArn=arn):
        for summary in page["executions"]:
            execution = client.describe_execution(executionArn=summary["executionArn"])
            outcome = json_object(execution.get("output"))
            if summary["status"] == "SUCCEEDED" and not outcome.get("released", True):
                continue
            yield {
                "model": model,
                "environment": environment,
                "version": outcome.get("version"),
                "status": summary["status"],
                "reason": outcome.get("reason") or execution.get("cause"),
                "started": iso(summary["startDate"]),
                "ended": iso(summary["stopDate"]) if "stopDate" in summary else None,
                "execution": summary["executionArn"],
            }


def endpoints(client_of: ClientOf, parts: ModelParts, packages: list[Row]) -> list[Row]:
    """Every endpoint of the model; before the first release its status is "None". Where the model is to have none it
    is "NoEndpoint", and the version is the one that batch takes."""
    return [
        _endpoint_row(client_of("sagemaker", parts.places[environment]), parts, environment, packages)
        for environment in parts.environments
    ]


def _endpoint_row(client: Any, parts: ModelParts, environment: str, packages: list[Row]) -> Row:
    nothing = dict.fromkeys(("version", "commit", "url"))
    row: Row = {"model": parts.name, "environment": environment, "name": None, "status": "NoEndpoint", **nothing}
    if environment in parts.live_models:
        live = parts.live_models[environment]
        return row | _live_row(_package_of(client, live), packages) if live else row
    row |= {"name": parts.endpoints[environment], "status": "None"}
    try:
        endpoint = client.describe_endpoint(EndpointName=row["name"])
    except ClientError:
        return row
    row["status"] = endpoint["EndpointStatus"]
    row["url"] = next(
        (
            tag["Value"]
            for tag in client.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
            if tag["Key"] == "rehearsal:url"
        ),
        None,
    )
    return row if row["status"] in _NOTHING_LIVE else row | _live_row(_live_package(client, endpoint), packages)


def _live_row(live: str | None, packages: list[Row]) -> Row:
    rows = [
        {"version": row["version"], "commit": row["lineage"].get("commit")} for row in packages if row["arn"] == live
    ]
    return rows[0] if rows else {}


def _live_package(client: Any, endpoint: Row) -> str | None:
    """The model package that the live endpoint config's model was made from, as its container says."""
    try:
        config = client.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    except ClientError:
        return None
    return _package_of(client, config["ProductionVariants"][0]["ModelName"])


def _package_of(client: Any, model_name: str) -> str | None:
    try:
        model = client.describe_model(ModelName=model_name)
    except ClientError:
        return None
    container = model.get("PrimaryContainer") or model["Containers"][0]
    return container.get("Environment", {}).get("MODEL_PACKAGE_ARN") or None


def tables(document: Row) -> Group:
    """The report for people."""
    return Group(
        _table(
            "Triggers",
            document["triggers"][:_NEWEST_TRIGGERS],
            ("time", "trigger", "model", "decision", "count", "reason"),
        ),
        _table(
            "Pipelines", document["pipelines"], ("model", "execution", "status", "trigger", "commit", "stage", "reason")
        ),
        _table(
            "Model packages",
            [
                {**row, "metrics": _short(row["metrics"]), "champion": _short(row["champion_metrics"])}
                for row in document["model_packages"]
            ],
            ("model", "version", "approval_status", "metrics", "champion", "reason"),
        ),
        _table("Releases", document["releases"], ("model", "environment", "version", "status", "reason", "started")),
        _table("Endpoints", document["endpoints"], ("model", "environment", "status", "version", "commit", "url")),
    )


def _table(title: str, rows: list[Row], columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=True)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(column, row[column]) for column in columns))
    return table


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "time":
        return str(value)[:19].replace("T", " ")
    text = str(value)[:8] if column in ("commit", "execution") else str(value)
    if column == "reason":
        # A build's message quotes its whole command first; what went wrong comes last.
        text = "\n".join(text.rpartition("Reason: ")[2].splitlines()[-_REASON_LINES:])
    colour = _COLOUR.get(text) if column in ("status", "approval_status", "decision") else None
    return f"[{colour}]{text}[/]" if colour else text.replace("[", r"\[")


def _short(metrics: dict[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in (metrics or {}).items())


def _newest(rows: Iterator[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["started"]), reverse=True)


def json_object(text: str | None) -> Row:
    """A JSON text's object; empty for nothing or another kind of value."""
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
