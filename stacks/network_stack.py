"""The network of one environment: isolated subnets, endpoints for exactly what is used, and no way out.

Nothing in it is reachable from outside, and nothing in it reaches the internet: there is neither a gateway nor a NAT.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aws_cdk import Aws, Environment, Fn, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from config import Settings
from config.network import NONE
from stacks.environment_stack import EnvironmentStack
from stacks.log_group import log_group
from stacks.network import Network
from stacks.permissions import allow, service_role
from stacks.tags import SHARED, TRAINING, tag

CIDR = "10.0.0.0/22"
SUBNETS = ("10.0.0.0/23", "10.0.2.0/23")
"""One in each of two availability zones: 500 addresses for workers, instances and endpoints."""
HTTPS = 443
FEATURE_JOBS_CALL = {
    "glue": ["glue:GetConnection"],
    "kms": ["kms:Decrypt", "kms:GenerateDataKey"],
    "logs": ["logs:CreateLogGroup", "logs:AssociateKmsKey", "logs:CreateLogStream", "logs:PutLogEvents"],
    "monitoring": ["cloudwatch:PutMetricData"],
    "sts": ["sts:GetCallerIdentity"],
}
"""What Glue's workers call besides S3, by service: exactly what a feature job's role may, since they have no other
credentials of this account; who one is, STS tells without a permission. Jobs and endpoints of SageMaker are isolated
and need S3 only."""
OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload")
NOWHERE = ec2.CfnSecurityGroup.EgressProperty(
    ip_protocol="icmp", from_port=252, to_port=86, cidr_ip="255.255.255.255/32", description="Nothing goes out"
)
"""Without any rule a security group lets everything out."""


def network(scope: Construct, *, settings: Settings, environment: EnvironmentStack) -> Network | None:
    """The environment's network as config says: a new one in a stack of its own, an existing one, or none."""
    asked = settings.network.of(environment.environment_name)
    if asked.exists:
        return Network(vpc=asked.vpc, subnets=asked.subnets, security_groups=asked.security_groups,
                       availability_zone=asked.availability_zone or "")  # fmt: skip
    if asked.vpc == NONE:
        return None
    made = NetworkStack(scope, f"Pushline-Network-{environment.environment_name.capitalize()}", settings=settings,
                        environment=environment, env=_place(environment))  # fmt: skip
    return made.network


def _place(environment: EnvironmentStack) -> Environment:
    """The environment's own account and region."""
    return Environment(account=environment.account, region=environment.region)


class NetworkStack(Stack):
    """A VPC without a way out, its endpoints, and the security group that jobs and endpoints are in."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, environment: EnvironmentStack,
                 **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, **stack)
        self._settings, self._environment = settings, environment
        self._features = environment.environment_name == TRAINING
        self._vpc = ec2.CfnVPC(self, "Vpc", cidr_block=CIDR, enable_dns_support=True, enable_dns_hostnames=True)
        self._routes = ec2.CfnRouteTable(self, "Routes", vpc_id=self._vpc.ref)
        self._zones = [Fn.select(number, Fn.get_azs()) for number in range(len(SUBNETS))]
        self._subnets = [self._subnet(number) for number in range(len(SUBNETS))]
        self._group = self._security_group()
        self._reach_buckets()
        if self._features:
            self._reach_services()
        self._log_flows()
        self.network = Network(vpc=self._vpc.ref, subnets=tuple(subnet.ref for subnet in self._subnets),
                               security_groups=(self._group.attr_group_id,),
                               availability_zone=self._zones[0])  # fmt: skip
        tag(self, model=SHARED, environment=environment.environment_name)

    def _subnet(self, number: int) -> ec2.CfnSubnet:
        subnet = ec2.CfnSubnet(self, f"Subnet{number + 1}", vpc_id=self._vpc.ref, cidr_block=SUBNETS[number],
                               availability_zone=self._zones[number], map_public_ip_on_launch=False)  # fmt: skip
        ec2.CfnSubnetRouteTableAssociation(self, f"Subnet{number + 1}Routes", subnet_id=subnet.ref,
                                           route_table_id=self._routes.ref)  # fmt: skip
        return subnet

    def _security_group(self) -> ec2.CfnSecurityGroup:
        """What jobs and endpoints are in: it lets them call endpoints of the VPC, and each other where Spark runs."""
        out = ec2.CfnSecurityGroup.EgressProperty(
            ip_protocol="tcp", from_port=HTTPS, to_port=HTTPS, cidr_ip="0.0.0.0/0",
            description="Endpoints of the VPC - there is no other way out")  # fmt: skip
        group = ec2.CfnSecurityGroup(self, "Jobs", vpc_id=self._vpc.ref, security_group_egress=[out],
                                     group_description="Jobs and endpoints of models")  # fmt: skip
        if self._features:
            self._let_workers_talk(group)
        return group

    def _let_workers_talk(self, group: ec2.CfnSecurityGroup) -> None:
        """Glue refuses a network in which its workers can't reach each other on every port."""
        every: dict[str, Any] = {"ip_protocol": "tcp", "from_port": 0, "to_port": 65535,
                                 "group_id": group.attr_group_id, "description": "Workers of Spark"}  # fmt: skip
        ec2.CfnSecurityGroupIngress(self, "WorkersIn", source_security_group_id=group.attr_group_id, **every)
        ec2.CfnSecurityGroupEgress(self, "WorkersOut", destination_security_group_id=group.attr_group_id, **every)

    def _reach_buckets(self) -> None:
        accounts = {environment.account or Aws.ACCOUNT_ID for _, environment in self._settings.environments.items()}
        self._endpoint("S3", "s3", self._policy(OBJECTS, sorted(accounts)), vpc_endpoint_type="Gateway",
                       route_table_ids=[self._routes.ref])  # fmt: skip

    def _reach_services(self) -> None:
        """Interface endpoints cost by the hour and zone: in the one subnet that feature jobs run in."""
        come_in = ec2.CfnSecurityGroup.IngressProperty(
            ip_protocol="tcp", from_port=HTTPS, to_port=HTTPS, description="Jobs",
            source_security_group_id=self._group.attr_group_id)  # fmt: skip
        group = ec2.CfnSecurityGroup(self, "Endpoints", vpc_id=self._vpc.ref, group_description="Endpoints of services",
                                     security_group_ingress=[come_in], security_group_egress=[NOWHERE])  # fmt: skip
        for service, actions in FEATURE_JOBS_CALL.items():
            self._endpoint(service.capitalize(), service, self._policy(actions, [Aws.ACCOUNT_ID]),
                           vpc_endpoint_type="Interface", private_dns_enabled=True,
                           subnet_ids=[self._subnets[0].ref], security_group_ids=[group.attr_group_id])  # fmt: skip

    def _endpoint(self, id: str, service: str, policy: iam.PolicyDocument, **how: Any) -> None:
        ec2.CfnVPCEndpoint(self, id, vpc_id=self._vpc.ref, policy_document=policy,
                           service_name=f"com.amazonaws.{self.region}.{service}", **how)  # fmt: skip

    def _policy(self, actions: Iterable[str], owners: list[str]) -> iam.PolicyDocument:
        """Who may pass, to whose resources, with which actions; the rest each role's own policy says."""
        mine = {"StringEquals": {"aws:PrincipalAccount": self.account},
                "StringEqualsIfExists": {"aws:ResourceAccount": owners}}  # fmt: skip
        statement = iam.PolicyStatement(principals=[iam.AnyPrincipal()], actions=list(actions), resources=["*"],
                                        conditions=mine)  # fmt: skip
        return iam.PolicyDocument(statements=[statement])

    def _log_flows(self) -> None:
        log = log_group(self, "FlowLog", settings=self._settings, environment=self._environment)
        writing = ("logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams")
        role = service_role(self, "FlowLogRole", "vpc-flow-logs", statements=[
            allow(*writing, on=log.log_group_arn), allow("logs:DescribeLogGroups", on="*")])  # fmt: skip
        ec2.CfnFlowLog(self, "Flows", resource_id=self._vpc.ref, resource_type="VPC", traffic_type="ALL",
                       log_destination_type="cloud-watch-logs", log_group_name=log.log_group_name,
                       deliver_logs_permission_arn=role.role_arn)  # fmt: skip
