"""The policies as deployed, read through the API: what each role is granted, and what resources say themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import ClientError

from rehearsal.landscape import ClientOf

Policy = dict[str, Any]
TOOLKIT = "CDKToolkit"
BUCKETS = "arn:aws:s3:::"
"""How ARNs of buckets begin, which name no account."""


@dataclass(frozen=True)
class Role:
    """One role: who may assume it, what its policies grant, and what bounds them."""

    arn: str
    trust: Policy
    policies: dict[str, Policy] = field(default_factory=dict)
    boundary: Policy | None = None

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]


def roles(client_of: ClientOf) -> dict[str, Role]:
    """Every role by its ARN."""
    iam = client_of("iam")
    listed = [role for page in iam.get_paginator("list_roles").paginate() for role in page["Roles"]]
    return {role["Arn"]: _role(iam, role["RoleName"]) for role in listed}


def of_resources(client_of: ClientOf) -> dict[str, Policy]:
    """The policies that resources have themselves, by ARN: buckets, topics, queues, keys, buses, functions, groups."""
    kinds = (_buckets, _topics, _queues, _keys, _buses, _functions, _groups)
    return {arn: policy for kind in kinds for arn, policy in kind(client_of)}


def accounts_of_buckets(client_of: ClientOf) -> dict[str, str]:
    """The account of every bucket that these clients' account has, by the bucket's ARN."""
    account = str(client_of("sts").get_caller_identity()["Account"])
    return dict.fromkeys((BUCKETS + bucket["Name"] for bucket in client_of("s3").list_buckets()["Buckets"]), account)


def names_in_stacks(client_of: ClientOf) -> set[str]:
    """The names of the roles that stacks made, apart from the CDK's own bootstrap stack."""
    stacks = client_of("cloudformation")
    names = [s["StackName"] for page in stacks.get_paginator("describe_stacks").paginate() for s in page["Stacks"]]
    return {
        found["PhysicalResourceId"]
        for name in names
        if name != TOOLKIT
        for page in stacks.get_paginator("list_stack_resources").paginate(StackName=name)
        for found in page["StackResourceSummaries"]
        if found["ResourceType"] == "AWS::IAM::Role"
    }


def owner(arn: str) -> str:
    """The ARN of what has the policy: an object's bucket, a package's group, a version's function, else itself."""
    if arn.startswith(BUCKETS):
        return arn.partition("/")[0]
    if ":model-package/" in arn:
        return arn.replace(":model-package/", ":model-package-group/").rpartition("/")[0]
    return ":".join(arn.split(":")[:7]) if arn.startswith("arn:aws:lambda:") else arn


def listed(value: Any) -> list[Any]:
    """One or many, as policy documents have it."""
    return value if isinstance(value, list) else [value]


def _role(iam: Any, name: str) -> Role:
    role = iam.get_role(RoleName=name)["Role"]
    names = iam.list_role_policies(RoleName=name)["PolicyNames"]
    policies = {n: _document(iam.get_role_policy(RoleName=name, PolicyName=n)["PolicyDocument"]) for n in names}
    for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        if (document := _managed(iam, attached["PolicyArn"])) is not None:
            policies[attached["PolicyName"]] = document
    bound = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    return Role(
        role["Arn"], _document(role["AssumeRolePolicyDocument"]), policies, _managed(iam, bound) if bound else None
    )


def _managed(iam: Any, arn: str) -> Policy | None:
    try:
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        return _document(iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])
    except ClientError:
        return None


def _document(document: str | Policy) -> Policy:
    parsed: Policy = json.loads(unquote(document)) if isinstance(document, str) else document
    return parsed


def _buckets(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    s3 = client_of("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        try:
            yield BUCKETS + bucket["Name"], _document(s3.get_bucket_policy(Bucket=bucket["Name"])["Policy"])
        except ClientError:  # it has none
            continue


def _topics(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    sns = client_of("sns")
    for topic in (topic for page in sns.get_paginator("list_topics").paginate() for topic in page["Topics"]):
        if policy := sns.get_topic_attributes(TopicArn=topic["TopicArn"])["Attributes"].get("Policy"):
            yield topic["TopicArn"], _document(policy)


def _queues(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    sqs = client_of("sqs")
    for url in sqs.list_queues().get("QueueUrls", []):
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy", "QueueArn"])["Attributes"]
        if policy := found.get("Policy"):
            yield found["QueueArn"], _document(policy)


def _keys(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    kms = client_of("kms")
    for key in (key for page in kms.get_paginator("list_keys").paginate() for key in page["Keys"]):
        yield key["KeyArn"], _document(kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"])


def _buses(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    events = client_of("events")
    for bus in events.list_event_buses()["EventBuses"]:
        if policy := events.describe_event_bus(Name=bus["Name"]).get("Policy"):
            yield bus["Arn"], _document(policy)


def _functions(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    functions = client_of("lambda")
    for page in functions.get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            try:
                yield (
                    function["FunctionArn"],
                    _document(functions.get_policy(FunctionName=function["FunctionName"])["Policy"]),
                )
            except ClientError:  # it has none
                continue


def _groups(client_of: ClientOf) -> Iterator[tuple[str, Policy]]:
    sagemaker = client_of("sagemaker")
    for group in sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]:
        name = group["ModelPackageGroupName"]
        try:
            policy = sagemaker.get_model_package_group_policy(ModelPackageGroupName=name)["ResourcePolicy"]
        except ClientError:  # it has none
            continue
        yield group["ModelPackageGroupArn"], _document(policy)
