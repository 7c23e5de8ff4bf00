"""Hops 1 and 2 of a push: the source (`stacks/source.py`), and the one door to retraining behind every trigger.

Next hop: the model's pipeline (`stacks/training_stack.py`), started by `lambdas/start_retraining/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aws_cdk import Duration, IgnoreMode, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from config import Settings
from stacks.foundation_stack import FoundationStack
from stacks.log_group import log_group
from stacks.names import any_pipeline_name
from stacks.outputs import publish
from stacks.permissions import allow, arn, list_objects, pass_role, service_role, use_key, write_log
from stacks.source import source
from stacks.tags import SHARED, TRAINING, tag

RAW_DATA = "raw/"
"""Where new data lands, in the data bucket: `raw/<model>/dt=YYYY-MM-DD/`."""
ROOT = Path(__file__).parents[1]
TIMEOUT = Duration.minutes(5)
"""A push to code that all models share starts all their pipelines; what time is too short for comes again."""
MEMORY_MB = 256
LOOK = Duration.hours(1)
RETRIES = 2
"""Lambda's own, minutes apart, after the calls' own retries."""


class RepositoryStack(Stack):
    """The source, and `start_retraining` behind the rules on its branch, on raw data and on drift alarms."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, foundation: FoundationStack,
                 **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, **stack)
        self._settings, self._foundation = settings, foundation
        self.source = source(self, "Source", settings=settings, foundation=foundation)
        self.schedules = scheduler.CfnScheduleGroup(self, "Schedules")
        self.schedule_role = self._schedule_role()
        self._log = log_group(self, "StartRetrainingLog", settings=settings, environment=foundation)
        self.start_retraining = self._start_retraining()
        self._tell_failures()
        self._let_schedules_invoke()
        self.source.tell(self.start_retraining)
        self._look_for_pushes()
        self._route_new_data()
        self._route_drift()
        tag(self, model=SHARED, environment=TRAINING)
        publish(self, {**self.source.outputs,
                       "StartRetraining": self.start_retraining.function_name,
                       "StartRetrainingLog": self._log.log_group_name})  # fmt: skip

    def _start_retraining(self) -> lambda_.Function:
        function = lambda_.Function(
            self, "StartRetraining", runtime=lambda_.Runtime.PYTHON_3_11, timeout=TIMEOUT, memory_size=MEMORY_MB,
            handler="lambdas.start_retraining.handler.handle", code=_code(), log_group=self._log, role=self._role(),
            description="The one door to retraining: starts, defers or ignores what push, schedule, data and drift ask",
            environment=self._environment())  # fmt: skip
        # The role's one policy is inline: naming it says all, and the CDK's explicit dependency nothing more.
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        resource.add_deletion_override("DependsOn")
        return function

    def _environment(self) -> dict[str, str]:
        limits = self._settings.retraining
        return {
            **self.source.environment,
            "DATA": self._foundation.data.bucket_name, "MODELS_PATH": f"/{self._settings.project}/models",
            "TOPIC": self._foundation.notifications.topic_arn,
            "SCHEDULE_GROUP": self.schedules.ref, "SCHEDULE_ROLE": self.schedule_role.role_arn,
            "MAXIMUM_PER_DAY": str(limits.maximum_per_day), "SETTLING_MINUTES": str(limits.settling_minutes),
            "LONGEST_WAIT_HOURS": str(limits.longest_wait_hours),
            "CLEARING_HOURS": str(self._settings.monitoring.clearing_hours),
        }  # fmt: skip

    def _role(self) -> iam.Role:
        pipelines = arn(self, "codepipeline", any_pipeline_name(self._settings))
        return service_role(self, "StartRetrainingRole", "lambda", statements=[
            *self.source.compare(),
            allow("ssm:GetParametersByPath", on=arn(self, "ssm", f"parameter/{self._settings.project}/models")),
            allow("codepipeline:StartPipelineExecution", "codepipeline:ListPipelineExecutions",
                  "codepipeline:GetPipelineExecution", "codepipeline:ListActionExecutions", on=pipelines),
            allow("scheduler:CreateSchedule", "scheduler:GetSchedule",
                  on=arn(self, "scheduler", f"schedule/{self.schedules.ref}/*")),
            pass_role(self.schedule_role, "scheduler"),
            list_objects(self._foundation.data, f"{RAW_DATA}*"),
            write_log(self._log),
            allow("cloudwatch:DescribeAlarms", on=arn(self, "cloudwatch", "alarm:*-drift-*")),
            allow("sns:Publish", on=self._foundation.notifications.topic_arn), use_key(self._foundation.key),
        ])  # fmt: skip

    def _schedule_role(self) -> iam.Role:
        """What the models' schedules and the deferred requests invoke the function with."""
        return service_role(self, "ScheduleRole", "scheduler", statements=[], source=self.schedules.attr_arn)

    def _let_schedules_invoke(self) -> None:
        # Apart from the role, which the function needs to know before it exists.
        invoke = allow("lambda:InvokeFunction", on=self.start_retraining.function_arn)
        iam.Policy(self, "ScheduleRolePolicy", roles=[self.schedule_role], statements=[invoke])

    def _tell_failures(self) -> None:
        """After Lambda's own retries a lost event is told, to invoke the function with again."""
        topic = self._foundation.notifications.topic_arn
        on_failure = lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=topic)
        lambda_.CfnEventInvokeConfig(
            self, "StartRetrainingRetries", function_name=self.start_retraining.function_name, qualifier="$LATEST",
            maximum_retry_attempts=RETRIES,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_failure=on_failure))  # fmt: skip

    def _look_for_pushes(self) -> None:
        """CodeCommit's events are best effort, so that a push is looked for as well, as a release is."""
        if self.source.looked_at:
            event = events.RuleTargetInput.from_object({"source": "pushline.look", "detail": {}})
            events.Rule(self, "Look", schedule=events.Schedule.rate(LOOK), description="Whatever push was not told",
                        targets=[targets.LambdaFunction(self.start_retraining, event=event)])  # fmt: skip

    def _route_new_data(self) -> None:
        pattern = events.EventPattern(
            source=["aws.s3"], detail_type=["Object Created"],
            detail={"bucket": {"name": [self._foundation.data.bucket_name]},
                    "object": {"key": events.Match.prefix(RAW_DATA)}})  # fmt: skip
        self._rule("NewData", pattern, "New raw data retrains its model when it has settled")

    def _route_drift(self) -> None:
        pattern = events.EventPattern(
            source=["aws.cloudwatch"], detail_type=["CloudWatch Alarm State Change"],
            detail={"alarmName": events.Match.wildcard("*-drift-*"), "state": {"value": ["ALARM"]}})  # fmt: skip
        self._rule("Drift", pattern, "A drift alarm retrains its model")

    def _rule(self, id: str, pattern: events.EventPattern, description: str) -> None:
        events.Rule(self, id, event_pattern=pattern, description=description,
                    targets=[targets.LambdaFunction(self.start_retraining)])  # fmt: skip


def _code() -> lambda_.Code:
    """The function's folder under its import path, cut out of the repository."""
    keep = ["/*", "!/lambdas", "/lambdas/*", "!/lambdas/__init__.py", "!/lambdas/start_retraining", "__pycache__"]
    return lambda_.Code.from_asset(str(ROOT), exclude=keep, ignore_mode=IgnoreMode.GIT)
