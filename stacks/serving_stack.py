"""The live model as CloudFormation parameters: model, endpoint config and endpoint, once there is a version.

`cdk deploy` creates this stack without a model. Afterwards only the reconciler of the release stack sets the
parameters (hop 6); this template says what a set of parameters means. Next: `stacks/release_workflow.py` sends the
sample request to the endpoint and, in staging, approves the version.
"""

from __future__ import annotations

from typing import Any

from aws_cdk import (
    Aws,
    CfnCondition,
    CfnDeletionPolicy,
    CfnParameter,
    CfnResource,
    DefaultStackSynthesizer,
    Fn,
    Stack,
    Tags,
)
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from config.settings import ServingLimits
from stacks.deployment import Deployment
from stacks.instance_types import has_local_storage
from stacks.outputs import publish

VARIANT = "AllTraffic"
PACKAGE_VARIABLE = "MODEL_PACKAGE_ARN"
"""The container's environment variable that says which version it runs; the reconciler reads it back."""
BAKE_SECONDS = 0
DRAIN_SECONDS = 10
"""How long the old fleet keeps answering what it has begun, once it gets no new requests."""
LONGEST_ROLLOUT_SECONDS = 3600
NO_IMAGE = "none"
"""As long as there is no model; a container's image may not be empty."""
REGISTRY = r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?"
IMAGE = rf"{NO_IMAGE}|{REGISTRY}/[a-z0-9][a-z0-9._/-]*(:[\w.-]+|@sha256:[0-9a-f]{{64}})"
ARTIFACT = r"|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[\w!.*'()/-]+\.tar\.gz"
PACKAGE = r"|arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:model-package/%s/[1-9]\d*"
INSTANCE_TYPE = r"ml\.[a-z0-9-]+\.[a-z0-9]+"


class ServingStack(Stack):
    """One model's endpoint in one environment, with nothing in it that needs an IAM capability."""

    def __init__(
        self, scope: Construct, id: str, *, deployment: Deployment, limits: ServingLimits, key: kms.IKey,
        execution_role: iam.IRole, **stack: Any,
    ) -> None:  # fmt: skip
        # With the bootstrap rule, whoever updates the stack would have to read the bootstrap's SSM parameter.
        synthesizer = DefaultStackSynthesizer(generate_bootstrap_version_rule=False)
        super().__init__(scope, id, synthesizer=synthesizer, **stack)
        self.deployment, self.key, self.execution_role = deployment, key, execution_role
        self._parameters(limits)
        self.has_model = CfnCondition(
            self, "HasModel", expression=Fn.condition_not(Fn.condition_equals(self.model_data_url, "")))  # fmt: skip
        self.model = self._model()
        self.endpoint_config = self._endpoint_config(limits)
        self.endpoint = self._endpoint()
        publish(self, {"Model": deployment.model.name, "Environment": deployment.environment,
                       "Endpoint": deployment.endpoint})  # fmt: skip
        self._tags()

    def _parameters(self, limits: ServingLimits) -> None:
        serving, most = self.deployment.model.serving, limits.maximum_instances
        self.image = self._text("Image", IMAGE, "Container image of the live version", NO_IMAGE)
        self.model_data_url = self._text("ModelDataUrl", ARTIFACT, "Its model.tar.gz; empty: there is no model yet")
        self.package = self._text("ModelPackageArn", PACKAGE % self.deployment.model.slug, "Its registered version")
        self.instance_type = self._text("InstanceType", INSTANCE_TYPE, "Of every instance", serving.instance_type)
        self.minimum = self._count("MinimumInstances", most, "Instances that serve it")
        self.maximum = self._count("MaximumInstances", most, "Instances it may grow to")

    def _text(self, id: str, pattern: str, description: str, default: str = "") -> str:
        parameter = CfnParameter(self, id, default=default, description=description, allowed_pattern=f"^({pattern})$")
        return parameter.value_as_string

    def _count(self, id: str, most: int, description: str) -> CfnParameter:
        return CfnParameter(self, id, type="Number", default=1, min_value=1, max_value=most, description=description)

    def _model(self) -> sagemaker.CfnModel:
        container = sagemaker.CfnModel.ContainerDefinitionProperty(
            image=self.image, model_data_url=self.model_data_url,
            environment={"SAGEMAKER_PROGRAM": "pushline_entry.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                         # The toolkit installs the code with pip here as well, see retrain_jobs.py.
                         "PIP_NO_BUILD_ISOLATION": "0", PACKAGE_VARIABLE: self.package})  # fmt: skip
        model = sagemaker.CfnModel(self, "Model", execution_role_arn=self.execution_role.role_arn,
                                   enable_network_isolation=True, primary_container=container)  # fmt: skip
        self._with_model(model, "model")
        return model

    def _endpoint_config(self, limits: ServingLimits) -> sagemaker.CfnEndpointConfig:
        variant = sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name=VARIANT, model_name=self.model.attr_model_name, instance_type=self.instance_type,
            initial_instance_count=self.minimum.value_as_number, initial_variant_weight=1)  # fmt: skip
        config = sagemaker.CfnEndpointConfig(self, "EndpointConfig", production_variants=[variant],
                                             kms_key_id=self._volume_key(limits))  # fmt: skip
        self._with_model(config, "endpoint-config")
        return config

    def _volume_key(self, limits: ServingLimits) -> str:
        """The key, unless the live version's instances have a disk of their own, which takes none."""
        keyless = [Fn.condition_equals(self.instance_type, name) for name in limits.instance_types
                   if has_local_storage(name)]  # fmt: skip
        if not keyless:
            return self.key.key_arn
        local = CfnCondition(self, "HasLocalStorage", expression=Fn.condition_or(*keyless))
        return Fn.condition_if(local.logical_id, Aws.NO_VALUE, self.key.key_arn).to_string()

    def _endpoint(self) -> sagemaker.CfnEndpoint:
        # Weights and data capture stay as they are live. The number of instances follows the parameter, since
        # nothing scales the endpoint yet; with autoscaling it has to be retained, too.
        counts = sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DesiredInstanceCount")
        endpoint = sagemaker.CfnEndpoint(
            self, "Endpoint", endpoint_name=self.deployment.endpoint,
            endpoint_config_name=self.endpoint_config.attr_endpoint_config_name, deployment_config=_all_at_once(),
            retain_all_variant_properties=True, exclude_retained_variant_properties=[counts])  # fmt: skip
        self._with_model(endpoint, "endpoint")
        return endpoint

    def _with_model(self, resource: CfnResource, kind: str) -> None:
        """Exist only with a model; when replaced, stay: after a silent rollback the old one is what is live."""
        # CloudFormation names models and endpoint configs after the logical id, and its role is limited to such names.
        resource.override_logical_id(self.deployment.generated_name(kind))
        resource.cfn_options.condition = self.has_model
        if kind != "endpoint":
            resource.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
            resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN

    def _tags(self) -> None:
        for name, value in self.deployment.tags.items():
            Tags.of(self).add(name, value)
        Tags.of(self.endpoint).add("pushline:model-package", self.package)
        # Read by people until autoscaling takes it as the upper bound.
        Tags.of(self.endpoint).add("pushline:maximum-instances", self.maximum.value_as_string)


def _all_at_once() -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
    routing = sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
        type="ALL_AT_ONCE", wait_interval_in_seconds=BAKE_SECONDS)  # fmt: skip
    policy = sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
        traffic_routing_configuration=routing, termination_wait_in_seconds=DRAIN_SECONDS,
        maximum_execution_timeout_in_seconds=LONGEST_ROLLOUT_SECONDS)  # fmt: skip
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(blue_green_update_policy=policy)
