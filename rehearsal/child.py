"""A job's process: in a process group of its own, its output read line by line, ended with everything it started."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

Sink = Callable[[str], None]
Identity = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a process ended: by itself, at its time limit, or because it was stopped."""

    code: int
    reason: Literal["exited", "timeout", "stopped"]


class Child:
    """A running process; without `err` its standard error is part of its output."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], out: Sink, err: Sink | None = None
    ) -> None:
        self._stop = threading.Event()
        self._process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if err else subprocess.STDOUT,
            start_new_session=True,
        )
        self._pumps = [_pump(self._process.stdout, out)]
        if err:
            self._pumps.append(_pump(self._process.stderr, err))

    @property
    def identity(self) -> Identity:
        """What a later process needs to find this one again."""
        return {"pid": self._process.pid, "started": _started(self._process.pid)}

    def stop(self) -> None:
        self._stop.set()

    def wait(self, limit: float, grace: float) -> Ended:
        """Until it ends, at most `limit` seconds: then, or when stopped, SIGTERM, `grace` seconds, SIGKILL."""
        reason = self._outcome(limit)
        if reason != "exited":
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self._signal(signal.SIGKILL)  # also what it started and left behind, as the end of a container does
        code = self._process.wait()
        for pump in self._pumps:
            pump.join(10)
        return Ended(code, reason)

    def _outcome(self, limit: float) -> Literal["exited", "timeout", "stopped"]:
        deadline = time.monotonic() + limit
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
                return "exited"
            if self._stop.is_set():
                return "stopped"
            if time.monotonic() > deadline:
                return "timeout"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class Children:
    """The processes of a service's running jobs by the job's key."""

    def __init__(self) -> None:
        self.closing = False
        """The rehearsal is going down: what ends now was lost, not stopped."""
        self._running: dict[str, Child] = {}
        self._asked: set[str] = set()
        self._lock = threading.Lock()

    def add(self, key: str, child: Child) -> None:
        with self._lock:
            self._running[key] = child
            if self.closing or key in self._asked:
                child.stop()

    def asked(self, key: str) -> bool:
        """Whether the job was asked to stop (or everything was)."""
        return self.closing or key in self._asked

    def stop(self, key: str) -> None:
        """Stop the job, also if its process has not started yet."""
        with self._lock:
            self._asked.add(key)
            if child := self._running.get(key):
                child.stop()

    def done(self, key: str) -> None:
        with self._lock:
            self._running.pop(key, None)
            self._asked.discard(key)

    def stop_all(self) -> None:
        with self._lock:
            self.closing = True
            running = list(self._running.values())
        for child in running:
            end(child.identity)


def end(identity: Identity | None) -> None:
    """Kill the process group of `identity`, if that pid still is the process it was."""
    if identity and identity["started"] and _started(identity["pid"]) == identity["started"]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(identity["pid"], signal.SIGKILL)


@functools.cache
def isolation() -> tuple[str, ...]:
    """The command prefix that takes the network away from a process; empty where this machine does not permit it."""
    for prefix in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        if shutil.which(prefix[0]) and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    return ()


def _pump(stream: IO[bytes] | None, sink: Sink) -> threading.Thread:
    def read() -> None:
        with contextlib.closing(stream) as lines:  # type: ignore[type-var]
            for line in lines:  # type: ignore[union-attr]
                sink(line.decode("utf-8", "replace").rstrip("\r\n"))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _started(pid: int) -> str:
    """When the process began, as the system tells it; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    if Path("/proc/self").exists() or not shutil.which("ps"):
        return ""
    return subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
