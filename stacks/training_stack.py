"""Hops 2 to 5 of one model: its delivery pipeline, feature job, retraining state machine and registry.

Next hop: the registered version's approval status wakes the reconcilers (`stacks/release_stack.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aws_cdk import CfnParameter, Stack, Token
from aws_cdk import aws_events as events
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_ssm as ssm
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from config import Settings
from contract import Model
from stacks.crossing import Crossing, crossing
from stacks.delivery_pipeline import DeliveryPipeline
from stacks.deployment import deployments
from stacks.foundation_stack import FoundationStack
from stacks.images import FrameworkImage
from stacks.log_group import feature_log_groups, state_machine_log_group
from stacks.names import feature_job_name, parameter_name, pipeline_name, raw_data_parameter_name
from stacks.outputs import publish
from stacks.permissions import allow, arn, service_role
from stacks.registry_events import registry_changed
from stacks.repository_stack import RepositoryStack
from stacks.retrain_workflow import retrain_workflow
from stacks.tags import TRAINING, tag
from stacks.training_roles import JobRoles, retrain_role

GLUE_VERSION = "5.1"
CONCURRENT_FEATURE_RUNS = 2
"""The pipeline holds one retraining at a time; the monitor labels new days meanwhile."""


class TrainingStack(Stack):
    """Everything that turns a commit of one model into a registered version."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, model: Model, foundation: FoundationStack,
                 repository: RepositoryStack, **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, **stack)
        self._settings, self.model, self._foundation = settings, model, foundation
        self._crossings = [found for deployment in deployments(model) if (found := crossing(settings, deployment))]
        self.image = FrameworkImage(self, "Image", model=model)
        self.group = self._group()
        self._jobs = JobRoles(self, "Jobs", model=model, foundation=foundation, image=self.image)
        self.feature_job = self._feature_job()
        feature_log_groups(self, settings=settings, environment=foundation, security=feature_job_name(model),
                           role=self._jobs.features.role_name)  # fmt: skip
        self.retraining = self._retraining()
        self.pipeline = DeliveryPipeline(self, "Delivery", settings=settings, model=model, foundation=foundation,
                                         source=repository.source, retraining=self.retraining)  # fmt: skip
        for found in self._crossings:
            self._forward(found)
        self._register_triggers()
        self._schedule(repository)
        publish(self, {"Model": model.name, "Pipeline": self.pipeline.name, "ModelPackageGroup": model.slug,
                       "RawData": self._raw_data().attr_value})  # fmt: skip
        tag(self, model=model.name, environment=TRAINING)

    def _group(self) -> sagemaker.CfnModelPackageGroup:
        # The registry is found by the model's slug, in every environment.
        group = sagemaker.CfnModelPackageGroup(
            self, "Group", model_package_group_name=self.model.slug,
            model_package_group_description=self.model.description or None,
            model_package_group_policy=self._group_policy())  # fmt: skip
        group.apply_removal_policy(self._foundation.removal)
        return group

    def _group_policy(self) -> iam.PolicyDocument | None:
        """The registry's readers in other accounts; who may decide what is the release role's own policy again."""
        statements = [statement for found in self._crossings for statement in self._registry_of(found)]
        return iam.PolicyDocument(statements=statements) if statements else None

    def _registry_of(self, crossing: Crossing) -> Iterator[iam.PolicyStatement]:
        versions = arn(self, "sagemaker", f"model-package/{self.model.slug}/*")
        yield crossing.reconciler.may("sagemaker:ListModelPackages", "sagemaker:DescribeModelPackage", on=versions)
        decisions: dict[str, object] = {"sagemaker:ModelApprovalStatus": crossing.deployment.decisions}
        yield crossing.reconciler.may("sagemaker:UpdateModelPackage", on=versions, when={"StringEquals": decisions})

    def _forward(self, crossing: Crossing) -> None:
        """Registry events go to the environment's own bus, whose policy knows this role."""
        title = crossing.deployment.environment.capitalize()
        role = service_role(self, f"Forward{title}Role", "events", name=crossing.forwarder.name,
                            statements=[allow("events:PutEvents", on=crossing.bus_arn)])  # fmt: skip
        target = events.CfnRule.TargetProperty(id="Bus", arn=crossing.bus_arn, role_arn=role.role_arn)
        events.CfnRule(self, f"Forward{title}", event_pattern=registry_changed(self.model), targets=[target],
                       description=f"Tells {crossing.deployment.environment} of the versions of {self.model.name}",
                       )  # fmt: skip

    def _feature_job(self) -> glue.CfnJob:
        features, security = self.model.features, self._job_security()
        return glue.CfnJob(
            self, "Features", name=feature_job_name(self.model), role=self._jobs.features.role_arn,
            glue_version=GLUE_VERSION, worker_type=features.worker_type, number_of_workers=features.workers,
            timeout=features.timeout_minutes, max_retries=0, security_configuration=security.ref,
            connections=self._connections(),
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=CONCURRENT_FEATURE_RUNS),
            command=glue.CfnJob.JobCommandProperty(
                name="glueetl", python_version="3",
                # Every run names its own bundle; a run that does not must not find a script.
                script_location=f"s3://{self._foundation.artifacts.bucket_name}/bundles/{self.model.slug}/none.py"),
            default_arguments={"--job-language": "python", "--enable-metrics": "true"})  # fmt: skip

    def _connections(self) -> glue.CfnJob.ConnectionsListProperty | None:
        """Through it the job's workers run in the environment's network."""
        network = self._foundation.network
        if network is None:
            return None
        physical = glue.CfnConnection.PhysicalConnectionRequirementsProperty(
            subnet_id=network.subnets[0], security_group_id_list=list(network.security_groups),
            availability_zone=self._zone(network.availability_zone))  # fmt: skip
        connection = glue.CfnConnection(
            self, "FeaturesNetwork", catalog_id=self.account,
            connection_input=glue.CfnConnection.ConnectionInputProperty(
                name=feature_job_name(self.model), connection_type="NETWORK", connection_properties={},
                physical_connection_requirements=physical))  # fmt: skip
        return glue.CfnJob.ConnectionsListProperty(connections=[connection.ref])

    def _zone(self, zone: str) -> str:
        """A zone that config names is a parameter's default, which CloudFormation checks to be one of the account's."""
        if Token.is_unresolved(zone):
            return zone
        parameter = CfnParameter(self, "FeaturesZone", type="AWS::EC2::AvailabilityZone::Name", default=zone,
                                 description="Of the existing VPC's first subnet, where feature jobs run")  # fmt: skip
        return parameter.value_as_string

    def _job_security(self) -> glue.CfnSecurityConfiguration:
        key = self._foundation.key.key_arn
        encryption = glue.CfnSecurityConfiguration
        return glue.CfnSecurityConfiguration(
            self, "FeaturesSecurity", name=feature_job_name(self.model),
            encryption_configuration=encryption.EncryptionConfigurationProperty(
                cloud_watch_encryption=encryption.CloudWatchEncryptionProperty(
                    cloud_watch_encryption_mode="SSE-KMS", kms_key_arn=key),
                job_bookmarks_encryption=encryption.JobBookmarksEncryptionProperty(
                    job_bookmarks_encryption_mode="CSE-KMS", kms_key_arn=key),
                s3_encryptions=[encryption.S3EncryptionProperty(
                    s3_encryption_mode="SSE-KMS", kms_key_arn=key)]))  # fmt: skip

    def _retraining(self) -> sfn.CfnStateMachine:
        log = state_machine_log_group(self, "RetrainingLog", settings=self._settings, environment=self._foundation)
        role = retrain_role(self, model=self.model, guardrails=self._settings.guardrails,
                            foundation=self._foundation, jobs=self._jobs, log=log)  # fmt: skip
        destination = sfn.CfnStateMachine.LogDestinationProperty(
            cloud_watch_logs_log_group=sfn.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                log_group_arn=log.log_group_arn
            )
        )
        definition = retrain_workflow(self.model, self._settings.guardrails, vpc=self._foundation.network is not None)
        return sfn.CfnStateMachine(
            self, "Retraining", role_arn=role.role_arn, state_machine_type="STANDARD",
            definition_string=json.dumps(definition, indent=1), definition_substitutions=self._substitutions(),
            tracing_configuration=sfn.CfnStateMachine.TracingConfigurationProperty(enabled=True),
            logging_configuration=sfn.CfnStateMachine.LoggingConfigurationProperty(
                destinations=[destination], include_execution_data=False, level="ALL"))  # fmt: skip

    def _substitutions(self) -> dict[str, str]:
        foundation = self._foundation
        return {
            "Region": self.region, "Data": foundation.data.bucket_name, "Artifacts": foundation.artifacts.bucket_name,
            "Key": foundation.key.key_arn, "Topic": foundation.notifications.topic_arn,
            "Group": self.group.model_package_group_name, "FeatureJob": self.feature_job.ref,
            "TrainingRole": self._jobs.training.role_arn, "EvaluationRole": self._jobs.evaluation.role_arn,
            "Image": self.image.uri, **(foundation.network.substitutions if foundation.network else {}),
        }  # fmt: skip

    def _raw_data(self) -> ssm.CfnParameter:
        """Tell whoever delivers data where this model's lands."""
        return ssm.CfnParameter(self, "RawData", name=raw_data_parameter_name(self._settings, self.model),
                                type="String", description="Where raw data lands: <here>/dt=YYYY-MM-DD/",
                                value=f"s3://{self._foundation.data.bucket_name}/raw/{self.model.name}/")  # fmt: skip

    def _register_triggers(self) -> None:
        """Tell `start_retraining` what retrains the model, and through which pipeline."""
        ssm.CfnParameter(self, "Routes", name=parameter_name(self._settings, self.model), type="String",
                         value=registration(self._settings, self.model),
                         description="Read by start_retraining")  # fmt: skip

    def _schedule(self, repository: RepositoryStack) -> None:
        if self.model.retraining.schedule is None:
            return
        event = {"source": "pushline.schedule", "time": "<aws.scheduler.scheduled-time>",
                 "detail": {"model": self.model.name}}  # fmt: skip
        scheduler.CfnSchedule(
            self, "Schedule", group_name=repository.schedules.ref, description=f"Retrains {self.model.name}",
            schedule_expression=self.model.retraining.schedule, state="ENABLED",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=repository.start_retraining.function_arn, role_arn=repository.schedule_role.role_arn,
                input=json.dumps(event)))  # fmt: skip


def registration(settings: Settings, model: Model) -> str:
    """What `start_retraining` has to know of a model."""
    retraining = model.retraining
    return json.dumps({"pipeline": pipeline_name(settings, model), "watch": list(model.paths),
                       "on_new_data": retraining.on_new_data, "on_drift": retraining.on_drift,
                       "cool_down_hours": retraining.cool_down_hours})  # fmt: skip
