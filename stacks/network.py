"""Where an environment's jobs and endpoints run, and what that asks of the roles that put them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aws_cdk import Fn
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.permissions import allow, arn

DESCRIBE_FOR_SAGEMAKER = (
    "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)  # fmt: skip
DESCRIBE_FOR_GLUE = (
    "ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets",
    "ec2:DescribeVpcEndpoints",
)  # fmt: skip
GLUES_TAG = "aws-glue-service-resource"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where jobs or endpoints run, as SageMaker and Glue ask for it."""

    vpc: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    availability_zone: str
    """The first subnet's."""

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """IAM conditions by which a job or model is created in these subnets and groups, or not at all."""
        keys = {"sagemaker:VpcSubnets": list(self.subnets), "sagemaker:VpcSecurityGroupIds": list(self.security_groups)}
        # ForAllValues alone also holds when the request names no network at all.
        return {"ForAllValues:StringEquals": keys, "Null": dict.fromkeys(keys, "false")}

    @property
    def substitutions(self) -> dict[str, str]:
        """For a state machine's definition: each list as what stands between the quotes of a list in JSON."""
        return {"Subnets": Fn.join('","', list(self.subnets)),
                "SecurityGroups": Fn.join('","', list(self.security_groups))}  # fmt: skip


def within(network: Network | None, conditions: dict[str, Any]) -> dict[str, Any]:
    """The conditions, and those that keep what is created inside the network, if there is one."""
    if network is None:
        return conditions
    both = {operator: {**conditions.get(operator, {}), **keys} for operator, keys in network.conditions.items()}
    return {**conditions, **both}


def enter_for_sagemaker(scope: Construct, network: Network | None) -> Iterator[iam.PolicyStatement]:
    """What SageMaker needs, as a job's or a model's role, to put network interfaces into the subnets."""
    if network is None:
        return
    yield from _interfaces(scope, network, "ec2:CreateNetworkInterfacePermission",
                           "ec2:DeleteNetworkInterfacePermission")  # fmt: skip
    yield allow(*DESCRIBE_FOR_SAGEMAKER, on="*")


def enter_for_glue(scope: Construct, network: Network | None, connection: str) -> Iterator[iam.PolicyStatement]:
    """What Glue needs, as a job's role, to put its workers into the subnet that the connection names."""
    if network is None:
        return
    yield from _interfaces(scope, network)
    yield allow(*DESCRIBE_FOR_GLUE, on="*")
    yield allow("ec2:DescribeVpcAttribute", on=arn(scope, "ec2", f"vpc/{network.vpc}"))
    tagged = {"ForAllValues:StringEquals": {"aws:TagKeys": [GLUES_TAG]}, "Null": {"aws:TagKeys": "false"}}
    yield allow("ec2:CreateTags", "ec2:DeleteTags", on=arn(scope, "ec2", "network-interface/*"), when=tagged)
    named = [arn(scope, "glue", name) for name in ("catalog", f"connection/{connection}")]
    yield allow("glue:GetConnection", on=named)


def _interfaces(scope: Construct, network: Network, *more: str) -> Iterator[iam.PolicyStatement]:
    interfaces = arn(scope, "ec2", "network-interface/*")
    subnets = [arn(scope, "ec2", f"subnet/{subnet}") for subnet in network.subnets]
    groups = [arn(scope, "ec2", f"security-group/{group}") for group in network.security_groups]
    yield allow("ec2:CreateNetworkInterface", on=[interfaces, *subnets, *groups])
    yield allow("ec2:DeleteNetworkInterface", *more, on=interfaces, when={"ArnEquals": {"ec2:Subnet": subnets}})
