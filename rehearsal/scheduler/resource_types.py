"""AWS::Scheduler::Schedule and AWS::Scheduler::ScheduleGroup, made through the API under the stack's role."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from rehearsal.properties import to_api
from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack, model

LONGEST_NAME = 64


class ScheduleType(ResourceType):
    """AWS::Scheduler::Schedule; Ref is the schedule's name."""

    attributes: ClassVar[frozenset[str]] = frozenset({"Arn"})
    replacement: ClassVar[frozenset[str]] = frozenset({"Name", "GroupName"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        name = properties.get("Name") or _generated(stack)
        made = _client(self._cloud, stack).create_schedule(**_wanted("CreateSchedule", properties, stack, name))
        return Provisioned(name, {"Arn": made["ScheduleArn"]})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        made = _client(self._cloud, stack).update_schedule(**_wanted("UpdateSchedule", new, stack, physical_id))
        return Provisioned(physical_id, {"Arn": made["ScheduleArn"]})

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        group = {"GroupName": properties["GroupName"]} if properties.get("GroupName") else {}
        _if_there(_client(self._cloud, stack).delete_schedule, Name=physical_id, **group)


class ScheduleGroupType(ResourceType):
    """AWS::Scheduler::ScheduleGroup; Ref is the group's name."""

    attributes: ClassVar[frozenset[str]] = frozenset({"Arn", "State", "CreationDate", "LastModificationDate"})
    replacement: ClassVar[frozenset[str]] = frozenset({"Name"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        name = properties.get("Name") or _generated(stack)
        client = _client(self._cloud, stack)
        client.create_schedule_group(Name=name, Tags=_tags(properties, stack))
        return self._described(client, name)

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        client = _client(self._cloud, stack)
        made = self._described(client, physical_id)
        wanted = _tags(new, stack)
        gone = {tag["Key"] for tag in _tags(old, stack)} - {tag["Key"] for tag in wanted}
        if gone:
            client.untag_resource(ResourceArn=made.attributes["Arn"], TagKeys=sorted(gone))
        if wanted:
            client.tag_resource(ResourceArn=made.attributes["Arn"], Tags=wanted)
        return made

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        _if_there(_client(self._cloud, stack).delete_schedule_group, Name=physical_id)

    def _described(self, client: Any, name: str) -> Provisioned:
        group = client.get_schedule_group(Name=name)
        dates = {key: group[key].isoformat() for key in ("CreationDate", "LastModificationDate")}
        return Provisioned(name, {"Arn": group["Arn"], "State": group["State"], **dates})


def _wanted(operation: str, properties: Params, stack: Stack, name: str) -> Params:
    shape = model("scheduler").operation_model(operation).input_shape
    assert shape is not None
    return {**to_api(properties, shape, stack.logical_id), "Name": name}


def _tags(properties: Params, stack: Stack) -> list[Params]:
    own = {tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []}
    return [{"Key": key, "Value": value} for key, value in {**stack.tags, **own}.items()]


def _generated(stack: Stack) -> str:
    """`<stack>-<logical id>-<random>` within the limit, as CloudFormation names them."""
    suffix = uuid.uuid4().hex[:12]
    return f"{f'{stack.name}-{stack.logical_id}'[: LONGEST_NAME - len(suffix) - 1]}-{suffix}"


def _client(cloud: Cloud, stack: Stack) -> Any:
    by = "cloudformation.amazonaws.com" if stack.role else ""
    return cloud.client("scheduler", role=stack.role, by=by, account=stack.caller.account, region=stack.caller.region)


def _if_there(delete: Any, **arguments: Any) -> None:
    try:
        delete(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
