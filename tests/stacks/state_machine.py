"""Runs a JSONata state machine definition with answers given for its tasks, by the language's own rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import jsonata

Answer = Any | Exception
TOO_LARGE = "States.DataLimitExceeded"
BEGAN = "2013-03-01T06:00:00.000Z"
RUN = "flight-delay-0f0e2a5e-54d5-4c0b-9a5c-6f3f6f9d2b11"


class TaskFailed(Exception):
    """A task that fails with an error name and a cause."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(error)
        self.error, self.cause = error, cause


class Timing(Protocol):
    """A clock on which an execution waits; without one, a wait takes no time."""

    def now(self) -> str: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass
class Execution:
    """What happened: the states in order, each task's arguments, and how it ended."""

    states: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    output: Any = None
    error: str = ""
    cause: str = ""
    timing: Timing | None = None


def evaluate(text: str, states: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    """One expression; like Step Functions, an undefined result is an error and null is not."""
    bindings = {name: jsonata.utils.Utils.NULL_VALUE if value is None else value for name, value in variables.items()}
    bindings["states"] = dict(states)

    def run(source: str) -> Any:
        parsed = jsonata.Jsonata.jsonata(source)
        parsed.register_lambda("parse", _parse)
        parsed.register_lambda("hash", _hash)
        return parsed.evaluate(None, dict(bindings))

    value = run(text)
    if value is None and not run(f"$exists(({text}))"):
        raise ValueError(f"undefined: {text}")
    return value


def _parse(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _hash(text: str, algorithm: str) -> str:
    return hashlib.new(algorithm.replace("-", ""), text.encode()).hexdigest()


def fill(template: Any, states: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    if isinstance(template, str) and template.startswith("{%") and template.endswith("%}"):
        return evaluate(template[2:-2].strip(), states, variables)
    if isinstance(template, dict):
        return {key: fill(value, states, variables) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, states, variables) for value in template]
    return template


def run(definition: Mapping[str, Any], state_input: Any, answers: Mapping[str, Answer | Callable[[Any], Answer]],
        name: str = RUN, began: str = BEGAN, timing: Timing | None = None) -> Execution:  # fmt: skip
    """Run to the end; `answers` gives a task state's result, an exception, or a function of its arguments."""
    execution, current, given = Execution(timing=timing), definition["StartAt"], state_input
    context = {
        "Execution": {
            "Name": name,
            "Id": f"arn:aws:states:::execution:{name}",
            "Input": state_input,
            "StartTime": timing.now() if timing else began,
        }
    }
    while current:
        current, given = _enter(definition["States"], current, given, context, execution, answers)
    return execution


def _enter(states: Mapping[str, Any], name: str, given: Any, context: Mapping[str, Any], execution: Execution,
           answers: Mapping[str, Any]) -> tuple[str, Any]:  # fmt: skip
    execution.states.append(name)
    seen = {"input": given, "context": {**context, "State": {"Name": name, "EnteredTime": _entered(execution)}}}
    return _step(name, states[name], seen, execution, answers)


def _entered(execution: Execution) -> str:
    if execution.timing:
        return execution.timing.now()
    entered = datetime.fromisoformat(BEGAN) + timedelta(milliseconds=len(execution.states))
    return entered.isoformat().replace("+00:00", "Z")


def _step(name: str, state: Mapping[str, Any], seen: dict[str, Any], execution: Execution,
          answers: Mapping[str, Any]) -> tuple[str, Any]:  # fmt: skip
    kind = state["Type"]
    if kind == "Choice":
        return _choose(state, seen, execution)
    if kind == "Fail":
        execution.status = "FAILED"
        execution.error, execution.cause = (fill(state[key], seen, execution.variables) for key in ("Error", "Cause"))
        return "", None
    if kind == "Task":
        return _call(name, state, seen, execution, answers)
    if kind == "Map":
        return _map(name, state, seen, execution, answers)
    if kind == "Wait" and execution.timing:
        execution.timing.sleep(state["Seconds"])
    output = fill(state["Output"], seen, execution.variables) if "Output" in state else seen["input"]
    _assign(state, seen, execution)
    if kind == "Succeed":
        execution.status, execution.output = "SUCCEEDED", output
        return "", None
    return state["Next"], output


def _choose(state: Mapping[str, Any], seen: dict[str, Any], execution: Execution) -> tuple[str, Any]:
    for choice in state["Choices"]:
        chosen = fill(choice["Condition"], seen, execution.variables)
        assert isinstance(chosen, bool), choice
        if chosen:
            _assign(choice, seen, execution)
            return choice["Next"], seen["input"]
    _assign(state, seen, execution)
    return state["Default"], seen["input"]


def _call(name: str, state: Mapping[str, Any], seen: dict[str, Any], execution: Execution,
          answers: Mapping[str, Any]) -> tuple[str, Any]:  # fmt: skip
    def result() -> Any:
        arguments = execution.arguments[name] = fill(state["Arguments"], seen, execution.variables)
        answer = answers.get(name, {})
        found = answer(arguments) if callable(answer) else answer
        if isinstance(found, Exception):
            raise found
        return found

    return _ended(state, seen, execution, result)


def _map(name: str, state: Mapping[str, Any], seen: dict[str, Any], execution: Execution,
         answers: Mapping[str, Any]) -> tuple[str, Any]:  # fmt: skip
    """One item after the other; what fails within and is not caught there fails the map."""
    inner = state["ItemProcessor"]

    def each(item: Any) -> Any:
        current, given = inner["StartAt"], item
        while current:
            current, given = _enter(inner["States"], current, given, seen["context"], execution, answers)
        return given

    return _ended(state, seen, execution,
                  lambda: [each(item) for item in fill(state["Items"], seen, execution.variables)])  # fmt: skip


def _ended(state: Mapping[str, Any], seen: dict[str, Any], execution: Execution,
           result: Callable[[], Any]) -> tuple[str, Any]:  # fmt: skip
    try:
        seen = {**seen, "result": result()}
        output = fill(state["Output"], seen, execution.variables) if "Output" in state else seen["result"]
        _assign(state, seen, execution)
    except Exception as failed:
        if "Catch" not in state:
            raise
        return _caught(state, seen, execution, failed)
    return "" if state.get("End") else state["Next"], output


def _caught(state: Mapping[str, Any], seen: dict[str, Any], execution: Execution, failed: Exception) -> tuple[str, Any]:
    told = {"Error": getattr(failed, "error", "States.QueryEvaluationError"),
            "Cause": getattr(failed, "cause", str(failed))}  # fmt: skip
    # Step Functions does not count an answer that is too large among ALL.
    caught = {told["Error"]} if told["Error"] == TOO_LARGE else {told["Error"], "States.ALL"}
    catch = next(catch for catch in state["Catch"] if caught & set(catch["ErrorEquals"]))
    _assign(catch, {**seen, "errorOutput": told}, execution)
    return catch["Next"], told


def _assign(state: Mapping[str, Any], seen: Mapping[str, Any], execution: Execution) -> None:
    values = fill(state.get("Assign", {}), seen, execution.variables)
    execution.variables.update(values)
