"""Finds the log of an execution or a job by its id, as CloudWatch would show it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.landscape import ClientOf, Landscape
from rehearsal.place import Place
from rehearsal.status import Row, action_executions


class NoLog(Exception):
    """Nothing is known under that id; the message says what ids there are."""


def read(client_of: ClientOf, landscape: Landscape, wanted: str) -> Iterator[str]:
    """Lines of everything that belongs to `wanted`: a pipeline execution (its build, its retraining and the jobs of
    that), a state machine execution, a job or run, a build, or the name of a log group."""
    found = False
    for title, lines in _sections(client_of, landscape, wanted):
        found = True
        yield f"=== {title}"
        yield from lines
    if not found:
        raise NoLog(
            f"no log is known for {wanted!r}: give an execution from `status`, a job or build it names, or a log group"
        )


def _sections(client_of: ClientOf, landscape: Landscape, wanted: str) -> Iterator[tuple[str, list[str]]]:
    for parts in landscape.models.values():
        actions = _actions(client_of, parts.pipeline, wanted) if parts.pipeline else []
        for action in reversed(actions):
            yield from _action_sections(client_of, action)
        if actions:
            return
    if ":states:" in wanted:
        yield from _state_sections(client_of, wanted, _place_of(landscape, wanted))
        return
    for place in landscape.places:
        yield from _stream_sections(client_of, wanted, place)


def _place_of(landscape: Landscape, execution: str) -> Place | None:
    account = execution.split(":")[4]
    return next((place for place in landscape.places if place.account == account), None)


def _actions(client_of: ClientOf, pipeline: str, wanted: str) -> list[Row]:
    client = client_of("codepipeline")
    pages = client.get_paginator("list_pipeline_executions").paginate(pipelineName=pipeline)
    for page in pages:
        for summary in page["pipelineExecutionSummaries"]:
            # `status` shows the first eight characters, so they are enough here.
            if len(wanted) >= 8 and summary["pipelineExecutionId"].startswith(wanted):
                return action_executions(client, pipeline, summary["pipelineExecutionId"])
    return []


def _action_sections(client_of: ClientOf, action: Row) -> Iterator[tuple[str, list[str]]]:
    result = action.get("output", {}).get("executionResult", {})
    error = result.get("errorDetails", {}).get("message")
    yield f"{action['stageName']}: {action['status']}", error.splitlines() if error else []
    job = result.get("externalExecutionId", "")
    if ":states:" in job:
        yield from _state_sections(client_of, job)
    elif job:
        yield from _stream_sections(client_of, job)


def _state_sections(client_of: ClientOf, execution: str, place: Place | None = None) -> Iterator[tuple[str, list[str]]]:
    client = client_of("stepfunctions", place)
    try:
        events = (
            client.get_paginator("get_execution_history").paginate(executionArn=execution).build_full_result()["events"]
        )
    except ClientError:
        return
    yield f"state machine execution {execution.rpartition(':')[2]}", [_event_line(event) for event in events]
    yield from _stream_sections(client_of, execution.rpartition(":")[2], place)
    for run in sorted({run for event in events if (run := _glue_run(event))}):
        yield from _stream_sections(client_of, run)


def _event_line(event: Row) -> str:
    details: Row = next((value for key, value in event.items() if key.endswith("EventDetails")), {})
    named = details.get("name") or details.get("resource") or ""
    cause = " ".join(filter(None, (details.get("error"), details.get("cause"))))
    return f"{event['timestamp'].isoformat(timespec='milliseconds')} {event['type']} {named} {cause}".rstrip()


def _glue_run(event: Row) -> str | None:
    output: Row = event.get("taskSucceededEventDetails") or event.get("taskFailedEventDetails") or {}
    try:
        found: Any = json.loads(str(output.get("output") or output.get("cause") or "{}"))
    except ValueError:
        return None
    return found.get("JobRunId") or found.get("Id") if isinstance(found, dict) else None


def _stream_sections(client_of: ClientOf, wanted: str, place: Place | None = None) -> Iterator[tuple[str, list[str]]]:
    """Every log stream whose name holds the id, and the newest streams of a group of that very name."""
    client = client_of("logs", place)
    name = wanted.rpartition(":")[2] if not wanted.startswith("/") else wanted
    for group in _groups(client):
        streams = client.describe_log_streams(logGroupName=group)["logStreams"]
        for stream in streams:
            if name in stream["logStreamName"] or wanted == group:
                yield f"{group} {stream['logStreamName']}", _lines(client, group, stream["logStreamName"])


def _groups(client: Any) -> list[str]:
    """All of them: a project, a function or a state machine may write to a group of any name."""
    pages = client.get_paginator("describe_log_groups").paginate()
    return [group["logGroupName"] for page in pages for group in page["logGroups"]]


def _lines(client: Any, group: str, stream: str) -> list[str]:
    lines: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = client.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        lines += [event["message"].rstrip("\n") for event in answer["events"]]
        if not answer["events"] or answer["nextForwardToken"] == token.get("nextToken"):
            return lines
        token = {"nextToken": answer["nextForwardToken"]}
