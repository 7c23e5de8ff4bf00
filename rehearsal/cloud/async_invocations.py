"""Lambda's asynchronous invocations: one queue and a few workers, so that a storm of events loses none."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

from ministack.core.responses import request_scope
from ministack.services import lambda_svc

from rehearsal.service import Params
from rehearsal.store import Store

log = logging.getLogger("rehearsal")
KIND = "lambda/event"
WORKERS = 8
"""Asynchronous executions at the same time; each function process takes some 60 MB."""
RETRIES, RETRY_SECONDS = 2, (60.0, 120.0)
LONGEST_SECONDS = 6 * 3600.0
THROTTLED_SECONDS, LONGEST_THROTTLED_SECONDS = 1.0, 300.0


@dataclass
class Waiting:
    """An event on its way to a function: `failed` executions, `throttled` attempts, both since `since`."""

    function: str
    event: Any
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    since: float = field(default_factory=time.time)
    failed: int = 0
    throttled: int = 0


class AsyncInvocations:
    """Replaces ministack's thread per event, which gives a throttled event up after two tries.

    What was accepted is on disk until it was handled: a restart goes on with it, and repeats what was running.
    """

    def __init__(self, store: Store, time_scale: float) -> None:
        self._store, self._time_scale = store, time_scale
        self._queue: list[tuple[float, int, Waiting]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def install(self) -> None:
        lambda_svc.invoke_async_with_retry = self.accept

    def start(self) -> None:
        """Take up what an earlier process had accepted."""
        for _, document in self._store.list(KIND):
            self._queue_up(Waiting(**document), 0.0)
        for number in range(WORKERS):
            threading.Thread(target=self._work, name=f"async-invocations-{number}", daemon=True).start()

    def accept(self, function: Params, event: Any) -> None:
        """Take the event; it is run as soon as a worker is free."""
        self._put(Waiting((function.get("config") or function)["FunctionArn"], event), 0.0)

    def _put(self, waiting: Waiting, seconds: float) -> None:
        self._store.put(KIND, waiting.id, asdict(waiting))
        self._queue_up(waiting, seconds)

    def _queue_up(self, waiting: Waiting, seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._queue, (time.time() + seconds, next(self._numbers), waiting))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            waiting = self._next()
            try:
                self._run(waiting)
            except Exception:
                log.exception("an asynchronous invocation of %s broke", waiting.function)
                self._store.delete(KIND, waiting.id)

    def _next(self) -> Waiting:
        with self._changed:
            while True:
                wait = self._queue[0][0] - time.time() if self._queue else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._queue)[2]
                self._changed.wait(wait)

    def _run(self, waiting: Waiting) -> None:
        _, _, _, region, account, _ = waiting.function.split(":", 5)
        with request_scope(account, region):
            function, config, name = lambda_svc._get_func_record_for_ref(waiting.function)
            if not function or not config:
                log.error("%s is gone; an event for it is dropped", name)
                self._store.delete(KIND, waiting.id)
                return
            record = lambda_svc._execution_record_for_config(function, config)
            result = lambda_svc._execute_function(record, waiting.event)
            if not result.get("error") or not self._again(waiting, record, config, result):
                self._store.delete(KIND, waiting.id)

    def _again(self, waiting: Waiting, record: Params, config: Params, result: Params) -> bool:
        """Whether the event waits for another attempt; otherwise it was given up."""
        if result.get("throttle"):
            waiting.throttled += 1
        else:
            waiting.failed += 1
        settings = _settings(record)
        pause = self._pause(waiting) / self._time_scale
        age = (time.time() + pause - waiting.since) * self._time_scale
        if waiting.failed > settings["MaximumRetryAttempts"] or age > settings["MaximumEventAgeInSeconds"]:
            _give_up(config, settings, waiting, result)
            return False
        self._put(waiting, pause)
        return True

    @staticmethod
    def _pause(waiting: Waiting) -> float:
        if waiting.failed:
            return RETRY_SECONDS[min(waiting.failed, len(RETRY_SECONDS)) - 1]
        return min(THROTTLED_SECONDS * 2.0 ** min(waiting.throttled - 1, 20), LONGEST_THROTTLED_SECONDS)


def _settings(function: Params) -> Params:
    given = function.get("event_invoke_config") or (function.get("event_invoke_configs") or {}).get("$LATEST") or {}
    stated = {name: value for name, value in given.items() if value is not None}
    return {"MaximumRetryAttempts": RETRIES, "MaximumEventAgeInSeconds": LONGEST_SECONDS, **stated}


def _give_up(config: Params, settings: Params, waiting: Waiting, result: Params) -> None:
    name = config["FunctionName"]
    log.error("%s could not handle an event after %d failures: %s", name, waiting.failed, str(result.get("body"))[:500])
    destination = (settings.get("DestinationConfig") or {}).get("OnFailure", {}).get("Destination")
    if queue := destination or (config.get("DeadLetterConfig") or {}).get("TargetArn"):
        lambda_svc._route_async_failure(queue, name, waiting.event, result)
