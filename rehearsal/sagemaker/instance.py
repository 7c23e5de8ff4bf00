"""An instance behind an endpoint: one model server process, and how it is ended."""

from __future__ import annotations

import contextlib
import http.client
import logging
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger("rehearsal")
STOP_SECONDS = 35
"""A little more than the model server's own grace for requests in flight."""
SETTLE_SECONDS = 0.1
"""For a request that was just given to an instance to be counted as in flight there."""
PING_SECONDS, MOST_UNANSWERED = 5.0, 5
"""SageMaker asks for as long as an instance serves; it does not say how often, nor when it gives an instance up."""


@dataclass
class Instance:
    """One server process and the requests it is serving now."""

    id: str
    port: int
    process: subprocess.Popen[bytes]
    in_flight: int = 0
    stopping: bool = False
    follower: threading.Thread | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=8))

    def alive(self) -> bool:
        return self.process.poll() is None

    def healthy(self) -> bool:
        """Whether /ping answers 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def end_the_hung(serving: Callable[[], list[Instance]], over: threading.Event) -> None:
    """Ask each instance for /ping until it is over; one that has stopped answering is killed, as if it had died."""
    unanswered: Counter[str] = Counter()
    while not over.wait(PING_SECONDS):
        for instance in serving():
            if instance.stopping or instance.healthy():
                del unanswered[instance.id]
                continue
            unanswered[instance.id] += 1
            if unanswered[instance.id] >= MOST_UNANSWERED:
                log.warning("instance %s has stopped answering /ping", instance.id)
                instance.process.kill()


def drain_all(instances: list[Instance]) -> None:
    """Wait until none of them serves a request any more; the router has stopped sending them any."""
    time.sleep(SETTLE_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while any(instance.in_flight for instance in instances) and time.monotonic() < deadline:
        time.sleep(0.02)


def stop_all(instances: list[Instance]) -> None:
    """Ask each to finish what it serves and go; insist after the grace period."""
    for instance in instances:
        end(instance)
    deadline = time.monotonic() + STOP_SECONDS
    for instance in instances:
        with contextlib.suppress(subprocess.TimeoutExpired):
            instance.process.wait(max(0.1, deadline - time.monotonic()))
        if instance.alive():
            instance.process.kill()
        if instance.follower is not None:
            instance.follower.join()


def end(instance: Instance) -> None:
    """Ask an instance to finish what it serves and go."""
    instance.stopping = True
    with contextlib.suppress(ProcessLookupError):
        instance.process.send_signal(signal.SIGTERM)
