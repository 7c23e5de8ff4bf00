"""The processing job that compares a shadow's answers with production's, and what CloudWatch is asked beside it.

The shadow's own archive carries the code that compares (`contract/entry/pushline_shadow.py`).
"""

from __future__ import annotations

from typing import Any

from stacks.deployment import Deployment
from stacks.instance_types import has_local_storage
from stacks.retrain_jobs import OPT_ML, processing_input, vpc_config
from stacks.serving_alarms import NAMESPACE
from stacks.serving_stack import SHADOW_VARIANT, VARIANT
from stacks.states import expression

REPORTS = "shadow/"
"""Where reports are kept, `shadow/<model's slug>/<version>/`."""
VOLUME_GB = 30
PERIOD_SECONDS = 3600
_UNPACK_AND_COMPARE = (
    f"cd {OPT_ML}/processing && mkdir -p code && tar -xzf input/challenger/model.tar.gz -C code"
    " && exec python3 code/code/pushline_entry.py shadow --input input --output output"
)
_MEASURED = (
    ("requests", "Invocations", "Sum"),
    ("errors", "Invocation5XXErrors", "Sum"),
    ("p99", "ModelLatency", "p99"),
)


def report_key(deployment: Deployment) -> str:
    """Where the report of the shadow's version lies (JSONata)."""
    return f"'{REPORTS}{deployment.model.slug}/' & $string($shadow.version) & '/'"


def job_prefix(deployment: Deployment) -> str:
    """What the names of these jobs begin with."""
    return f"{deployment.model.slug}-shadow-"


def comparison_job(deployment: Deployment, *, vpc: bool) -> dict[str, Any]:
    """The job, named after version and hour: of executions that find the same shadow one starts it."""
    model = deployment.model
    stored = {"S3Uri": expression(f"'s3://${{Traffic}}/' & {report_key(deployment)}"), "S3UploadMode": "EndOfJob",
              "LocalPath": f"{OPT_ML}/processing/output"}  # fmt: skip
    hour = "$replace($substring($states.context.State.EnteredTime, 0, 13), /[^0-9]/, '')"
    instance_type = model.evaluation.instance_type
    key = {} if has_local_storage(instance_type) else {"VolumeKmsKeyId": "${Key}"}
    cluster = {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": VOLUME_GB, **key}
    return {
        "ProcessingJobName": expression(f"'{job_prefix(deployment)}' & $string($shadow.version) & '-' & {hour}"),
        "RoleArn": "${ComparisonRole}",
        "AppSpecification": {"ImageUri": expression("$shadow.image"),
                             "ContainerEntrypoint": ["/bin/bash", "-c", _UNPACK_AND_COMPARE]},
        "Environment": {"SINCE": expression("$config.since"), "MEASURED": expression("$measured")},
        "ProcessingInputs": expression(_inputs()),
        "ProcessingOutputConfig": {"KmsKeyId": "${Key}", "Outputs": [{"OutputName": "report", "S3Output": stored}]},
        "ProcessingResources": {"ClusterConfig": cluster},
        "StoppingCondition": {"MaxRuntimeInSeconds": model.evaluation.max_runtime_minutes * 60},
        "NetworkConfig": {"EnableNetworkIsolation": True, **vpc_config(vpc)},
        "Tags": [{"Key": "pushline:model", "Value": model.name},
                 {"Key": "pushline:environment", "Value": deployment.environment}],
    }  # fmt: skip


def metric_queries(deployment: Deployment) -> dict[str, Any]:
    """Requests, failures and latency of both variants of this fleet, in whole hours since it was configured."""
    queries = [_query(deployment, name, variant, *measured) for name, variant in
               (("production", VARIANT), ("shadow", SHADOW_VARIANT)) for measured in _MEASURED]  # fmt: skip
    return {"MetricDataQueries": queries, "StartTime": expression("$substring($config.since, 0, 13) & ':00:00Z'"),
            "EndTime": expression("$states.context.State.EnteredTime")}  # fmt: skip


def _query(deployment: Deployment, name: str, variant: str, what: str, metric: str, statistic: str) -> dict[str, Any]:
    dimensions = {"EndpointName": deployment.endpoint, "VariantName": variant,
                  "EndpointConfigName": expression("$endpoint.config")}  # fmt: skip
    named = {"Namespace": NAMESPACE, "MetricName": metric,
             "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()]}  # fmt: skip
    return {"Id": f"{name}_{what}", "MetricStat": {"Metric": named, "Period": PERIOD_SECONDS, "Stat": statistic}}


def _inputs() -> str:
    place = "'s3://${Traffic}/' & $place.prefix"
    captured = processing_input("captured", place, more=" & '-' & $index", folder=" & '/' & $index")
    captured = captured.replace("'captured'", "$place.variant").replace("/captured'", "/' & $place.variant")
    challenger = processing_input("challenger", "$shadow.model_data")
    return f"$append([{challenger}], [$map($found, function($place, $index) {{ {captured} }})])"
