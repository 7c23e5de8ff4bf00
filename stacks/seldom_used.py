"""What roles are granted and a rehearsal's demo does not use, each with the reason why it is granted all the same.

`python -m rehearsal audit --unused` lists what was granted and not used; a test compares it with this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FAILURE = "the way of a failure, a stop or a rejection, which the other tests of the rehearsal walk"
NOT_REHEARSED = "AWS's services do it under the role, and the rehearsal does not"
SPELLINGS = "names are granted in the two spellings in which SageMaker's ARNs come"
HANDLERS = "CloudFormation's handlers read back, tag, roll back and delete what they made"


@dataclass(frozen=True)
class Seldom:
    """Actions (regular expression) of roles (regular expression on the name), and why they are granted."""

    roles: str
    actions: str
    reason: str

    def covers(self, role: str, action: str) -> bool:
        return bool(re.search(self.roles, role) and re.fullmatch(self.actions, action))


SELDOM_USED = (
    Seldom("Retrain|Reconciler", "logs:.*", f"{NOT_REHEARSED}: log delivery of a state machine"),
    Seldom("Retrain|Reconciler", "xray:.*", f"{NOT_REHEARSED}: traces of a state machine"),
    Seldom("Jobs|Serving", "cloudwatch:PutMetricData|logs:.*", f"{NOT_REHEARSED}: metrics of the instance; a log group"
           " that is there is not made again"),
    Seldom("Jobs|Serving|Update", "kms:.*", f"{NOT_REHEARSED}: volumes and captured data encrypted for the instance"),
    Seldom("Jobs|Verify|Source|Retrain|Serving", "s3:AbortMultipartUpload|kms:.*", FAILURE),
    Seldom("JobsFeatures", "s3:.*", "Spark reads its output back and replaces an earlier attempt's"),
    Seldom("Serving", "s3:ListBucket", "SageMaker documents it for the model's artifact"),
    Seldom("Verify|Retrain", "s3:GetObjectVersion", "CodePipeline names the artifact's version; the rehearsal its key"),
    Seldom("RetrainRole", "glue:.*|sagemaker:Stop.*", FAILURE),
    Seldom("DeliveryRoles", "codebuild:StopBuild|codecommit:CancelUploadArchive", FAILURE),
    Seldom("Retrain|Reconciler|StartRetraining", "sns:Publish|kms:.*", FAILURE),
    Seldom("Update", "sagemaker:.*", f"{HANDLERS}; {SPELLINGS}"),
    Seldom("Update", "cloudwatch:.*|application-autoscaling:.*|iam:CreateServiceLinkedRole|kms:.*",
           f"{HANDLERS}; the rehearsal makes alarms and dashboards as CloudFormation itself"),
    Seldom("Reconciler", "cloudformation:DescribeStackEvents|sagemaker:UpdateModelPackage", FAILURE),
    Seldom("Reconciler", "sagemaker:(Describe|Delete)(Model|EndpointConfig)|sagemaker:InvokeEndpointAsync",
           f"what a release left behind; {SPELLINGS}"),
    Seldom("StartRetraining|ScheduleRole",
           "scheduler:.*|codepipeline:.*|codecommit:.*|s3:.*|lambda:.*|logs:.*|iam:.*|cloudwatch:DescribeAlarms",
           "retraining by schedule, new data or drift, and requests that wait: the demo only pushes"),
    Seldom("FlowLogRole", "logs:.*", f"{NOT_REHEARSED}: flow logs of the network"),
    Seldom("Jobs|Serving", "ec2:.*|glue:GetConnection", f"{NOT_REHEARSED}: network interfaces, in whichever subnet"),
    Seldom("Monitoring", ".*", "drift is checked by schedule, not by a push"),
)  # fmt: skip
