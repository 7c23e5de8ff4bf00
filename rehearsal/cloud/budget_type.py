"""AWS::Budgets::Budget, kept by the embedded AWS's Budgets; as nothing costs anything here, nobody is ever told."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack


class Budget(ResourceType):
    """A budget, named by CloudFormation if the template does not."""

    replacement: ClassVar[frozenset[str]] = frozenset({"NotificationsWithSubscribers"})

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        name = properties["Budget"].get("BudgetName") or f"{stack.name}-{stack.logical_id}-{secrets.token_hex(6)}"
        tags = _tags(properties, stack)
        tagged: Params = {"ResourceTags": _listed(tags)} if tags else {}
        told = [_threshold(given) for given in properties.get("NotificationsWithSubscribers", ())]
        self._budgets(stack).create_budget(
            AccountId=stack.caller.account, Budget=_data(properties, name), NotificationsWithSubscribers=told, **tagged
        )
        return Provisioned(name)

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        self._budgets(stack).update_budget(AccountId=stack.caller.account, NewBudget=_data(new, physical_id))
        self._tag(f"arn:aws:budgets::{stack.caller.account}:budget/{physical_id}", _tags(old, stack), _tags(new, stack),
                  stack)  # fmt: skip
        return Provisioned(physical_id)

    def _tag(self, budget: str, before: dict[str, str], after: dict[str, str], stack: Stack) -> None:
        if changed := {key: value for key, value in after.items() if before.get(key) != value}:
            self._budgets(stack).tag_resource(ResourceARN=budget, ResourceTags=_listed(changed))
        if gone := sorted(set(before) - set(after)):
            self._budgets(stack).untag_resource(ResourceARN=budget, ResourceTagKeys=gone)

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        try:
            self._budgets(stack).delete_budget(AccountId=stack.caller.account, BudgetName=physical_id)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NotFoundException":
                raise

    def _budgets(self, stack: Stack) -> Any:
        by, who = "cloudformation.amazonaws.com", stack.caller
        return self._cloud.client("budgets", role=stack.role, by=by, account=who.account, region=who.region)


def _data(properties: Params, name: str) -> Params:
    """The budget as the API takes it: an amount is a number in templates and text there."""
    data = {**properties["Budget"], "BudgetName": name}
    if limit := data.get("BudgetLimit"):
        data["BudgetLimit"] = {**limit, "Amount": str(limit["Amount"])}
    return data


def _tags(properties: Params, stack: Stack) -> dict[str, str]:
    return {**stack.tags, **{tag["Key"]: str(tag["Value"]) for tag in properties.get("ResourceTags", ())}}


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _threshold(given: Params) -> Params:
    notification = given["Notification"]
    return {**given, "Notification": {**notification, "Threshold": float(notification["Threshold"])}}
