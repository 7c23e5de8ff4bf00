"""EventBridge Scheduler's API: schedules and their groups, kept on disk with when each is due next."""

from __future__ import annotations

import re
import time
from typing import Any

from rehearsal.rest_json import RestJsonService
from rehearsal.scheduler.expression import InvalidExpression, first_time, is_one_time
from rehearsal.scheduler.invocation import PRINCIPAL, check_target
from rehearsal.scheduler.resource_types import ScheduleGroupType, ScheduleType
from rehearsal.scheduler.ticker import SCHEDULE, Ticker, begin
from rehearsal.service import (
    Caller,
    Cloud,
    Params,
    Permission,
    ResourceType,
    ServiceError,
    Unsupported,
    arn,
)

GROUP = "scheduler/schedule-group"
DEFAULT = "default"
PAGE = 100
LATEST_START_SECONDS = 300
"""A start date may lie this far in the past."""
_NAME = re.compile(r"[0-9a-zA-Z-_.]{1,64}")
_OWN = ("ClientToken", "Name", "GroupName")


class Scheduler(RestJsonService):
    """Invocations happen within the second (AWS: within the minute) after `(time - made) / time_scale`."""

    name = "scheduler"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._ticker = Ticker(cloud)

    def start(self) -> None:
        self._ticker.start()

    def stop(self) -> None:
        self._ticker.stop()

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        if not self.runs(operation):
            raise Unsupported(f"scheduler:{operation} is not rehearsed; docs/fidelity.md lists what is")
        action = f"scheduler:{operation}"
        if operation in ("ListSchedules", "ListScheduleGroups"):
            return [Permission(action)]
        if operation.endswith("ScheduleGroup"):
            return [Permission(action, _group_arn(caller, params["Name"]))]
        if operation.endswith("Schedule"):
            role = (params.get("Target") or {}).get("RoleArn")
            passing = [Permission("iam:PassRole", role, {"iam:PassedToService": PRINCIPAL})] if role else []
            return [Permission(action, _arn(caller, params)), *passing]
        return [Permission(action, params["ResourceArn"])]

    def resource_types(self) -> dict[str, ResourceType]:
        return {
            "AWS::Scheduler::Schedule": ScheduleType(self.cloud),
            "AWS::Scheduler::ScheduleGroup": ScheduleGroupType(self.cloud),
        }

    # -- schedules --------------------------------------------------------------------------------------

    def create_schedule(self, caller: Caller, params: Params) -> Params:
        key, group = _arn(caller, params), params.get("GroupName", DEFAULT)
        document = self._checked(params)
        with self.cloud.store.transaction():
            self._group(caller, group)
            if there := self.cloud.store.get(SCHEDULE, key):
                if params.get("ClientToken") and there["token"] == params["ClientToken"]:
                    return {"ScheduleArn": key}
                raise ServiceError("ConflictException", f"Schedule {params['Name']} already exists.", 409)
            self.cloud.store.put(SCHEDULE, key, {**document, "created": document["modified"]})
        self._ticker.wake()
        return {"ScheduleArn": key}

    def update_schedule(self, caller: Caller, params: Params) -> Params:
        """Everything is given anew, as in AWS: what the request leaves out goes back to its default."""
        document = self._checked(params)
        with self.cloud.store.transaction():
            key, there = self._schedule(caller, params)
            self.cloud.store.put(SCHEDULE, key, {**document, "created": there["created"]})
        self._ticker.wake()
        return {"ScheduleArn": key}

    def delete_schedule(self, caller: Caller, params: Params) -> None:
        key, _ = self._schedule(caller, params)
        self.cloud.store.delete(SCHEDULE, key)

    def get_schedule(self, caller: Caller, params: Params) -> Params:
        key, document = self._schedule(caller, params)
        dates = {"CreationDate": document["created"], "LastModificationDate": document["modified"]}
        return {"Arn": key, **_place(key), **document["asked"], **dates}

    def list_schedules(self, caller: Caller, params: Params) -> Params:
        found = [_summary(key, document) for key, document in self.cloud.store.list(SCHEDULE) if _owned(key, caller)]
        for member, wanted in (("GroupName", params.get("GroupName")), ("State", params.get("State"))):
            found = [row for row in found if wanted is None or row[member] == wanted]
        return _page("Schedules", found, params)

    # -- groups -----------------------------------------------------------------------------------------

    def create_schedule_group(self, caller: Caller, params: Params) -> Params:
        _check_name(params["Name"])
        key, now = _group_arn(caller, params["Name"]), time.time()
        tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags", [])}
        with self.cloud.store.transaction():
            there = self.cloud.store.get(GROUP, key)
            if params["Name"] == DEFAULT or there:
                if there and params.get("ClientToken") and there["token"] == params["ClientToken"]:
                    return {"ScheduleGroupArn": key}
                raise ServiceError("ConflictException", f"Schedule group {params['Name']} already exists.", 409)
            made = {"token": params.get("ClientToken"), "created": now, "modified": now, "tags": tags}
            self.cloud.store.put(GROUP, key, made)
        return {"ScheduleGroupArn": key}

    def get_schedule_group(self, caller: Caller, params: Params) -> Params:
        return _group_summary(_group_arn(caller, params["Name"]), self._group(caller, params["Name"]))

    def delete_schedule_group(self, caller: Caller, params: Params) -> None:
        """Its schedules go with it, at once (AWS: soon)."""
        if params["Name"] == DEFAULT:
            raise ServiceError("ValidationException", "The default schedule group can't be deleted.")
        self._group(caller, params["Name"])
        with self.cloud.store.transaction():
            for key, _ in self.cloud.store.list(SCHEDULE):
                if _owned(key, caller) and _place(key)["GroupName"] == params["Name"]:
                    self.cloud.store.delete(SCHEDULE, key)
            self.cloud.store.delete(GROUP, _group_arn(caller, params["Name"]))

    def list_schedule_groups(self, caller: Caller, params: Params) -> Params:
        made = dict(self.cloud.store.list(GROUP))
        keys = [_group_arn(caller, DEFAULT), *(key for key in made if _owned(key, caller))]
        return _page("ScheduleGroups", [_group_summary(key, made.get(key, {})) for key in keys], params)

    def list_tags_for_resource(self, caller: Caller, params: Params) -> Params:
        group = self._group(caller, params["ResourceArn"].rpartition("/")[2])
        return {"Tags": [{"Key": key, "Value": value} for key, value in group.get("tags", {}).items()]}

    def tag_resource(self, caller: Caller, params: Params) -> None:
        added = {tag["Key"]: tag["Value"] for tag in params["Tags"]}
        self._retag(caller, params["ResourceArn"], lambda tags: {**tags, **added})

    def untag_resource(self, caller: Caller, params: Params) -> None:
        gone = set(params["TagKeys"])
        self._retag(caller, params["ResourceArn"], lambda tags: {k: v for k, v in tags.items() if k not in gone})

    def _retag(self, caller: Caller, key: str, change: Any) -> None:
        with self.cloud.store.transaction():
            group = self._group(caller, key.rpartition("/")[2])
            self.cloud.store.put(GROUP, key, {**group, "tags": change(group.get("tags", {}))})

    # -- what is asked and what is there ------------------------------------------------------------------

    def _checked(self, params: Params) -> Params:
        """The document of a schedule as asked, due for the first time counted from now."""
        _check_name(params["Name"])
        check_target(params["Target"])
        _check_window(params["FlexibleTimeWindow"])
        defaults = {"State": "ENABLED", "ScheduleExpressionTimezone": "UTC", "ActionAfterCompletion": "NONE"}
        asked = {**defaults, **{key: value for key, value in params.items() if key not in _OWN}}
        now = time.time()
        _check_dates(asked, now)
        try:
            begin(document := {"asked": asked, "token": params.get("ClientToken"), "modified": now})
        except InvalidExpression as error:
            raise ServiceError("ValidationException", str(error)) from None
        return document

    def _schedule(self, caller: Caller, params: Params) -> tuple[str, Params]:
        key = _arn(caller, params)
        document = self.cloud.store.get(SCHEDULE, key)
        if document is None:
            raise ServiceError("ResourceNotFoundException", f"Schedule {params['Name']} does not exist.", 404)
        return key, document

    def _group(self, caller: Caller, name: str) -> Params:
        document = self.cloud.store.get(GROUP, _group_arn(caller, name))
        if document is None and name != DEFAULT:
            raise ServiceError("ResourceNotFoundException", f"Schedule group {name} does not exist.", 404)
        return document or {}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ServiceError("ValidationException", f"Name {name!r} does not match {_NAME.pattern}")


def _check_window(window: Params) -> None:
    minutes = window.get("MaximumWindowInMinutes")
    if window["Mode"] == "OFF" and minutes is not None:
        raise ServiceError("ValidationException", "MaximumWindowInMinutes goes with the mode FLEXIBLE only")
    if window["Mode"] == "FLEXIBLE" and not 1 <= (minutes or 0) <= 1440:
        raise ServiceError("ValidationException", "a FLEXIBLE window takes MaximumWindowInMinutes from 1 to 1440")
    if window["Mode"] not in ("OFF", "FLEXIBLE"):
        raise ServiceError("ValidationException", f"FlexibleTimeWindow.Mode {window['Mode']!r} is not OFF or FLEXIBLE")


def _check_dates(asked: Params, now: float) -> None:
    for member, allowed in (("State", ("ENABLED", "DISABLED")), ("ActionAfterCompletion", ("NONE", "DELETE"))):
        if asked[member] not in allowed:
            raise ServiceError("ValidationException", f"{member} {asked[member]!r} is not {' or '.join(allowed)}")
    expression, start, end = asked["ScheduleExpression"], asked.get("StartDate"), asked.get("EndDate")
    if is_one_time(expression):
        try:
            due = first_time(expression, asked["ScheduleExpressionTimezone"], now, None)
        except InvalidExpression as error:
            raise ServiceError("ValidationException", str(error)) from None
        if due is not None and due < now:
            raise ServiceError("ValidationException", f"Invalid Schedule Expression {expression}: it is in the past.")
        return
    if start is not None and start < now - LATEST_START_SECONDS:
        raise ServiceError("ValidationException", "The StartDate you specify cannot be earlier than 5 minutes ago.")
    if end is not None and end <= max(now, start or now):
        raise ServiceError("ValidationException", "The EndDate you specify must be in the future and after StartDate.")


def _arn(caller: Caller, params: Params) -> str:
    return arn("scheduler", caller, f"schedule/{params.get('GroupName', DEFAULT)}/{params['Name']}")


def _group_arn(caller: Caller, name: str) -> str:
    return arn("scheduler", caller, f"schedule-group/{name}")


def _owned(key: str, caller: Caller) -> bool:
    return key.split(":")[3:5] == [caller.region, caller.account]


def _place(key: str) -> Params:
    _, group, name = key.rpartition(":")[2].split("/")
    return {"GroupName": group, "Name": name}


def _summary(key: str, document: Params) -> Params:
    return {
        "Arn": key,
        **_place(key),
        "State": document["asked"]["State"],
        "Target": {"Arn": document["asked"]["Target"]["Arn"]},
        "CreationDate": document["created"],
        "LastModificationDate": document["modified"],
    }


def _group_summary(key: str, document: Params) -> Params:
    dates = {"CreationDate": document.get("created"), "LastModificationDate": document.get("modified")}
    return {"Arn": key, "Name": key.rpartition("/")[2], "State": "ACTIVE", **dates}


def _page(member: str, found: list[Params], params: Params) -> Params:
    """Rows by name that begin with NamePrefix; the token is the name after which the next page begins."""
    prefix, after = params.get("NamePrefix", ""), params.get("NextToken", "")
    size = int(params.get("MaxResults", PAGE))
    ordered = sorted((row for row in found if row["Name"].startswith(prefix)), key=lambda row: row["Arn"])
    rest = [row for row in ordered if row["Arn"] > after]
    more = {"NextToken": rest[size - 1]["Arn"]} if len(rest) > size else {}
    return {member: rest[:size], **more}
