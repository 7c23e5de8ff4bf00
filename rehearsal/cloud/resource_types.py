"""CloudFormation types of services that the embedded AWS has, but that its CloudFormation lacks."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from rehearsal.cloud.budget_type import Budget
from rehearsal.cloud.network_types import network_types
from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack, Unsupported


class GlueSecurityConfiguration(ResourceType):
    """AWS::Glue::SecurityConfiguration, recorded as Glue keeps it; every change replaces it."""

    replacement: ClassVar[frozenset[str]] = frozenset({"Name", "EncryptionConfiguration"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        encryption = dict(properties["EncryptionConfiguration"])
        encryption["S3Encryption"] = encryption.pop("S3Encryptions", [])
        self._glue(stack).create_security_configuration(Name=properties["Name"], EncryptionConfiguration=encryption)
        return Provisioned(properties["Name"])

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        glue = self._glue(stack)
        try:
            glue.delete_security_configuration(Name=physical_id)
        except glue.exceptions.EntityNotFoundException:
            return

    def _glue(self, stack: Stack) -> Any:
        return self._cloud.client(
            "glue",
            role=stack.role,
            by="cloudformation.amazonaws.com",
            account=stack.caller.account,
            region=stack.caller.region,
        )


class EventBus(ResourceType):
    """AWS::Events::EventBus with its policy."""

    replacement: ClassVar[frozenset[str]] = frozenset({"Name"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        unknown = sorted(set(properties) - {"Name", "Description", "Policy", "Tags"})
        if unknown:
            raise Unsupported(f"{stack.logical_id}: {', '.join(unknown)} of an event bus is not rehearsed")
        tags = [{"Key": tag["Key"], "Value": tag["Value"]} for tag in properties.get("Tags", [])]
        description = {"Description": properties["Description"]} if "Description" in properties else {}
        made = self._events(stack).create_event_bus(Name=properties["Name"], Tags=tags, **description)
        self._allow(properties, stack)
        return Provisioned(properties["Name"], {"Name": properties["Name"], "Arn": made["EventBusArn"]})

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        if not new.get("Policy") and old.get("Policy"):
            self._events(stack).remove_permission(EventBusName=physical_id, RemoveAllPermissions=True)
        self._allow(new, stack)
        found = self._events(stack).describe_event_bus(Name=physical_id)
        return Provisioned(physical_id, {"Name": physical_id, "Arn": found["Arn"]})

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        self._events(stack).delete_event_bus(Name=physical_id)

    def _allow(self, properties: Params, stack: Stack) -> None:
        if policy := properties.get("Policy"):
            self._events(stack).put_permission(EventBusName=properties["Name"], Policy=json.dumps(policy))

    def _events(self, stack: Stack) -> Any:
        return self._cloud.client("events", role=stack.role, by="cloudformation.amazonaws.com",
                                  account=stack.caller.account, region=stack.caller.region)  # fmt: skip


def lacking(cloud: Cloud) -> dict[str, ResourceType]:
    """The types by name."""
    return {
        "AWS::Events::EventBus": EventBus(cloud),
        **network_types(cloud),
        "AWS::Budgets::Budget": Budget(cloud),
        "AWS::Glue::SecurityConfiguration": GlueSecurityConfiguration(cloud),
    }
