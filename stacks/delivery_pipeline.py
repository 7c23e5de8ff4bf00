"""Hops 3 and 4 of a push: Source, Verify and Retrain as one CodePipeline.

Next hop inside Retrain: `stacks/retrain_workflow.py`. Verify runs `buildspec.yml` of the commit that was pushed.
"""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_codepipeline as codepipeline
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from config import Settings
from contract import Model, deployed
from stacks.foundation_stack import FoundationStack
from stacks.log_group import log_group
from stacks.names import pipeline_name
from stacks.repository_stack import BRANCH
from stacks.training_roles import PipelineRoles, verify_role

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
                 repository: codecommit.IRepository, retraining: sfn.CfnStateMachine) -> None:  # fmt: skip
        super().__init__(scope, id)
        self.name = pipeline_name(settings, model)
        self._settings, self._model, self._foundation = settings, model, foundation
        # CodePipeline keeps artifacts under the first 20 characters of the pipeline's name.
        self._store = self.name[:20]
        self.build = self._build()
        self.roles = PipelineRoles(self, "Roles", foundation=foundation, repository=repository, store=self._store,
                                   build=self.build.attr_arn, state_machine=retraining.attr_arn,
                                   state_machine_name=retraining.attr_name)  # fmt: skip
        stages = [_stage("Source", self._source(repository)), _stage("Verify", self._verify()),
                  _stage("Retrain", self._retrain(retraining))]  # fmt: skip
        self.pipeline = self._pipeline(stages)
        self.pipeline.add_resource_dependency(self.roles.act)

    def _pipeline(self, stages: list[codepipeline.CfnPipeline.StageDeclarationProperty]) -> codepipeline.CfnPipeline:
        declared = codepipeline.CfnPipeline
        return codepipeline.CfnPipeline(
            self, "Pipeline", name=self.name, pipeline_type="V2", execution_mode="SUPERSEDED",
            role_arn=self.roles.pipeline.role_arn, restart_execution_on_update=False, stages=stages,
            variables=[declared.VariableDeclarationProperty(name=name, default_value=NONE, description=description)
                       for name, description in VARIABLES.items()],
            artifact_store=self._artifact_store())  # fmt: skip

    def _artifact_store(self) -> codepipeline.CfnPipeline.ArtifactStoreProperty:
        declared, key = codepipeline.CfnPipeline, self._foundation.key
        return declared.ArtifactStoreProperty(
            type="S3", location=self._foundation.pipeline_store.bucket_name,
            encryption_key=declared.EncryptionKeyProperty(type="KMS", id=key.key_arn))  # fmt: skip

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

    def _source(self, repository: codecommit.IRepository) -> codepipeline.CfnPipeline.ActionDeclarationProperty:
        configuration = {"RepositoryName": repository.repository_name, "BranchName": BRANCH,
                         # start_retraining decides which pushes concern this model.
                         "PollForSourceChanges": "false", "OutputArtifactFormat": "CODE_ZIP"}  # fmt: skip
        return _action("Source", "Source", "CodeCommit", configuration, self.roles.source.role_arn, outputs="Source",
                       namespace="Source")  # fmt: skip

    def _verify(self) -> codepipeline.CfnPipeline.ActionDeclarationProperty:
        variables = {"COMMIT": "#{Source.CommitId}", "TRIGGER": "#{variables.Trigger}",
                     "REASON": "#{variables.Reason}", "AS_OF": "#{variables.AsOf}",
                     "EXECUTION": "#{codepipeline.PipelineExecutionId}"}  # fmt: skip
        listed = [{"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()]
        configuration = {"ProjectName": self.build.ref, "EnvironmentVariables": json.dumps(listed)}
        return _action("Verify", "Build", "CodeBuild", configuration, self.roles.verify.role_arn, inputs="Source",
                       outputs="Retraining")  # fmt: skip

    def _retrain(self, retraining: sfn.CfnStateMachine) -> codepipeline.CfnPipeline.ActionDeclarationProperty:
        configuration = {"StateMachineArn": retraining.attr_arn, "ExecutionNamePrefix": self._model.slug,
                         "InputType": "FilePath", "Input": "retraining.json"}  # fmt: skip
        return _action("Retrain", "Invoke", "StepFunctions", configuration, self.roles.retrain.role_arn,
                       inputs="Retraining")  # fmt: skip


def _stage(name: str, action: codepipeline.CfnPipeline.ActionDeclarationProperty,
           ) -> codepipeline.CfnPipeline.StageDeclarationProperty:  # fmt: skip
    return codepipeline.CfnPipeline.StageDeclarationProperty(name=name, actions=[action])


def _action(name: str, category: str, provider: str, configuration: dict[str, Any], role: str, *, inputs: str = "",
            outputs: str = "", namespace: str | None = None,
            ) -> codepipeline.CfnPipeline.ActionDeclarationProperty:  # fmt: skip
    declared = codepipeline.CfnPipeline
    return declared.ActionDeclarationProperty(
        name=name, configuration=configuration, role_arn=role, namespace=namespace, run_order=1,
        action_type_id=declared.ActionTypeIdProperty(category=category, owner="AWS", provider=provider, version="1"),
        input_artifacts=[declared.InputArtifactProperty(name=inputs)] if inputs else None,
        output_artifacts=[declared.OutputArtifactProperty(name=outputs)] if outputs else None)  # fmt: skip
