"""The alarms of one fleet: they roll it back while it bakes, and tell people afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aws_cdk import CfnCondition, Fn
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from contract.model import Serving
from stacks.deployment import Deployment

NAMESPACE = "AWS/SageMaker"
PERIOD_SECONDS = 60
NOT_ASYNCHRONOUS = frozenset({"InvocationModelErrors"})
"""SageMaker publishes it for real-time and serverless endpoints only."""
MICROSECONDS = 1000
"""In a millisecond; SageMaker measures latency in microseconds."""


@dataclass(frozen=True)
class Watched:
    """A metric, its statistic over a minute, and what it may not exceed."""

    id: str
    metric: str
    statistic: str
    most: float
    text: str


def watched(serving: Serving) -> Iterator[Watched]:
    """What model.yaml sets limits to. SageMaker counts 0 or 1 for every request, so that the average is a rate."""
    alarms = serving.alarms
    rates = (("Errors5xx", "Invocation5XXErrors", alarms.errors_5xx_percent),
             ("Errors4xx", "Invocation4XXErrors", alarms.errors_4xx_percent),
             ("InvocationErrors", "InvocationModelErrors", alarms.invocation_errors_percent))  # fmt: skip
    for id, metric, percent in rates:
        if serving.endpoint == "async" and metric in NOT_ASYNCHRONOUS:
            continue
        yield Watched(id, metric, "Average", percent / 100, f"more than {percent:g} % of the requests")
    yield Watched("Latency", "ModelLatency", "p99", alarms.p99_latency_ms * MICROSECONDS,
                  f"the slowest percent took more than {alarms.p99_latency_ms:g} ms")  # fmt: skip


class FleetAlarms(Construct):
    """Alarms on the fleet of one endpoint config, so that the fleet before it can neither hide nor abort it."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, variant: str, endpoint_config: str,
                 condition: CfnCondition, topic: str) -> None:  # fmt: skip
        super().__init__(scope, id)
        dimensions = {"EndpointName": deployment.endpoint, "VariantName": variant,
                      "EndpointConfigName": endpoint_config}  # fmt: skip
        self._dimensions = [cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
                            for name, value in dimensions.items()]  # fmt: skip
        self._deployment, self._config, self._condition, self._topic = deployment, endpoint_config, condition, topic
        self.alarms = [self._alarm(found) for found in watched(deployment.model.serving)]

    @property
    def names(self) -> list[str]:
        return [alarm.ref for alarm in self.alarms]

    def _alarm(self, found: Watched) -> cloudwatch.CfnAlarm:
        percentile = found.statistic.startswith("p")
        alarm = cloudwatch.CfnAlarm(
            self, found.id, namespace=NAMESPACE, metric_name=found.metric, dimensions=self._dimensions,
            # Named after the fleet: a new one starts with alarms of its own. One that was only updated would keep
            # the state it was in, and SageMaker begins no rollout with an alarm that rings.
            alarm_name=Fn.join("-", [self._deployment.endpoint, found.id, self._config]),
            alarm_description=f"{self._deployment.endpoint}: {found.text}", threshold=found.most,
            statistic=None if percentile else found.statistic,
            extended_statistic=found.statistic if percentile else None,
            comparison_operator="GreaterThanThreshold", period=PERIOD_SECONDS, evaluation_periods=1,
            datapoints_to_alarm=1, treat_missing_data="notBreaching", alarm_actions=[self._topic])  # fmt: skip
        alarm.cfn_options.condition = self._condition
        return alarm
