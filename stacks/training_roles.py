"""The roles of hop 3 and 4, one per actor, each with exactly what its actor does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from config import Guardrails
from contract import Model
from stacks.environment_stack import EnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import FrameworkImage
from stacks.instance_types import has_local_storage
from stacks.names import feature_job_name
from stacks.network import enter_for_glue, enter_for_sagemaker, within
from stacks.permissions import (
    allow,
    arn,
    delete_objects,
    lend_key,
    list_objects,
    pass_role,
    read_objects,
    read_versions,
    service_role,
    use_key,
    write_log,
    write_objects,
)

REGISTERED_AS = ["PendingManualApproval", "Rejected"]
"""Retraining proposes; only a release role approves."""


class JobRoles(Construct):
    """What the features, training and evaluation jobs run as."""

    def __init__(self, scope: Construct, id: str, *, model: Model, foundation: FoundationStack,
                 image: FrameworkImage) -> None:  # fmt: skip
        super().__init__(scope, id)
        self._model, self._foundation, self._image = model, foundation, image
        self.features = service_role(self, "Features", "glue", statements=self._features())
        self.training = service_role(self, "Training", "sagemaker", statements=self._training())
        self.evaluation = service_role(self, "Evaluation", "sagemaker", statements=self._evaluation())

    def _features(self) -> list[iam.PolicyStatement]:
        data, artifacts, key = self._foundation.data, self._foundation.artifacts, self._foundation.key
        name, slug = self._model.name, self._model.slug
        groups = arn(self, "logs", f"log-group:/aws-glue/jobs/{feature_job_name(self._model)}-role/*")
        return [
            *_look_for_own_objects(data, f"raw/{name}", f"features/{slug}"),
            read_objects(data, f"raw/{name}", f"raw/{name}/*", f"features/{slug}/*"),
            write_objects(data, f"features/{slug}/*"), delete_objects(data, f"features/{slug}/*"),
            read_objects(artifacts, f"bundles/{slug}/*"), use_key(key),
            allow("logs:CreateLogStream", "logs:PutLogEvents", on=f"{groups}:log-stream:*"),
            # The groups are there; Glue's documentation asks for these where a security configuration encrypts logs.
            allow("logs:CreateLogGroup", "logs:AssociateKmsKey", on=groups),
            publish_metrics("Glue"),
            *enter_for_glue(self, self._foundation.network, feature_job_name(self._model)),
        ]  # fmt: skip

    def _training(self) -> list[iam.PolicyStatement]:
        slug = self._model.slug
        return [
            read_objects(self._foundation.data, f"features/{slug}/*"),
            list_objects(self._foundation.data, f"features/{slug}/*"),
            read_objects(self._foundation.artifacts, f"bundles/{slug}/*"),
            list_objects(self._foundation.artifacts, f"bundles/{slug}/*"),
            write_objects(self._foundation.artifacts, f"training/{slug}/*"),
            *sagemaker_job(self, self._model, self._foundation, self._image, "TrainingJobs"),
        ]

    def _evaluation(self) -> list[iam.PolicyStatement]:
        slug = self._model.slug
        inputs = [f"bundles/{slug}/*", f"training/{slug}/*"]
        return [
            read_objects(self._foundation.data, f"features/{slug}/*"),
            list_objects(self._foundation.data, f"features/{slug}/*"),
            read_objects(self._foundation.artifacts, *inputs),
            list_objects(self._foundation.artifacts, *inputs),
            write_objects(self._foundation.artifacts, f"evaluation/{slug}/*"),
            *sagemaker_job(self, self._model, self._foundation, self._image, "ProcessingJobs"),
        ]


def _look_for_own_objects(bucket: s3.IBucket, *folders: str) -> Iterable[iam.PolicyStatement]:
    """List what is below the folders, and of all else no more than the names of top folders."""
    # Spark asks whether an object exists, a request that has no prefix: without a permission for it "no" would be
    # "access denied". So who names a prefix must name these, and only who names none is not asked.
    own = [pattern for folder in folders for pattern in (folder, f"{folder}/*")]
    yield allow("s3:ListBucket", on=bucket.bucket_arn, when={"StringLikeIfExists": {"s3:prefix": own}})
    # It also asks whether the folders above are there.
    above = ["", *(folder.partition("/")[0] + "/" for folder in folders)]
    yield allow("s3:ListBucket", on=bucket.bucket_arn,
                when={"StringEquals": {"s3:prefix": above, "s3:delimiter": "/"}})  # fmt: skip


def sagemaker_job(scope: Construct, model: Model, environment: EnvironmentStack, image: FrameworkImage,
                  kind: str) -> list[iam.PolicyStatement]:  # fmt: skip
    """What every SageMaker job needs: its image, the key, its log and its instance metrics."""
    group = arn(scope, "logs", f"log-group:/aws/sagemaker/{kind}")
    return [
        use_key(environment.key), lend_key(environment.key), *image.pull,
        allow("logs:DescribeLogStreams", on=f"{group}:*"),
        allow("logs:CreateLogStream", "logs:PutLogEvents", on=f"{group}:log-stream:{model.slug}-*"),
        publish_metrics(f"/aws/sagemaker/{kind}"), *enter_for_sagemaker(scope, environment.network),
    ]  # fmt: skip


def publish_metrics(namespace: str) -> iam.PolicyStatement:
    """Put metrics of one namespace."""
    return allow("cloudwatch:PutMetricData", on="*", when={"StringEquals": {"cloudwatch:namespace": namespace}})


def verify_role(scope: Construct, *, model: Model, foundation: FoundationStack, log: logs.ILogGroup,
                store: str) -> iam.Role:  # fmt: skip
    """The build: read the source, see which data there is, store the bundle and the retraining input."""
    slug, name = model.slug, model.name
    return service_role(scope, "VerifyRole", "codebuild", statements=[
        read_versions(foundation.pipeline_store, f"{store}/*"), write_objects(foundation.pipeline_store, f"{store}/*"),
        list_objects(foundation.data, f"raw/{name}/*"), write_objects(foundation.artifacts, f"bundles/{slug}/*"),
        use_key(foundation.key), write_log(log),
    ])  # fmt: skip


def retrain_role(scope: Construct, *, model: Model, guardrails: Guardrails, foundation: FoundationStack,
                 jobs: JobRoles, log: logs.ILogGroup) -> iam.Role:  # fmt: skip
    """The state machine: run this model's jobs within the guardrails, read the verdict, propose a version."""
    artifacts, slug = foundation.artifacts, model.slug
    return service_role(scope, "RetrainRole", "states", statements=[
        *_run_feature_job(scope, model), *_run_training(scope, model, guardrails, foundation),
        *_run_evaluation(scope, model, guardrails, foundation),
        allow("sagemaker:AddTags", on=[job_arn(scope, "training-job", model), job_arn(scope, "processing-job", model)]),
        pass_role(jobs.training, "sagemaker"), pass_role(jobs.evaluation, "sagemaker"), *_registry(scope, model),
        read_objects(artifacts, f"evaluation/{slug}/*"), write_objects(artifacts, f"lineage/{slug}/*"),
        use_key(foundation.key), allow("sns:Publish", on=foundation.notifications.topic_arn),
        deliver_logs(), trace(),
    ])  # fmt: skip


def _run_feature_job(scope: Construct, model: Model) -> Iterable[iam.PolicyStatement]:
    yield allow("glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun",
                on=arn(scope, "glue", f"job/{feature_job_name(model)}"))  # fmt: skip


def _run_training(scope: Construct, model: Model, guardrails: Guardrails,
                  foundation: FoundationStack) -> Iterable[iam.PolicyStatement]:  # fmt: skip
    limits, job = guardrails.training, job_arn(scope, "training-job", model)
    yield from create_job("sagemaker:CreateTrainingJob", job, limits.instance_types,
                           limits.maximum_runtime_minutes, foundation)  # fmt: skip
    yield allow("sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob", on=job)
    yield watch_jobs(scope, "StepFunctionsGetEventsForSageMakerTrainingJobsRule")


def _run_evaluation(scope: Construct, model: Model, guardrails: Guardrails,
                    foundation: FoundationStack) -> Iterable[iam.PolicyStatement]:  # fmt: skip
    limits, job = guardrails.evaluation, job_arn(scope, "processing-job", model)
    yield from create_job("sagemaker:CreateProcessingJob", job, limits.instance_types,
                           limits.maximum_runtime_minutes, foundation)  # fmt: skip
    yield allow("sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob", on=job)
    yield watch_jobs(scope, "StepFunctionsGetEventsForSageMakerProcessingJobsRule")


def create_job(action: str, job: str, instance_types: Iterable[str], maximum_minutes: int,
               environment: EnvironmentStack) -> Iterable[iam.PolicyStatement]:  # fmt: skip
    """Create jobs within the guardrails only: instance type, time, no network, and volumes under our key."""
    types = list(instance_types)
    keyless = [name for name in types if has_local_storage(name)]
    for names, key in (([name for name in types if name not in keyless], environment.key.key_arn), (keyless, None)):
        if names:
            yield allow(action, on=job, when=within(environment.network, _guardrails(names, maximum_minutes, key)))


def _guardrails(instance_types: list[str], maximum_minutes: int, key: str | None) -> dict[str, Any]:
    volume = {"StringEquals": {"sagemaker:VolumeKmsKeyArn": key}} if key else {}
    return {
        # ForAllValues alone also holds when the request names no instance type at all.
        "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": instance_types},
        "Null": {"sagemaker:InstanceTypes": "false"},
        "NumericLessThanEquals": {"sagemaker:MaxRuntimeInSeconds": str(maximum_minutes * 60)},
        "Bool": {"sagemaker:NetworkIsolation": "true"},
        **volume,
    }


def watch_jobs(scope: Construct, rule: str) -> iam.PolicyStatement:
    """The rule by which Step Functions hears that a job has ended; it creates it in this account."""
    return allow("events:PutTargets", "events:PutRule", "events:DescribeRule", on=arn(scope, "events", f"rule/{rule}"))


def _registry(scope: Construct, model: Model) -> Iterable[iam.PolicyStatement]:
    versions = arn(scope, "sagemaker", f"model-package/{model.slug}/*")
    yield allow("sagemaker:ListModelPackages", "sagemaker:DescribeModelPackage", on=versions)
    yield allow("sagemaker:CreateModelPackage", on=versions,
                when={"StringEquals": {"sagemaker:ModelApprovalStatus": REGISTERED_AS}})  # fmt: skip
    # What it has registered although a newer retraining came before it.
    yield allow("sagemaker:UpdateModelPackage", on=versions,
                when={"StringEquals": {"sagemaker:ModelApprovalStatus": "Rejected"}})  # fmt: skip


def job_arn(scope: Construct, kind: str, model: Model) -> str:
    """The model's jobs of a kind, by their names' prefix."""
    return arn(scope, "sagemaker", f"{kind}/{model.slug}-*")


def deliver_logs() -> iam.PolicyStatement:
    """A state machine's log goes through log delivery, which has no resource-level permissions."""
    return allow("logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
                 "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies",
                 "logs:DescribeLogGroups", on="*")  # fmt: skip


def trace() -> iam.PolicyStatement:
    """X-Ray has no resource-level permissions."""
    return allow("xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules",
                 "xray:GetSamplingTargets", on="*")  # fmt: skip
