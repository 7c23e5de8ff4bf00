"""Hop 4 of a push, retrain: features, train, evaluate, decide, register, as one state machine in JSONata.

A pure function from settings to definition; `${Names}` are filled in by CloudFormation (see SUBSTITUTIONS).
Next hop: the registered version's approval status wakes the reconcilers (`stacks/release_workflow.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config import Guardrails
from contract import Model
from stacks.retrain_decision import METADATA_TEXT, PARSE_EVALUATION, VERDICT
from stacks.retrain_jobs import evaluation_job, feature_run, instance_volume, training_job
from stacks.retrain_order import BEGAN, MADE_SINCE, NEWER, NEWEST, ORIGIN, OVERTAKEN, withdrawal
from stacks.states import State, expression, jsonata_list, task, unless_no_room

SUBSTITUTIONS = ("Region", "Data", "Artifacts", "Key", "Topic", "Group", "FeatureJob", "TrainingRole",
                 "EvaluationRole", "Image")  # fmt: skip
"""What the definition leaves to CloudFormation: names of buckets (Data, Artifacts), group and job, ARNs, the image."""
IN_A_VPC = ("Subnets", "SecurityGroups")
"""Likewise, where the jobs run in a VPC."""

_REQUESTED = ("model", "commit", "trigger", "reason", "as_of", "approval", "sample_request")
"""What Verify wrote and a version carries on as it is."""
_ORIGIN = "$request.trigger & ': ' & $request.reason & '; commit ' & $request.commit"
"""Why it was retrained, for people."""
_LOGS = {
    "BuildFeatures": "log groups below /aws-glue/jobs/${FeatureJob}-role",
    "Train": "log group /aws/sagemaker/TrainingJobs, streams of this run",
    "Evaluate": "log group /aws/sagemaker/ProcessingJobs, streams of this run",
}
_UNORDERED = ("If this run has registered a version, reject it unless it is of the newest code; else nothing was "
              "registered. What is live stays live; start a retraining when the service has recovered.")  # fmt: skip
_ADVICE = {
    "WithinLimits": "Keep model.yaml within the guardrails of config/platform.yaml and push again.",
    "BuildFeatures": "Read the log; correct features.py or the raw data it names, then push or start a retraining.",
    "Train": "Read the log; correct train.py or its hyperparameters and push again.",
    "Evaluate": "Read the log; correct evaluate.py or inference.py and push again.",
    "ReadEvaluation": "evaluate.py must write evaluation.json as the contract says; correct it and push again.",
    **dict.fromkeys(("FindNewer", "DescribeNewer"), _UNORDERED),
    "Withdraw": "A newer retraining has registered a version before this one: reject this run's version.",
}
_OTHERWISE = "Nothing was registered and what is live stays live; start a retraining when the service has recovered."
_NO_ROOM = ("Other runs held all that the quota allows for an hour: have it raised, or start a retraining when they "
            "have ended.")  # fmt: skip


def retrain_workflow(model: Model, guardrails: Guardrails, *, vpc: bool) -> dict[str, Any]:
    """The definition of the model's retraining state machine."""
    states = {**_start(model, guardrails), **_champion(), **_jobs(model, guardrails, vpc), **_verdict(model),
              **_order(), **_registration(model), **_failure(model)}  # fmt: skip
    return {"Comment": f"Retrain {model.name}: features, train, evaluate, decide, register",
            "QueryLanguage": "JSONata", "StartAt": "HasReason", "States": states}  # fmt: skip


def _start(model: Model, guardrails: Guardrails) -> dict[str, State]:
    return {
        "HasReason": {
            "Type": "Choice", "Default": "WithinLimits",
            # A pipeline starts itself once when it is created: that execution has no reason.
            "Choices": [{"Condition": expression("$states.input.trigger = 'none'"), "Next": "NothingToDo"}],
            "Assign": {"request": expression("$states.input"), "run": expression("$states.context.Execution.Name"),
                       "champion": None, "package": None},
        },
        "NothingToDo": {"Type": "Succeed"},
        "WithinLimits": {
            "Type": "Choice", "Default": "BeyondLimits",
            "Choices": [{"Condition": expression(_within(model, guardrails)), "Next": "FindChampion"}],
        },
        "BeyondLimits": {"Type": "Pass", "Next": "NotifyFailure", "Assign": {"failure": {
            "step": "WithinLimits", "error": "BeyondGuardrails", "log": "none", "advice": _ADVICE["WithinLimits"],
            "reason": expression("'the request asks for more than the guardrails allow: ' & $string($request)")}}},
    }  # fmt: skip


def _within(model: Model, guardrails: Guardrails) -> str:
    """The limits as literals: for most of them IAM has no condition key."""
    features, training, evaluation = guardrails.features, guardrails.training, guardrails.evaluation
    limits = {
        "model": f"= '{model.name}'", "slug": f"= '{model.slug}'",
        "features.worker_type": f"in {jsonata_list(features.worker_types)}",
        "features.workers": f"<= {features.maximum_workers}",
        "features.timeout_minutes": f"<= {features.maximum_runtime_minutes}",
        "training.instance_type": f"in {jsonata_list(training.instance_types)}",
        "training.instance_count": f"<= {training.maximum_instances}",
        "training.volume_gb": f"<= {training.maximum_volume_gb}",
        "training.max_runtime_seconds": f"<= {training.maximum_runtime_minutes * 60}",
        "evaluation.instance_type": f"in {jsonata_list(evaluation.instance_types)}",
        "evaluation.max_runtime_seconds": f"<= {evaluation.maximum_runtime_minutes * 60}",
    }  # fmt: skip
    return " and ".join(f"$request.{key} {limit}" for key, limit in limits.items())


def _champion() -> dict[str, State]:
    newest = {"ModelPackageGroupName": "${Group}", "ModelApprovalStatus": "Approved", "SortBy": "CreationTime",
              "SortOrder": "Descending", "MaxResults": 1}  # fmt: skip
    containers = "$states.result.InferenceSpecification.Containers"
    described = {"arn": expression("$states.result.ModelPackageArn"),
                 "version": expression("$states.result.ModelPackageVersion"),
                 "model_data": expression(f"{containers}[0].ModelDataUrl")}  # fmt: skip
    return {
        "FindChampion": _task("FindChampion", "aws-sdk:sagemaker:listModelPackages", newest, "HasChampion",
                              Output=expression("$append($states.result.ModelPackageSummaryList, [{}])[0]")),
        "HasChampion": {
            "Type": "Choice", "Default": "BuildFeatures",
            "Choices": [{"Condition": expression("$exists($states.input.ModelPackageArn)"),
                         "Next": "DescribeChampion"}],
        },
        "DescribeChampion": _task("DescribeChampion", "aws-sdk:sagemaker:describeModelPackage",
                                  {"ModelPackageName": expression("$states.input.ModelPackageArn")}, "BuildFeatures",
                                  Assign={"champion": described}),
    }  # fmt: skip


def _jobs(model: Model, guardrails: Guardrails, vpc: bool) -> dict[str, State]:
    trained = {"model_data": expression("$states.result.ModelArtifacts.S3ModelArtifacts"),
               "training_job_arn": expression("$states.result.TrainingJobArn")}  # fmt: skip
    return {
        "BuildFeatures": _task("BuildFeatures", "glue:startJobRun.sync", feature_run(model), "Train",
                               Assign={"feature_run": expression("$states.result.Id")}),
        "Train": _task("Train", "sagemaker:createTrainingJob.sync",
                       training_job(model, instance_volume(guardrails.training.instance_types), vpc), "Evaluate",
                       Assign=trained),
        "Evaluate": _task("Evaluate", "sagemaker:createProcessingJob.sync",
                          evaluation_job(model, instance_volume(guardrails.evaluation.instance_types), vpc),
                          "ReadEvaluation"),
    }  # fmt: skip


def _verdict(model: Model) -> dict[str, State]:
    found = {"Bucket": "${Artifacts}", "Key": expression(f"'evaluation/{model.slug}/' & $run & '/evaluation.json'")}
    return {
        "ReadEvaluation": _task("ReadEvaluation", "aws-sdk:s3:getObject", found, "Decide",
                                Assign={"evaluation": expression(PARSE_EVALUATION)}),
        "Decide": {"Type": "Pass", "Next": "FindNewer", "Assign": {"verdict": expression(VERDICT)}},
    }  # fmt: skip


def _order() -> dict[str, State]:
    """Whether a newer retraining has registered meanwhile: asked before a version is registered and once more after it,
    because of two that look at the same time the one that registers last sees the other."""
    describe = task("aws-sdk:sagemaker:describeModelPackage", {"ModelPackageName": expression("$states.input")}, "",
                    Output=expression(ORIGIN))  # fmt: skip
    del describe["Next"]
    return {
        "FindNewer": _task("FindNewer", "aws-sdk:sagemaker:listModelPackages", NEWEST, "DescribeNewer",
                           Output=expression(MADE_SINCE)),
        "DescribeNewer": {
            "Type": "Map", "Items": expression("$states.input"), "MaxConcurrency": 1, "Next": "IsOvertaken",
            "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "DescribeOne",
                              "States": {"DescribeOne": {**describe, "End": True}}},
            "Assign": {"newer": expression(NEWER)}, "Catch": _caught("DescribeNewer"),
        },
        "IsOvertaken": {
            "Type": "Choice", "Default": "WriteLineage",
            "Choices": [{"Condition": expression("$exists($newer.version)"), "Next": "Overtaken"},
                        {"Condition": expression("$package != null"), "Next": "Registered"}],
        },
        "Overtaken": {"Type": "Pass", "Next": "WriteLineage", "Assign": {"verdict": expression(OVERTAKEN)}},
    }  # fmt: skip


def _registration(model: Model) -> dict[str, State]:
    key = expression(f"'lineage/{model.slug}/' & $run & '/lineage.json'")
    lineage = {"Bucket": "${Artifacts}", "Key": key, "ContentType": "application/json", "Body": _lineage(model)}
    passed = expression("$verdict.passed")
    refused = {"TopicArn": "${Topic}", "Subject": f"{model.name}: the challenger was refused",
               "Message": expression("$join($append(['What is live stays.'], "
                                     f"$append($verdict.reasons, {_ORIGIN})), '\\n')")}  # fmt: skip
    return {
        "WriteLineage": _task("WriteLineage", "aws-sdk:s3:putObject", lineage, "IsRegistered"),
        "IsRegistered": {"Type": "Choice", "Default": "Withdraw",
                         "Choices": [{"Condition": expression("$package = null"), "Next": "Register"}]},
        "Register": _task("Register", "aws-sdk:sagemaker:createModelPackage", _package(model), "HasPassed",
                          Assign={"package": expression("$states.result.ModelPackageArn")}),
        "HasPassed": {"Type": "Choice", "Default": "NotifyRefused",
                      "Choices": [{"Condition": passed, "Next": "FindNewer"}]},
        "Withdraw": _task("Withdraw", "aws-sdk:sagemaker:updateModelPackage", withdrawal(), "NotifyRefused"),
        "NotifyRefused": _task("NotifyRefused", "sns:publish", refused, "Registered"),
        # A champion that stays is no failure: both verdicts end here.
        "Registered": {"Type": "Succeed", "Output": {"model_package": expression("$package"),
                                                     "passed": passed, "reasons": expression("$verdict.reasons")}},
    }  # fmt: skip


def _lineage(model: Model) -> dict[str, Any]:
    taken = (*_REQUESTED, "pipeline_execution", "bundle")
    data = f"'s3://${{Data}}/features/{model.slug}/' & $run & '/quality.json'"
    return {
        **{key: expression(f"$request.{key}") for key in taken},
        "run": expression("$run"), "began": expression(BEGAN), "training_job": expression("$run"),
        "feature_run": expression("$feature_run"),
        "data": {"raw": f"s3://${{Data}}/raw/{model.name}/", "quality": expression(data)},
        "image": "${Image}", "hyperparameters": expression("$request.training.hyperparameters"),
        "features": expression("$request.features"),
        "model_data": expression("$model_data"), "metrics": expression("$evaluation"),
        "champion_version": expression("$champion = null ? null : $champion.version"),
        "decision": {key: expression(f"$verdict.{key}") for key in ("passed", "reasons")},
    }  # fmt: skip


def _package(model: Model) -> dict[str, Any]:
    serving = {"SAGEMAKER_PROGRAM": "pushline_entry.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
    container = {"Image": "${Image}", "ModelDataUrl": expression("$model_data"), "Environment": serving}
    evaluation = expression(f"'s3://${{Artifacts}}/evaluation/{model.slug}/' & $run & '/evaluation.json'")
    return {
        "ModelPackageGroupName": "${Group}",
        "ModelPackageDescription": expression("$substring($request.trigger & ': ' & $request.reason, 0, 1024)"),
        "InferenceSpecification": {
            "Containers": [container], "SupportedContentTypes": ["text/csv", "application/json"],
            "SupportedResponseMIMETypes": ["text/csv", "application/json"]},
        "ModelApprovalStatus": expression("$verdict.passed ? 'PendingManualApproval' : 'Rejected'"),
        # The run's id ends with a UUID: registering the same run again gives the same version.
        "ClientToken": expression("$substring($run, -36)"),
        "MetadataProperties": {"CommitId": expression("$request.commit"),
                               "GeneratedBy": expression("$training_job_arn")},
        "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": evaluation}}},
        "CustomerMetadataProperties": expression(_metadata(model)),
    }  # fmt: skip


def _metadata(model: Model) -> str:
    """The lineage's scalars, which the reconcilers and `status` read."""
    values = {
        **{key: f"$request.{key}" for key in _REQUESTED},
        "run": "$run", "began": BEGAN, "feature_run": "$feature_run", "training_job": "$run", "image": "'${Image}'",
        "bundle_sha256": "$request.bundle.sha256", "metric": "$request.evaluation.metric",
        "challenger": "$verdict.challenger", "champion": "$verdict.champion",
        "champion_version": "$champion = null ? 'none' : $champion.version",
        "decision": "$join($verdict.reasons, '; ')",
        "evaluation": f"'s3://${{Artifacts}}/evaluation/{model.slug}/' & $run & '/'",
        "sample_answer": f"'s3://${{Artifacts}}/evaluation/{model.slug}/' & $run & '/sample_answer.json'",
        "lineage": f"'s3://${{Artifacts}}/lineage/{model.slug}/' & $run & '/lineage.json'",
        **{f"serving_{key}": f"$request.serving.{key}"
           for key in ("instance_type", "minimum_instances", "maximum_instances")},
    }  # fmt: skip
    fields = ", ".join(f"'{key}': $text({value})" for key, value in values.items())
    return f"({METADATA_TEXT}; {{{fields}}})"


def _failure(model: Model) -> dict[str, State]:
    lines = ["'Retraining of ' & $request.model & ' failed at ' & $failure.step & '.'",
             "'Why: ' & $failure.reason", "'Log: ' & $failure.log", "'What to do: ' & $failure.advice",
             f"'Run ' & $run & '; ' & {_ORIGIN}"]  # fmt: skip
    message = {"TopicArn": "${Topic}", "Subject": f"{model.name}: retraining failed",
               "Message": expression(f"$join([{', '.join(lines)}], '\\n')")}  # fmt: skip
    notify = task("sns:publish", message, "Failed")
    notify["Catch"] = [{"ErrorEquals": ["States.ALL"], "Next": "Failed"}]
    cause = "$failure.step & ': ' & $failure.reason & ' Log: ' & $failure.log & '. ' & $failure.advice"
    return {
        "NotifyFailure": notify,
        "Failed": {"Type": "Fail", "Error": expression("$failure.error"), "Cause": expression(cause)},
    }


def _task(step: str, resource: str, arguments: Mapping[str, Any], then: str, **more: Any) -> State:
    """A task whose failure is told with its step, its log and what to do."""
    return {**task(resource, arguments, then, **more), "Catch": _caught(step)}


def _caught(step: str) -> list[dict[str, Any]]:
    failure = {"step": step, "error": expression("$states.errorOutput.Error"), "reason": expression(REASON),
               "log": _LOGS.get(step, "the state machine's execution history"),
               "advice": unless_no_room(_ADVICE.get(step, _OTHERWISE), _NO_ROOM)}  # fmt: skip
    return [{"ErrorEquals": ["States.ALL"], "Assign": {"failure": failure}, "Next": "NotifyFailure"}]


REASON = r"""(
  $cause := $exists($states.errorOutput.Cause) ? $string($states.errorOutput.Cause) : $states.errorOutput.Error;
  $job := $substring($cause, 0, 1) = '{' ? $parse($cause);
  $told := $exists($job.FailureReason) ? $job.FailureReason
    : $exists($job.ExitMessage) ? $job.ExitMessage
    : $exists($job.ErrorMessage) ? $job.ErrorMessage : $cause;
  $substring($told, 0, 2000)
)"""
"""Why a task failed: the job's own words where the cause is its description, else the cause."""
