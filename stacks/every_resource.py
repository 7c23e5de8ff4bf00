"""Why an action is granted on every resource: AWS's service authorization reference knows none for it.

The one table of such grants: cdk-nag's findings on them are accepted because of it, docs/security.md is written from
it, and a test refuses a grant on every resource of any other action.
"""

from __future__ import annotations

from collections.abc import Iterable

METRICS = "metrics are no resources; publishing is bound to a namespace"
REASONS = {
    ("ecr:GetAuthorizationToken",): "the token is for a registry as a whole; images are pulled by repository",
    ("cloudwatch:PutMetricData", "cloudwatch:GetMetricData"): METRICS,
    ("ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables",
     "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcEndpoints",
     "ec2:DescribeVpcs"): "EC2 lists its networks for all or none; it only reads",
    ("sagemaker:ListModels", "sagemaker:ListEndpointConfigs"): "SageMaker lists names for all or none; it only reads",
    ("application-autoscaling:DescribeScalableTargets",
     "application-autoscaling:DescribeScalingPolicies"): "targets are listed for all or none; it only reads",
    ("logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
     "logs:ListLogDeliveries", "logs:PutResourcePolicy",
     "logs:DescribeResourcePolicies"): "a state machine's log goes through log delivery, which knows no resources",
    ("logs:DescribeLogGroups",): "CloudWatch Logs lists its groups for all or none; it only reads",
    ("xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules",
     "xray:GetSamplingTargets"): "X-Ray knows no resources for traces",
    ("codepipeline:PutJobSuccessResult",): "a job's id is the secret that names it; the doorbell's job ends with it",
}  # fmt: skip
BY_ACTION = {action: reason for actions, reason in REASONS.items() for action in actions}
ACCEPTED = "only actions for which AWS knows no resources; stacks/every_resource.py has the reason for each"


def because(actions: Iterable[str]) -> list[str]:
    """The reasons for a statement's actions, each once."""
    return list(dict.fromkeys(BY_ACTION[action] for action in actions))
