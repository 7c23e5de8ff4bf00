"""The roles behind a shadow's comparison: the processing job's, and what the reconciler may do for it."""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import aws_iam as iam
from constructs import Construct

from config.settings import EvaluationLimits
from stacks.comparison_job import REPORTS, job_prefix
from stacks.deployment import Deployment
from stacks.environment_stack import CAPTURE, ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import FrameworkImage
from stacks.permissions import (
    allow,
    arn,
    list_objects,
    pass_role,
    read_objects,
    read_with_key,
    service_role,
    write_objects,
)
from stacks.release_shadow import ACCEPTED, COMPARED, NAMESPACE, REPORTED, SHADOW, STAGING
from stacks.training_roles import create_job, publish_metrics, sagemaker_job, watch_jobs


def comparison_role(scope: Construct, *, deployment: Deployment, environment: ServingEnvironmentStack,
                    foundation: FoundationStack) -> iam.Role:  # fmt: skip
    """The job: read the shadow's archive and what both variants answered; write the report."""
    captured, trained = f"{CAPTURE}{deployment.place}/*", f"training/{deployment.model.slug}/*"
    image = FrameworkImage(scope, "ComparisonImage", model=deployment.model)
    return service_role(scope, "Comparison", "sagemaker", statements=[
        read_objects(environment.traffic, captured), list_objects(environment.traffic, captured),
        read_objects(foundation.artifacts, trained), list_objects(foundation.artifacts, trained),
        read_with_key(foundation.key), write_objects(environment.traffic, f"{REPORTS}{deployment.model.slug}/*"),
        *sagemaker_job(scope, deployment.model, environment, image, "ProcessingJobs"),
    ])  # fmt: skip


def compare(scope: Construct, *, deployment: Deployment, limits: EvaluationLimits,
            environment: ServingEnvironmentStack, job: iam.IRole) -> Iterable[iam.PolicyStatement]:  # fmt: skip
    """The reconciler: see what was captured and measured, have it compared, and publish it."""
    jobs = arn(scope, "sagemaker", f"processing-job/{job_prefix(deployment)}*")
    yield list_objects(environment.traffic, f"{CAPTURE}{deployment.place}/*")
    yield allow("cloudwatch:GetMetricData", on="*")
    yield from create_job("sagemaker:CreateProcessingJob", jobs, limits.instance_types, limits.maximum_runtime_minutes,
                          environment)  # fmt: skip
    yield allow("sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob", "sagemaker:AddTags", on=jobs)
    yield watch_jobs(scope, "StepFunctionsGetEventsForSageMakerProcessingJobsRule")
    yield pass_role(job, "sagemaker")
    yield read_objects(environment.traffic, f"{REPORTS}{deployment.model.slug}/*")
    yield publish_metrics(NAMESPACE)


def hand_on(versions: str, deployment: Deployment) -> Iterable[iam.PolicyStatement]:
    """A version's life cycle, each environment its own stages, and no approval with it."""
    stages = [(STAGING, ACCEPTED), (SHADOW, REPORTED)] if deployment.approves else [(SHADOW, COMPARED)]
    for stage, status in stages:
        keys = {"sagemaker:ModelLifeCycle:stage": stage, "sagemaker:ModelLifeCycle:stageStatus": status}
        yield allow("sagemaker:UpdateModelPackage", on=versions,
                    when={"StringEquals": keys, "Null": {"sagemaker:ModelApprovalStatus": "true"}})  # fmt: skip
