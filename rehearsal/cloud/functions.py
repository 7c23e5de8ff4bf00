"""Lambda: functions run in an environment that holds what the runtime holds, with their role's session and no more."""

from __future__ import annotations

import logging
import os
import subprocess
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


class Functions:
    """Replaces the interpreter, the process environment and the logging of ministack's local functions."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    def install(self) -> None:
        lambda_runtime._detect_runtime_binary = _runtime
        lambda_runtime.subprocess = _Scrubbing()
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
    return str(interpreter(RUNTIMES[runtime])), lambda_runtime._PYTHON_WORKER_SCRIPT


class _Scrubbing:
    """The subprocess module for ministack's function runtime: children do not inherit the daemon's environment."""

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    @staticmethod
    def Popen(command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[Any]:
        own = {name: value for name, value in env.items() if name in _PLACE or os.environ.get(name) != value}
        return subprocess.Popen(command, env=scrubbed(**own), **options)
