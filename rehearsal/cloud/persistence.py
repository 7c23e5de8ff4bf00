"""ministack's state on disk: saved soon after it changed, repaired at start after a kill."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from ministack import app as ministack
from ministack.core import persistence
from ministack.core.responses import request_scope
from ministack.services import cloudformation, eventbridge, s3, stepfunctions
from ministack.services.cloudformation import changesets, handlers, stacks

from rehearsal.cloud.provisioning import MAKING
from rehearsal.service import Params

log = logging.getLogger("rehearsal")
SETTLE_SECONDS = 0.5
IDLE_FACTOR, MOST_IDLE_SECONDS = 30, 3.0
"""After a save that took t seconds, the next waits IDLE_FACTOR times t; so much a kill may take, and no more."""
LOST = "lost when the rehearsal stopped"
_FREQUENT = "PutMetricData"
"""Endpoints send it all the time; metrics are saved with the next other change, and when the rehearsal stops."""
LARGE = ("stepfunctions", "cloudwatch", "cloudformation")
"""Their `get_state` copies all they have and does no more. It is written at once; the copies are most of the work."""
_READING = ("get", "list", "describe", "head", "batchget", "lookup", "filter", "query", "scan", "receive")


class StateFiles:
    """Writes each of ministack's services to its own file when it has changed."""

    def __init__(self) -> None:
        self._written: dict[str, str] = {}
        self._dirty, self._hurry, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._saving = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="state-files", daemon=True)

    def install(self) -> None:
        self._watch_requests()
        self._watch_events()
        _fail_unwritten_objects()
        # The save at shutdown would write every file again, and swallow what goes wrong.
        ministack.save_all = lambda services: self.save()

    def start(self) -> None:
        self._thread.start()

    def changed(self) -> None:
        self._dirty.set()

    def close(self) -> None:
        self._closed.set()
        self._hurry.set()
        self._dirty.set()
        if self._thread.is_alive():
            self._thread.join(30)
        self.save()

    def save(self) -> None:
        with self._saving:
            for name, state in ministack._build_persistence_save_dict().items():
                try:
                    self._write(name, _content(name, state))
                except Exception:
                    log.exception("the state of %s could not be saved", name)

    def _write(self, name: str, content: str) -> None:
        digest = hashlib.sha256(content.encode()).hexdigest()
        if content and self._written.get(name) != digest:
            path = Path(persistence.STATE_DIR) / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(content)
            os.replace(partial, path)
            self._written[name] = digest

    def _run(self) -> None:
        while not self._closed.is_set():
            self._dirty.wait()
            self._closed.wait(SETTLE_SECONDS)
            self._dirty.clear()
            self._hurry.clear()
            began = time.monotonic()
            self.save()
            if self._closed.is_set():
                return  # `close` saves once more
            self._hurry.wait(min(MOST_IDLE_SECONDS, (time.monotonic() - began) * IDLE_FACTOR))

    def _watch_requests(self) -> None:
        dispatch: Callable[..., Awaitable[Any]] = ministack._dispatch_service_request

        async def watching(
            method: str, path: str, headers: dict[str, str], body: bytes, query: Params, request_id: str
        ) -> Any:
            answer = await dispatch(method, path, headers, body, query, request_id)
            if _changes(method, path, headers, body):
                self.changed()
            return answer

        ministack._dispatch_service_request = watching

    def _watch_events(self) -> None:
        """What ministack changes in the background (executions, stacks) it tells as events.

        A stack that has settled is saved without the wait: our services keep what it made at once, and a kill
        must not leave a stack that knows nothing of it."""
        put = eventbridge._put_events

        def watching(data: Params, allow_aws_source: bool = False) -> Any:
            self.changed()
            if any(_settled_stack(entry) for entry in data.get("Entries", [])):
                self._hurry.set()
            return put(data, allow_aws_source)

        eventbridge._put_events = watching


def _changes(method: str, path: str, headers: dict[str, str], body: bytes) -> bool:
    target = headers.get("x-amz-target", "").rpartition(".")[2] or path.partition("/operation/")[2]
    if not target and body.startswith(b"Action="):
        target = body[7:40].decode(errors="replace")
    if target == _FREQUENT:
        return False
    return not target.lower().startswith(_READING) if target else method not in ("GET", "HEAD")


def _settled_stack(event: Params) -> bool:
    if event.get("Source") != "aws.cloudformation":
        return False
    status = str(json.loads(event["Detail"]).get("status-details", {}).get("status", ""))
    return not status.endswith("_IN_PROGRESS")


def _content(name: str, state: Callable[[], Any]) -> str:
    """What the service's file holds, or nothing; read again when it changed meanwhile, for its dictionaries have no
    locks."""
    for _ in range(5):
        try:
            return _read(name, state)
        except RuntimeError:
            time.sleep(0.05)
    return _read(name, state)


def _read(name: str, state: Callable[[], Any]) -> str:
    payload = _uncopied(state) if name in LARGE else state()
    if payload is None:
        return ""
    document = {"__ministack_format__": persistence._state_format_version(name), "payload": payload}
    return json.dumps(document, default=persistence._json_default)


def _uncopied(state: Callable[[], Any]) -> Any:
    """What `state` makes copies of."""
    as_it_is = SimpleNamespace(deepcopy=lambda value: value)
    return FunctionType(state.__code__, {**state.__globals__, "copy": as_it_is})()


def _fail_unwritten_objects() -> None:
    """An S3 object that could not be written to disk is an error, not a warning after a 200."""
    write, persist = s3._atomic_write, s3._persist_object
    failed: contextvars.ContextVar[OSError | None] = contextvars.ContextVar("failed_write", default=None)

    def atomic_write(*args: Any, **options: Any) -> None:
        try:
            write(*args, **options)
        except OSError as error:
            failed.set(error)
            raise

    def persist_object(*args: Any, **options: Any) -> Any:
        failed.set(None)
        answer = persist(*args, **options)
        if (error := failed.get()) is not None:
            raise error
        return answer

    s3._atomic_write, s3._persist_object = atomic_write, persist_object


# -- repair at start ----------------------------------------------------------------------------------


def remember_previous_stacks() -> None:
    """An update keeps what it replaces on the stack's record, so that a later process can roll it back."""
    deploy = stacks._deploy_stack_async

    async def remembering(stack_name: str, *args: Any, **options: Any) -> None:
        stack = cloudformation._stacks[stack_name]
        stack["_previous"] = options.get("previous_stack")
        await deploy(stack_name, *args, **options)
        _forget_operation(stack)

    for module in (stacks, handlers, changesets):
        module._deploy_stack_async = remembering


def repair() -> None:
    """Begin to roll back what stacks were doing, and tell of executions that were running; call it off the event loop.

    Our services must have started: a rollback waits for endpoints, which would be in progress for ever. It may
    take as long as an endpoint bakes, so it goes on while the rehearsal answers, as a rollback in AWS does."""
    loop = ministack._MAIN_LOOP
    for (account, region, name), stack in list(cloudformation._stacks._data.items()):
        if stack.get("StackStatus", "").endswith("_IN_PROGRESS"):
            log.warning("stack %s was %s: %s", name, stack["StackStatus"], LOST)
            asyncio.run_coroutine_threadsafe(_in_scope(account, region, name, stack), loop)
    for (account, region, _), execution in list(stepfunctions._executions._data.items()):
        if execution.get("error") == "States.ServiceRestart":
            execution.update(error="Rehearsal.Stopped", cause=f"the execution was {LOST}")
            with request_scope(account, region):
                stepfunctions._emit_execution_status_event(execution)


async def _in_scope(account: str, region: str, name: str, stack: Params) -> None:
    with request_scope(account, region):
        if stack["StackStatus"].startswith("DELETE"):
            await stacks._delete_stack_async(name, stack["StackId"])
        else:
            await stacks._roll_back_operation(
                name, stack["StackId"], stack, _interrupted(stack), f"The operation was {LOST}."
            )
    stack["StackStatusReason"] = stack.get("StackStatusReason") or f"the operation was {LOST}"
    _forget_operation(stack)


def _forget_operation(stack: Params) -> None:
    """Only once it has ended, rollback included: a second kill must find what the first one did."""
    stack.pop("_previous", None)
    stack.pop(MAKING, None)


def _interrupted(stack: Params) -> Params:
    """What ministack's rollback needs to know of the operation that did not end."""
    previous = stack.get("_previous")
    before = (previous or {}).get("_resources", {})
    known = stack.setdefault("_resources", {})
    for name, record in stack.get(MAKING, {}).items():
        known[name] = {"Attributes": {}, **known.get(name, {}), **record}
    made = [name for name, record in stack.get("_resources", {}).items() if record != before.get(name)]
    body = stack.get("_template_body", "")
    template = json.loads(body) if body.startswith("{") else stack.get("_template")
    operation: Params = stacks._failed_operation(
        previous is not None,
        previous,
        made,
        None,
        None,
        [],
        False,
        template,
        stack.get("_resolved_params", {}),
        False,
        stack.get("Tags") or [],
        (previous or {}).get("Tags") or [],
    )
    return operation
