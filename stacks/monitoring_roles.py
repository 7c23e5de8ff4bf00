"""The roles of hop 7: the state machine that watches, and the processing job that measures."""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import aws_iam as iam
from constructs import Construct

from config import Guardrails
from contract import Model
from stacks.crossing import Crossing
from stacks.deployment import production
from stacks.environment_stack import ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import FrameworkImage
from stacks.monitor_workflow import NAMESPACE
from stacks.names import feature_job_name
from stacks.permissions import (
    allow,
    arn,
    list_objects,
    pass_role,
    read_objects,
    read_with_foreign_key,
    read_with_key,
    service_role,
    use_key,
    write_objects,
)
from stacks.training_roles import create_job, deliver_logs, job_arn, publish_metrics, sagemaker_job, trace, watch_jobs


def job_role(scope: Construct, *, model: Model, foundation: FoundationStack, live: ServingEnvironmentStack,
             image: FrameworkImage, crossing: Crossing | None) -> iam.Role:  # fmt: skip
    """The job: read the live version, its baseline, new labelled rows and requests; write the report."""
    slug, artifacts = model.slug, foundation.artifacts
    features, captured = f"features/{slug}/*", production(model).captured_keys
    decrypt = read_with_foreign_key(live.traffic, live) if crossing else read_with_key(live.key)
    return service_role(scope, "JobRole", "sagemaker", name=crossing.measurer.name if crossing else None, statements=[
        read_objects(foundation.data, features), list_objects(foundation.data, features),
        read_objects(live.traffic, *captured), list_objects(live.traffic, *captured), decrypt,
        read_objects(artifacts, f"training/{slug}/*"), list_objects(artifacts, f"training/{slug}/*"),
        write_objects(artifacts, f"monitoring/{slug}/*"),
        *sagemaker_job(scope, model, foundation, image, "ProcessingJobs"),
    ])  # fmt: skip


def monitor_role(scope: Construct, *, model: Model, guardrails: Guardrails, foundation: FoundationStack,
                 live: ServingEnvironmentStack, job: iam.IRole, crossing: Crossing | None) -> iam.Role:  # fmt: skip
    """The state machine: look what is live and what landed, have it measured, publish the metrics."""
    slug = model.slug
    return service_role(scope, "MonitorRole", "states", name=crossing.monitor.name if crossing else None, statements=[
        *_look(scope, model, foundation, live), *_measure(scope, model, guardrails, foundation),
        pass_role(job, "sagemaker"), publish_metrics(NAMESPACE),
        read_objects(foundation.artifacts, f"lineage/{slug}/*", f"monitoring/{slug}/*"),
        use_key(foundation.key), allow("sns:Publish", on=foundation.notifications.topic_arn),
        deliver_logs(), trace(),
    ])  # fmt: skip


def _look(scope: Construct, model: Model, foundation: FoundationStack,
          live: ServingEnvironmentStack) -> Iterable[iam.PolicyStatement]:  # fmt: skip
    versions = arn(scope, "sagemaker", f"model-package/{model.slug}/*")
    yield allow("sagemaker:ListModelPackages", "sagemaker:DescribeModelPackage", on=versions)
    yield list_objects(foundation.data, f"raw/{model.name}/*")
    yield list_objects(live.traffic, *production(model).captured_keys)


def _measure(scope: Construct, model: Model, guardrails: Guardrails,
             foundation: FoundationStack) -> Iterable[iam.PolicyStatement]:  # fmt: skip
    limits, job = guardrails.evaluation, job_arn(scope, "processing-job", model)
    yield allow("glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun",
                on=arn(scope, "glue", f"job/{feature_job_name(model)}"))  # fmt: skip
    yield from create_job("sagemaker:CreateProcessingJob", job, limits.instance_types,
                          limits.maximum_runtime_minutes, foundation)  # fmt: skip
    yield allow("sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob", "sagemaker:AddTags", on=job)
    yield watch_jobs(scope, "StepFunctionsGetEventsForSageMakerProcessingJobsRule")
