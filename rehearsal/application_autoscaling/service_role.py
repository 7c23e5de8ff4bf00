"""The service-linked role under which Application Auto Scaling looks at endpoints and changes them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from rehearsal.service import Caller, Cloud, Permission
from rehearsal.store import Store

MADE = "autoscaling/service-role"
PRINCIPAL = "sagemaker.application-autoscaling.amazonaws.com"
NAME = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
POLICY_NAME = "AWSApplicationAutoscalingSageMakerEndpointPolicy"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "sagemaker:DescribeEndpoint",
                "sagemaker:DescribeEndpointConfig",
                "sagemaker:UpdateEndpointWeightsAndCapacities",
                "cloudwatch:DescribeAlarms",
            ],
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Action": ["cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"],
            "Resource": "arn:aws:cloudwatch:*:*:alarm:TargetTracking*",
        },
    ],
}
"""What AWS's managed policy of that name allows for variants."""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": PRINCIPAL}}],
}


def role_arn(caller: Caller) -> str:
    return f"arn:aws:iam::{caller.account}:role/aws-service-role/{PRINCIPAL}/{NAME}"


def needed(store: Store, caller: Caller) -> list[Permission]:
    """Who registers the first target makes the role, and must be allowed to."""
    if store.get(MADE, caller.account):
        return []
    return [Permission("iam:CreateServiceLinkedRole", role_arn(caller), {"iam:AWSServiceName": PRINCIPAL})]


def ensure(cloud: Cloud, caller: Caller) -> None:
    """Make the role if this account has none; its creation is AWS's own doing, the permission is the caller's."""
    if cloud.store.get(MADE, caller.account):
        return
    iam = cloud.client("iam", account=caller.account)
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(
            RoleName=NAME, Path=f"/aws-service-role/{PRINCIPAL}/", AssumeRolePolicyDocument=json.dumps(TRUST)
        )
    iam.put_role_policy(RoleName=NAME, PolicyName=POLICY_NAME, PolicyDocument=json.dumps(POLICY))
    cloud.store.put(MADE, caller.account, {"RoleName": NAME})


def acting(cloud: Cloud, service: str, caller: Caller) -> Any:
    """A client that signs as the role."""
    return cloud.client(service, role=role_arn(caller), by=PRINCIPAL, account=caller.account, region=caller.region,
                        session="application-autoscaling")  # fmt: skip
