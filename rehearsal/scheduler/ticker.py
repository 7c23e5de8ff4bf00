"""The clock of the schedules: what is due is noted on disk first, then invoked; a restart goes on from the note."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from rehearsal.scheduler.expression import first_time, next_time
from rehearsal.scheduler.invocation import Failed, give_up, invoke, retry_at, started
from rehearsal.service import Cloud, Params

log = logging.getLogger("rehearsal")
SCHEDULE, INVOCATION = "scheduler/schedule", "scheduler/invocation"
LONGEST_SLEEP_SECONDS = 5.0
WORKERS = 8


def begin(document: Params) -> None:
    """Set when the schedule is due first; its time runs from its last modification, `time_scale` times as fast."""
    asked = document["asked"]
    zone, start = asked["ScheduleExpressionTimezone"], asked.get("StartDate")
    document["next"] = _within(asked, first_time(asked["ScheduleExpression"], zone, document["modified"], start))


class Ticker:
    """Looks for what is due, and sleeps until the next is."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._workers = ThreadPoolExecutor(WORKERS, "schedules")
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def wake(self) -> None:
        """Something changed: look again now."""
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                pause = self.tick(time.time())
            except Exception:
                log.exception("the schedules could not be looked at")
                pause = LONGEST_SLEEP_SECONDS
            self._woken.wait(min(max(pause, 0.01), LONGEST_SLEEP_SECONDS))

    def tick(self, now: float) -> float:
        """Invoke what is due; the seconds until something is due next."""
        soonest = now + LONGEST_SLEEP_SECONDS
        for key, document in self._cloud.store.list(SCHEDULE):
            due = self._due(document)
            if due is not None and due <= now:
                due = self._fire(key, document, now)
            soonest = min(soonest, due) if due is not None else soonest
        for execution, invocation in self._cloud.store.list(INVOCATION):
            if invocation["at"] > now:
                soonest = min(soonest, invocation["at"])
            else:
                self._submit(execution)
        return soonest - now

    def _due(self, document: Params) -> float | None:
        """The real time at which the schedule is due."""
        if document["next"] is None or document["asked"]["State"] != "ENABLED":
            return None
        wait = max(0.0, document["next"] - document["modified"])
        return float(document["modified"] + wait / self._cloud.time_scale)

    def _fire(self, key: str, seen: Params, now: float) -> float | None:
        """Note the invocation and when the schedule is due next; times that have passed meanwhile are left out."""
        execution, store = str(uuid.uuid4()), self._cloud.store
        with store.transaction():
            document = store.get(SCHEDULE, key)
            if document is None or document["modified"] != seen["modified"] or document["next"] != seen["next"]:
                return None
            asked, scheduled = document["asked"], document["next"]
            clock = document["modified"] + (now - document["modified"]) * self._cloud.time_scale
            zone = asked["ScheduleExpressionTimezone"]
            document["next"] = _within(asked, next_time(asked["ScheduleExpression"], zone, scheduled, clock))
            document["last"] = scheduled
            store.put(SCHEDULE, key, document)
            store.put(INVOCATION, execution, started(execution, key, scheduled, asked["Target"]))
        return self._due(document)

    def _submit(self, execution: str) -> None:
        with self._lock:
            if execution in self._busy:
                return
            self._busy.add(execution)
        self._workers.submit(self._invoke, execution)

    def _invoke(self, execution: str) -> None:
        try:
            invocation = self._cloud.store.get(INVOCATION, execution)
            if invocation is not None and not self._stopping.is_set():
                self._attempt(execution, invocation)
        except Exception:
            log.exception("invocation %s broke", execution)
            self._cloud.store.delete(INVOCATION, execution)
        finally:
            with self._lock:
                self._busy.discard(execution)
            self.wake()

    def _attempt(self, execution: str, invocation: Params) -> None:
        invocation["attempts"] += 1
        try:
            invoke(self._cloud, invocation)
        except Failed as failure:
            again = retry_at(invocation, time.time(), self._cloud.time_scale) if failure.again else None
            if again is not None:
                self._cloud.store.put(INVOCATION, execution, {**invocation, "at": again})
                return
            give_up(self._cloud, invocation, failure)
        self._complete(execution, invocation["schedule"])

    def _complete(self, execution: str, key: str) -> None:
        """The invocation is over; a schedule that has none to come goes too if it says so."""
        store = self._cloud.store
        with store.transaction():
            store.delete(INVOCATION, execution)
            document = store.get(SCHEDULE, key)
            over = document is not None and document["next"] is None and document.get("last") is not None
            if document is not None and over and document["asked"]["ActionAfterCompletion"] == "DELETE":
                store.delete(SCHEDULE, key)


def _within(asked: Params, due: float | None) -> float | None:
    """`due` unless the schedule's end comes first; one-time schedules have no end."""
    end = asked.get("EndDate")
    one_time = asked["ScheduleExpression"].startswith("at(")
    return None if due is not None and end is not None and not one_time and due > end else due
