"""Hops 3 and 4 of a push: Source, Verify and Retrain as one CodePipeline.

Next hop inside Retrain: `stacks/retrain_workflow.py`. Verify runs `buildspec.yml` of the commit that was pushed.
"""

from __future__ import annotations

import json

from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from config import Settings
from contract import Model, deployed
from stacks.foundation_stack import FoundationStack
from stacks.log_group import log_group
from stacks.names import pipeline_name
from stacks.pipeline import PipelineRoles, action, artifact_store, stage, store_of
from stacks.source import Source
from stacks.training_roles import verify_role

BUILD_IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
BUILD_MINUTES, QUEUE_MINUTES = 30, 60
NONE = "none"
VARIABLES = {
    "Trigger": "push, schedule, data, drift or manual; none: this execution was started by nobody",
    "Reason": "Why the model is retrained",
    "AsOf": "The newest data to train on, YYYY-MM-DD; none: whatever is newest",
}


class DeliveryPipeline(Construct):
    """The pipeline of one model; a newer execution supersedes the ones that wait before a stage."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, model: Model, foundation: FoundationStack,
                 source: Source, retraining: sfn.CfnStateMachine) -> None:  # fmt: skip
        super().__init__(scope, id)
        self.name = pipeline_name(settings, model)
        self._settings, self._model, self._foundation = settings, model, foundation
        self._store = store_of(self.name)
        self.build = self._build()
        self.roles = PipelineRoles(self, "Roles", foundation=foundation, fetch=source.fetch(), store=self._store,
                                   build=self.build.attr_arn, state_machine=retraining.attr_arn,
                                   state_machine_name=retraining.attr_name)  # fmt: skip
        stages = [stage("Source", self._fetch(source)), stage("Verify", self._verify(source)),
                  stage("Retrain", self._retrain(retraining))]  # fmt: skip
        self.pipeline = self._pipeline(stages)
        self.pipeline.add_resource_dependency(self.roles.acting)

    def _pipeline(self, stages: list[codepipeline.CfnPipeline.StageDeclarationProperty]) -> codepipeline.CfnPipeline:
        declared = codepipeline.CfnPipeline
        return codepipeline.CfnPipeline(
            self, "Pipeline", name=self.name, pipeline_type="V2", execution_mode="SUPERSEDED",
            role_arn=self.roles.pipeline.role_arn, restart_execution_on_update=False, stages=stages,
            variables=[declared.VariableDeclarationProperty(name=name, default_value=NONE, description=description)
                       for name, description in VARIABLES.items()],
            artifact_store=artifact_store(self._foundation))  # fmt: skip

    def _build(self) -> codebuild.CfnProject:
        log = log_group(self, "VerifyLog", settings=self._settings, environment=self._foundation)
        role = verify_role(self, model=self._model, foundation=self._foundation, log=log, store=self._store)
        project = codebuild.CfnProject
        return codebuild.CfnProject(
            self, "Build", service_role=role.role_arn, encryption_key=self._foundation.key.key_arn,
            description=f"Verify {self._model.name}: contract, lint, its tests, packaging",
            source=project.SourceProperty(type="CODEPIPELINE", build_spec="buildspec.yml"),
            artifacts=project.ArtifactsProperty(type="CODEPIPELINE"), environment=self._environment(),
            timeout_in_minutes=BUILD_MINUTES, queued_timeout_in_minutes=QUEUE_MINUTES,
            logs_config=project.LogsConfigProperty(
                cloud_watch_logs=project.CloudWatchLogsConfigProperty(
                    status="ENABLED", group_name=log.log_group_name)))  # fmt: skip

    def _environment(self) -> codebuild.CfnProject.EnvironmentProperty:
        variables = {
            "MODEL": self._model.name,
            "ARTIFACTS": self._foundation.artifacts.bucket_name,
            "DATA": self._foundation.data.bucket_name,
            "DEPLOYED": json.dumps(deployed(self._model), sort_keys=True),
        }
        project = codebuild.CfnProject
        return project.EnvironmentProperty(
            type="LINUX_CONTAINER", compute_type="BUILD_GENERAL1_SMALL", image=BUILD_IMAGE, privileged_mode=False,
            environment_variables=[project.EnvironmentVariableProperty(name=name, value=value, type="PLAINTEXT")
                                   for name, value in variables.items()])  # fmt: skip

    def _fetch(self, source: Source) -> codepipeline.CfnPipeline.ActionDeclarationProperty:
        return action("Source", "Source", source.provider, source.configuration, self.roles.source, outputs="Source",
                      namespace="Source")  # fmt: skip

    def _verify(self, source: Source) -> codepipeline.CfnPipeline.ActionDeclarationProperty:
        variables = {"COMMIT": source.commit, "TRIGGER": "#{variables.Trigger}",
                     "REASON": "#{variables.Reason}", "AS_OF": "#{variables.AsOf}",
                     "EXECUTION": "#{codepipeline.PipelineExecutionId}"}  # fmt: skip
        listed = [{"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()]
        configuration = {"ProjectName": self.build.ref, "EnvironmentVariables": json.dumps(listed)}
        return action("Verify", "Build", "CodeBuild", configuration, self.roles.verify, inputs="Source",
                       outputs="Retraining")  # fmt: skip

    def _retrain(self, retraining: sfn.CfnStateMachine) -> codepipeline.CfnPipeline.ActionDeclarationProperty:
        configuration = {"StateMachineArn": retraining.attr_arn, "ExecutionNamePrefix": self._model.slug,
                         "InputType": "FilePath", "Input": "retraining.json"}  # fmt: skip
        return action("Retrain", "Invoke", "StepFunctions", configuration, self.roles.retrain,
                       inputs="Retraining")  # fmt: skip
