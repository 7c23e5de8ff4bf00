"""CloudFormation types of EC2 that the embedded AWS's CloudFormation lacks: rules of security groups, flow logs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from botocore.exceptions import ClientError

from rehearsal.service import Cloud, Params, Provisioned, ResourceType, Stack, Unsupported

Direction = Literal["ingress", "egress"]
_OTHER_GROUP = {"ingress": "SourceSecurityGroupId", "egress": "DestinationSecurityGroupId"}


class _Ec2Type(ResourceType):
    """A type made by calls of EC2's API."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def _ec2(self, stack: Stack) -> Any:
        by = "cloudformation.amazonaws.com"
        who = stack.caller
        return self._cloud.client("ec2", role=stack.role, by=by, account=who.account, region=who.region)


class SecurityGroupRule(_Ec2Type):
    """AWS::EC2::SecurityGroupIngress or -Egress between groups; every change replaces it, as its description may."""

    def __init__(self, cloud: Cloud, direction: Direction) -> None:
        super().__init__(cloud)
        self._direction, self._reference = direction, _OTHER_GROUP[direction]

    replacement: ClassVar[frozenset[str]] = frozenset(
        {"GroupId", "IpProtocol", "FromPort", "ToPort", "SourceSecurityGroupId", "DestinationSecurityGroupId",
         "Description"}
    )  # fmt: skip

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        made = getattr(self._ec2(stack), f"authorize_security_group_{self._direction}")(
            GroupId=properties["GroupId"], IpPermissions=[self._rule(properties, stack)]
        )
        return Provisioned(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        try:
            getattr(self._ec2(stack), f"revoke_security_group_{self._direction}")(
                GroupId=properties["GroupId"], SecurityGroupRuleIds=[physical_id]
            )
        except ClientError as error:
            if not error.response["Error"]["Code"].endswith("NotFound"):
                raise

    def _rule(self, properties: Params, stack: Stack) -> Params:
        if self._reference not in properties:
            raise Unsupported(f"{stack.logical_id}: a rule without {self._reference} is not rehearsed; put it inline")
        pair = {"GroupId": properties[self._reference], "Description": properties.get("Description", "")}
        ports: Params = {name: int(properties[name]) for name in ("FromPort", "ToPort") if name in properties}
        return {"IpProtocol": str(properties["IpProtocol"]), **ports, "UserIdGroupPairs": [pair]}


class FlowLog(_Ec2Type):
    """AWS::EC2::FlowLog, recorded; as nothing flows, nothing is logged."""

    replacement: ClassVar[frozenset[str]] = frozenset(
        {"DeliverLogsPermissionArn", "LogDestination", "LogDestinationType", "LogGroupName", "ResourceId",
         "ResourceType", "TrafficType", "LogFormat", "MaxAggregationInterval"}
    )  # fmt: skip

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        taken = {name: properties[name] for name in self.replacement - {"ResourceId"} if name in properties}
        ec2 = self._ec2(stack)
        (made,) = ec2.create_flow_logs(ResourceIds=[properties["ResourceId"]], **taken)["FlowLogIds"]
        if properties.get("Tags"):
            ec2.create_tags(Resources=[made], Tags=properties["Tags"])
        return Provisioned(made)

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        """Only its tags can change in place."""
        ec2 = self._ec2(stack)
        if old.get("Tags"):
            ec2.delete_tags(Resources=[physical_id], Tags=old["Tags"])
        if new.get("Tags"):
            ec2.create_tags(Resources=[physical_id], Tags=new["Tags"])
        return Provisioned(physical_id)

    def delete(self, physical_id: str, properties: Params, stack: Stack) -> None:
        self._ec2(stack).delete_flow_logs(FlowLogIds=[physical_id])


def network_types(cloud: Cloud) -> dict[str, ResourceType]:
    """The types by name."""
    return {
        "AWS::EC2::SecurityGroupIngress": SecurityGroupRule(cloud, "ingress"),
        "AWS::EC2::SecurityGroupEgress": SecurityGroupRule(cloud, "egress"),
        "AWS::EC2::FlowLog": FlowLog(cloud),
    }
