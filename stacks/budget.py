"""What an environment may cost in a month: a budget that counts what carries the environment's tag, and tells people.

It counts nothing until the tag is switched on in the account's Billing, among the cost allocation tags.
"""

from __future__ import annotations

from aws_cdk import aws_budgets as budgets
from constructs import Construct

from stacks.tags import ENVIRONMENT, MODEL, SHARED

SPENT_PERCENT, EXPECTED_PERCENT = 80, 100
"""People are told when that much has been spent, and when that much is to be expected by the end of the month."""


def budget(scope: Construct, id: str, *, environment: str, dollars: int, topic: str) -> budgets.CfnBudget:
    """A monthly budget of one environment."""
    declared = budgets.CfnBudget
    data = declared.BudgetDataProperty(
        budget_type="COST", time_unit="MONTHLY", budget_limit=declared.SpendProperty(amount=dollars, unit="USD"),
        cost_filters={"TagKeyValue": [f"user:{ENVIRONMENT}${environment}"]})  # fmt: skip
    tags = [declared.ResourceTagProperty(key=key, value=value)
            for key, value in ((MODEL, SHARED), (ENVIRONMENT, environment))]  # fmt: skip
    return declared(scope, id, budget=data, resource_tags=tags, notifications_with_subscribers=[
        _told("ACTUAL", SPENT_PERCENT, topic), _told("FORECASTED", EXPECTED_PERCENT, topic)])  # fmt: skip


def _told(kind: str, percent: int, topic: str) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
    declared = budgets.CfnBudget
    return declared.NotificationWithSubscribersProperty(
        notification=declared.NotificationProperty(notification_type=kind, comparison_operator="GREATER_THAN",
                                                   threshold=percent, threshold_type="PERCENTAGE"),
        subscribers=[declared.SubscriberProperty(subscription_type="SNS", address=topic)])  # fmt: skip
