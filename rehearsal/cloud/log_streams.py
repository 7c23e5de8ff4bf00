"""CloudWatch log streams of jobs: lines are sent in batches, under the job's role."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.repeater import Repeater

log = logging.getLogger("rehearsal")
FLUSH_SECONDS = 0.25
BATCH = 1000


@dataclass
class LogStream:
    """One stream; without the permission to write it the lines are dropped, as in AWS, and the daemon's log says so."""

    client: Any
    group: str
    name: str
    _lines: list[tuple[int, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sending: threading.Lock = field(default_factory=threading.Lock)
    _ready: bool = False
    _refused: bool = False

    def write(self, line: str) -> None:
        with self._lock:
            self._lines.append((time.time_ns() // 1_000_000, line.rstrip("\n") or " "))

    def flush(self) -> None:
        """When it returns, all lines written before were sent, also those that another thread had taken to send."""
        with self._sending:
            with self._lock:
                lines, self._lines = self._lines, []
            if lines and not self._refused:
                try:
                    self._send(lines)
                except (BotoCoreError, ClientError) as error:
                    self._refused = True
                    log.warning("nothing more is logged to %s %s: %s", self.group, self.name, error)

    def _send(self, lines: list[tuple[int, str]]) -> None:
        if not self._ready:
            self._create()
            self._ready = True
        for start in range(0, len(lines), BATCH):
            events = [{"timestamp": at, "message": line} for at, line in lines[start : start + BATCH]]
            self.client.put_log_events(logGroupName=self.group, logStreamName=self.name, logEvents=events)

    def _create(self) -> None:
        missing, there = (
            self.client.exceptions.ResourceNotFoundException,
            self.client.exceptions.ResourceAlreadyExistsException,
        )
        with contextlib.suppress(there):
            try:
                self.client.create_log_stream(logGroupName=self.group, logStreamName=self.name)
            except missing:
                with contextlib.suppress(there):
                    self.client.create_log_group(logGroupName=self.group)
                self.client.create_log_stream(logGroupName=self.group, logStreamName=self.name)


class LogStreams:
    """Every open stream, flushed by one thread."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str, str], LogStream] = {}
        self._lock = threading.Lock()
        self._thread = Repeater("log-streams", self.flush, lambda: FLUSH_SECONDS)
        self._thread.start()

    def open(self, client: Any, group: str, name: str) -> LogStream:
        with self._lock:
            key = (client.meta.region_name, group, name)
            return self._streams.setdefault(key, LogStream(client, group, name))

    def flush(self) -> None:
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.flush()

    def close(self) -> None:
        self._thread.stop()
        self.flush()
