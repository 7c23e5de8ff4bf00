"""Log groups: encrypted with the environment's key, kept for the configured time."""

from __future__ import annotations

from aws_cdk import aws_logs as logs
from constructs import Construct

from config import Settings
from stacks.environment_stack import EnvironmentStack


def log_group(scope: Construct, id: str, *, settings: Settings, environment: EnvironmentStack,
              name: str | None = None) -> logs.LogGroup:  # fmt: skip
    """A log group; `name` only where the service prescribes it."""
    group = logs.LogGroup(scope, id, log_group_name=name, encryption_key=environment.key,
                          removal_policy=environment.removal)  # fmt: skip
    resource = group.node.default_child
    assert isinstance(resource, logs.CfnLogGroup)
    resource.retention_in_days = settings.retention.logs_days
    return group
