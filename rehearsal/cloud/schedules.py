"""Scheduled rules, on a clock that runs `time_scale` times as fast; when each last fired survives a restart."""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import eventbridge

from rehearsal.service import Params
from rehearsal.store import Store

log = logging.getLogger("rehearsal")
TICK_SECONDS = 0.5
KIND = "events/schedule"


class Clock:
    """Scaled time: it starts as the real time, and stands still while the rehearsal is down."""

    def __init__(self, store: Store, time_scale: float) -> None:
        self._store, self._time_scale = store, time_scale
        self._real = time.time()
        self._scaled = float((store.get("clock", "scaled") or {}).get("now", self._real))

    def now(self) -> float:
        return self._scaled + (time.time() - self._real) * self._time_scale

    def save(self) -> None:
        self._store.put("clock", "scaled", {"now": self.now()})


class Schedules:
    """Replaces ministack's tick, which forgets at a restart and knows no time scale."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def install(self) -> None:
        eventbridge._SCHEDULER_TICK_INTERVAL = TICK_SECONDS
        eventbridge._tick_scheduled_rules = self.tick

    def tick(self) -> None:
        now = self._clock.now()
        for (account, region, key), rule in list(eventbridge._rules._data.items()):
            if rule.get("State") == "ENABLED" and rule.get("ScheduleExpression") and self._due(rule, now):
                with request_scope(account, region):
                    _fire(rule, eventbridge._targets.get(key, []))
        self._clock.save()

    def _due(self, rule: Params, now: float) -> bool:
        """Whether the rule is due, noting that it fires now; a rule seen first begins to count now."""
        expression = rule["ScheduleExpression"]
        seen = self._store.get(KIND, rule["Arn"])
        if seen is None or seen["expression"] != expression:
            self._note(rule, now)
            return False
        due = next_time(expression, seen["at"])
        if due is None or due > now:
            return False
        self._note(rule, now)
        return True

    def _note(self, rule: Params, now: float) -> None:
        self._store.put(KIND, rule["Arn"], {"at": now, "expression": rule["ScheduleExpression"]})


def next_time(expression: str, after: float) -> float | None:
    """When a `rate(…)` or `cron(…)` expression is due next."""
    interval = eventbridge._parse_rate_seconds(expression)
    if interval is not None:
        return after + float(interval)
    fields = eventbridge._parse_cron_fields(expression)
    if fields is None:
        return None
    at: dt.datetime | None = eventbridge._cron_next_fire(fields, dt.datetime.fromtimestamp(after, dt.UTC))
    return None if at is None else at.timestamp()


def _fire(rule: Params, targets: list[Params]) -> None:
    account, region = rule["Arn"].split(":")[4], rule["Arn"].split(":")[3]
    event: dict[str, Any] = {
        "EventId": str(uuid.uuid4()),
        "Source": "aws.events",
        "DetailType": "Scheduled Event",
        "Detail": "{}",
        "EventBusName": rule.get("EventBusName", "default"),
        "Time": int(time.time()),
        "Resources": [rule["Arn"]],
        "Account": account,
        "Region": region,
    }
    for target in targets:
        eventbridge._invoke_target(target, event, rule, eventbridge._pattern_event_view(event))
