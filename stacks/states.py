"""Building blocks of state machine definitions in JSONata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

State = dict[str, Any]

TRANSIENT = (
    "ThrottlingException", "TooManyRequestsException", "ServiceUnavailableException", "InternalServerException",
    "InternalServiceException", "SdkClientException", "ConcurrentRunsExceededException",
    "ResourceLimitExceededException", "SlowDownException", "KmsThrottlingException", "KMSThrottlingException",
    "ThrottledException", "InternalErrorException", "InternalFailureException", "InternalDependencyException",
    "ModelNotReadyException",
)  # fmt: skip
"""Faults that go away by waiting, as Step Functions names them: each name ends in Exception, whatever the API says."""
_UNNAMED = {
    "sagemaker": ("SageMaker.AmazonSageMakerException", "SageMaker.SageMakerException"),
    "glue": ("Glue.AWSGlueException", "Glue.GlueException"), "s3": ("S3.S3Exception",),
    "sns": ("SNS.AmazonSNSException", "Sns.SnsException"), "cloudwatch": ("CloudWatch.CloudWatchException",),
    "cloudformation": ("CloudFormation.CloudFormationException",),
    "sagemakerruntime": ("SageMakerRuntime.SageMakerRuntimeException",),
}  # fmt: skip
"""What a service's errors are called where its API has no name for them: throttling, but also a denied call."""
SECONDS, BACKOFF, MAXIMUM_SECONDS = 2, 2, 60
ATTEMPTS, ATTEMPTS_UNNAMED = 6, 3


def expression(text: str) -> str:
    """A JSONata expression as Step Functions wants it."""
    return f"{{% {text} %}}"


def jsonata_list(values: Iterable[str]) -> str:
    """A list of strings as a JSONata literal."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def task(resource: str, arguments: Mapping[str, Any], then: str, **more: Any) -> State:
    """A call of a service: `resource` is `glue:startJobRun.sync` or `aws-sdk:s3:getObject`; transient faults retry."""
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Arguments": dict(arguments), "Next": then,
            "Retry": retries(resource), **more}  # fmt: skip


def retries(resource: str) -> list[dict[str, Any]]:
    """Wait longer and longer after a throttled call or a fault; less patiently where it may be a mistake of ours."""
    unnamed = _UNNAMED[resource.removeprefix("aws-sdk:").split(":")[0]]
    prefixes = sorted({name.split(".")[0] for name in unnamed})
    named = [f"{prefix}.{error}" for prefix in prefixes for error in TRANSIENT]
    return [_retry(named, ATTEMPTS), _retry(list(unnamed), ATTEMPTS_UNNAMED)]


def _retry(errors: list[str], attempts: int) -> dict[str, Any]:
    return {"ErrorEquals": errors, "IntervalSeconds": SECONDS, "MaxAttempts": attempts, "BackoffRate": BACKOFF,
            "MaxDelaySeconds": MAXIMUM_SECONDS, "JitterStrategy": "FULL"}  # fmt: skip
