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
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from config.settings import ServingLimits
from stacks.deployment import AS_ASKED, AT_ONCE, OFF, ON, PAUSED, Deployment
from stacks.environment_stack import ANSWERS, ServingEnvironmentStack
from stacks.instance_types import has_local_storage
from stacks.outputs import publish
from stacks.serving_alarms import FleetAlarms
from stacks.serving_dashboard import dashboard
from stacks.serving_rollout import deployment_config
from stacks.serving_scaling import EndpointScaling
from stacks.serving_variant import asynchronous, data_capture, instance_variant, serverless_variant
from stacks.tags import tag

VARIANT, SHADOW_VARIANT = "AllTraffic", "Shadow"
PACKAGE_VARIABLE = "MODEL_PACKAGE_ARN"
"""The container's environment variable that says which version it runs; the reconciler reads it back."""
NO_ENDPOINT = "none"
"""The output of a stack whose model is for batch."""
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
        self, scope: Construct, id: str, *, deployment: Deployment, limits: ServingLimits,
        environment: ServingEnvironmentStack, execution_role: iam.IRole, **stack: Any,
    ) -> None:  # fmt: skip
        # With the bootstrap rule, whoever updates the stack would have to read the bootstrap's SSM parameter.
        synthesizer = DefaultStackSynthesizer(generate_bootstrap_version_rule=False)
        super().__init__(scope, id, synthesizer=synthesizer, **stack)
        self.deployment, self._environment, self._execution_role = deployment, environment, execution_role
        self._version_parameters()
        if deployment.on_instances:
            self._size_parameters(limits)
        self.has_model = CfnCondition(
            self, "HasModel", expression=Fn.condition_not(Fn.condition_equals(self.model_data_url, "")))  # fmt: skip
        self.model = self._model("Model", "model", self.image, self.model_data_url, self.package)
        if deployment.has_endpoint:
            self._serve(limits)
        self._outputs()
        tag(self, model=deployment.model.name, environment=deployment.environment)

    def _serve(self, limits: ServingLimits) -> None:
        """What costs money: without it a live version is only a SageMaker model."""
        deployment = self.deployment
        if deployment.shadows:
            self._shadow()
        self.endpoint_config = self._endpoint_config(limits)
        self.alarms = self._alarms() if deployment.alarmed else None
        self.endpoint = self._endpoint()
        Tags.of(self.endpoint).add("pushline:model-package", self.package)
        if deployment.shadows:
            Tags.of(self.endpoint).add("pushline:shadow-model-package", self.shadow_package)
        if deployment.scales:
            self._scaling()
        if self.alarms:
            dashboard(self, "Dashboard", deployment=deployment, variant=VARIANT, package=self.package,
                      alarms=self.alarms.alarms, condition=self.has_model)  # fmt: skip

    def _outputs(self) -> None:
        deployment = self.deployment
        publish(self, {"Model": deployment.model.name, "Environment": deployment.environment})
        if not deployment.has_endpoint:
            publish(self, {"LiveModel": self.model.attr_model_name}, self.has_model)
        publish(self, {"Endpoint": deployment.endpoint if deployment.has_endpoint else NO_ENDPOINT})
        if deployment.kind == "async":
            # Where clients put what they ask: the endpoint's role reads nothing else of theirs.
            requests = f"s3://{self._environment.traffic.bucket_name}/{ANSWERS}{deployment.place}/requests/"
            publish(self, {"Requests": requests})

    def _version_parameters(self) -> None:
        self.image = self._text("Image", IMAGE, "Container image of the live version", NO_IMAGE)
        self.model_data_url = self._text("ModelDataUrl", ARTIFACT, "Its model.tar.gz; empty: there is no model yet")
        self.package = self._text("ModelPackageArn", PACKAGE % self.deployment.model.slug, "Its registered version")

    def _size_parameters(self, limits: ServingLimits) -> None:
        serving, most = self.deployment.model.serving, limits.maximum_instances
        self.instance_type = self._text("InstanceType", INSTANCE_TYPE, "Of every instance", serving.instance_type)
        self.minimum = self._count("MinimumInstances", most, "Instances that serve it")
        if self.deployment.scales:
            self.maximum = self._count("MaximumInstances", most, "Instances it may grow to")
            # SageMaker refuses to change the instance type of a variant that is a scalable target.
            self.autoscaling = CfnParameter(
                self, "Autoscaling", default=OFF, allowed_values=[ON, OFF, PAUSED],
                description="Off: a fixed number of instances; paused: while the instance type changes",
            ).value_as_string  # fmt: skip

    def _text(self, id: str, pattern: str, description: str, default: str = "") -> str:
        parameter = CfnParameter(self, id, default=default, description=description, allowed_pattern=f"^({pattern})$")
        return parameter.value_as_string

    def _count(self, id: str, most: int, description: str) -> CfnParameter:
        return CfnParameter(self, id, type="Number", default=1, min_value=1, max_value=most, description=description)

    def _model(self, id: str, kind: str, image: str, model_data_url: str, package: str) -> sagemaker.CfnModel:
        container = sagemaker.CfnModel.ContainerDefinitionProperty(
            image=image, model_data_url=model_data_url,
            environment={"SAGEMAKER_PROGRAM": "pushline_entry.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                         # The toolkit installs the code with pip here as well, see retrain_jobs.py.
                         "PIP_NO_BUILD_ISOLATION": "0", PACKAGE_VARIABLE: package})  # fmt: skip
        # A serverless endpoint takes no model that is isolated from the network.
        model = sagemaker.CfnModel(self, id, execution_role_arn=self._execution_role.role_arn,
                                   enable_network_isolation=self.deployment.kind != "serverless",
                                   vpc_config=self._vpc(), primary_container=container)  # fmt: skip
        self._with_model(model, kind)
        return model

    def _shadow(self) -> None:
        """The model of the version to come, under a condition of its own: there is none most of the time."""
        image = self._text("ShadowImage", IMAGE, "Container image of the version that is tried as shadow", NO_IMAGE)
        data = self._text("ShadowModelDataUrl", ARTIFACT, "Its model.tar.gz; empty: there is no shadow")
        self.shadow_package = self._text("ShadowModelPackageArn", PACKAGE % self.deployment.model.slug,
                                         "Its registered version")  # fmt: skip
        self.rollout = CfnParameter(
            self, "Rollout", default=AS_ASKED, allowed_values=[AS_ASKED, AT_ONCE],
            description="At once where a shadow comes or goes, since SageMaker shifts between equal variants only",
        ).value_as_string  # fmt: skip
        both: Any = (self.has_model, Fn.condition_not(Fn.condition_equals(data, "")))
        self.has_shadow = CfnCondition(self, "HasShadow", expression=Fn.condition_and(*both))
        self.shadow_model = self._model("ShadowModel", "shadow-model", image, data, self.shadow_package)
        self.shadow_model.cfn_options.condition = self.has_shadow
        # Its going is an update, too, which SageMaker may roll back silently.
        self.shadow_model.cfn_options.deletion_policy = CfnDeletionPolicy.RETAIN

    def _vpc(self) -> sagemaker.CfnModel.VpcConfigProperty | None:
        network = self._environment.network
        if network is None or not self.deployment.in_a_network:
            return None
        return sagemaker.CfnModel.VpcConfigProperty(subnets=list(network.subnets),
                                                    security_group_ids=list(network.security_groups))  # fmt: skip

    def _endpoint_config(self, limits: ServingLimits) -> sagemaker.CfnEndpointConfig:
        deployment, on_instances = self.deployment, self.deployment.on_instances
        where = f"s3://{self._environment.traffic.bucket_name}"
        key = self._environment.key.key_arn
        variant = instance_variant(VARIANT, self.model, self.instance_type, self.minimum) if on_instances \
            else serverless_variant(VARIANT, self.model, deployment.model.serving.serverless)  # fmt: skip
        config = sagemaker.CfnEndpointConfig(
            self, "EndpointConfig", production_variants=[variant],
            shadow_production_variants=self._shadow_variants() if deployment.shadows else None,
            kms_key_id=self._volume_key(limits) if on_instances else None,
            data_capture_config=data_capture(deployment, where, key) if deployment.captures else None,
            async_inference_config=asynchronous(deployment, where, key) if deployment.kind == "async" else None,
        )  # fmt: skip
        self._with_model(config, "endpoint-config")
        return config

    def _shadow_variants(self) -> Any:
        """On as many instances of the same type as production has, so that their latencies compare."""
        variant = {"VariantName": SHADOW_VARIANT, "ModelName": self.shadow_model.attr_model_name,
                   "InstanceType": self.instance_type, "InitialInstanceCount": self.minimum.value_as_number,
                   "InitialVariantWeight": 1}  # fmt: skip
        return Fn.condition_if(self.has_shadow.logical_id, [variant], Aws.NO_VALUE)

    def _volume_key(self, limits: ServingLimits) -> str:
        """The key, unless the live version's instances have a disk of their own, which takes none."""
        keyless = [Fn.condition_equals(self.instance_type, name) for name in limits.instance_types
                   if has_local_storage(name)]  # fmt: skip
        key = self._environment.key.key_arn
        if not keyless:
            return key
        local = CfnCondition(self, "HasLocalStorage", expression=Fn.condition_or(*keyless))
        return Fn.condition_if(local.logical_id, Aws.NO_VALUE, key).to_string()

    def _alarms(self) -> FleetAlarms:
        return FleetAlarms(self, "Alarms", deployment=self.deployment, variant=VARIANT, condition=self.has_model,
                           endpoint_config=self.endpoint_config.attr_endpoint_config_name,
                           topic=self._environment.notifications.topic_arn)  # fmt: skip

    def _endpoint(self) -> sagemaker.CfnEndpoint:
        deployment, alarms = self.deployment, self.alarms.names if self.alarms else []
        at_once = CfnCondition(self, "AtOnce", expression=Fn.condition_equals(self.rollout, AT_ONCE)) \
            if deployment.shadows else None  # fmt: skip
        shifts = deployment_config(deployment.traffic, alarms, at_once) if deployment.on_instances else None
        endpoint = sagemaker.CfnEndpoint(
            self, "Endpoint", endpoint_name=deployment.endpoint,
            endpoint_config_name=self.endpoint_config.attr_endpoint_config_name, deployment_config=shifts,
            # Weights, data capture and what autoscaling made of the number of instances stay as they are live.
            retain_all_variant_properties=True if deployment.on_instances else None,
            exclude_retained_variant_properties=self._not_retained() if deployment.on_instances else None)  # fmt: skip
        self._with_model(endpoint, "endpoint")
        return endpoint

    def _not_retained(self) -> Any:
        """Where nothing scales, the number of instances is the parameter's, so that a changed one takes effect."""
        counts = sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DesiredInstanceCount")
        if not self.deployment.scales:
            return [counts]
        fixed = CfnCondition(self, "HasFixedSize", expression=Fn.condition_equals(self.autoscaling, OFF))
        excluded = [{"VariantPropertyType": "DesiredInstanceCount"}]
        return Fn.condition_if(fixed.logical_id, excluded, Aws.NO_VALUE)

    def _scaling(self) -> None:
        both: Any = (self.has_model, Fn.condition_equals(self.autoscaling, ON))  # jsii's types lack the inheritance
        scales = CfnCondition(self, "Scales", expression=Fn.condition_and(*both))
        EndpointScaling(self, "Scaling", deployment=self.deployment, variant=VARIANT, endpoint=self.endpoint,
                        minimum=self.minimum, maximum=self.maximum, condition=scales)  # fmt: skip

    def _with_model(self, resource: CfnResource, kind: str) -> None:
        """Exist only with a model; when replaced, stay: after a silent rollback the old one is what is live."""
        # CloudFormation names models and endpoint configs after the logical id, and its role is limited to such names.
        resource.override_logical_id(self.deployment.generated_name(kind))
        resource.cfn_options.condition = self.has_model
        if kind != "endpoint":
            resource.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
            resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
