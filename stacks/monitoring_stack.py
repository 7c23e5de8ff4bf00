"""Hop 7 of one model, watch: the scheduled comparison of live requests and labels with training, and its alarms.

Next hop: an alarm named `<slug>-drift-…` goes back to `start_retraining` (`stacks/repository_stack.py`).
"""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_stepfunctions as sfn

from config import Settings
from contract import Model
from stacks.crossing import crossing
from stacks.deployment import production
from stacks.environment_stack import ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.images import FrameworkImage
from stacks.log_group import state_machine_log_group
from stacks.monitor_workflow import NAMESPACE, monitor_workflow
from stacks.monitoring_roles import job_role, monitor_role
from stacks.names import feature_job_name
from stacks.native_monitoring import NativeMonitoring
from stacks.outputs import publish
from stacks.release_roles import start_role
from stacks.tags import tag

ALARMS = {
    "features": ("FeatureDrift", "feature_drift",
                 "Requests are further from the training rows than the strangest week of training was"),
    "predictions": ("PredictionDrift", "prediction_drift",
                    "Answers are further from those to the training rows than in the strangest week of training"),
    "quality": ("QualityLoss", "quality_loss", "On labels that landed since, the live version lost part of its metric"),
}  # fmt: skip
"""Alarm to metric, its bound in the settings and what it says."""


class MonitoringStack(Stack):
    """What notices that production's model no longer fits the world."""

    def __init__(self, scope: Any, id: str, *, settings: Settings, model: Model, foundation: FoundationStack,
                 live: ServingEnvironmentStack, **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, **stack)
        self._settings, self.model, self._foundation, self._live = settings, model, foundation, live
        self._crossing = crossing(settings, production(model))
        self._image = FrameworkImage(self, "Image", model=model)
        self._job = job_role(self, model=model, foundation=foundation, live=live, image=self._image,
                             crossing=self._crossing)  # fmt: skip
        self.monitor = self._monitor()
        self._schedule()
        for name in ALARMS:
            self._alarm(name)
        if model.monitoring.native:
            NativeMonitoring(self, "Native", model=model, guardrails=settings.guardrails, foundation=foundation,
                             live=live)  # fmt: skip
        publish(self, {"Model": model.name, "Monitor": self.monitor.ref})
        tag(self, model=model.name, environment="production")

    def _monitor(self) -> sfn.CfnStateMachine:
        log = state_machine_log_group(self, "MonitorLog", settings=self._settings, environment=self._foundation)
        destination = sfn.CfnStateMachine.LogDestinationProperty(
            cloud_watch_logs_log_group=sfn.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                log_group_arn=log.log_group_arn
            )
        )
        return sfn.CfnStateMachine(
            self, "Monitor", role_arn=self._role().role_arn, state_machine_type="STANDARD",
            definition_string=json.dumps(self._definition(), indent=1),
            definition_substitutions=self._substitutions(),
            tracing_configuration=sfn.CfnStateMachine.TracingConfigurationProperty(enabled=True),
            logging_configuration=sfn.CfnStateMachine.LoggingConfigurationProperty(
                destinations=[destination], include_execution_data=False, level="ALL"))  # fmt: skip

    def _definition(self) -> dict[str, Any]:
        return monitor_workflow(self.model, vpc=self._foundation.network is not None)

    def _role(self) -> iam.Role:
        return monitor_role(self, model=self.model, guardrails=self._settings.guardrails,
                            foundation=self._foundation, live=self._live, job=self._job,
                            crossing=self._crossing)  # fmt: skip

    def _substitutions(self) -> dict[str, str]:
        foundation = self._foundation
        return {
            "Data": foundation.data.bucket_name, "Traffic": self._live.traffic.bucket_name,
            "Artifacts": foundation.artifacts.bucket_name,
            "Key": foundation.key.key_arn, "Topic": foundation.notifications.topic_arn,
            "FeatureJob": feature_job_name(self.model), "JobRole": self._job.role_arn, "Image": self._image.uri,
            "Endpoint": production(self.model).endpoint,
            **(foundation.network.substitutions if foundation.network else {}),
        }  # fmt: skip

    def _schedule(self) -> None:
        hours = self._settings.monitoring.every_hours
        role = start_role(self, "StartRole", state_machine=self.monitor.ref)
        target = events.CfnRule.TargetProperty(id="Monitor", arn=self.monitor.ref, role_arn=role.role_arn,
                                               input=json.dumps({"started_by": "Schedule"}))  # fmt: skip
        events.CfnRule(self, "Schedule", schedule_expression=f"rate({hours} hour{'s' if hours > 1 else ''})",
                       description=f"Compares what {self.model.name} serves with what it was trained on",
                       targets=[target])  # fmt: skip

    def _alarm(self, name: str) -> None:
        """One bad run is weather, `breaches` of the last `of` are a change; what was not measured says nothing."""
        metric, bound, description = ALARMS[name]
        monitoring, own = self._settings.monitoring, getattr(self.model.monitoring, bound)
        cloudwatch.CfnAlarm(
            self, f"{name.capitalize()}Drift", alarm_name=f"{self.model.slug}-drift-{name}",
            alarm_description=description, namespace=NAMESPACE, metric_name=metric, statistic="Maximum",
            dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name="Model", value=self.model.name)],
            period=Duration.hours(monitoring.every_hours).to_seconds(), evaluation_periods=monitoring.of,
            datapoints_to_alarm=monitoring.breaches, threshold=own or getattr(monitoring, bound),
            comparison_operator="GreaterThanThreshold", treat_missing_data="ignore",
            alarm_actions=[self._foundation.notifications.topic_arn])  # fmt: skip
