"""The roles of hop 6, one per actor: reconciler, CloudFormation, the model's container, and the rules' target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from config import Guardrails
from stacks.comparison_roles import compare, comparison_role, hand_on
from stacks.crossing import Crossing
from stacks.deployment import Deployment
from stacks.environment_stack import ANSWERS, CAPTURE, ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import FrameworkImage
from stacks.instance_types import has_local_storage
from stacks.network import Network, enter_for_sagemaker, within
from stacks.permissions import (
    allow,
    arn,
    lend_key,
    list_objects,
    pass_role,
    read_objects,
    read_with_foreign_key,
    read_with_key,
    service_role,
    use_key,
    write_objects,
)
from stacks.release_marks import NAMESPACE as MARKS
from stacks.release_marks import has_dashboard
from stacks.serving_scaling import DIMENSION, resource_id
from stacks.serving_stack import VARIANT
from stacks.tags import ENVIRONMENT, MODEL
from stacks.training_roles import deliver_logs, trace


class ReleaseRoles(Construct):
    """Who does what in one environment's release; only `reconciler` may decide about a version."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, guardrails: Guardrails,
                 environment: ServingEnvironmentStack, foundation: FoundationStack,
                 crossing: Crossing | None = None) -> None:  # fmt: skip
        super().__init__(scope, id)
        self._deployment, self._limits, self._jobs = deployment, guardrails.serving, guardrails.evaluation
        self._environment, self._foundation, self._crossing = environment, foundation, crossing
        self.serving = service_role(self, "Serving", "sagemaker", statements=self._serve(),
                                    name=crossing.serving.name if crossing else None)  # fmt: skip
        self.comparison = comparison_role(self, deployment=deployment, environment=environment,
                                          foundation=foundation) if deployment.shadows else None  # fmt: skip
        self.update = service_role(self, "Update", "cloudformation", statements=[*self._update()])
        self.reconciler = service_role(self, "Reconciler", "states", statements=[*self._reconcile()],
                                       name=crossing.reconciler.name if crossing else None)  # fmt: skip

    def _serve(self) -> list[iam.PolicyStatement]:
        """What SageMaker does for the container, which itself has no network and so no use for a role."""
        image = FrameworkImage(self, "Image", model=self._deployment.model)
        artifacts, deployment = self._foundation.artifacts, self._deployment
        return [
            read_objects(artifacts, *deployment.served_keys), list_objects(artifacts, *deployment.listed_keys),
            self._read_with_artifacts_key(), use_key(self._environment.key), *image.pull, *self._keep_traffic(),
            *self._see_alarms(), *self._report(), *enter_for_sagemaker(self, self._network),
        ]  # fmt: skip

    def _read_with_artifacts_key(self) -> iam.PolicyStatement:
        if self._crossing:
            return read_with_foreign_key(self._foundation.artifacts, self._foundation)
        return read_with_key(self._foundation.key)

    def _report(self) -> Iterable[iam.PolicyStatement]:
        """Logs and metrics of an endpoint's instances; the group is there before the endpoint."""
        if not self._deployment.has_endpoint:
            return
        group = arn(self, "logs", f"log-group:/aws/sagemaker/Endpoints/{self._deployment.endpoint}")
        namespace = {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Endpoints"}}
        yield allow("logs:DescribeLogStreams", on=f"{group}:*")
        yield allow("logs:CreateLogStream", "logs:PutLogEvents", on=f"{group}:log-stream:*")
        yield allow("cloudwatch:PutMetricData", on="*", when=namespace)

    def _keep_traffic(self) -> Iterable[iam.PolicyStatement]:
        """Captured requests and answers; for an asynchronous endpoint its requests and answers."""
        traffic, place = self._environment.traffic, self._deployment.place
        if self._deployment.captures:
            yield write_objects(traffic, f"{CAPTURE}{place}/*")
        if self._deployment.kind == "async":
            yield write_objects(traffic, f"{ANSWERS}{place}/answers/*", f"{ANSWERS}{place}/failures/*")
            yield read_objects(traffic, f"{ANSWERS}{place}/requests/*")

    def _see_alarms(self) -> Iterable[iam.PolicyStatement]:
        """SageMaker asks for the alarms of a rollout as the model's role."""
        if self._deployment.guarded and self._deployment.on_instances:
            yield allow("cloudwatch:DescribeAlarms", on=self._alarms)

    def _update(self) -> Iterable[iam.PolicyStatement]:
        """What CloudFormation may do when the reconciler updates the serving stack, and nothing else."""
        models = self._models
        isolated = {} if self._deployment.kind == "serverless" else {"Bool": {"sagemaker:NetworkIsolation": "true"}}
        yield allow("sagemaker:CreateModel", on=models, when=within(self._network, isolated))
        yield allow("sagemaker:DescribeModel", "sagemaker:DeleteModel", on=models)
        yield allow("sagemaker:AddTags", "sagemaker:DeleteTags", "sagemaker:ListTags", on=[*self._tagged, *models])
        yield pass_role(self.serving, "sagemaker")
        if self._deployment.has_endpoint:
            yield from self._update_endpoint()

    def _update_endpoint(self) -> Iterable[iam.PolicyStatement]:
        """Everything of a serving stack but the model."""
        endpoint, configs = self._endpoint, self._named("endpoint-config")
        yield from self._create_endpoint_config(configs)
        yield allow("sagemaker:DescribeEndpointConfig", "sagemaker:DeleteEndpointConfig", on=configs)
        yield allow("sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint", on=[endpoint, *configs])
        yield allow("sagemaker:DescribeEndpoint", "sagemaker:DeleteEndpoint", on=endpoint)
        # The endpoint's volumes are encrypted on behalf of whoever creates or updates it.
        key = self._environment.key
        yield from (use_key(key), lend_key(key), allow("kms:DescribeKey", on=key.key_arn))
        if self._deployment.alarmed:
            yield from self._update_alarms()
        if self._deployment.scales:
            yield from self._update_scaling()

    def _update_alarms(self) -> Iterable[iam.PolicyStatement]:
        """Without the tagging CloudFormation fails the resource: it no longer makes what it may not tag."""
        yield allow("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms",
                    on=self._alarms)  # fmt: skip
        page = f"arn:{Aws.PARTITION}:cloudwatch::{Aws.ACCOUNT_ID}:dashboard/{self._deployment.endpoint}"
        yield allow("cloudwatch:PutDashboard", "cloudwatch:GetDashboard", "cloudwatch:DeleteDashboards", on=page)
        yield allow("cloudwatch:TagResource", "cloudwatch:UntagResource", "cloudwatch:ListTagsForResource",
                    on=[self._alarms, page])  # fmt: skip

    def _update_scaling(self) -> Iterable[iam.PolicyStatement]:
        """Application Auto Scaling makes up the ids of scalable targets; its condition keys bind what they scale."""
        variants = {"StringEquals": {"application-autoscaling:service-namespace": "sagemaker",
                                     "application-autoscaling:scalable-dimension": DIMENSION}}  # fmt: skip
        targets = arn(self, "application-autoscaling", "scalable-target/*")
        yield allow("application-autoscaling:RegisterScalableTarget",
                    "application-autoscaling:DeregisterScalableTarget", "application-autoscaling:PutScalingPolicy",
                    "application-autoscaling:DeleteScalingPolicy", on=targets, when=variants)  # fmt: skip
        # Tagging knows neither of those keys, but the tags that everything of this model and environment carries.
        yield allow("application-autoscaling:TagResource", on=targets, when={"StringEquals": {
            f"aws:RequestTag/{MODEL}": self._deployment.model.name,
            f"aws:RequestTag/{ENVIRONMENT}": self._deployment.environment}})  # fmt: skip
        yield allow("application-autoscaling:ListTagsForResource", on=targets)
        yield allow("application-autoscaling:DescribeScalableTargets",
                    "application-autoscaling:DescribeScalingPolicies", on="*")  # fmt: skip
        yield allow("sagemaker:UpdateEndpointWeightsAndCapacities", on=self._endpoint)
        tracking = f"alarm:TargetTracking-{resource_id(self._deployment.endpoint, VARIANT)}-*"
        yield allow("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms",
                    on=arn(self, "cloudwatch", tracking))  # fmt: skip
        service = "sagemaker.application-autoscaling.amazonaws.com"
        role = f"role/aws-service-role/{service}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        yield allow("iam:CreateServiceLinkedRole", on=f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:{role}",
                    when={"StringEquals": {"iam:AWSServiceName": service}})  # fmt: skip

    def _create_endpoint_config(self, configs: list[str]) -> Iterable[iam.PolicyStatement]:
        """Allowed instance types only; those with a disk of their own take no volume key."""
        if self._deployment.kind == "serverless":
            size = self._deployment.model.serving.serverless
            yield allow("sagemaker:CreateEndpointConfig", on=configs, when={"NumericLessThanEquals": {
                "sagemaker:ServerlessMemorySize": str(size.memory_mb),
                "sagemaker:ServerlessMaxConcurrency": str(size.maximum_concurrency)}})  # fmt: skip
            return
        keyless = [name for name in self._limits.instance_types if has_local_storage(name)]
        keyed = [name for name in self._limits.instance_types if name not in keyless]
        volume = {"StringEquals": {"sagemaker:VolumeKmsKeyArn": self._environment.key.key_arn}}
        for names, condition in ((keyed, volume), (keyless, {})):
            if names:
                yield allow("sagemaker:CreateEndpointConfig", on=configs, when=_instance_types(names) | condition)

    def _reconcile(self) -> Iterable[iam.PolicyStatement]:
        versions = arn(self._foundation, "sagemaker", f"model-package/{self._deployment.model.slug}/*")
        yield allow("sagemaker:ListModelPackages", "sagemaker:DescribeModelPackage", on=versions)
        yield allow("sagemaker:UpdateModelPackage", on=versions,
                    when={"StringEquals": {"sagemaker:ModelApprovalStatus": self._deployment.decisions}})  # fmt: skip
        tags, models = ("sagemaker:ListTags", "sagemaker:AddTags"), self._models
        if self._deployment.has_endpoint:
            yield from self._reconcile_endpoint(*tags)
            yield allow("sagemaker:DescribeModel", "sagemaker:DeleteModel", on=models)
            yield allow("sagemaker:ListEndpointConfigs", "sagemaker:ListModels", on="*")
        else:
            yield allow("sagemaker:DescribeModel", "sagemaker:DeleteModel", *tags, on=models)
            yield allow("sagemaker:ListModels", on="*")
        yield from self._update_serving_stack()
        if has_dashboard(self._deployment):
            yield allow("cloudwatch:PutMetricData", on="*",
                        when={"StringEquals": {"cloudwatch:namespace": MARKS}})  # fmt: skip
        if self._deployment.shadows or self._deployment.awaits_shadow:
            yield from hand_on(versions, self._deployment)
        if self.comparison:
            yield from compare(self, deployment=self._deployment, limits=self._jobs, environment=self._environment,
                               job=self.comparison)  # fmt: skip
        yield allow("sns:Publish", on=self._environment.notifications.topic_arn)
        yield from (self._read_with_artifacts_key(), use_key(self._environment.key), deliver_logs(), trace())

    def _reconcile_endpoint(self, *tags: str) -> Iterable[iam.PolicyStatement]:
        """Read back what is live, send the sample request, and collect configs that nothing uses."""
        invoke = "sagemaker:InvokeEndpointAsync" if self._deployment.kind == "async" else "sagemaker:InvokeEndpoint"
        yield allow("sagemaker:DescribeEndpoint", *tags, invoke, on=self._endpoint)
        yield allow("sagemaker:DescribeEndpointConfig", "sagemaker:DeleteEndpointConfig",
                    on=self._named("endpoint-config"))  # fmt: skip
        yield from self._compare_answers()

    def _compare_answers(self) -> Iterable[iam.PolicyStatement]:
        """Read the sample request, the answer recorded at evaluation, and what an asynchronous endpoint answers."""
        yield read_objects(self._foundation.artifacts, *self._deployment.evidence_keys)
        if self._deployment.kind == "async":
            answers = [f"{ANSWERS}{self._deployment.place}/{kind}/*" for kind in ("answers", "failures")]
            # Without the listing, "not yet" would be "access denied".
            yield from (
                read_objects(self._environment.traffic, *answers),
                list_objects(self._environment.traffic, *answers),
            )

    def _update_serving_stack(self) -> Iterable[iam.PolicyStatement]:
        """Update that one stack, and only as the narrow role: otherwise this permission would be everybody's."""
        stack = arn(self, "cloudformation", f"stack/{self._deployment.serving_stack}/*")
        yield allow("cloudformation:DescribeStacks", "cloudformation:DescribeStackEvents", on=stack)
        yield allow("cloudformation:UpdateStack", on=stack,
                    when={"StringEquals": {"cloudformation:RoleArn": self.update.role_arn}})  # fmt: skip
        yield pass_role(self.update, "cloudformation")

    @property
    def _network(self) -> Network | None:
        return self._environment.network if self._deployment.in_a_network else None

    @property
    def _alarms(self) -> str:
        """Their names begin with the endpoint's."""
        return arn(self, "cloudwatch", f"alarm:{self._deployment.endpoint}-*")

    @property
    def _endpoint(self) -> str:
        return arn(self, "sagemaker", f"endpoint/{self._deployment.endpoint}")

    @property
    def _tagged(self) -> list[str]:
        """What carries tags beside models."""
        return [self._endpoint, *self._named("endpoint-config")] if self._deployment.has_endpoint else []

    @property
    def _models(self) -> list[str]:
        return self._named("model") + (self._named("shadow-model", "model") if self._deployment.shadows else [])

    def _named(self, kind: str, resource: str | None = None) -> list[str]:
        """The names that CloudFormation gives, in both spellings, since SageMaker's ARNs are in lower case."""
        name = f"{self._deployment.generated_name(kind)}-"
        return [arn(self, "sagemaker", f"{resource or kind}/{spelling}*") for spelling in (name, name.lower())]


def start_role(scope: Stack, id: str, *, state_machine: str) -> iam.Role:
    """What the rules start the reconciler as."""
    return service_role(scope, id, "events", statements=[allow("states:StartExecution", on=state_machine)])


def _instance_types(names: list[str]) -> dict[str, Any]:
    # ForAllValues alone also holds when the request names no instance type at all.
    return {"ForAllValues:StringEquals": {"sagemaker:InstanceTypes": names},
            "Null": {"sagemaker:InstanceTypes": "false"}}  # fmt: skip
