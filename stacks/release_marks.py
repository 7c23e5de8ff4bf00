"""What the dashboard shows of releases: which version runs, at least once an hour, and which were rejected here."""

from __future__ import annotations

from stacks.deployment import Deployment
from stacks.release_steps import call
from stacks.states import State, expression

NAMESPACE, RELEASED, REJECTED = "Pushline", "ReleasedVersion", "RejectedVersion"
MARK = "Mark the version that runs"
MARK_REJECTED = "Mark the version that was rejected"


def has_dashboard(deployment: Deployment) -> bool:
    return deployment.guarded and deployment.has_endpoint


def marked(deployment: Deployment, state: str, then: str) -> str:
    """`state` where there is a dashboard to mark it on, else what comes after it."""
    return state if has_dashboard(deployment) else then


def marks(deployment: Deployment, then: str, failed: str) -> dict[str, State]:
    """The states that publish; a mark that is lost is no reason to fail."""
    if not has_dashboard(deployment):
        return {}
    return {MARK: _mark(deployment, RELEASED, then), MARK_REJECTED: _mark(deployment, REJECTED, failed)}


def _mark(deployment: Deployment, metric: str, then: str) -> State:
    dimensions = [{"Name": "EndpointName", "Value": deployment.endpoint}]
    data = {"MetricName": metric, "Value": expression("$wanted.version"), "Dimensions": dimensions}
    return call("cloudwatch:putMetricData", {"Namespace": NAMESPACE, "MetricData": [data]}, then, catch=then)
