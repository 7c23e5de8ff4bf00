"""Steady requests to an endpoint while something happens to it: how many were sent, how many failed, who answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import httpx

_TIMEOUT_SECONDS = 70.0
"""Longer than SageMaker waits for a model: an answer that is late is not lost."""


@dataclass
class Tally:
    """`sent` requests, of which `failed` got no 2xx answer; by the model package that answered, how often it did
    and when it did first. `at_peak` of them were sent in the `peak_seconds` of the full load."""

    sent: int = 0
    failed: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    first: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    at_peak: int = 0
    peak_seconds: float = 0.0

    @property
    def peak(self) -> float:
        """Requests a second under full load."""
        return self.at_peak / self.peak_seconds if self.peak_seconds else 0.0

    def add(self, other: Tally) -> None:
        self.sent, self.failed = self.sent + other.sent, self.failed + other.failed
        self.at_peak, self.peak_seconds = self.at_peak + other.at_peak, self.peak_seconds + other.peak_seconds
        self.answers.update(other.answers)
        self.first = {**other.first, **self.first}
        self.errors += other.errors


class Traffic:
    """Sends one payload again and again until the block ends: `per_second` times, and `peak` times a second for as
    long as `busy` says so."""

    def __init__(
        self,
        url: str,
        payload: bytes,
        content_type: str,
        per_second: float = 20,
        workers: int = 4,
        *,
        peak: float = 0,
        busy: Callable[[], bool] | None = None,
    ) -> None:
        self.tally = Tally()
        self._url, self._payload = f"{url}/invocations", payload
        self._headers = {"Content-Type": content_type, "Accept": "application/json"}
        self._rate, self._peak, self._busy, self._workers = per_second, peak, busy, workers
        self._at_peak = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send_steadily, daemon=True) for _ in range(workers)]
        if busy is not None:
            self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def __enter__(self) -> Tally:
        for thread in self._threads:
            thread.start()
        return self.tally

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_SECONDS + 5)

    def _watch(self) -> None:
        assert self._busy is not None
        while not self._over.wait(0.5):
            began, before = time.monotonic(), self.tally.sent
            if not self._busy():
                self._at_peak.clear()
                continue
            if self._at_peak.is_set():  # the first moments, in which the load grows, are none of the peak
                self._over.wait(0.5)
                self.tally.peak_seconds += time.monotonic() - began
                self.tally.at_peak += self.tally.sent - before
            self._at_peak.set()

    def _send_steadily(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            due = time.monotonic()
            while not self._over.is_set():
                # A late request is made up for, but not a whole second of them.
                due = max(due, time.monotonic() - 1) + self._workers / (
                    self._peak if self._at_peak.is_set() else self._rate
                )
                self._send(client)
                self._over.wait(max(0.0, due - time.monotonic()))

    def _send(self, client: httpx.Client) -> None:
        error, package = "", ""
        try:
            answer = client.post(self._url, content=self._payload, headers=self._headers)
            package = answer.headers.get("x-rehearsal-model-package", "")
            if not answer.is_success:
                error = f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as problem:
            error = f"{type(problem).__name__}: {problem}"
        with self._lock:
            self.tally.sent += 1
            if error:
                self.tally.failed += 1
                self.tally.errors.append(error)
            else:
                self.tally.answers[package] += 1
                self.tally.first.setdefault(package, time.time())
