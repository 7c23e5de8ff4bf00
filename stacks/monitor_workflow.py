"""Hop 7 of a push, watch: captured requests, answers and newly landed labels against training, as one state machine.

A pure function from settings to definition; `${Names}` are filled in by CloudFormation (see SUBSTITUTIONS).
Next hop: the metrics' alarms (`stacks/monitoring_stack.py`), whose breach goes back to `start_retraining`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract import Model
from stacks.deployment import production
from stacks.environment_stack import CAPTURE
from stacks.instance_types import has_local_storage
from stacks.retrain_jobs import OPT_ML, processing_input, vpc_config
from stacks.retrain_workflow import REASON
from stacks.states import State, expression, task, unless_no_room

SUBSTITUTIONS = ("Data", "Traffic", "Artifacts", "Key", "Topic", "FeatureJob", "JobRole", "Image", "Endpoint")
"""What the definition leaves to CloudFormation: names of buckets, job and endpoint, ARNs, the image."""
NAMESPACE = "Pushline"
DAYS = 7
"""A week of requests: fewer days are not like the weeks of training, since weekdays differ. A job takes no more."""
VOLUME_GB = 30
VARIANT = "AllTraffic"
# The live version's own code watches it: that is in its archive, and a job takes only ten inputs.
_UNPACK_AND_MONITOR = (
    f"cd {OPT_ML}/processing && mkdir -p live && tar -xzf input/challenger/model.tar.gz -C live"
    " && exec python3 live/code/pushline_entry.py monitor --input input --output output --models models"
)
_LOGS = {
    "BuildFeatures": "log groups below /aws-glue/jobs/${FeatureJob}-role",
    "Watch": "log group /aws/sagemaker/ProcessingJobs, streams of this run",
}
_ADVICE = {
    "BuildFeatures": "Read the log; correct the raw data it names. Until then quality is not watched.",
    "Watch": "Read the log; the requests or features.py no longer fit the live version.",
}
_OTHERWISE = "Nothing was measured this time; the next scheduled run tries again."
_NO_ROOM = "Other runs held all that the quota allows for an hour; the next scheduled run tries again."
_LAST_DAYS = (
    f"[0..{DAYS}].$fromMillis($toMillis($states.context.Execution.StartTime) - $ * 86400000,"
    " '[Y0001]/[M01]/[D01]')"
)  # fmt: skip


def monitor_workflow(model: Model, *, vpc: bool) -> dict[str, Any]:
    """The definition of the model's monitoring state machine."""
    states = {**_live(model), **_labels(model), **_captured(model), **_watch(model, vpc), **_publish(model),
              **_failure(model)}  # fmt: skip
    return {"Comment": f"Watch {model.name}: drift of requests and answers, quality on new labels",
            "QueryLanguage": "JSONata", "StartAt": "FindLive", "States": states}  # fmt: skip


def _live(model: Model) -> dict[str, State]:
    newest = {"ModelPackageGroupName": model.slug, "ModelApprovalStatus": "Approved", "SortBy": "CreationTime",
              "SortOrder": "Descending", "MaxResults": 1}  # fmt: skip
    # Executions that a rule starts have names too long for a job's.
    run = f"'{model.slug}-' & $substring($hash($states.context.Execution.Id, 'SHA-256'), 0, 32)"
    package, container = "$states.result", "$states.result.InferenceSpecification.Containers[0]"
    metadata = f"{package}.CustomerMetadataProperties"
    live = {"arn": f"{package}.ModelPackageArn", "version": f"{package}.ModelPackageVersion",
            "model_data": f"{container}.ModelDataUrl", "metric": f"{metadata}.metric",
            "lineage": f"$substringAfter({metadata}.lineage, 's3://${{Artifacts}}/')"}  # fmt: skip
    return {
        "FindLive": _task("FindLive", "aws-sdk:sagemaker:listModelPackages", newest, "HasLive",
                          Output=expression("$append($states.result.ModelPackageSummaryList, [{}])[0]"),
                          Assign={"run": expression(run), "as_of": None, "failure": None}),
        "HasLive": {
            "Type": "Choice", "Default": "NothingLive",
            "Choices": [{"Condition": expression("$exists($states.input.ModelPackageArn)"), "Next": "DescribeLive"}],
        },
        "NothingLive": {"Type": "Succeed"},
        "DescribeLive": _task("DescribeLive", "aws-sdk:sagemaker:describeModelPackage",
                              {"ModelPackageName": expression("$states.input.ModelPackageArn")}, "ReadLineage",
                              Assign={"live": {key: expression(value) for key, value in live.items()}}),
        "ReadLineage": _task("ReadLineage", "aws-sdk:s3:getObject",
                             {"Bucket": "${Artifacts}", "Key": expression("$live.lineage")}, "FindNewData",
                             Assign={"trained": expression(_TRAINED)}),
    }  # fmt: skip


_TRAINED = """(
  $lineage := $parse($states.result.Body);
  {'run': $lineage.run, 'as_of': $lineage.as_of, 'features': $lineage.features,
   'reference': $string({$live.metric: $lookup($lineage.metrics.challenger, $live.metric)})}
)"""
"""What the job needs of the live version's lineage; the whole would not fit everywhere."""


def _labels(model: Model) -> dict[str, State]:
    prefix = f"raw/{model.name}/"
    # "0" sorts right after "/": the cut-off day's own folder is left out.
    later = {"Bucket": "${Data}", "Prefix": prefix, "Delimiter": "/",
             "StartAfter": expression(f"'{prefix}dt=' & $trained.as_of & '0'")}  # fmt: skip
    platform = {
        "--scriptLocation": "$trained.features.script_uri", "--extra-py-files": "$trained.features.modules_uri",
        "--raw": f"'s3://${{Data}}/{prefix}'",
        "--output": f"'s3://${{Data}}/features/{model.slug}/' & $run & '/'", "--as_of": "$as_of",
    }  # fmt: skip
    given = ", ".join(f"'{key}': {value}" for key, value in platform.items())
    # Workers and time are the job's own defaults.
    features = {"JobName": "${FeatureJob}",
                "Arguments": expression(f"$merge([$trained.features.arguments, {{{given}}}])")}  # fmt: skip
    return {
        "FindNewData": _task("FindNewData", "aws-sdk:s3:listObjectsV2", later, "HasNewLabels",
                             Assign={"as_of": expression(_NEWEST_DAY)}),
        "HasNewLabels": {"Type": "Choice", "Default": "FindCaptured",
                         "Choices": [{"Condition": expression("$as_of != null"), "Next": "BuildFeatures"}]},
        # The model's own features.py labels the days that landed since: their holdout was never trained on.
        **_unlabelled(model, features),
    }  # fmt: skip


_NEWEST_DAY = """(
  $tomorrow := $fromMillis($toMillis($states.context.Execution.StartTime) + 86400000, '[Y0001]-[M01]-[D01]');
  $found := $append([], $states.result.CommonPrefixes).$substringBefore($substringAfter(Prefix, '/dt='), '/');
  $days := [$found[$contains($, /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/) and $ <= $tomorrow]];
  $count($days) > 0 ? $days[-1] : null
)"""
"""Somewhere it is tomorrow already; a day after that is a mistake, and would hide all labels to come."""


def _unlabelled(model: Model, features: Mapping[str, Any]) -> dict[str, State]:
    """Features that can't be built leave quality unwatched; requests and answers are compared all the same."""
    build, notify = task("glue:startJobRun.sync", features, "FindCaptured"), _notify(model, "FindCaptured")
    told = {"failure": _told("BuildFeatures"), "as_of": None}
    build["Catch"] = [{"ErrorEquals": ["States.ALL"], "Assign": told, "Next": "NotifyUnlabelled"}]
    return {"BuildFeatures": build, "NotifyUnlabelled": notify}


def _captured(model: Model) -> dict[str, State]:
    day = f"'{CAPTURE}{production(model).place}/${{Endpoint}}/{VARIANT}/' & $states.input & '/'"
    look = task("aws-sdk:s3:listObjectsV2", {"Bucket": "${Traffic}", "Prefix": expression(day), "MaxKeys": 1}, "",
                Output=expression("{'day': $states.input, 'found': $states.result.KeyCount > 0}"))  # fmt: skip
    del look["Next"]
    # Today is not over: its requests count while the whole days before it are no week.
    found = f"($found := [$states.result[found = true].day]; $count($found) > {DAYS} ? $found[[1..{DAYS}]] : $found)"
    days: State = {
        "Type": "Map", "Items": expression(_LAST_DAYS), "MaxConcurrency": 1, "Next": "HasAnything",
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "IsDayCaptured",
                          "States": {"IsDayCaptured": {**look, "End": True}}},
        "Assign": {"days": expression(found)},
    }  # fmt: skip
    return {
        "FindCaptured": days | _caught("FindCaptured"),
        "HasAnything": {
            "Type": "Choice", "Default": "NothingNew",
            "Choices": [{"Condition": expression("$as_of != null or $count($days) > 0"), "Next": "Watch"}],
        },
        "NothingNew": {"Type": "Succeed"},
    }  # fmt: skip


def _watch(model: Model, vpc: bool) -> dict[str, State]:
    stored = {"S3Uri": expression(f"'s3://${{Artifacts}}/' & {_report(model, '')}"), "S3UploadMode": "EndOfJob",
              "LocalPath": f"{OPT_ML}/processing/output"}  # fmt: skip
    instance_type = model.evaluation.instance_type
    key = {} if has_local_storage(instance_type) else {"VolumeKmsKeyId": "${Key}"}
    cluster = {"InstanceType": instance_type, "InstanceCount": 1, "VolumeSizeInGB": VOLUME_GB, **key}
    job = {
        "ProcessingJobName": expression("$run"), "RoleArn": "${JobRole}",
        "AppSpecification": {"ImageUri": "${Image}", "ContainerEntrypoint": ["/bin/bash", "-c", _UNPACK_AND_MONITOR]},
        "Environment": {"REFERENCE": expression("$trained.reference")},
        "ProcessingInputs": expression(_inputs(model)),
        "ProcessingOutputConfig": {"KmsKeyId": "${Key}", "Outputs": [{"OutputName": "report", "S3Output": stored}]},
        "ProcessingResources": {"ClusterConfig": cluster},
        "StoppingCondition": {"MaxRuntimeInSeconds": model.evaluation.max_runtime_minutes * 60},
        "NetworkConfig": {"EnableNetworkIsolation": True, **vpc_config(vpc)},
        "Tags": [{"Key": "pushline:model", "Value": model.name},
                 {"Key": "pushline:environment", "Value": "production"}],
    }  # fmt: skip
    return {"Watch": _task("Watch", "sagemaker:createProcessingJob.sync", job, "ReadReport")}


def _inputs(model: Model) -> str:
    """Model and baseline always; labelled rows and each day of requests where there are any: at most ten."""
    always = {"challenger": "$live.model_data",
              "baseline": f"'s3://${{Data}}/features/{model.slug}/' & $trained.run & '/baseline/'"}  # fmt: skip
    labelled = processing_input("holdout", f"'s3://${{Data}}/features/{model.slug}/' & $run & '/holdout/'")
    day = f"'s3://${{Traffic}}/{CAPTURE}{production(model).place}/${{Endpoint}}/{VARIANT}/' & $day & '/'"
    captured = processing_input("captured", day, more=" & '-' & $i", folder=" & '/' & $i")
    fixed = ", ".join(processing_input(name, uri) for name, uri in always.items())
    return (f"($requests := [$map($days, function($day, $i) {{ {captured} }})];"
            f" $append($append([{fixed}], $as_of = null ? [] : [{labelled}]), $requests))")  # fmt: skip


def _report(model: Model, name: str) -> str:
    date = "$substring($states.context.Execution.StartTime, 0, 10)"
    return f"'monitoring/{model.slug}/' & {date} & '/' & $run & '/{name}'"


def _publish(model: Model) -> dict[str, State]:
    found = {"Bucket": "${Artifacts}", "Key": expression(_report(model, "report.json"))}
    dimensions = f"'Dimensions': [{{'Name': 'Model', 'Value': '{model.name}'}}]"
    data = f"[$each($metrics, function($value, $name) {{ {{'MetricName': $name, 'Value': $value, {dimensions}}} }})]"
    return {
        "ReadReport": _task("ReadReport", "aws-sdk:s3:getObject", found, "HasMetrics",
                            Assign={"metrics": expression("$parse($states.result.Body).metrics")}),
        "HasMetrics": {"Type": "Choice", "Default": "Watched",
                       "Choices": [{"Condition": expression("$count($keys($metrics)) > 0"), "Next": "PublishMetrics"}]},
        "PublishMetrics": _task("PublishMetrics", "aws-sdk:cloudwatch:putMetricData",
                                {"Namespace": NAMESPACE, "MetricData": expression(data)}, "Watched"),
        "Watched": {"Type": "Succeed", "Output": {
            "version": expression("$live.version"), "metrics": expression("$metrics"),
            "unlabelled": expression("$failure"),
            "report": expression(f"'s3://${{Artifacts}}/' & {_report(model, 'report.json')}")}},
    }  # fmt: skip


def _failure(model: Model) -> dict[str, State]:
    cause = "$failure.step & ': ' & $failure.reason & ' Log: ' & $failure.log & '. ' & $failure.advice"
    return {
        "NotifyFailure": _notify(model, "Failed"),
        "Failed": {"Type": "Fail", "Error": expression("$failure.error"), "Cause": expression(cause)},
    }


def _notify(model: Model, then: str) -> State:
    """Tell what failed and go on, also when the message can't be sent."""
    lines = [f"'Watching {model.name} failed at ' & $failure.step & '.'", "'Why: ' & $failure.reason",
             "'Log: ' & $failure.log", "'What to do: ' & $failure.advice", "'Run ' & $run"]  # fmt: skip
    message = {"TopicArn": "${Topic}", "Subject": f"{model.name}: monitoring failed",
               "Message": expression(f"$join([{', '.join(lines)}], '\n')")}  # fmt: skip
    return task("sns:publish", message, then, Catch=[{"ErrorEquals": ["States.ALL"], "Next": then}])


def _task(step: str, resource: str, arguments: Mapping[str, Any], then: str, **more: Any) -> State:
    return task(resource, arguments, then, **more) | _caught(step)


def _caught(step: str) -> State:
    """A failure is told with its step, its log and what to do."""
    return {"Catch": [{"ErrorEquals": ["States.ALL"], "Assign": {"failure": _told(step)}, "Next": "NotifyFailure"}]}


def _told(step: str) -> dict[str, str]:
    return {"step": step, "error": expression("$states.errorOutput.Error"), "reason": expression(REASON),
            "log": _LOGS.get(step, "the state machine's execution history"),
            "advice": unless_no_room(_ADVICE.get(step, _OTHERWISE), _NO_ROOM)}  # fmt: skip
