"""Moves executions through the stages of their pipeline."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.codepipeline import events
from rehearsal.codepipeline.actions import Action, ActionFailed
from rehearsal.codepipeline.declaration import in_order, resolve
from rehearsal.git import GitError
from rehearsal.service import Caller, Cloud, Params, ServiceError

EXECUTION, ACTION = "codepipeline/execution", "codepipeline/action"
ENDED = ("Succeeded", "Failed", "Stopped", "Superseded")
log = logging.getLogger("rehearsal")


class Halted(Exception):
    """The execution is over before its last stage: its document says how."""


class Engine:
    """One thread per execution that runs or waits; all state is in the store."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._threads: dict[str, threading.Thread] = {}
        self._turn = threading.Condition()
        self._ending = False

    # -- starting and ending ----------------------------------------------------------------------------

    def launch(self, key: str) -> None:
        thread = threading.Thread(target=self._run, args=(key,), name=f"pipeline {key[-36:]}", daemon=True)
        self._threads[key] = thread
        thread.start()

    def resume(self) -> None:
        """Go on with every execution that an earlier process left."""
        for key, execution in self.cloud.store.list(EXECUTION):
            if execution["status"] not in ENDED:
                self.launch(key)

    def shut_down(self) -> None:
        """Leave executions where they are; the next process resumes them."""
        self._ending = True
        with self._turn:
            self._turn.notify_all()
        for thread in list(self._threads.values()):
            thread.join(5)

    def wake(self) -> None:
        with self._turn:
            self._turn.notify_all()

    # -- one execution ----------------------------------------------------------------------------------

    def _run(self, key: str) -> None:
        try:
            for stage in self._execution(key)["declaration"]["stages"]:
                if self._execution(key)["stages"].get(stage["name"]) == "Succeeded":
                    continue
                self._enter(key, stage["name"])
                self._stage(key, stage)
            self._end(key, "Succeeded")
        except Halted:
            pass
        except Exception as error:
            if not self._ending:
                log.exception("pipeline execution %s", key)
                self._end(key, "Failed", f"{type(error).__name__}: {error}")
        finally:
            self._threads.pop(key, None)
            self.wake()

    def _enter(self, key: str, stage: str) -> None:
        """Wait until the stage is free; a newer execution that waits for it too supersedes this one."""
        with self._turn:
            if self._execution(key).get("in") == stage:
                return
            self._change(key, waits=stage, **{"in": None})
            self._keep_newest(key, stage)
            self._turn.notify_all()
            while not self._admitted(key, stage):
                self._turn.wait(1)
            self._change(key, waits=None, **{"in": stage})
            self._set_stage(key, stage, "InProgress")
            self._keep_newest(key, stage)

    def _keep_newest(self, key: str, stage: str) -> None:
        """Of those that wait for a stage while another is in it, the newest supersedes the rest."""
        going = self._going(key)
        if not any(execution.get("in") == stage for _, execution in going):
            return  # free: whoever waits is on the way into it
        waiting = sorted(
            (execution["number"], waits)
            for waits, execution in going
            if execution.get("waits") == stage and execution["status"] != "Stopping"
        )
        for _, superseded in waiting[:-1]:
            self._end(superseded, "Superseded", f"superseded by {waiting[-1][1][-36:]}")

    def _admitted(self, key: str, stage: str) -> bool:
        execution = self._execution(key)
        if self._ending or execution["status"] in ENDED:
            raise Halted
        if execution["status"] == "Stopping":
            self._end(key, "Stopped", execution.get("stop"))
            raise Halted
        others = [other for waits, other in self._going(key) if waits != key]
        # Each execution has a thread of its own, and the older one's may come later: nobody passes it for that.
        return not any(other.get("in") == stage or _comes_first(other, execution, stage) for other in others)

    def _going(self, key: str) -> list[tuple[str, Params]]:
        """The executions of this one's pipeline that are not over, itself among them."""
        pipeline = key.rpartition("/")[0]
        return [
            (k, e)
            for k, e in self.cloud.store.list(EXECUTION)
            if k.rpartition("/")[0] == pipeline and e["status"] not in ENDED
        ]

    def _stage(self, key: str, stage: Params) -> None:
        groups: dict[int, list[Params]] = {}
        for action in in_order(stage):
            groups.setdefault(int(action.get("runOrder", 1)), []).append(action)
        for group in groups.values():
            self._together(key, stage["name"], group)
            failed = [d for a in group if (d := self._latest(key, stage["name"], a["name"]))["status"] == "Failed"]
            execution = self._execution(key)
            if execution["status"] in ENDED:
                raise Halted
            if execution["status"] == "Stopping":
                self._set_stage(key, stage["name"], "Stopped")
                self._end(key, "Stopped", execution.get("stop"))
                raise Halted
            if failed:
                self._set_stage(key, stage["name"], "Failed")
                reasons = [f"{d['action']}: {d['error']['message']}" for d in failed]
                self._end(key, "Failed", "\n".join(reasons))
                raise Halted
        self._set_stage(key, stage["name"], "Succeeded")

    def _together(self, key: str, stage: str, group: list[Params]) -> None:
        """Actions of one runOrder side by side."""
        threads = [
            threading.Thread(target=self._action, args=(key, stage, action), daemon=True) for action in group[1:]
        ]
        for thread in threads:
            thread.start()
        self._action(key, stage, group[0])
        for thread in threads:
            thread.join()
        if self._ending:
            raise Halted

    # -- one action -------------------------------------------------------------------------------------

    def _action(self, key: str, stage: str, declared: Params) -> None:
        document = self._latest(key, stage, declared["name"]) or self._begin(key, stage, declared)
        if document["status"] != "InProgress":
            return
        try:
            made = self._prepared(key, document, declared).run()
        except Halted:
            return
        except Exception as error:
            if not self._ending:
                self._failed(key, document["id"], *_reason(error))
            return
        self._succeeded(key, document["id"], declared, made)

    def _begin(self, key: str, stage: str, declared: Params) -> Params:
        execution, now = self._execution(key), time.time()
        document = {
            "id": str(uuid.uuid4()),
            "execution": key,
            "stage": stage,
            "action": declared["name"],
            "started": now,
            "updated": now,
            "status": "InProgress",
            "version": execution["version"],
            "external": "",
            "inputs": [execution["artifacts"][item["name"]] for item in declared.get("inputArtifacts", [])],
            "declared": declared,
        }
        self.cloud.store.put(ACTION, document["id"], document)
        self._told(document, "STARTED")
        return document

    def _prepared(self, key: str, document: Params, declared: Params) -> Action:
        execution = self._execution(key)
        known = {
            **execution["namespaces"],
            "variables": execution["variables"],
            "codepipeline": {"PipelineExecutionId": execution["id"]},
        }
        try:
            configuration = resolve(declared.get("configuration", {}), known)
        except KeyError as error:
            raise ActionFailed("ConfigurationError", f"{error.args[0]} has no value") from None
        self._change_action(document["id"], resolved=configuration)

        def going() -> bool:
            if self._ending:
                raise Halted
            return not self._execution(key).get("abandon")

        return Action(
            self.cloud,
            _caller(key),
            execution["declaration"],
            declared,
            document["id"],
            configuration,
            document["inputs"],
            document["external"],
            lambda external: self._change_action(document["id"], external=external),
            going,
        )

    def _succeeded(self, key: str, action_id: str, declared: Params, made: Params) -> None:
        def keep(execution: Params) -> None:
            execution["artifacts"].update({item["name"]: item for item in made["artifacts"]})
            if declared.get("namespace"):
                execution["namespaces"][declared["namespace"]] = made["variables"]
            if "revision" in made:
                execution["revisions"].append(
                    {"actionName": declared["name"], "revisionId": made["revision"], "revisionSummary": made["summary"]}
                )

        with self.cloud.store.transaction():
            self.cloud.store.update(EXECUTION, key, keep)
            document = self._change_action(
                action_id,
                status="Succeeded",
                outputs=made["artifacts"],
                variables=made["variables"],
                summary=made["summary"],
            )
        self._told(document, "SUCCEEDED")

    def _failed(self, key: str, action_id: str, code: str, message: str) -> None:
        self._told(self._change_action(action_id, status="Failed", error={"code": code, "message": message}), "FAILED")

    # -- state ------------------------------------------------------------------------------------------

    def _latest(self, key: str, stage: str, action: str) -> Params:
        """The action's execution in this pipeline execution, or an empty mapping."""
        rows = [
            d
            for _, d in self.cloud.store.list(ACTION)
            if (d["execution"], d["stage"], d["action"]) == (key, stage, action)
        ]
        return rows[-1] if rows else {}

    def _execution(self, key: str) -> Params:
        execution = self.cloud.store.get(EXECUTION, key)
        if execution is None:  # its pipeline was deleted
            raise Halted
        return execution

    def _change(self, key: str, **changes: Any) -> Params:
        return self.cloud.store.update(EXECUTION, key, lambda d: d.update(changes, updated=time.time()))

    def _change_action(self, action_id: str, **changes: Any) -> Params:
        return self.cloud.store.update(ACTION, action_id, lambda d: d.update(changes, updated=time.time()))

    def _set_stage(self, key: str, stage: str, status: str) -> None:
        execution = self.cloud.store.update(
            EXECUTION, key, lambda d: (d["stages"].update({stage: status}), d["entered"].setdefault(stage, time.time()))
        )
        events.stage(self.cloud, _caller(key), execution, stage, status)

    def _end(self, key: str, status: str, why: str | None = None) -> None:
        with self._turn:
            execution = self._change(key, status=status, summary=why, waits=None, **{"in": None})
            self._turn.notify_all()
        events.pipeline(self.cloud, _caller(key), execution, status)

    def _told(self, document: Params, state: str) -> None:
        execution = self.cloud.store.get(EXECUTION, document["execution"])
        if execution is not None:
            events.action(self.cloud, _caller(document["execution"]), execution, document, state)


def _comes_first(other: Params, execution: Params, stage: str) -> bool:
    """Whether an older execution has yet to enter the stage; after a change its pipeline may not have had it."""
    declared = any(each["name"] == stage for each in other["declaration"]["stages"])
    return bool(other["number"] < execution["number"]) and declared and stage not in other["stages"]


def _caller(key: str) -> Caller:
    parts = key.split(":")
    return Caller(parts[4], parts[3])


def _reason(error: Exception) -> tuple[str, str]:
    """Error code and message as the action's details show them."""
    if isinstance(error, ActionFailed):
        return error.code, str(error)
    if isinstance(error, ClientError):
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        denied = "AccessDenied" in code or code == "Forbidden"
        return ("PermissionError" if denied else "ConfigurationError"), f"{error.operation_name}: {code}: {message}"
    if isinstance(error, ServiceError):
        return ("PermissionError" if "AccessDenied" in error.code else "ConfigurationError"), str(error)
    if isinstance(error, GitError | BotoCoreError | OSError):
        return "SystemUnavailable", f"{type(error).__name__}: {error}"
    log.error("an action failed unexpectedly", exc_info=error)
    return "InternalError", f"{type(error).__name__}: {error}"
