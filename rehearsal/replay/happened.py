"""What came of a step's data: retrainings with their triggers, registered versions, and what still waits to come."""

from __future__ import annotations

import datetime as dt
from typing import Any

from rehearsal import status
from rehearsal.landscape import ClientOf, ModelParts

Row = dict[str, Any]


def between(client_of: ClientOf, parts: ModelParts, began: float, ended: float, metric: str) -> Row:
    """`retrainings` and `versions` that began from one moment (epoch seconds) until before another, oldest first."""
    runs = [row for row in status.pipelines(client_of, parts) if began <= _epoch(row["started"]) < ended]
    made = [row for row in status.model_packages(client_of, parts) if began <= _epoch(row["created"]) < ended]
    return {
        "retrainings": [
            {key: row[key] for key in ("trigger", "status", "execution", "stage", "reason")}
            for row in reversed(runs)
            if row["trigger"] not in ("creation", "none")
        ],
        "versions": [_version(row, metric) for row in reversed(made)],
    }


def _version(row: Row, metric: str) -> Row:
    lineage = row["lineage"]
    return {
        "version": str(row["version"]),
        "approval_status": row["approval_status"],
        "trigger": lineage.get("trigger"),
        "as_of": lineage.get("as_of"),
        metric: row["metrics"].get(metric),
        "champion": (row["champion_metrics"] or {}).get(metric),
        "champion_version": lineage.get("champion_version"),
    }


def _epoch(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def monitored(client_of: ClientOf, parts: ModelParts, moment: float) -> str | None:
    """How the first execution that looked for drift from the moment on ended; None while there is none."""
    found = client_of("stepfunctions").list_executions(stateMachineArn=parts.monitor, maxResults=100)["executions"]
    ended = (row for row in found if row["startDate"].timestamp() >= moment and row["status"] != "RUNNING")
    first = min(ended, key=lambda row: row["startDate"], default=None)
    return str(first["status"]) if first else None


def waiting(client_of: ClientOf, model: str) -> list[str]:
    """One-time schedules that will come for the model: data that settles, triggers that wait out a cool-down.

    Not those that only look whether a retraining for drift has helped, since that takes days of requests.
    """
    looks = f"{model.replace('_', '-')}-look-"
    scheduler, found = client_of("scheduler"), []
    for page in scheduler.get_paginator("list_schedules").paginate(State="ENABLED"):
        for row in page["Schedules"]:
            schedule = _schedule(scheduler, row)
            once = schedule.get("ScheduleExpression", "").startswith("at(")
            if once and not row["Name"].startswith(looks) and f'"{model}"' in schedule["Target"].get("Input", ""):
                found.append(row["Name"])
    return found


def _schedule(scheduler: Any, row: Row) -> Row:
    """Empty if it has just fired and is gone."""
    try:
        return dict(scheduler.get_schedule(Name=row["Name"], GroupName=row["GroupName"]))
    except scheduler.exceptions.ResourceNotFoundException:
        return {}
