"""The account and region that the stacks are for."""

from __future__ import annotations

from aws_cdk import Environment

from config import Invalid, Problem, Settings


def place(settings: Settings) -> Environment:
    """The one account of all environments; without values the templates take the deployer's."""
    accounts = {name: environment.account for name, environment in settings.environments.items()}
    if len(set(accounts.values())) > 1:
        found = ", ".join(f"{name} {account or 'not set'}" for name, account in accounts.items())
        text = f"different accounts ({found}) are not built yet; name the same account for all"
        raise Invalid([Problem("config/platform.yaml", 0, "environments", text)])
    return Environment(account=settings.environments.training.account, region=settings.region)
