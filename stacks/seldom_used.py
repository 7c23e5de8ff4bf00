"""What roles are granted and a rehearsed push does not use: every action by name, with the reason why it is granted.

`python -m rehearsal audit --unused` lists what was granted and not used. A test compares the two: it fails on an action
that is not in this table, and on one that is in it and was used, but where that depends on what comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

FAILURE = "the way of a failure, a stop or a rejection, which the other tests of the rehearsal walk"
NOT_REHEARSED = "AWS's services do it under the role, and the rehearsal does not"
SPELLINGS = "names are granted in the two spellings in which SageMaker's ARNs come"
HANDLERS = "CloudFormation's handlers read back, tag, roll back and delete what they made"
DRIFT = "the schedule; the test starts the state machine itself"
PARTS = "uploads in several parts, and those that fail; the rehearsal's objects are small"

EVALUATION, FEATURES, TRAINING = (f"<model>-Training/Jobs{job}" for job in ("Evaluation", "Features", "Training"))
DELIVERY = "<model>-Training/DeliveryRoles"
VERIFY_BUILD = "<model>-Training/DeliveryVerifyRole"
RETRAIN = "<model>-Training/RetrainRole"
MONITOR_JOB, MONITOR, MONITOR_START = (f"<model>-Monitoring/{role}" for role in ("JobRole", "MonitorRole", "StartRole"))
STAGING, PRODUCTION = "<model>-Release-Staging/Roles", "<model>-Release-Production/Roles"
RECONCILERS = (f"{STAGING}Reconciler", f"{PRODUCTION}Reconciler")
SERVING = (f"{STAGING}Serving", f"{PRODUCTION}Serving")
UPDATES = (f"{STAGING}Update", f"{PRODUCTION}Update")
DOOR, SCHEDULES = (f"Pushline-Repository/{role}" for role in ("StartRetrainingRole", "ScheduleRole"))
FLOW_LOGS = tuple(f"Pushline-Network-{name}/FlowLogRole" for name in ("Training", "Staging", "Production"))


@dataclass(frozen=True)
class Seldom:
    """Actions of roles, which are named as in docs/security.md (`stack/name`), and why they are granted."""

    roles: tuple[str, ...]
    actions: tuple[str, ...]
    reason: str
    by_chance: bool = False
    """Whether the story's events may come in an order that uses them."""

    def pairs(self) -> Iterator[tuple[str, str]]:
        return product(self.roles, self.actions)


def kind(stack: str, logical_id: str) -> str:
    """What a role is, whichever its model: `<model>-Training/JobsFeatures`."""
    area, _, rest = stack.partition("-")
    return f"{area if area == 'Pushline' else '<model>'}-{rest}/{re.sub(r'[0-9A-F]{8}$', '', logical_id)}"


def _of(service: str, names: str) -> tuple[str, ...]:
    return tuple(f"{service}:{name}" for name in names.split())


SELDOM_USED = (
    Seldom((*RECONCILERS, RETRAIN, MONITOR),
           _of("logs", "CreateLogDelivery DeleteLogDelivery DescribeLogGroups DescribeResourcePolicies GetLogDelivery"
               " ListLogDeliveries PutResourcePolicy UpdateLogDelivery"),
           f"{NOT_REHEARSED}: log delivery of a state machine"),
    Seldom((*RECONCILERS, RETRAIN, MONITOR),
           _of("xray", "GetSamplingRules GetSamplingTargets PutTelemetryRecords PutTraceSegments"),
           f"{NOT_REHEARSED}: traces of a state machine"),
    Seldom((*RECONCILERS, RETRAIN, MONITOR, DOOR), ("sns:Publish",), f"{FAILURE}: people are told"),
    Seldom((*RECONCILERS, MONITOR), ("kms:GenerateDataKey",), f"{FAILURE}: the topic is encrypted"),
    Seldom(RECONCILERS, ("kms:Decrypt",), f"{FAILURE}: the topic is encrypted"),
    Seldom((EVALUATION, FEATURES, TRAINING, MONITOR_JOB, *SERVING),
           ("cloudwatch:PutMetricData",),
           f"{NOT_REHEARSED}: metrics of the instance"),
    Seldom((EVALUATION, TRAINING, MONITOR_JOB, *SERVING), ("logs:DescribeLogStreams",),
           "SageMaker documents the look at a group's streams"),
    Seldom((EVALUATION, TRAINING, MONITOR_JOB),
           ("kms:CreateGrant",),
           f"{NOT_REHEARSED}: the volume of an instance is encrypted"),
    Seldom((f"{STAGING}Serving",), ("kms:GenerateDataKey",),
           "nothing is captured in staging; an asynchronous endpoint writes its answers"),
    Seldom(SERVING, ("kms:Decrypt",), f"{PARTS}: each part decrypts the upload's data key"),
    Seldom(SERVING, ("s3:ListBucket",), "SageMaker documents it for the model's artifact"),
    Seldom((EVALUATION, FEATURES, TRAINING, MONITOR_JOB, RETRAIN, VERIFY_BUILD, f"{DELIVERY}Source",
            f"{PRODUCTION}Serving"),
           ("s3:AbortMultipartUpload",),
           PARTS),
    Seldom((FEATURES,),
           _of("s3", "DeleteObject GetObject"),
           "Spark reads its output back and replaces an earlier attempt's"),
    Seldom((FEATURES,),
           ("ec2:CreateNetworkInterface", "logs:AssociateKmsKey", "logs:CreateLogGroup"),
           f"{NOT_REHEARSED}: network interfaces, in whichever subnet, and Glue's look after its log groups"),
    Seldom((VERIFY_BUILD, f"{DELIVERY}Retrain"),
           ("s3:GetObjectVersion",),
           "CodePipeline names the artifact's version; the rehearsal its key"),
    Seldom((f"{DELIVERY}Source",),
           ("codecommit:CancelUploadArchive", "kms:Decrypt"),
           f"{FAILURE}; CodePipeline documents both for its source action"),
    Seldom((f"{DELIVERY}Verify",), ("codebuild:StopBuild",), FAILURE),
    Seldom((RETRAIN,),
           ("glue:BatchStopJobRun", "glue:GetJobRuns", "sagemaker:StopProcessingJob", "sagemaker:StopTrainingJob",
            "sagemaker:UpdateModelPackage"),
           FAILURE),
    Seldom(RECONCILERS, ("cloudformation:DescribeStackEvents",), FAILURE),
    Seldom((f"{PRODUCTION}Reconciler",), ("sagemaker:UpdateModelPackage",), FAILURE),
    Seldom(RECONCILERS,
           _of("sagemaker", "DeleteEndpointConfig DeleteModel DescribeEndpointConfig DescribeModel"),
           f"what a release left behind; {SPELLINGS}"),
    Seldom(UPDATES,
           _of("sagemaker", "AddTags CreateEndpoint CreateEndpointConfig CreateModel DeleteEndpoint"
                      " DeleteEndpointConfig DeleteModel DeleteTags DescribeEndpointConfig DescribeModel ListTags"
                      " UpdateEndpoint"),
           f"{HANDLERS}; {SPELLINGS}"),
    Seldom(UPDATES,
           _of("kms", "CreateGrant Decrypt DescribeKey GenerateDataKey"),
           f"{NOT_REHEARSED}: volumes and captured data are encrypted for the instance"),
    Seldom((f"{PRODUCTION}Update",),
           _of("cloudwatch", "DeleteAlarms DeleteDashboards DescribeAlarms UntagResource"),
           HANDLERS),
    Seldom((f"{PRODUCTION}Update",),
           _of("application-autoscaling", "DeleteScalingPolicy DeregisterScalableTarget DescribeScalableTargets"
                                    " DescribeScalingPolicies ListTagsForResource"),
           HANDLERS),
    Seldom((DOOR,),
           ("codepipeline:ListActionExecutions", "logs:CreateLogStream"),
           "requests that wait for a running retraining; the push of this story finds none"),
    Seldom((DOOR,), ("cloudwatch:DescribeAlarms",), "drift that waited; the tests about drift do it"),
    Seldom((DOOR,),
           ("iam:PassRole", "s3:ListBucket", *_of("scheduler", "CreateSchedule GetSchedule")),
           "requests that wait, and new data once something was pushed; the story's data comes before",
           by_chance=True),
    Seldom((SCHEDULES,), ("lambda:InvokeFunction",), "as above: who waits comes by schedule", by_chance=True),
    Seldom(FLOW_LOGS,
           _of("logs", "CreateLogStream DescribeLogGroups DescribeLogStreams PutLogEvents"),
           f"{NOT_REHEARSED}: flow logs of the network"),
    Seldom((MONITOR_START,), ("states:StartExecution",), DRIFT),
    Seldom((MONITOR,), ("cloudwatch:PutMetricData",), "less than a week of requests is not measured"),
    Seldom((MONITOR,), _of("glue", "GetJobRun StartJobRun"), "features for labels, which this story has none of"),
    Seldom((MONITOR,), ("glue:BatchStopJobRun", "glue:GetJobRuns", "sagemaker:StopProcessingJob"), FAILURE),
)  # fmt: skip
