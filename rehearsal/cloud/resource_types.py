"""CloudFormation types of services that the embedded AWS has, but that its CloudFormation lacks."""

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.cloud.budget_type import Budget
from rehearsal.cloud.network_types import network_types
from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack


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


def lacking(cloud: Cloud) -> dict[str, ResourceType]:
    """The types by name."""
    return {
        **network_types(cloud),
        "AWS::Budgets::Budget": Budget(cloud),
        "AWS::Glue::SecurityConfiguration": GlueSecurityConfiguration(cloud),
    }
