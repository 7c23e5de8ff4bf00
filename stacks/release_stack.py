"""Hop 6 of one model in one environment: the reconciler, what starts it, and every role of the release.

Next hop: the reconciler (`stacks/release_workflow.py`) sets the parameters of `stacks/serving_stack.py`.
"""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from config import Settings
from stacks.crossing import Crossing, crossing
from stacks.deployment import Deployment
from stacks.environment_stack import ServingEnvironmentStack
from stacks.foundation_stack import FoundationStack
from stacks.log_group import endpoint_log_group, state_machine_log_group
from stacks.outputs import publish
from stacks.permissions import arn
from stacks.registry_events import registry_changed
from stacks.release_roles import ReleaseRoles, start_role
from stacks.release_workflow import release_workflow
from stacks.tags import tag

SELF_HEAL = "rate(1 hour)"
"""How long a lost event can go unnoticed."""


class ReleaseStack(Stack):
    """What keeps one environment's endpoint equal to what the model registry says."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, deployment: Deployment,
                 environment: ServingEnvironmentStack, foundation: FoundationStack, **stack: Any,
                 ) -> None:  # fmt: skip
        super().__init__(scope, id, **stack)
        self._settings, self._environment, self.deployment = settings, environment, deployment
        self._crossing, self._registry = crossing(settings, deployment), arn(foundation, "sagemaker", "")
        self.roles = ReleaseRoles(self, "Roles", deployment=deployment, guardrails=settings.guardrails,
                                  environment=environment, foundation=foundation,
                                  crossing=self._crossing)  # fmt: skip
        if deployment.has_endpoint:
            endpoint_log_group(self, "EndpointLog", settings=settings, environment=environment,
                               endpoint=deployment.endpoint)  # fmt: skip
        self.reconciler = self._reconciler()
        self._rules()
        publish(self, {"Model": deployment.model.name, "Environment": deployment.environment,
                       "Reconciler": self.reconciler.ref})  # fmt: skip
        tag(self, model=deployment.model.name, environment=deployment.environment)

    def _reconciler(self) -> sfn.CfnStateMachine:
        log = state_machine_log_group(self, "ReconcilerLog", settings=self._settings, environment=self._environment)
        destination = sfn.CfnStateMachine.LogDestinationProperty(
            cloud_watch_logs_log_group=sfn.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                log_group_arn=log.log_group_arn
            )
        )
        return sfn.CfnStateMachine(
            self, "Reconciler", role_arn=self.roles.reconciler.role_arn, state_machine_type="STANDARD",
            definition_string=json.dumps(self._definition(), indent=1),
            definition_substitutions=self._substitutions(),
            tracing_configuration=sfn.CfnStateMachine.TracingConfigurationProperty(enabled=True),
            logging_configuration=sfn.CfnStateMachine.LoggingConfigurationProperty(
                destinations=[destination], include_execution_data=False, level="ALL"))  # fmt: skip

    def _definition(self) -> dict[str, Any]:
        return release_workflow(self.deployment, self._settings.shadow.minutes,
                                vpc=self._environment.network is not None)  # fmt: skip

    def _substitutions(self) -> dict[str, str]:
        environment, comparison = self._environment, self.roles.comparison
        found = {"Group": f"{self._registry}model-package-group/{self.deployment.model.slug}",
                 "UpdateRole": self.roles.update.role_arn,
                 "Topic": environment.notifications.topic_arn}  # fmt: skip
        if not comparison:
            return found
        return {**found, "ComparisonRole": comparison.role_arn, "Key": environment.key.key_arn,
                "Traffic": environment.traffic.bucket_name,
                **(environment.network.substitutions if environment.network else {})}  # fmt: skip

    def _rules(self) -> None:
        """Any of these only says "look": the reconciler never reads what the event says."""
        role = start_role(self, "StartRole", state_machine=self.reconciler.ref)

        def rule(id: str, **trigger: Any) -> None:
            target = events.CfnRule.TargetProperty(id="Reconciler", arn=self.reconciler.ref, role_arn=role.role_arn,
                                                   input=json.dumps({"started_by": id}))  # fmt: skip
            events.CfnRule(self, id, targets=[target], **trigger)

        rule("ModelPackageChanged", event_pattern=registry_changed(self.deployment.model),
             event_bus_name=self._bus(self._crossing).ref if self._crossing else None,
             description=f"A version of {self.deployment.model.name} was registered, approved or rejected")  # fmt: skip
        rule("ServingStackUpdated", event_pattern=self._stack_updated(),
             description=f"{self.deployment.serving_stack} has been updated, by whomever")  # fmt: skip
        rule("SelfHeal", schedule_expression=SELF_HEAL, description="Whatever event was lost")

    def _bus(self, crossing: Crossing) -> events.CfnEventBus:
        """Where training's account puts the registry's events, through one role."""
        policy = iam.PolicyDocument(statements=[crossing.forwarder.may("events:PutEvents", on=crossing.bus_arn)])
        return events.CfnEventBus(self, "Registry", name=crossing.bus, policy=policy,
                                  description=f"Registry events of {self.deployment.model.name}")  # fmt: skip

    def _stack_updated(self) -> dict[str, Any]:
        # Not after a rollback: whoever updated it has still to reject the version, which would be tried again.
        stack = arn(self, "cloudformation", f"stack/{self.deployment.serving_stack}/")
        return {"source": ["aws.cloudformation"], "detail-type": ["CloudFormation Stack Status Change"],
                "detail": {"stack-id": [{"prefix": stack}],
                           "status-details": {"status": ["CREATE_COMPLETE", "UPDATE_COMPLETE"]}}}  # fmt: skip
