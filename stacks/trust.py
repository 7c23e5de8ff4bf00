"""Which services may assume a role, and for which resources: the guard against a confused deputy.

A service that assumes a role says for which resource and account it does (`aws:SourceArn`, `aws:SourceAccount`);
the trust policy binds both to this account, so that nobody else's resource can make the service use our role.
CloudFormation is the exception: nothing says that it tells them for a stack's service role.
"""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

SOURCES = {
    "budgets": "*",
    "cloudwatch": "alarm:*",
    "codebuild": "project/*",
    "codepipeline": "*",
    "events": "rule/*",
    "glue": "*",
    "lambda": "function:*",
    "sagemaker": "*",
    "scheduler": "schedule-group/*",
    "states": "stateMachine:*",
    "vpc-flow-logs": "vpc-flow-log/*",
}
"""What of the service acts, as the service's own page on confused deputies gives it. Roles come before what uses them,
so that their trust can't name one resource; who may pass the role is bound by `iam:PassRole`."""

IN_ARNS = {"vpc-flow-logs": "ec2"}
"""Services whose resources' ARNs have another service's name."""
GLOBAL = ("budgets",)
"""Services whose resources belong to no region."""
UNBOUND = {
    "cloudformation": "neither key is documented for a stack's service role, and requiring one that is not sent would"
    " fail every release; a role is passed within its account only, and who may is bound by iam:PassRole and"
    " cloudformation:RoleArn",
}
"""Services whose trust is bound to nothing, each with the reason."""


def service_principal(scope: Construct, service: str, source: str | None = None) -> iam.ServicePrincipal:
    """The service, acting for the resource `source`, or for one of its own in this account and region."""
    if service in UNBOUND:
        return iam.ServicePrincipal(f"{service}.amazonaws.com")
    stack = Stack.of(scope)
    region = "" if service in GLOBAL else stack.region
    named = f"{IN_ARNS.get(service, service)}:{region}:{stack.account}:{SOURCES[service]}"
    any_of_it = f"arn:{stack.partition}:{named}"
    conditions = {"StringEquals": {"aws:SourceAccount": stack.account},
                  "ArnEquals" if source else "ArnLike": {"aws:SourceArn": source or any_of_it}}  # fmt: skip
    return iam.ServicePrincipal(f"{service}.amazonaws.com", conditions=conditions)
