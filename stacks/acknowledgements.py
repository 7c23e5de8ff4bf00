"""cdk-nag at synth, and the one table of its findings that are accepted, each with the reason.

A finding without a row fails the synth; a row without a finding fails a test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
import jsii
from cdk_nag import AwsSolutionsChecks

from stacks.every_resource import ACCEPTED

BELOW_A_PREFIX = "an object's key or a name is made at run time; the prefix is this model's own"


@dataclass(frozen=True)
class Accepted:
    """Findings (regular expression) on constructs (regular expression on the path), and why they are accepted."""

    construct: str
    finding: str
    reason: str

    def covers(self, construct: str, finding: str) -> bool:
        return bool(re.fullmatch(self.construct, construct) and re.fullmatch(self.finding, finding))


def _resource(pattern: str) -> str:
    return rf"AwsSolutions-IAM5\[Resource::{pattern}\]"


TABLE = (
    Accepted(r".*-(Training/Jobs|Monitoring|Release-[A-Za-z]+/Roles)/.*",
             _resource(r"[^*]*:ec2:[^*]*:network-interface/\*"),
             "interfaces get their id when they are made; the subnets and security groups they are made in are named"),
    Accepted(r"Pushline-Network-[A-Za-z]+/FlowLogRole/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r"Pushline-Repository/StartRetraining/Resource", "AwsSolutions-L1",
             "Python 3.11 is the platform's one version, the feature jobs' too; the rehearsal runs the same"),
    Accepted(r"Pushline-Repository/StartRetrainingRole/.*", _resource(r"[^*]*:[a-z0-9-]+-\*"),
             "the pipelines of this project; naming each would make this stack grow with the models"),
    Accepted(r"Pushline-Repository/StartRetrainingRole/.*", _resource(r"[^*]*:schedule/<Schedules>/\*"),
             "deferred requests get a one-time schedule each, in the group that is for them"),
    Accepted(r"Pushline-Repository/(StartRetrainingRole|Source/Doorbell/Roles)/.*",
             _resource(r"[^*]*PipelineStore[^*]*/[a-z0-9-]+\.push?/\*"),
             "an artifact's key is made at run time; the prefix is the doorbell's own, cut by CodePipeline"),
    Accepted(r"Pushline-Repository/StartRetrainingRole/.*", _resource(r"[^*]*:alarm:\*-drift-\*"),
             "the drift alarms of all models; naming each would make this stack grow with the models"),
    Accepted(r"Pushline-Repository/StartRetrainingRole/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Training/.*", _resource(r"[^*]*/(raw|features|bundles|training|evaluation|lineage)/[a-z0-9_-]+/\*"),
             BELOW_A_PREFIX),
    Accepted(r".*-Training/Delivery/.*", _resource(r"[^*]*PipelineStore[^*]*/[a-z0-9-]+/\*"), BELOW_A_PREFIX),
    Accepted(r".*-(Training|Release-[A-Za-z]+)/.*", _resource(r"[^*]*:(training-job|processing-job)/[a-z0-9-]+-\*"),
             BELOW_A_PREFIX),
    Accepted(r".*-Training/.*", _resource(r"[^*]*:model-package/[a-z0-9-]+/\*"), BELOW_A_PREFIX),
    Accepted(r".*-Training/Delivery/.*", _resource(r"[^*]*:execution:<[A-Za-z0-9.]+>:\*"), BELOW_A_PREFIX),
    Accepted(r".*/(Jobs|Roles/Comparison)/.*",
             _resource(r"[^*]*:log-group:/aws/sagemaker/[A-Za-z]+:log-stream:[a-z0-9-]+-\*"),
             BELOW_A_PREFIX),
    Accepted(r".*/(Jobs|Roles/Comparison)/.*", _resource(r"[^*]*:log-group:/aws/sagemaker/[A-Za-z]+:\*"),
             "the form of a log group's ARN; the group is one of the account, named by SageMaker"),
    Accepted(r".*-Training/Jobs/Features/.*",
             _resource(r"[^*]*:log-group:/aws-glue/jobs/[a-z0-9-]+-role/\*(:log-stream:\*)?"),
             "Glue derives the groups' names from security configuration and role, which can't name itself"),
    Accepted(r".*-Training/Jobs/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Training/RetrainRole/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Monitoring/.*",
             _resource(r"[^*]*/(features|capture/[a-z0-9-]+|training|lineage|monitoring)/[a-z0-9-]+/\*"),
             BELOW_A_PREFIX),
    Accepted(r".*-Monitoring/.*", _resource(r"[^*]*:processing-job/[a-z0-9-]+-\*"), BELOW_A_PREFIX),
    Accepted(r".*-Monitoring/Native/Role/.*",
             _resource(r"[^*]*/(labels/[a-z0-9-]+|capture/[a-z0-9-]+/production|monitoring/[a-z0-9-]+/native)/\*"),
             BELOW_A_PREFIX),
    Accepted(r".*-Monitoring/Native/Role/.*",
             _resource(r"[^*]*:(processing-job/|log-group:/aws/sagemaker/ProcessingJobs:(log-stream:)?)([a-z-]+-)?\*"),
             "Model Monitor names its jobs and their streams, whichever endpoint they are for"),
    Accepted(r".*-Monitoring/Native/Role/.*", _resource(r"[^*]*:endpoint-config/[A-Za-z0-9]+-\*"),
             "CloudFormation names endpoint configs; the prefix is this endpoint's own"),
    Accepted(r".*-Monitoring/Native/Role/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Monitoring/MonitorRole/.*", _resource(r"[^*]*:model-package/[a-z0-9-]+/\*"), BELOW_A_PREFIX),
    Accepted(r".*-Monitoring/JobRole/.*",
             _resource(r"[^*]*:log-group:/aws/sagemaker/[A-Za-z]+:(log-stream:[a-z0-9-]+-)?\*"),
             "SageMaker names the streams of its own log group; the prefix is this model's own"),
    Accepted(r".*-Monitoring/JobRole/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Monitoring/MonitorRole/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Release-.*/Roles/.*", _resource(r"[^*]*/(training|bundles|evaluation|shadow)/[a-z0-9-]+/\*"),
             BELOW_A_PREFIX),
    Accepted(r".*(-Release-.*/Roles/(Serving|Reconciler)|-Monitoring/JobRole)/.*",
             _resource(r"arn:[^*]*:kms:[^*]*:key/\*"),
             "KMS makes up the id of the key in the other account; conditions bind it to S3 and to the one bucket"),
    Accepted(r".*-Release-.*/Roles/(Serving|Comparison|Reconciler)/.*",
             _resource(r"[^*]*/(capture|async)/[a-z0-9-]+/[a-z]+/([a-z]+/)?\*"), BELOW_A_PREFIX),
    Accepted(r".*-Release-.*/Roles/(Serving|Update)/.*", _resource(r"[^*]*:alarm:[a-z0-9-]+-\*"),
             "alarms are named after endpoint and fleet; the prefix is this endpoint's own"),
    Accepted(r".*-Release-.*/Roles/Update/.*", _resource(r"[^*]*:alarm:TargetTracking-endpoint/[A-Za-z0-9/-]+-\*"),
             "autoscaling names its alarms; the prefix is this endpoint's own"),
    Accepted(r".*-Release-.*/Roles/Update/.*", _resource(r"[^*]*:scalable-target/\*"),
             "Application Auto Scaling makes up the id; conditions bind it to instance counts of endpoints"),
    Accepted(r".*-Release-.*/Roles/Update/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Release-.*/Roles/.*", _resource(r"[^*]*:(model|endpoint-config)/[A-Za-z0-9]+-\*"),
             "CloudFormation names models and endpoint configs; the prefix is this endpoint's own"),
    Accepted(r".*-Release-.*/Roles/Reconciler/.*", _resource(r"[^*]*:model-package/[a-z0-9-]+/\*"), BELOW_A_PREFIX),
    Accepted(r".*-Release-.*/Roles/Reconciler/.*", _resource(r"[^*]*:stack/[A-Za-z0-9-]+/\*"),
             "the stack's id follows its name in the ARN"),
    Accepted(r".*-Release-.*/Roles/Serving/.*",
             _resource(r"[^*]*:log-group:/aws/sagemaker/Endpoints/[a-z0-9-]+:(log-stream:)?\*"),
             "SageMaker names the streams of the endpoint's own log group"),
    Accepted(r".*-Release-.*/Roles/(Serving|Comparison)/.*", _resource(r"\*"), ACCEPTED),
    Accepted(r".*-Release-.*/Roles/Reconciler/.*", _resource(r"\*"), ACCEPTED),
)  # fmt: skip


@jsii.implements(cdk.IPolicyValidationPlugin)
class Checks:
    """AwsSolutions without what the table accepts."""

    def __init__(self, app: cdk.App) -> None:
        self._app, self._pack = app, AwsSolutionsChecks(app)
        self.used: set[Accepted] = set()

    @property
    def name(self) -> str:
        return "AwsSolutions"

    @property
    def version(self) -> str | None:
        return None

    @property
    def rule_ids(self) -> list[str] | None:
        return None

    def validate(self, context: Any) -> cdk.PolicyValidationPluginReport:
        violations = list(self._pack.validate_scope(self._app).violations)
        self.used = {row for violation in violations for found in violation.violating_resources for row in TABLE
                     if row.covers(found.construct_path or "", violation.rule_name)}  # fmt: skip
        remaining = [left for violation in violations if (left := _unaccepted(violation))]
        return cdk.PolicyValidationPluginReport(success=not remaining, violations=remaining)


def _unaccepted(violation: Any) -> cdk.PolicyViolation | None:
    """The part of a violation that no row covers."""
    found = [resource for resource in violation.violating_resources
             if not any(row.covers(resource.construct_path, violation.rule_name) for row in TABLE)]  # fmt: skip
    if not found:
        return None
    return cdk.PolicyViolation(rule_name=violation.rule_name, description=violation.description,
                               severity=violation.severity, violating_resources=found)  # fmt: skip
