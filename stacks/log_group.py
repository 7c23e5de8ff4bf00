"""Log groups: encrypted with the environment's key, kept for the configured time.

A service that finds no group makes one that keeps everything for ever under no key of ours. So every group that a role
may write to is made here, before whoever writes, and no role of SageMaker's may make one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Fn, RemovalPolicy, Stack
from aws_cdk import aws_logs as logs
from constructs import Construct

from config import Settings

if TYPE_CHECKING:
    from stacks.environment_stack import EnvironmentStack

SHARED_BY_JOBS = ("TrainingJobs", "ProcessingJobs")
"""Of SageMaker's log groups, those that all jobs of an account share."""
VENDED = "/aws/vendedlogs/states"
"""Step Functions writes any other group into a policy of the account, which is full after some forty state machines:
https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html"""


def log_group(scope: Construct, id: str, *, settings: Settings, environment: EnvironmentStack,
              name: str | None = None) -> logs.LogGroup:  # fmt: skip
    """A log group; `name` only where the service prescribes it: kept, such a one would be in the next stack's way."""
    removal = RemovalPolicy.DESTROY if name else environment.removal
    return _group(scope, id, settings, environment, name, removal)


def state_machine_log_group(scope: Construct, id: str, *, settings: Settings,
                            environment: EnvironmentStack) -> logs.LogGroup:  # fmt: skip
    """What a state machine logs to, named anew with each stack: a kept group is in no later stack's way."""
    stack = Stack.of(scope)
    creation = Fn.select(2, Fn.split("/", stack.stack_id))  # arn:…:stack/<name>/<made up at the stack's creation>
    # One that a failed update has made must go with it: the next try of the same stack makes the same name.
    kept = environment.removal == RemovalPolicy.RETAIN
    removal = RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if kept else environment.removal
    return _group(scope, id, settings, environment, f"{VENDED}/{stack.stack_name}-{id}-{creation}", removal)


def _group(scope: Construct, id: str, settings: Settings, environment: EnvironmentStack, name: str | None,
           removal: RemovalPolicy) -> logs.LogGroup:  # fmt: skip
    group = logs.LogGroup(scope, id, log_group_name=name, encryption_key=environment.key, removal_policy=removal)
    resource = group.node.default_child
    assert isinstance(resource, logs.CfnLogGroup)
    resource.retention_in_days = settings.retention.logs_days
    return group


def shared_log_groups(owner: EnvironmentStack, *, settings: Settings) -> None:
    """SageMaker's groups of the owner's account; two stacks that make them would collide."""
    for kind in SHARED_BY_JOBS:
        log_group(owner, f"{kind}Log", settings=settings, environment=owner, name=f"/aws/sagemaker/{kind}")


def endpoint_log_group(scope: Construct, id: str, *, settings: Settings, environment: EnvironmentStack,
                       endpoint: str) -> logs.LogGroup:  # fmt: skip
    """What an endpoint's containers print; the group's name is the endpoint's."""
    return log_group(scope, id, settings=settings, environment=environment, name=f"/aws/sagemaker/Endpoints/{endpoint}")


def feature_log_groups(scope: Construct, *, settings: Settings, environment: EnvironmentStack, security: str,
                       role: str) -> None:  # fmt: skip
    """Glue names the groups of an encrypted job after its security configuration and its role."""
    for kind in ("error", "output"):
        log_group(scope, f"Features{kind.title()}Log", settings=settings, environment=environment,
                  name=f"/aws-glue/jobs/{security}-role/{role}/{kind}")  # fmt: skip
