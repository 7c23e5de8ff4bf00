"""Hops 1 and 2 of a push: the repository, and the function that starts the pipelines of the models it touches.

Next hop: the model's pipeline (`stacks/training_stack.py`), started by `lambdas/start_retraining/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aws_cdk import Duration, IgnoreMode, Stack
from aws_cdk import aws_codecommit as codecommit
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from config import Settings
from stacks.foundation_stack import FoundationStack
from stacks.log_group import log_group
from stacks.names import any_pipeline_name
from stacks.outputs import publish
from stacks.permissions import allow, arn, role, use_key, write_log
from stacks.tags import SHARED, TRAINING, tag

BRANCH = "main"
ROOT = Path(__file__).parents[1]
TIMEOUT = Duration.minutes(2)
MEMORY_MB = 256
RETRIES = 2
"""Lambda's own, minutes apart, after the calls' own retries."""


class RepositoryStack(Stack):
    """The repository `pushline`, and `start_retraining` behind the rule on its branch."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack,
                 **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, **stack)
        self._settings, self._foundation = settings, foundation
        self.repository = self._repository()
        self.start_retraining = self._start_retraining()
        self._route_pushes()
        tag(self, model=SHARED, environment=TRAINING)
        publish(self, {"Repository": self.repository.repository_name})

    def _repository(self) -> codecommit.Repository:
        # People clone it by name, so it has one. It stays under CodeCommit's own key: with ours, everybody who pushes
        # would need permissions on the key of all data.
        repository = codecommit.Repository(self, "Repository", repository_name=self._settings.project,
                                           description="Model code and the infrastructure it runs on")  # fmt: skip
        repository.apply_removal_policy(self._foundation.removal)
        return repository

    def _start_retraining(self) -> lambda_.Function:
        log = log_group(self, "StartRetrainingLog", settings=self._settings, environment=self._foundation)
        function = lambda_.Function(
            self, "StartRetraining", runtime=lambda_.Runtime.PYTHON_3_11, timeout=TIMEOUT, memory_size=MEMORY_MB,
            handler="lambdas.start_retraining.handler.handle", code=_code(), log_group=log, role=self._role(log),
            description="Decides which models a push touches and starts their pipelines",
            environment={"REPOSITORY_ARN": self.repository.repository_arn, "BRANCH": BRANCH,
                         "MODELS_PATH": f"/{self._settings.project}/models"})  # fmt: skip
        self._tell_failures(function)
        # The role's one policy is inline: naming it says all, and the CDK's explicit dependency nothing more.
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        resource.add_deletion_override("DependsOn")
        return function

    def _role(self, log: logs.ILogGroup) -> iam.Role:
        return role(self, "StartRetrainingRole", iam.ServicePrincipal("lambda.amazonaws.com"), statements=[
            allow("codecommit:GetCommit", "codecommit:GetDifferences", on=self.repository.repository_arn),
            allow("ssm:GetParametersByPath", on=arn(self, "ssm", f"parameter/{self._settings.project}/models")),
            allow("codepipeline:StartPipelineExecution",
                  on=arn(self, "codepipeline", any_pipeline_name(self._settings))),
            write_log(log),
            allow("sns:Publish", on=self._foundation.notifications.topic_arn), use_key(self._foundation.key),
        ])  # fmt: skip

    def _tell_failures(self, function: lambda_.Function) -> None:
        """After Lambda's own retries a lost push is told, with the event to invoke the function with again."""
        on_failure = lambda_.CfnEventInvokeConfig.OnFailureProperty(
            destination=self._foundation.notifications.topic_arn
        )
        lambda_.CfnEventInvokeConfig(
            self,
            "StartRetrainingRetries",
            function_name=function.function_name,
            qualifier="$LATEST",
            maximum_retry_attempts=RETRIES,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(on_failure=on_failure),
        )

    def _route_pushes(self) -> None:
        pattern = events.EventPattern(
            source=["aws.codecommit"], detail_type=["CodeCommit Repository State Change"],
            resources=[self.repository.repository_arn],
            detail={"event": ["referenceCreated", "referenceUpdated"], "referenceType": ["branch"],
                    "referenceName": [BRANCH]})  # fmt: skip
        events.Rule(self, "Push", event_pattern=pattern, description=f"A push to {BRANCH} retrains what it touches",
                    targets=[targets.LambdaFunction(self.start_retraining)])  # fmt: skip


def _code() -> lambda_.Code:
    """The function's folder under its import path, cut out of the repository."""
    keep = ["/*", "!/lambdas", "/lambdas/*", "!/lambdas/__init__.py", "!/lambdas/start_retraining", "__pycache__"]
    return lambda_.Code.from_asset(str(ROOT), exclude=keep, ignore_mode=IgnoreMode.GIT)
