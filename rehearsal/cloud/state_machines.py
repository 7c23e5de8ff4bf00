"""Step Functions: every task is a call over loopback, signed by the state machine's role."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ministack import app as ministack
from ministack.core.responses import get_account_id, get_region, now_iso
from ministack.services import stepfunctions

from rehearsal.cloud import integrations
from rehearsal.cloud.embedding import Credentials
from rehearsal.cloud.sdk_calls import TaskFailed
from rehearsal.service import Params, Permission, ServiceError

PRINCIPAL = "states.amazonaws.com"
MANAGED_RULE_ACTIONS = ("events:PutTargets", "events:PutRule", "events:DescribeRule")
UNCATCHABLE = ("States.Runtime", "States.DataLimitExceeded")

Assume = Callable[..., Credentials]
Signed = Callable[[str, Credentials], Any]
Decide = Callable[[Credentials, Permission], None]


@dataclass
class _Running:
    """The execution of this thread, and until when its current task may take."""

    execution: Params
    role: str
    deadline: float = field(default=float("inf"))

    def gone(self) -> bool:
        return self.execution["status"] != "RUNNING" or time.monotonic() > self.deadline


_running: contextvars.ContextVar[_Running | None] = contextvars.ContextVar("running_execution", default=None)


class StateMachines:
    """Replaces how ministack's state machines call services; the rest of its interpreter stays."""

    def __init__(self, assume: Assume, signed: Signed, decide: Decide) -> None:
        self._assume, self._signed, self._decide = assume, signed, decide

    def install(self) -> None:
        self._run_execution = stepfunctions._run_execution
        stepfunctions._run_execution = self._run
        stepfunctions._invoke_resource = self._invoke
        stepfunctions._invoke_resource_with_timeout = self._invoke_in_time
        stepfunctions._call_lambda = self._call_lambda
        # `.waitForTaskToken` goes through this table; one entry takes every integration.
        stepfunctions._SERVICE_DISPATCH.clear()
        stepfunctions._SERVICE_DISPATCH[integrations.ARN] = self._invoke
        stepfunctions._apply_state_assign = _apply_state_assign
        stepfunctions._apply_output_path = _succeed_with_output(stepfunctions._apply_output_path)
        stepfunctions._run_parallel_branches = _parallel(stepfunctions._run_parallel_branches)
        stepfunctions._error_matches = _catchable(stepfunctions._error_matches)
        stepfunctions._fail_execution = _fail_once(stepfunctions._fail_execution)

    def _run(self, execution_arn: str) -> None:
        execution = stepfunctions._executions.get(execution_arn)
        if execution is not None:
            role = execution["events"][0]["executionStartedEventDetails"]["roleArn"]
            _running.set(_Running(execution, role))
            _time_out_later(execution)
        self._run_execution(execution_arn)

    def _invoke(self, resource: str, arguments: Any) -> Any:
        if ":activity:" in resource:
            return stepfunctions._invoke_activity(resource, arguments)
        running = _running.get()
        if running is None:
            raise stepfunctions._ExecutionError("States.Runtime", f"{resource}: no execution is running here")
        try:
            who = self._credentials(running)
            return integrations.run(
                lambda service: self._signed(service, who),
                lambda rule: self._may_keep(who, rule),
                resource,
                arguments,
                running.gone,
            )
        except TaskFailed as failed:
            raise stepfunctions._ExecutionError(failed.error, failed.cause) from None

    def _credentials(self, running: _Running) -> Credentials:
        try:
            machine = running.execution["stateMachineArn"]
            return self._assume(running.role, PRINCIPAL, running.execution["name"][:64], get_region(), source=machine)
        except ServiceError as error:
            raise TaskFailed("States.TaskFailed", error.message) from None

    def _may_keep(self, who: Credentials, rule: str) -> None:
        arn = f"arn:aws:events:{get_region()}:{get_account_id()}:rule/{rule}"
        try:
            for action in MANAGED_RULE_ACTIONS:
                self._decide(who, Permission(action, arn))
        except ServiceError as error:
            raise TaskFailed("States.TaskFailed", f"the managed rule of .sync tasks: {error.message}") from None

    def _call_lambda(self, function: str, event: Any) -> Any:
        return self._invoke("arn:aws:states:::lambda:invoke", {"FunctionName": function, "Payload": event})["Payload"]

    def _invoke_in_time(self, resource: str, arguments: Any, timeout: Any) -> Any:
        if not isinstance(timeout, int | float):
            raise stepfunctions._ExecutionError("States.Runtime", "TimeoutSeconds as an expression is not rehearsed")
        running = _running.get()
        assert running is not None  # _invoke has refused already
        _running.set(_Running(running.execution, running.role, time.monotonic() + timeout))
        try:
            return _in_thread(self._invoke, resource, arguments, timeout)
        finally:
            _running.set(running)


def _in_thread(invoke: Callable[[str, Any], Any], resource: str, arguments: Any, timeout: float) -> Any:
    """The task's result, or States.Timeout when its time is over; a `.sync` task then stops its job itself."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(invoke, resource, arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name="task").start()
    try:
        return future.result(timeout)
    except TimeoutError:
        raise stepfunctions._ExecutionError("States.Timeout", f"the task took longer than {timeout} s") from None


def _time_out_later(execution: Params) -> None:
    """The state machine's own TimeoutSeconds, which ministack ignores."""
    machine = stepfunctions._state_machines.get(execution["stateMachineArn"]) or {}
    seconds = json.loads(machine.get("definition") or "{}").get("TimeoutSeconds")
    if not isinstance(seconds, int | float):
        return
    context, loop = contextvars.copy_context(), ministack._MAIN_LOOP
    # On the event loop: a thread per execution would wait for hours after most of them have ended.
    loop.call_soon_threadsafe(lambda: loop.call_later(seconds, context.run, _time_out, execution))


def _time_out(execution: Params) -> None:
    if execution["status"] == "RUNNING":
        execution.update(status="TIMED_OUT", stopDate=now_iso())
        stepfunctions._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
        stepfunctions._emit_execution_status_event(execution)


# -- the interpreter, where it differs from AWS -------------------------------------------------------


def _apply_state_assign(
    state: Params, raw_input: Any, ctx: Params | None = None, result: Any = None, error_output: Any = None
) -> None:
    """Every expression of an Assign sees the variables as they were; ministack lets it see its neighbours."""
    assign = state.get("Assign")
    if ctx is None or not isinstance(assign, dict) or stepfunctions._state_query_language(state, ctx) != "JSONata":
        return
    values = {
        name: stepfunctions._apply_jsonata_template(template, raw_input, ctx, result=result, error_output=error_output)
        for name, template in assign.items()
    }
    ctx.setdefault("variables", {}).update(values)


def _succeed_with_output(original: Callable[..., Any]) -> Callable[..., Any]:
    """A Succeed state's JSONata Output; ministack passes its input through."""

    def apply(state: Params, data: Any, ctx: Params | None = None) -> Any:
        if state.get("Type") == "Succeed" and stepfunctions._state_query_language(state, ctx) == "JSONata":
            return stepfunctions._apply_jsonata_output(state, data, ctx, default=data)
        return original(state, data, ctx)

    return apply


def _parallel(original: Callable[..., Any]) -> Callable[..., Any]:
    """A Parallel state's JSONata Arguments, Output and Assign; ministack knows the JSONPath fields only."""

    def run(state: Params, raw_input: Any, execution: Params, ctx: Params) -> Any:
        if stepfunctions._state_query_language(state, ctx) != "JSONata":
            return original(state, raw_input, execution, ctx)
        given = stepfunctions._apply_jsonata_arguments(state, raw_input, ctx)
        results, following = original(state, given, execution, ctx)
        output = stepfunctions._apply_jsonata_output(state, raw_input, ctx, result=results, default=results)
        _apply_state_assign(state, raw_input, ctx, result=results)
        return output, following

    return run


def _catchable(original: Callable[[list[str], str], bool]) -> Callable[[list[str], str], bool]:
    """States.ALL and States.TaskFailed don't cover the errors of the state machine itself."""

    def matches(error_equals: list[str], error: str) -> bool:
        return error in error_equals if error in UNCATCHABLE else original(error_equals, error)

    return matches


def _fail_once(original: Callable[[Params, str, str], None]) -> Callable[[Params, str, str], None]:
    """An execution that was stopped or timed out stays so, whatever its last task says."""

    def fail(execution: Params, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            original(execution, error, cause)

    return fail
