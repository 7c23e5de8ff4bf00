"""Building blocks of state machine definitions in JSONata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

State = dict[str, Any]

TRANSIENT = (
    "ThrottlingException", "TooManyRequestsException", "ServiceUnavailableException", "InternalServerException",
    "InternalServiceException", "SdkClientException", "SlowDownException", "KmsThrottlingException",
    "KMSThrottlingException", "ThrottledException", "InternalErrorException", "InternalFailureException",
    "InternalDependencyException", "ModelNotReadyException",
)  # fmt: skip
"""Faults that go away by waiting, as Step Functions names them: each name ends in Exception, whatever the API says."""
NO_ROOM = ("ConcurrentRunsExceededException", "ResourceNumberLimitExceededException", "ResourceLimitExceededException")
"""Other runs hold all that the account's quotas, or the job's own limit, allow; these take as long as runs take."""
_UNNAMED = {
    "sagemaker": ("SageMaker.AmazonSageMakerException", "SageMaker.SageMakerException"),
    "glue": ("Glue.AWSGlueException", "Glue.GlueException"), "s3": ("S3.S3Exception",),
    "sns": ("SNS.AmazonSNSException", "Sns.SnsException"), "cloudwatch": ("CloudWatch.CloudWatchException",),
    "cloudformation": ("CloudFormation.CloudFormationException",),
    "sagemakerruntime": ("SageMakerRuntime.SageMakerRuntimeException",),
}  # fmt: skip
"""What a service's errors are called where its API has no name for them: throttling, but also a denied call."""
SECONDS, MAXIMUM_SECONDS = 2, 60
ATTEMPTS, ATTEMPTS_UNNAMED = 6, 3
ROOM_SECONDS, ROOM_MAXIMUM_SECONDS, ROOM_ATTEMPTS = 30, 300, 24
"""With half of each wait on average: an hour, in which the runs of many models end one after the other."""


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
    """Wait longer and longer after a throttled call or a fault: less patiently where it may be a mistake of ours, and
    most where there is no room."""
    unnamed = _UNNAMED[resource.removeprefix("aws-sdk:").split(":")[0]]
    prefixes = sorted({name.split(".")[0] for name in unnamed})

    def named(errors: tuple[str, ...]) -> list[str]:
        return [f"{prefix}.{error}" for prefix in prefixes for error in errors]

    return [_retry(named(TRANSIENT), ATTEMPTS), _retry(list(unnamed), ATTEMPTS_UNNAMED),
            _retry(named(NO_ROOM), ROOM_ATTEMPTS, ROOM_SECONDS, ROOM_MAXIMUM_SECONDS)]  # fmt: skip


def unless_no_room(advice: str, otherwise: str) -> str:
    """What to do about a task that failed, as an expression: `otherwise` where there was no room for it."""
    error = "$split($states.errorOutput.Error, '.')[-1]"
    return expression(f"{error} in {jsonata_list(NO_ROOM)} ? {json.dumps(otherwise)} : {json.dumps(advice)}")


def _retry(errors: list[str], attempts: int, first: int = SECONDS, most: int = MAXIMUM_SECONDS) -> dict[str, Any]:
    return {"ErrorEquals": errors, "IntervalSeconds": first, "MaxAttempts": attempts, "BackoffRate": 2,
            "MaxDelaySeconds": most, "JitterStrategy": "FULL"}  # fmt: skip
