"""Lambda: functions run in an environment that holds what the runtime holds, with their role's session and no more."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import subprocess
import time
from collections.abc import Callable
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from rehearsal.cloud.embedding import Credentials
from rehearsal.cloud.roles import Roles
from rehearsal.environments import interpreter, scrubbed
from rehearsal.service import Params, Permission, ServiceError, Unsupported

log = logging.getLogger("rehearsal")
PRINCIPAL = "lambda.amazonaws.com"
RUNTIMES = {"python3.11": "lambda-python3.11"}
_PLACE = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
_END = f"end of what was printed {secrets.token_hex(16)}"
"""Ends the last line that a function prints before it answers; no function prints it by itself."""
LAST_LINE_SECONDS = 30.0
"""How long the end is waited for once a function has answered or died: it is on its way, except where a function has
closed every file that it had open, or what it has started holds its stderr when it has died."""
_ANSWER = " " * 12 + "_real_stdout.write("
"""How ministack's worker begins an answer, in two places: with a result, and with an error."""
_PRINT_END = f"""
import contextlib, os, sys

_printed = os.dup(2)  # whatever the function does to its own

def _print_end():
    for stream in (sys.stdout, sys.stderr, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(OSError):
        os.write(_printed, b"{_END}\\n")
"""


class Functions:
    """Replaces the interpreter, the process environment and the logging of ministack's local functions."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    def install(self) -> None:
        lambda_runtime._detect_runtime_binary = _runtime
        lambda_runtime.subprocess = _Scrubbing()
        lambda_runtime.Worker = Worker
        self._credentials: Callable[[Params], dict[str, str]] = lambda_runtime.execution_credentials
        lambda_runtime.execution_credentials = lambda_svc.execution_credentials = self._trusted_credentials
        self._emit: Callable[..., None] = lambda_svc._emit_lambda_logs
        lambda_svc._emit_lambda_logs = self._emit_logs

    def _trusted_credentials(self, config: Params) -> dict[str, str]:
        self._roles.check_trust(config.get("Role", ""), PRINCIPAL, config.get("FunctionArn", ""))
        return self._credentials(config)

    def _emit_logs(
        self, function: Params, request_id: str, text: str, error: bool, milliseconds: int, **more: Any
    ) -> None:
        config = function.get("config") or function
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        account, region = config["FunctionArn"].split(":")[4], config["FunctionArn"].split(":")[3]
        stream = Permission("logs:PutLogEvents", f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:run")
        try:
            made = self._credentials(config)
            who = Credentials(made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"], account, region)
            self._roles.decide(who, stream)
        except ServiceError as refused:
            log.warning("%s leaves no log: %s", config["FunctionName"], refused.message)
            return
        self._emit(function, request_id, text, error, milliseconds, **more)


def _runtime(runtime: str) -> tuple[str, str]:
    if runtime not in RUNTIMES:
        raise Unsupported(f"the Lambda runtime {runtime} is not rehearsed; there is {', '.join(RUNTIMES)}")
    return str(interpreter(RUNTIMES[runtime])), _script()


def _script() -> str:
    """ministack's worker, which prints the end before each answer."""
    answering = f"{' ' * 12}_print_end()\n{_ANSWER}"
    return _PRINT_END + str(lambda_runtime._PYTHON_WORKER_SCRIPT).replace(_ANSWER, answering)


class Worker(lambda_runtime.Worker):  # type: ignore[misc]
    """Answers with all that the function has printed, or had when it died.

    ministack's waits 50 ms for the first line: on a busy machine lines came with the next answer, or never.
    """

    def _read_stderr(self) -> None:
        # This process's: the next one has a pipe and a queue of its own.
        printed, lines = self._proc.stderr.buffer, self._stderr_queue
        with contextlib.suppress(OSError, ValueError):  # it is closed
            for line in printed:
                lines.put(line.decode(errors="replace").rstrip("\n"))
        lines.put(_END)

    def _drain_stderr(self) -> str:
        lines, last, deadline = list[str](), "", time.monotonic() + LAST_LINE_SECONDS
        try:
            while not last.endswith(_END):
                last = self._stderr_queue.get(timeout=max(0.0, deadline - time.monotonic()))
                lines.append(last.removesuffix(_END))
        except queue.Empty:
            log.warning("%s: the end of what was printed did not come", self.func_name)
            if self._proc is not None:
                self._proc.kill()  # an end that comes still would be taken for the next one's
            return "\n".join(lines)
        # The end is a line of its own unless the function has left its last line open.
        return "\n".join(lines if lines[-1] else lines[:-1])

    def _drain_stderr_bounded(self) -> str:
        return self._drain_stderr()


class _Scrubbing:
    """The subprocess module for ministack's function runtime: children do not inherit the daemon's environment."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    @staticmethod
    def Popen(command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[Any]:
        own = {name: value for name, value in env.items() if name in _PLACE or os.environ.get(name) != value}
        return subprocess.Popen(command, env=scrubbed(**own), **options)
