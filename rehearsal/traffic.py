"""Steady requests to an endpoint while something happens to it: how many were sent, how many failed, who answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType

import httpx

_TIMEOUT_SECONDS = 10.0


@dataclass
class Tally:
    """`sent` requests, of which `failed` got no 2xx answer; `answers` counts by the model package that answered."""

    sent: int = 0
    failed: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


class Traffic:
    """Sends one payload again and again, `per_second` times, until the block ends."""

    def __init__(self, url: str, payload: bytes, content_type: str, per_second: float = 20, workers: int = 4) -> None:
        self.tally = Tally()
        self._url, self._payload = f"{url}/invocations", payload
        self._headers = {"Content-Type": content_type, "Accept": "application/json"}
        self._pause = workers / per_second
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send_steadily, daemon=True) for _ in range(workers)]

    def __enter__(self) -> Tally:
        for thread in self._threads:
            thread.start()
        return self.tally

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_SECONDS + 5)

    def _send_steadily(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            while not self._over.is_set():
                began = time.monotonic()
                self._send(client)
                self._over.wait(max(0.0, self._pause - (time.monotonic() - began)))

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
