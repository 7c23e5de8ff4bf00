"""One shell that lives as long as a build, fed with one command at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

# The shell reads the name of the next command's file from descriptor 3 and answers with its exit status on 4;
# commands see neither. A command that ends the shell leaves environment and directory for the next shell.
_LOOP = """
trap 'env -0 > "$0/environment"; pwd > "$0/directory"' EXIT
while IFS= read -r __next <&3; do
  . "$__next" </dev/null 3<&- 4>&-
  echo "$?" >&4
done
"""
TIMED_OUT, STOPPED = "TIMED_OUT", "STOPPED"


class Interrupted(Exception):
    """The build's time is up, or somebody stopped it."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Shell:
    """Runs commands in `directory`; every line they print goes to `tell`."""

    def __init__(
        self,
        program: str,
        directory: Path,
        private: Path,
        environment: dict[str, str],
        tell: Callable[[str], None],
        deadline: float,
    ) -> None:
        self._program, self._directory, self._private, self._tell = program, directory, private, tell
        self._environment, self._deadline = environment, deadline
        self._process: subprocess.Popen[bytes] | None = None
        self._stop, self._told = threading.Event(), threading.Event()
        self._mark = f"\0{uuid.uuid4()}\n".encode()
        self._count = 0

    def run(self, command: str) -> int:
        """Exit status of `command`; Interrupted if the time is up or `stop` was called."""
        process = self._living()
        self._count += 1
        place = self._private / f"command-{self._count}"
        place.write_text(command + "\n")
        try:
            os.write(self._orders, f"{place}\n".encode())
            status = self._status(process)
        except BrokenPipeError:
            status = process.wait()
        self._drain()
        return status

    def exported(self, names: tuple[str, ...]) -> dict[str, str]:
        """The values these variables have now."""
        values = {}
        for name in names:
            place = self._private / "exported"
            place.unlink(missing_ok=True)
            self.run(f'printf %s "${{{name}-}}" > {place}')
            values[name] = place.read_text() if place.exists() else ""
        return values

    def stop(self) -> None:
        """End the command that runs, from another thread."""
        self._stop.set()

    def close(self) -> None:
        """End the shell and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._orders)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(self._printing)
        self._reader.join(5)  # no longer: what left the shell's session may still hold the other end
        os.close(self._answers)
        os.close(self._leash)

    def _living(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        if self._process is not None:
            self.close()
            self._inherit()
        orders, self._orders = _pipe()
        self._answers, answers = _pipe()
        leash, self._leash = _pipe()
        printed, self._printing = _pipe()
        # 3 and 4 are put in place by a small shell: Popen can only keep numbers, not choose them. Beside it waits
        # a watcher that ends everything when this process dies, since nobody else would.
        watcher = f"( exec {orders}<&- {answers}>&-; read -r _ <&{leash}; kill -9 0 ) >/dev/null 2>&1 &"
        plumbing = f'{watcher} exec "$1" -c "$2" "$3" 3<&{orders} 4>&{answers} {orders}<&- {answers}>&- {leash}<&-'
        try:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", plumbing, "plumbing", self._program, _LOOP, str(self._private)],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=self._printing,
                stderr=subprocess.STDOUT,
                pass_fds=(orders, answers, leash),
                start_new_session=True,
            )
        finally:
            for descriptor in (orders, answers, leash):
                os.close(descriptor)
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(printed, "rb"),), daemon=True)
        self._reader.start()
        return self._process

    def _inherit(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            rows = (self._private / "environment").read_bytes().decode().split("\0")
            self._environment = dict(row.split("=", 1) for row in rows if "=" in row)
            self._directory = Path((self._private / "directory").read_text().rstrip("\n"))

    def _status(self, process: subprocess.Popen[bytes]) -> int:
        while True:
            if self._stop.is_set():
                self._kill(process, STOPPED)
            if time.time() > self._deadline:
                self._kill(process, TIMED_OUT)
            if _readable(self._answers, 0.1):
                answer = os.read(self._answers, 64)
                return int(answer) if answer else process.wait()
            if process.poll() is not None:  # a background process may hold the other end open
                return process.returncode

    def _kill(self, process: subprocess.Popen[bytes], status: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Interrupted(status)

    def _read(self, printed: IO[bytes]) -> None:
        with printed, contextlib.suppress(ValueError, OSError):
            for line in printed:
                text = line.removesuffix(self._mark)
                if text:
                    self._tell(text.decode(errors="replace").rstrip("\n"))
                if text != line:
                    self._told.set()

    def _drain(self) -> None:
        """Wait until all that a command printed was told: a mark after it in the same pipe has arrived."""
        self._told.clear()
        os.write(self._printing, self._mark)
        while self._reader.is_alive() and not self._told.wait(0.1):
            pass


def _readable(descriptor: int, seconds: float) -> bool:
    """Unlike select, poll takes descriptors above 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _pipe() -> tuple[int, int]:
    """A pipe with numbers well above 3 and 4, which the shell uses itself."""
    ends = os.pipe()
    high = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 20), fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 20)
    for end in ends:
        os.close(end)
    return high
