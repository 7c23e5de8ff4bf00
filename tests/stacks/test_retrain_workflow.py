"""The retraining state machine, run expression by expression with answers in place of the services."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from config import load_settings
from contract import Model, load_models
from contract.bundle import Bundle
from contract.retraining import Trigger, retraining_input
from stacks.retrain_workflow import IN_A_VPC, SUBSTITUTIONS, retrain_workflow
from tests.conftest import ROOT
from tests.stacks.state_machine import RUN, Execution, TaskFailed, run

SETTINGS = load_settings()
REQUEST: dict[str, Any] = {
    "model": "flight_delay", "slug": "flight-delay", "trigger": "push", "reason": "push 1a2b3c4d changes train.py",
    "commit": "1" * 40, "pipeline_execution": "9c0e", "as_of": "2013-03-01",
    "bundle": {"uri": "s3://A/bundles/flight-delay/ab12/sourcedir.tar.gz", "sha256": "ab12"},
    "features": {"script_uri": "s3://A/bundles/flight-delay/ab12/features.py",
                 "modules_uri": "s3://A/bundles/flight-delay/ab12/modules.zip", "worker_type": "G.1X", "workers": 2,
                 "timeout_minutes": 60, "arguments": {"--window_days": "60"}},
    "training": {"instance_type": "ml.m6i.large", "instance_count": 1, "volume_gb": 30, "max_runtime_seconds": 3600,
                 "max_wait_seconds": 7200, "spot": True, "hyperparameters": {"num_round": "200"}},
    "evaluation": {"instance_type": "ml.m6i.large", "max_runtime_seconds": 1800, "metric": "auc", "goal": "maximize",
                   "minimum_improvement": 0.0, "guards": [{"metric": "log_loss", "at_most": 0.65}]},
    "serving": {"instance_type": "ml.m6i.large", "minimum_instances": 2, "maximum_instances": 4},
    "approval": "automatic", "sample_request": "s3://artifacts/bundles/flight-delay/ab12/sample_request-0.json",
}  # fmt: skip
KEY = "arn:aws:kms:us-east-1:000000000000:key/0"
FILLED = {
    "Region": "us-east-1", "Data": "data", "Artifacts": "artifacts", "Key": KEY, "Group": "flight-delay",
    "Topic": "arn:aws:sns:us-east-1:000000000000:notifications", "FeatureJob": "flight-delay-features",
    "TrainingRole": "arn:aws:iam::000000000000:role/training", "EvaluationRole": "arn:aws:iam::000000000000:role/e",
    "Image": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0",
    "Subnets": 'subnet-1","subnet-2', "SecurityGroups": "sg-1",
}  # fmt: skip
CHAMPION = "arn:aws:sagemaker:us-east-1:000000000000:model-package/flight-delay/3"


@pytest.fixture(scope="module")
def model() -> Model:
    return next(model for model in load_models(ROOT, SETTINGS.guardrails) if model.name == "flight_delay")


@pytest.fixture(scope="module")
def definition(model: Model) -> dict[str, Any]:
    return filled(retrain_workflow(model, SETTINGS.guardrails, vpc=True))


def filled(template: dict[str, Any]) -> dict[str, Any]:
    """The definition as CloudFormation completes it."""
    text = re.sub(r"\$\{(\w+)\}", lambda name: FILLED[name[1]], json.dumps(template))
    return json.loads(text)  # type: ignore[no-any-return]


def retrain(definition: dict[str, Any], evaluation: Any = None, *, champion: bool = False, request: Any = None,
            **answers: Any) -> Execution:  # fmt: skip
    body = (
        evaluation
        if isinstance(evaluation, str)
        else json.dumps(evaluation or {"rows": 100, "challenger": {"auc": 0.75, "log_loss": 0.5}, "champion": None})
    )
    containers = [{"Image": "i", "ModelDataUrl": "s3://A/training/flight-delay/old/output/model.tar.gz"}]
    usual = {
        "FindChampion": {"ModelPackageSummaryList": [{"ModelPackageArn": CHAMPION}] if champion else []},
        "DescribeChampion": {"ModelPackageArn": CHAMPION, "ModelPackageVersion": 3,
                             "InferenceSpecification": {"Containers": containers}},
        "BuildFeatures": {"Id": "jr_1", "JobRunState": "SUCCEEDED"},
        "Train": {"TrainingJobArn": "arn:aws:sagemaker:us-east-1:000000000000:training-job/x",
                  "ModelArtifacts": {"S3ModelArtifacts": "s3://A/training/flight-delay/new/output/model.tar.gz"}},
        "ReadEvaluation": {"Body": body},
        "Register": {"ModelPackageArn": CHAMPION.replace("/3", "/4")},
    }  # fmt: skip
    return run(definition, request or REQUEST, {**usual, **answers})


def changed(path: str, value: Any) -> dict[str, Any]:
    request = copy.deepcopy(REQUEST)
    *parents, last = path.split(".")
    target = request
    for parent in parents:
        target = target[parent]
    target[last] = value
    return request


def test_the_execution_that_nobody_asked_for_ends_quietly(definition: dict[str, Any]) -> None:
    execution = run(definition, {"trigger": "none"}, {})
    assert (execution.status, execution.states) == ("SUCCEEDED", ["HasReason", "NothingToDo"])


def test_a_first_version_that_holds_its_guards_waits_for_approval(definition: dict[str, Any]) -> None:
    execution = retrain(definition)
    assert execution.status == "SUCCEEDED"
    assert execution.arguments["Register"]["ModelApprovalStatus"] == "PendingManualApproval"
    assert "DescribeChampion" not in execution.states
    names = [given["InputName"] for given in execution.arguments["Evaluate"]["ProcessingInputs"]]
    assert names == ["code", "challenger", "sample", "holdout"]


def test_a_better_challenger_is_compared_with_the_champion_and_proposed(definition: dict[str, Any]) -> None:
    better = {"rows": 9, "challenger": {"auc": 0.76, "log_loss": 0.5}, "champion": {"auc": 0.75, "log_loss": 0.5}}
    execution = retrain(definition, better, champion=True)
    assert execution.output["passed"] is True
    inputs = {given["InputName"]: given["S3Input"] for given in execution.arguments["Evaluate"]["ProcessingInputs"]}
    assert inputs["champion"]["S3Uri"] == "s3://A/training/flight-delay/old/output/model.tar.gz"
    assert execution.arguments["Register"]["CustomerMetadataProperties"]["champion_version"] == "3"


def test_a_worse_challenger_is_registered_as_rejected_and_the_execution_succeeds(definition: dict[str, Any]) -> None:
    worse = {"rows": 9, "challenger": {"auc": 0.70, "log_loss": 0.5}, "champion": {"auc": 0.75, "log_loss": 0.5}}
    execution = retrain(definition, worse, champion=True)
    assert execution.status == "SUCCEEDED"
    assert execution.arguments["Register"]["ModelApprovalStatus"] == "Rejected"
    assert "failed: auc 0.7 against 0.75 of champion version 3, worse by 0.05" in execution.output["reasons"]
    told = execution.arguments["NotifyRefused"]["Message"]
    assert "worse by 0.05" in told
    assert "push: push 1a2b3c4d changes train.py" in told


@pytest.mark.parametrize(("evaluation", "told"), [
    ('{"rows": 9, "challenger": {"auc": NaN, "log_loss": 0.5}, "champion": null}', "auc of the challenger"),
    ('{"rows": 9, "challenger": {"auc": null, "log_loss": 0.5}, "champion": null}', "auc of the challenger"),
    ('{"rows": 9, "challenger": {"auc": 0.8, "log_loss": -Infinity}, "champion": null}', "guard log_loss not a number"),
    ('{"rows": 9, "challenger": {"auc": 0.8}, "champion": null}', "guard log_loss not a number"),
    ('{"rows": 9, "challenger": {"auc": 0.8, "log_loss": 0.66}, "champion": null}', "guard log_loss 0.66"),
    ('{"rows": 0, "challenger": {"auc": 0.8, "log_loss": 0.5}, "champion": null}', "evaluated on 0 rows"),
    ('{"challenger": {"auc": "0.8", "log_loss": 0.5}}', "auc of the challenger"),
    ("{}", "auc of the challenger"),
])  # fmt: skip
def test_what_was_not_measured_or_breaks_a_guard_is_refused(
    definition: dict[str, Any], evaluation: str, told: str
) -> None:
    execution = retrain(definition, evaluation)
    assert execution.output["passed"] is False
    assert any(reason.startswith(f"failed: {told}") for reason in execution.output["reasons"])


@pytest.mark.parametrize(("champion", "passed"), [({"auc": 0.75}, False), ({"auc": None}, False), (None, False)])
def test_an_equal_or_unmeasured_champion_stays(definition: dict[str, Any], champion: Any, passed: bool) -> None:
    evaluation = {"rows": 9, "challenger": {"auc": 0.75, "log_loss": 0.5}, "champion": champion}
    assert retrain(definition, evaluation, champion=True).output["passed"] is passed


@pytest.mark.parametrize(("goal", "improvement", "challenger", "passed"), [
    ("maximize", 0.01, 0.76, True), ("maximize", 0.02, 0.76, False), ("minimize", 0.0, 0.74, True),
    ("minimize", 0.0, 0.76, False), ("minimize", 0.02, 0.74, False),
])  # fmt: skip
def test_the_goal_and_the_least_improvement_count(
    definition: dict[str, Any], goal: str, improvement: float, challenger: float, passed: bool
) -> None:
    request = changed("evaluation.goal", goal)
    request["evaluation"] |= {"minimum_improvement": improvement, "guards": []}
    evaluation = {"rows": 9, "challenger": {"auc": challenger}, "champion": {"auc": 0.75}}
    assert retrain(definition, evaluation, champion=True, request=request).output["passed"] is passed


@pytest.mark.parametrize(("path", "value"), [
    ("training.instance_count", 5), ("training.instance_type", "ml.p4d.24xlarge"), ("training.volume_gb", 9999),
    ("training.max_runtime_seconds", 10**6), ("features.workers", 299), ("features.worker_type", "G.8X"),
    ("features.timeout_minutes", 10**5), ("evaluation.instance_type", "ml.p4d.24xlarge"),
    ("evaluation.max_runtime_seconds", 10**6), ("slug", "bike-demand"), ("model", "bike_demand"),
])  # fmt: skip
def test_a_request_forged_past_verify_runs_nothing(definition: dict[str, Any], path: str, value: Any) -> None:
    execution = retrain(definition, request=changed(path, value))
    assert execution.status == "FAILED"
    assert execution.states[:3] == ["HasReason", "WithinLimits", "BeyondLimits"]
    assert execution.error == "BeyondGuardrails"
    assert not {"BuildFeatures", "Train", "Evaluate", "Register"} & set(execution.states)


@pytest.mark.parametrize("step", ["FindChampion", "BuildFeatures", "Train", "Evaluate", "ReadEvaluation",
                                  "WriteLineage", "Register"])  # fmt: skip
def test_a_failure_is_told_with_step_reason_and_advice(definition: dict[str, Any], step: str) -> None:
    failed = TaskFailed("States.TaskFailed", json.dumps({"FailureReason": "exit code 1: no such column"}))
    answers: dict[str, Any] = {step: failed}
    execution = retrain(definition, **answers)
    assert execution.status == "FAILED"
    assert "exit code 1: no such column" in execution.cause
    told = execution.arguments["NotifyFailure"]
    assert f"failed at {step}." in told["Message"]
    assert "What to do: " in told["Message"]
    assert "push: push 1a2b3c4d changes train.py" in told["Message"]
    assert len(told["Subject"]) <= 100


@pytest.mark.parametrize(("step", "error"), [
    ("BuildFeatures", "Glue.ConcurrentRunsExceededException"),
    ("BuildFeatures", "Glue.ResourceNumberLimitExceededException"),
    ("Train", "SageMaker.ResourceLimitExceededException"), ("Evaluate", "SageMaker.ResourceLimitExceededException"),
])  # fmt: skip
def test_where_there_is_no_room_a_run_waits_as_long_as_runs_take_and_no_script_is_blamed(
    definition: dict[str, Any], step: str, error: str
) -> None:
    (patience,) = [rule for rule in definition["States"][step]["Retry"] if error in rule["ErrorEquals"]]
    waits = [min(patience["IntervalSeconds"] * patience["BackoffRate"] ** attempt, patience["MaxDelaySeconds"])
             for attempt in range(patience["MaxAttempts"])]  # fmt: skip
    assert sum(waits) / 2 > 45 * 60  # the jitter halves them
    message = retrain(definition, **{step: TaskFailed(error, "exceeded")}).arguments["NotifyFailure"]["Message"]
    assert "What to do: Other runs held all that the quota allows for an hour" in message
    assert "correct" not in message


def test_a_failed_notification_does_not_hide_the_failure(definition: dict[str, Any]) -> None:
    broken = TaskFailed("SNS.AuthorizationError", "no")
    execution = retrain(definition, Train=TaskFailed("States.TaskFailed", "out of memory"), NotifyFailure=broken)
    assert (execution.status, execution.error) == ("FAILED", "States.TaskFailed")
    assert "out of memory" in execution.cause


def test_an_evaluation_that_is_no_json_is_a_failure_and_not_a_verdict(definition: dict[str, Any]) -> None:
    execution = retrain(definition, "not json")
    assert execution.status == "FAILED"
    assert "Register" not in execution.states


def test_the_feature_run_carries_the_commit_and_the_platform_wins(definition: dict[str, Any]) -> None:
    request = changed("features.arguments", {"--window_days": "60", "--output": "s3://elsewhere/"})
    given = retrain(definition, request=request).arguments["BuildFeatures"]["Arguments"]
    assert given == {
        "--window_days": "60", "--scriptLocation": REQUEST["features"]["script_uri"],
        "--extra-py-files": REQUEST["features"]["modules_uri"], "--raw": "s3://data/raw/flight_delay/",
        "--output": f"s3://data/features/flight-delay/{RUN}/", "--as_of": "2013-03-01",
    }  # fmt: skip


def test_training_is_isolated_encrypted_bounded_and_named_after_the_run(definition: dict[str, Any]) -> None:
    given = retrain(definition).arguments["Train"]
    assert given["TrainingJobName"] == RUN
    assert given["EnableNetworkIsolation"] is True
    assert given["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    assert given["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert given["HyperParameters"]["sagemaker_program"] == "pushline_entry.py"
    assert all(isinstance(value, str) for value in given["HyperParameters"].values())


def test_sagemaker_reads_the_metrics_that_the_gate_asks_for(definition: dict[str, Any]) -> None:
    metrics = retrain(definition).arguments["Train"]["AlgorithmSpecification"]["MetricDefinitions"]
    line = "pushline: trained flight_delay: auc=0.71; log_loss=5.1e-1; train_auc=0.9;"
    found = {metric["Name"]: re.findall(metric["Regex"], line) for metric in metrics}
    assert found == {"auc": ["0.71"], "log_loss": ["5.1e-1"]}


def test_what_verify_writes_is_what_the_state_machine_reads(definition: dict[str, Any], model: Model) -> None:
    trigger = Trigger(artifacts="artifacts", commit="1" * 40, trigger="data", reason="new data", as_of="2013-03-01",
                      execution="9c0e")  # fmt: skip
    bundle = Bundle(sourcedir=b"", features=b"", modules=b"")
    request = json.loads(json.dumps(retraining_input(model, trigger, bundle)))
    execution = retrain(definition, request=request)
    assert execution.status == "SUCCEEDED", execution.cause
    assert request.keys() == REQUEST.keys()
    assert {key: value.keys() for key, value in request.items() if isinstance(value, dict)} == {
        key: value.keys() for key, value in REQUEST.items() if isinstance(value, dict)}  # fmt: skip
    metadata = execution.arguments["Register"]["CustomerMetadataProperties"]
    assert (metadata["trigger"], metadata["as_of"]) == ("data", "2013-03-01")


def test_without_spot_there_is_no_waiting_time(definition: dict[str, Any]) -> None:
    given = retrain(definition, request=changed("training.spot", False)).arguments["Train"]
    assert given["EnableManagedSpotTraining"] is False
    assert given["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}


def test_jobs_run_in_the_networks_subnets_or_in_no_vpc(definition: dict[str, Any], model: Model) -> None:
    inside = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    given = retrain(definition).arguments
    assert given["Train"]["VpcConfig"] == given["Evaluate"]["NetworkConfig"]["VpcConfig"] == inside
    outside = retrain_workflow(model, SETTINGS.guardrails, vpc=False)
    assert "VpcConfig" not in json.dumps(outside)
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(outside))) == set(SUBSTITUTIONS)


def test_an_instance_type_with_its_own_disk_gets_no_volume_key(model: Model) -> None:
    guardrails = SETTINGS.guardrails.model_copy(update={"training": SETTINGS.guardrails.training.model_copy(
        update={"instance_types": ("ml.m6i.large", "ml.m5d.large")})})  # fmt: skip
    definition = filled(retrain_workflow(model, guardrails, vpc=True))
    keyless = retrain(definition, request=changed("training.instance_type", "ml.m5d.large")).arguments["Train"]
    assert "VolumeKmsKeyId" not in keyless["ResourceConfig"]
    assert "VolumeKmsKeyId" in retrain(definition).arguments["Train"]["ResourceConfig"]


def test_the_version_records_where_it_comes_from_as_the_registry_takes_it(definition: dict[str, Any]) -> None:
    request = changed("reason", 'push "1a2b": {train.py}, ' + "x" * 400)
    execution = retrain(definition, request=request)
    metadata = execution.arguments["Register"]["CustomerMetadataProperties"]
    assert {"model", "commit", "trigger", "reason", "as_of", "run", "feature_run", "training_job", "image",
            "bundle_sha256", "metric", "challenger", "champion", "champion_version", "lineage",
            "approval", "sample_request",
            "serving_instance_type", "serving_minimum_instances",
            "serving_maximum_instances"} <= set(metadata)  # fmt: skip
    assert all(isinstance(value, str) and 1 <= len(value) <= 256 for value in metadata.values())
    assert not any(set(value) & set('{}",') for value in metadata.values())
    assert metadata["image"] == FILLED["Image"]
    assert metadata["serving_minimum_instances"] == "2"


def test_lineage_holds_the_same_facts_whole(definition: dict[str, Any]) -> None:
    body = retrain(definition).arguments["WriteLineage"]["Body"]
    assert body["commit"] == REQUEST["commit"]
    assert body["decision"]["passed"] is True
    assert body["metrics"]["rows"] == 100
    assert body["champion_version"] is None


@pytest.mark.parametrize(("state", "service", "operation"), [
    ("FindChampion", "sagemaker", "ListModelPackages"), ("DescribeChampion", "sagemaker", "DescribeModelPackage"),
    ("BuildFeatures", "glue", "StartJobRun"), ("Train", "sagemaker", "CreateTrainingJob"),
    ("Evaluate", "sagemaker", "CreateProcessingJob"), ("ReadEvaluation", "s3", "GetObject"),
    ("Register", "sagemaker", "CreateModelPackage"), ("NotifyRefused", "sns", "Publish"),
])  # fmt: skip
def test_every_call_has_the_shape_its_api_takes(
    definition: dict[str, Any], state: str, service: str, operation: str
) -> None:
    worse = {"rows": 9, "challenger": {"auc": 0.70, "log_loss": 0.5}, "champion": {"auc": 0.75, "log_loss": 0.5}}
    given = retrain(definition, worse, champion=True).arguments[state]
    shape = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
    assert ParamValidator().validate(given, shape).generate_report() == ""


def test_registering_the_same_run_twice_gives_one_version(definition: dict[str, Any]) -> None:
    token = retrain(definition).arguments["Register"]["ClientToken"]
    assert token == RUN[-36:]
    assert re.fullmatch(r"[a-zA-Z0-9-]{1,36}", token)


def test_every_name_that_cloudformation_fills_in_is_declared(model: Model) -> None:
    text = json.dumps(retrain_workflow(model, SETTINGS.guardrails, vpc=True))
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {*SUBSTITUTIONS, *IN_A_VPC}


def test_every_task_retries_throttling_and_is_caught(definition: dict[str, Any]) -> None:
    for name, state in definition["States"].items():
        if state["Type"] == "Task":
            assert any("Throttling" in error for retry in state["Retry"] for error in retry["ErrorEquals"]), name
            assert state["Catch"][0]["ErrorEquals"] == ["States.ALL"], name
