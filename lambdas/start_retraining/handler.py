"""Parse the event, decide what becomes of it, act; each decision is one JSON log line, which `status` shows."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from lambdas.start_retraining.decide import Defer, Ignore, Limits, Start
from lambdas.start_retraining.door import Door, Setting
from lambdas.start_retraining.events import JOB, Ignored, Watched, parse
from lambdas.start_retraining.made import Failed, Made

_RETRIES = Config(retries={"mode": "adaptive", "total_max_attempts": 8})
_pushed: set[str] = set()
"""Repositories seen with their branch: it is not asked for again by this container, however many objects arrive."""
_NAMES = {Start: "start", Defer: "defer", Ignore: "ignore", Failed: "failed"}


class Unfinished(Exception):
    """A part of the event could not be acted on; Lambda invokes again, which starts nothing twice."""


@dataclass(frozen=True)
class Environment:
    """The function's environment variables, read once."""

    source_arn: str
    branch: str
    data: str
    models_path: str
    topic: str
    schedule_group: str
    schedule_role: str
    maximum_per_day: str
    settling_minutes: str
    longest_wait_hours: str
    clearing_hours: str
    routed: str
    """`bucket/key` of what was routed last."""

    @classmethod
    def read(cls) -> Environment:
        return cls(**{name: os.environ[name.upper()] for name in cls.__dataclass_fields__})

    def setting(self, function: str) -> Setting:
        limits = Limits(int(self.maximum_per_day), dt.timedelta(minutes=int(self.settling_minutes)),
                        dt.timedelta(hours=int(self.longest_wait_hours)),
                        dt.timedelta(hours=int(self.clearing_hours)))  # fmt: skip
        watched = Watched(self.source_arn, self.branch, self.data, account=function.split(":")[4])
        bucket, _, key = self.routed.partition("/")
        return Setting(watched, limits, self.models_path, self.topic, self.schedule_group, self.schedule_role, function,
                       routed=(bucket, key))  # fmt: skip


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Lambda's entry point; returns what was decided, for a caller who waits."""
    door = Door(Environment.read().setting(str(context.invoked_function_arn)), _client, _now(), _pushed,
                lambda: context.get_remaining_time_in_millis() / 1000)  # fmt: skip
    try:
        told = parse(event, door.setting.watched, str(context.aws_request_id), door.now)
        decisions = [_log(event, made) for made in door.answer(told)]
    except Ignored as ignored:
        decisions = [_log(event, Made(Ignore(ignored.model, ignored.trigger, str(ignored))))]
    if failed := [made for made in decisions if made["decision"] == "failed"]:
        # A job of CodePipeline stays open then, until an invocation succeeds or the action's time is over.
        raise Unfinished("; ".join(f"{made['model']}: {made['reason']}" for made in failed))
    if JOB in event:
        _client("codepipeline").put_job_success_result(jobId=event[JOB]["id"])
    return {"decisions": decisions}


def _log(event: Mapping[str, Any], made: Made) -> dict[str, Any]:
    line = {"event": event.get("id"), "decision": _NAMES[type(made.decision)], **asdict(made.decision)}
    if made.execution:
        line["execution"] = made.execution
    if isinstance(made.decision, Defer):
        line["until"] = made.decision.until.isoformat()
    print(json.dumps(line, sort_keys=True), flush=True)
    return line


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@cache
def _client(service: str) -> Any:
    """Made once per container: an arrival is cheap then."""
    return boto3.client(service, config=_RETRIES)
