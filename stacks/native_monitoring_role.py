"""The role under which SageMaker Model Monitor reads what was captured and labelled, and has it analysed."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from constructs import Construct

from config import Guardrails
from contract import Model
from stacks.deployment import production
from stacks.environment_stack import ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import PrebuiltImage
from stacks.network import enter_for_sagemaker
from stacks.permissions import (
    allow,
    arn,
    lend_key,
    list_objects,
    read_objects,
    read_with_key,
    service_role,
    use_key,
    write_objects,
)
from stacks.training_roles import create_job

NAMESPACES = ["/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/Endpoints/*", "aws/sagemaker/Endpoints/*"]
"""Of instances, and of what the analyzer finds; AWS writes the latter with and without the slash."""
INSTANCE_TYPE = "ml.m5.xlarge"
"""What AWS's own tools take for the analyzer, which is Spark, if they are not told."""
JOBS = ("model-monitoring-*", "groundtruth-merge-*")
"""How Model Monitor names its jobs: the analysis, and before it the merging of labels."""


def native_role(scope: Construct, *, model: Model, guardrails: Guardrails, foundation: FoundationStack,
                live: ServingEnvironmentStack, image: PrebuiltImage, labels: str) -> iam.Role:  # fmt: skip
    """Read requests and labels of this model, write what the analyzer says of them, in jobs within the guardrails."""
    captured, found = production(model).captured_keys, f"monitoring/{model.slug}/native/*"
    return service_role(scope, "Role", "sagemaker", statements=[
        read_objects(live.traffic, *captured), list_objects(live.traffic, *captured), read_with_key(live.key),
        read_objects(foundation.data, labels), list_objects(foundation.data, labels),
        read_objects(foundation.artifacts, found), list_objects(foundation.artifacts, found),
        write_objects(foundation.artifacts, found),
        use_key(foundation.key), lend_key(foundation.key), *image.pull,
        *_endpoint(scope, model), *_jobs(scope, guardrails, foundation), *_logs(scope),
        allow("cloudwatch:PutMetricData", on="*", when={"StringLike": {"cloudwatch:namespace": NAMESPACES}}),
        *enter_for_sagemaker(scope, foundation.network),
    ])  # fmt: skip


def _endpoint(scope: Construct, model: Model) -> list[iam.PolicyStatement]:
    deployment = production(model)
    configs = arn(scope, "sagemaker", f"endpoint-config/{deployment.generated_name('endpoint-config')}-*")
    return [allow("sagemaker:DescribeEndpoint", on=arn(scope, "sagemaker", f"endpoint/{deployment.endpoint}")),
            allow("sagemaker:DescribeEndpointConfig", on=configs)]  # fmt: skip


def _jobs(scope: Construct, guardrails: Guardrails, foundation: FoundationStack) -> list[iam.PolicyStatement]:
    jobs, limits = [arn(scope, "sagemaker", f"processing-job/{name}") for name in JOBS], guardrails.evaluation
    created = [statement for job in jobs
               for statement in create_job("sagemaker:CreateProcessingJob", job, [INSTANCE_TYPE],
                                           limits.maximum_runtime_minutes, foundation)]  # fmt: skip
    return [*created, allow("sagemaker:DescribeProcessingJob", "sagemaker:StopProcessingJob", on=jobs)]


def _logs(scope: Construct) -> list[iam.PolicyStatement]:
    group = arn(scope, "logs", "log-group:/aws/sagemaker/ProcessingJobs")
    streams = [f"{group}:log-stream:{name}" for name in JOBS]
    return [allow("logs:DescribeLogStreams", on=f"{group}:*"),
            allow("logs:CreateLogStream", "logs:PutLogEvents", on=streams)]  # fmt: skip
