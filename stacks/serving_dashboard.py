"""One endpoint on one page: which version is live, who got the traffic, what the alarms say, what was released."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import CfnCondition, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from stacks.deployment import Deployment
from stacks.release_marks import NAMESPACE as MARKS
from stacks.release_marks import REJECTED, RELEASED
from stacks.serving_alarms import NAMESPACE, PERIOD_SECONDS, watched

WIDTH, HEIGHT = 12, 6
BY_FLEET = "EndpointConfigName,EndpointName,VariantName"


def dashboard(scope: Construct, id: str, *, deployment: Deployment, variant: str, package: str,
              alarms: Sequence[cloudwatch.CfnAlarm], condition: CfnCondition) -> cloudwatch.CfnDashboard:  # fmt: skip
    """The dashboard, named as the endpoint; a release shows where one fleet's line ends and another's begins."""
    stack, serving = Stack.of(scope), deployment.model.serving
    limits = {found.metric: found.most for found in watched(serving)}
    graphs = [_requests(deployment, variant), _releases(deployment),
              *(_by_fleet(deployment, variant, f"{found.metric} by fleet", found.metric, found.statistic,
                          limits[found.metric]) for found in watched(serving))]  # fmt: skip
    status = {"title": "Alarms of the live fleet", "alarms": [alarm.attr_arn for alarm in alarms]}
    told = (f"# {deployment.endpoint}\nLive version: `{package}`\n\nReleases are the executions of the state machine "
            f"that the stack {deployment.release_stack} puts out as `Reconciler`.")  # fmt: skip
    widgets = [_widget(0, 0, "text", {"markdown": told}), _widget(WIDTH, 0, "alarm", status)]
    for number, graph in enumerate(graphs):
        graph["region"] = stack.region
        widgets.append(_widget(number % 2 * WIDTH, (1 + number // 2) * HEIGHT, "metric", graph))
    made = cloudwatch.CfnDashboard(scope, id, dashboard_name=deployment.endpoint,
                                   dashboard_body=stack.to_json_string({"widgets": widgets}))  # fmt: skip
    made.cfn_options.condition = condition
    return made


def _releases(deployment: Deployment) -> dict[str, Any]:
    """A step where a version was released, a point where one was rejected; the reconciler publishes both."""
    lines = [[MARKS, metric, "EndpointName", deployment.endpoint, {"label": label, "stat": "Maximum"}]
             for metric, label in ((RELEASED, "runs"), (REJECTED, "was rejected"))]  # fmt: skip
    return {"title": "Releases: the version that runs, and those that were rejected", "view": "timeSeries",
            "metrics": lines, "period": PERIOD_SECONDS}  # fmt: skip


def _requests(deployment: Deployment, variant: str) -> dict[str, Any]:
    """An asynchronous endpoint's requests are no fleet's, but a queue's."""
    if deployment.kind == "async":
        backlog = [NAMESPACE, "ApproximateBacklogSize", "EndpointName", deployment.endpoint]
        return {"title": "Requests that wait or are being worked on", "view": "timeSeries", "metrics": [backlog],
                "stat": "Maximum", "period": PERIOD_SECONDS}  # fmt: skip
    return _by_fleet(deployment, variant, "Requests by fleet: where lines meet, a release happened", "Invocations",
                     "Sum")  # fmt: skip


def _by_fleet(deployment: Deployment, variant: str, title: str, metric: str, statistic: str,
              limit: float | None = None) -> dict[str, Any]:  # fmt: skip
    found = (f"{{{NAMESPACE},{BY_FLEET}}} EndpointName=\"{deployment.endpoint}\" VariantName=\"{variant}\" "
             f"MetricName=\"{metric}\"")  # fmt: skip
    graph: dict[str, Any] = {
        "title": title, "view": "timeSeries",
        "metrics": [[{"expression": f"SEARCH('{found}', '{statistic}', {PERIOD_SECONDS})", "id": "fleets"}]],
    }  # fmt: skip
    limits = {"horizontal": [{"label": "rolls back", "value": limit}]}
    return graph if limit is None else graph | {"annotations": limits}


def _widget(x: int, y: int, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "x": x, "y": y, "width": WIDTH, "height": HEIGHT, "properties": properties}
