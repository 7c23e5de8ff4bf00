"""The account and region that each environment's stacks are for."""

from __future__ import annotations

from aws_cdk import Environment

from config import Settings


def place(settings: Settings, environment: str) -> Environment:
    """An environment's account and region; without values the templates take the deployer's."""
    return Environment(account=dict(settings.environments.items())[environment].account, region=settings.region)


def is_apart(settings: Settings, environment: str) -> bool:
    """Whether an environment is in another account than training, so that what it needs crosses accounts."""
    accounts = dict(settings.environments.items())
    return accounts[environment].account != accounts["training"].account


def is_first_of_its_account(settings: Settings, environment: str) -> bool:
    """Whether what an account has once is this environment's to make."""
    accounts = {name: found.account for name, found in settings.environments.items()}
    return next(name for name, account in accounts.items() if account == accounts[environment]) == environment
