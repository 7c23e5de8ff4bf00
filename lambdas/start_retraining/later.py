"""One-time schedules, by which a request comes again later; EventBridge Scheduler deletes each after it fired."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from lambdas.start_retraining.decide import Defer
from lambdas.start_retraining.events import DEFERRED_SOURCE, SETTLED_SOURCE, Request

Event = dict[str, Any]


@dataclass(frozen=True)
class Schedules:
    """The group that the schedules are in, and the role by which they invoke the function."""

    scheduler: Any
    group: str
    role: str
    function: str

    def put(self, defer: Defer, event: Event) -> bool:
        """Send `event` at the time; False if a schedule of that name does it already."""
        try:
            self.scheduler.create_schedule(
                Name=defer.name, GroupName=self.group, ScheduleExpression=f"at({defer.until:%Y-%m-%dT%H:%M:%S})",
                FlexibleTimeWindow={"Mode": "OFF"}, ActionAfterCompletion="DELETE",
                Target={"Arn": self.function, "RoleArn": self.role, "Input": json.dumps(event)})  # fmt: skip
        except self.scheduler.exceptions.ConflictException:
            return False
        return True

    def exists(self, name: str) -> bool:
        try:
            self.scheduler.get_schedule(Name=name, GroupName=self.group)
        except self.scheduler.exceptions.ResourceNotFoundException:
            return False
        return True


def again(request: Request, until: dt.datetime) -> Event:
    """The request, as it comes again."""
    detail = {**dataclasses.asdict(request), "asked": request.asked.isoformat(), "due": until.isoformat()}
    return {"source": DEFERRED_SOURCE, "detail": detail}


def settled(model: str, until: dt.datetime, settling: dt.timedelta, made: dt.datetime) -> Event:
    """What tells that a window of arrivals is over; `made` tells its schedule from another of the same name."""
    moments = {"window": until - settling, "due": until, "made": made}
    return {"source": SETTLED_SOURCE,
            "detail": {"model": model, **{name: time.isoformat() for name, time in moments.items()}}}  # fmt: skip
