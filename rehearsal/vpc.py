"""A VPC as jobs and models name it: subnets and groups must be there, and the role must be able to join them.

No interface is made and no traffic is bounded; what AWS would refuse to begin with is refused here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from rehearsal.service import Caller, Cloud, Params, Permission, ServiceError, arn

SAGEMAKER, GLUE = "sagemaker.amazonaws.com", "glue.amazonaws.com"
GLUES_TAG = "aws-glue-service-resource"
_SAGEMAKERS_LOOKS = ("DescribeDhcpOptions", "DescribeNetworkInterfaces", "DescribeVpcs")
_GLUES_LOOKS = ("DescribeNetworkInterfaces",)


class NoWayIn(Exception):
    """Why the network can't be joined, in the words of the service that tried."""


def vpc_context(vpc: Params | None) -> Params:
    """The condition keys of a request with a VpcConfig."""
    if not vpc:
        return {}
    return {"sagemaker:VpcSubnets": vpc["Subnets"], "sagemaker:VpcSecurityGroupIds": vpc["SecurityGroupIds"]}


def check_for_sagemaker(cloud: Cloud, vpc: Params | None, role: str, caller: Caller) -> None:
    """ValidationException unless `role` can put a job or model into the subnets of a VpcConfig."""
    if not vpc:
        return
    try:
        joined = _Joined(cloud, role, SAGEMAKER, caller, vpc["Subnets"], vpc["SecurityGroupIds"])
        joined.enter(_SAGEMAKERS_LOOKS, "ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterfacePermission")
    except NoWayIn as error:
        raise ServiceError("ValidationException", f"Invalid VpcConfig for the role {role}: {error}") from None


def check_for_glue(cloud: Cloud, connection: str, role: str, caller: Caller) -> None:
    """NoWayIn unless `role` can put a job's workers into the subnet of a connection, as Glue demands it to be."""
    physical = _connection(cloud, connection, role, caller)
    subnet, groups = physical.get("SubnetId", ""), physical.get("SecurityGroupIdList") or []
    joined = _Joined(cloud, role, GLUE, caller, [subnet], groups)
    joined.enter(_GLUES_LOOKS)
    joined.authorize(Permission("ec2:DescribeVpcAttribute", arn("ec2", caller, f"vpc/{joined.vpc}")))
    for action in ("ec2:CreateTags", "ec2:DeleteTags"):
        joined.authorize(Permission(action, joined.interfaces, {"aws:TagKeys": [GLUES_TAG]}))
    if not any(_lets_itself_in(group) for group in joined.groups):
        raise NoWayIn(
            "At least one security group must open all ingress ports. To limit traffic, the source security group in "
            "your inbound rule can be restricted to the same security group"
        )
    if not joined.reaches_s3():
        raise NoWayIn(
            f"VPC S3 endpoint validation failed for SubnetId: {subnet}. VPC: {joined.vpc}. Reason: Could not find S3 "
            f"endpoint or NAT gateway for subnetId: {subnet} in Vpc {joined.vpc}"
        )


def _connection(cloud: Cloud, name: str, role: str, caller: Caller) -> Params:
    for resource in ("catalog", f"connection/{name}"):
        cloud.authorize(role, GLUE, Permission("glue:GetConnection", arn("glue", caller, resource)), caller)
    try:
        glue = cloud.client("glue", account=caller.account, region=caller.region)
        found: Params = glue.get_connection(Name=name)["Connection"]
    except ClientError as error:
        raise NoWayIn(error.response["Error"]["Message"]) from None
    return dict(found.get("PhysicalConnectionRequirements") or {})


class _Joined:
    """Subnets and security groups, seen as a role sees them."""

    def __init__(self, cloud: Cloud, role: str, by: str, caller: Caller, subnets: list[str], groups: list[str]) -> None:
        self._cloud, self._role, self._by, self._caller = cloud, role, by, caller
        self._ec2 = cloud.client("ec2", role=role, by=by, account=caller.account, region=caller.region)
        self.subnets = subnets
        found = self._ask("describe_subnets", "Subnets", SubnetIds=subnets)
        self.groups = self._ask("describe_security_groups", "SecurityGroups", GroupIds=groups)
        vpcs = {item["VpcId"] for item in [*found, *self.groups]}
        if len(vpcs) != 1:
            raise NoWayIn(f"subnets and security groups are of different VPCs: {', '.join(sorted(vpcs)) or 'none'}")
        (self.vpc,) = vpcs
        self.interfaces = arn("ec2", caller, "network-interface/*")

    def enter(self, looks: tuple[str, ...], *more: str) -> None:
        """What a service does with a role to put an interface into each subnet, and to take it out again."""
        for permission in self._permissions(looks, more):
            self.authorize(permission)

    def authorize(self, permission: Permission) -> None:
        try:
            self._cloud.authorize(self._role, self._by, permission, self._caller)
        except ServiceError as error:
            raise NoWayIn(error.message) from None

    def reaches_s3(self) -> bool:
        """Whether a gateway endpoint for S3 is in the routes of the subnet, or of its VPC by default."""
        tables = self._ask("describe_route_tables", "RouteTables")
        own = [table["RouteTableId"] for table in tables for association in table.get("Associations", ())
               if association.get("SubnetId") in self.subnets]  # fmt: skip
        main = [table["RouteTableId"] for table in tables if table["VpcId"] == self.vpc
                for association in table.get("Associations", ()) if association.get("Main")]  # fmt: skip
        endpoints = self._ask("describe_vpc_endpoints", "VpcEndpoints")
        return any(endpoint["ServiceName"].endswith(".s3") and set(endpoint.get("RouteTableIds", ())) & {*(own or main)}
                   for endpoint in endpoints)  # fmt: skip

    def _permissions(self, looks: tuple[str, ...], more: tuple[str, ...]) -> Iterator[Permission]:
        subnets = [arn("ec2", self._caller, f"subnet/{subnet}") for subnet in self.subnets]
        groups = [arn("ec2", self._caller, f"security-group/{group['GroupId']}") for group in self.groups]
        yield from (Permission(f"ec2:{look}") for look in looks)
        yield from (Permission("ec2:CreateNetworkInterface", on) for on in (self.interfaces, *subnets, *groups))
        for action in (*more, "ec2:DeleteNetworkInterface"):
            yield from (Permission(action, self.interfaces, {"ec2:Subnet": subnet}) for subnet in subnets)

    def _ask(self, operation: str, members: str, **which: Any) -> list[Params]:
        try:
            return list(getattr(self._ec2, operation)(**which)[members])
        except ClientError as error:
            raise NoWayIn(error.response["Error"]["Message"]) from None


def _lets_itself_in(group: Params) -> bool:
    """On every port: `-1`, or TCP from 0 to 65535."""
    return any(rule["IpProtocol"] == "-1" or (rule.get("FromPort"), rule.get("ToPort")) == (0, 65535)
               for rule in group.get("IpPermissions", ())
               for pair in rule.get("UserIdGroupPairs", ()) if pair.get("GroupId") == group["GroupId"])  # fmt: skip
