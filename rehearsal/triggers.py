"""The door to retraining, from outside: what became of every trigger, and a request by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.landscape import ClientOf, Landscape, NotDeployed

Row = dict[str, Any]
NEWEST = 100
"""How many rows a report has."""


class NotRetrained(Exception):
    """A request by hand could not be decided on; the message says why."""


def triggers(client_of: ClientOf, log_group: str) -> list[Row]:
    """What start_retraining decided, newest first; what a storm of events joined is one row with their `count`."""
    rows: dict[tuple[Any, ...], Row] = {}
    for time, line in _decisions(client_of, log_group) if log_group else ():
        kept = rows.pop(_identity(line), None) or _row(line)
        rows[_identity(line)] = {**kept, "time": _iso(time), "count": kept["count"] + 1}
    return list(reversed(rows.values()))[:NEWEST]


def _decisions(client_of: ClientOf, log_group: str) -> Iterator[tuple[int, Row]]:
    """The function's log lines that tell a decision, oldest first."""
    pages = client_of("logs").get_paginator("filter_log_events").paginate(logGroupName=log_group)
    try:
        events = [event for page in pages for event in page["events"]]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return
        raise
    for event in sorted(events, key=lambda event: int(event["timestamp"])):
        for text in event["message"].splitlines():
            if (line := _parsed(text)) is not None:
                yield event["timestamp"], line


def _parsed(text: str) -> Row | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "decision" in line else None


def _identity(line: Row) -> tuple[Any, ...]:
    """What makes two decisions one: the same one-time schedule, the same execution, or all the same words."""
    same = line.get("name") or line.get("execution") or line["reason"]
    return line["decision"], line["trigger"], line["model"], same


def _row(line: Row) -> Row:
    return {
        "trigger": line["trigger"],
        "model": line["model"],
        "decision": line["decision"],
        "reason": line["reason"],
        "until": line.get("until"),
        "execution": line.get("execution"),
        "count": 0,
    }


def by_hand(client_of: ClientOf, landscape: Landscape, model: str, reason: str, as_of: str) -> Row:
    """Ask for a retraining; the decision."""
    landscape.model(model)
    if not landscape.start_retraining:
        raise NotDeployed("no deployed stack has the output StartRetraining; deploy the repository's stack first")
    event = {"source": "pushline.manual", "detail": {"model": model, "reason": reason, "as_of": as_of}}
    answer = client_of("lambda").invoke(FunctionName=landscape.start_retraining, Payload=json.dumps(event).encode())
    told = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        raise NotRetrained(f"start_retraining failed: {told.get('errorMessage', told)}")
    return dict(told["decisions"][0])


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
