"""The monitoring state machine, run expression by expression with answers in place of the services."""

from __future__ import annotations

import json
import re
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from config import load_settings
from contract import Model, load_models
from stacks.monitor_workflow import DAYS, monitor_workflow
from tests.conftest import ROOT
from tests.stacks.state_machine import Execution, TaskFailed, run

LIVE = "arn:aws:sagemaker:us-east-1:000000000000:model-package/flight-delay/3"
FILLED = {
    "Data": "data", "Traffic": "traffic", "Artifacts": "artifacts", "FeatureJob": "flight-delay-features",
    "Key": "arn:aws:kms:us-east-1:000000000000:key/0", "Topic": "arn:aws:sns:us-east-1:000000000000:notifications",
    "JobRole": "arn:aws:iam::000000000000:role/monitor-job", "Endpoint": "flight-delay-production",
    "Image": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0",
    "Subnets": 'subnet-1","subnet-2', "SecurityGroups": "sg-1",
}  # fmt: skip
CAPTURED = "capture/flight-delay/production/flight-delay-production/AllTraffic/"
WEEK = [f"2013/02/{day}" for day in range(22, 29)]
TODAY, TOMORROW = "2013/03/01", "2013-03-02"
METRICS = {"FeatureDrift": 1.5, "PredictionDrift": 0.5}


@pytest.fixture(scope="module")
def model() -> Model:
    return next(model for model in load_models(ROOT, load_settings().guardrails) if model.name == "flight_delay")


@pytest.fixture(scope="module")
def definition(model: Model) -> dict[str, Any]:
    text = json.dumps(monitor_workflow(model, vpc=True))
    return json.loads(re.sub(r"\$\{(\w+)\}", lambda name: FILLED[name[1]], text))  # type: ignore[no-any-return]


def watch(definition: dict[str, Any], *, live: bool = True, landed: tuple[str, ...] = (),
          captured: tuple[str, ...] | list[str] = (), metrics: Any = METRICS, **answers: Any) -> Execution:  # fmt: skip
    """One run on 1 March 2013, 06:00, where these days landed since the training and these have requests."""
    prefixes = {"CommonPrefixes": [{"Prefix": f"raw/flight_delay/dt={day}/"} for day in landed]} if landed else {}
    container = {"Image": "i", "ModelDataUrl": "s3://artifacts/training/flight-delay/r3/output/model.tar.gz"}
    metadata = {"metric": "auc", "lineage": "s3://artifacts/lineage/flight-delay/r3/lineage.json"}
    features = {"script_uri": "s3://artifacts/b/features.py", "modules_uri": "s3://artifacts/b/modules.zip",
                "arguments": {"--window_days": "60"}}  # fmt: skip
    lineage = {"run": "r3", "as_of": "2013-02-20", "features": features, "metrics": {"challenger": {"auc": 0.75}}}
    usual = {
        "FindLive": {"ModelPackageSummaryList": [{"ModelPackageArn": LIVE}] if live else []},
        "DescribeLive": {
            "ModelPackageArn": LIVE,
            "ModelPackageVersion": 3,
            "CreationTime": "2013-02-28T23:00:00Z",
            "InferenceSpecification": {"Containers": [container]},
            "CustomerMetadataProperties": metadata,
        },
        "ReadLineage": {"Body": json.dumps(lineage)},
        "FindNewData": prefixes,
        "BuildFeatures": {"Id": "jr_1", "JobRunState": "SUCCEEDED"},
        "IsDayCaptured": lambda asked: {"KeyCount": int(asked["Prefix"] in {f"{CAPTURED}{day}/" for day in captured})},
        "ReadReport": {"Body": json.dumps({"metrics": metrics})},
    }
    return run(definition, {}, {**usual, **answers})


def inputs(execution: Execution) -> dict[str, str]:
    """What the job gets: name to address."""
    found = execution.arguments["Watch"]["ProcessingInputs"]
    return {each["InputName"]: each["S3Input"]["S3Uri"] for each in found}


def test_a_version_a_week_of_requests_and_new_labels_are_measured_and_published(definition: dict[str, Any]) -> None:
    done = watch(definition, landed=("2013-02-21", "2013-02-28"), captured=WEEK)
    assert done.status == "SUCCEEDED"
    assert done.output["metrics"] == METRICS
    assert done.output["unlabelled"] is None
    run_name = done.variables["run"]
    assert done.arguments["BuildFeatures"]["Arguments"] == {
        "--window_days": "60", "--scriptLocation": "s3://artifacts/b/features.py",
        "--extra-py-files": "s3://artifacts/b/modules.zip", "--raw": "s3://data/raw/flight_delay/",
        "--output": f"s3://data/features/flight-delay/{run_name}/", "--as_of": "2013-02-28"}  # fmt: skip
    assert inputs(done) == {
        "challenger": "s3://artifacts/training/flight-delay/r3/output/model.tar.gz",
        "baseline": "s3://data/features/flight-delay/r3/baseline/",
        "holdout": f"s3://data/features/flight-delay/{run_name}/holdout/",
        **{f"captured-{n}": f"s3://traffic/{CAPTURED}{day}/" for n, day in enumerate(reversed(WEEK))}}  # fmt: skip
    assert done.arguments["Watch"]["Environment"] == {"REFERENCE": '{"auc":0.75}'}
    published = done.arguments["PublishMetrics"]["MetricData"]
    assert {each["MetricName"]: each["Value"] for each in published} == METRICS
    assert {json.dumps(each["Dimensions"]) for each in published} == {'[{"Name": "Model", "Value": "flight_delay"}]'}


@pytest.mark.parametrize(
    ("state", "service", "operation"),
    [("BuildFeatures", "glue", "StartJobRun"), ("Watch", "sagemaker", "CreateProcessingJob"),
     ("PublishMetrics", "cloudwatch", "PutMetricData"), ("FindLive", "sagemaker", "ListModelPackages"),
     ("NotifyUnlabelled", "sns", "Publish")],
)  # fmt: skip
def test_what_is_sent_is_what_the_services_take(
    definition: dict[str, Any], state: str, service: str, operation: str
) -> None:
    broken = {"BuildFeatures": TaskFailed("States.TaskFailed", "no")} if state == "NotifyUnlabelled" else {}
    sent = watch(definition, landed=("2013-02-28",), captured=[*WEEK, TODAY], **broken).arguments[state]
    shape = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
    assert not ParamValidator().validate(sent, shape).has_errors(), (
        ParamValidator().validate(sent, shape).generate_report()
    )


def test_todays_requests_count_only_while_the_days_before_are_no_week(definition: dict[str, Any]) -> None:
    full = watch(definition, captured=[*WEEK, TODAY])
    assert full.variables["days"] == WEEK[::-1]
    young = watch(definition, captured=[*WEEK[1:], TODAY])
    assert young.variables["days"] == [TODAY, *WEEK[:0:-1]]
    assert max(len(each.variables["days"]) for each in (full, young)) == DAYS
    assert watch(definition, captured=[TODAY]).variables["days"] == [TODAY]


@pytest.mark.parametrize(("live", "last"), [(False, "NothingLive"), (True, "NothingNew")])
def test_without_a_version_or_anything_to_measure_no_job_is_started(
    definition: dict[str, Any], live: bool, last: str
) -> None:
    done = watch(definition, live=live)
    assert (done.status, done.states[-1]) == ("SUCCEEDED", last)
    assert "Watch" not in done.arguments


def test_without_new_labels_only_requests_are_measured(definition: dict[str, Any]) -> None:
    done = watch(definition, captured=WEEK)
    assert done.status == "SUCCEEDED"
    assert "BuildFeatures" not in done.states
    assert "holdout" not in inputs(done)


def test_without_requests_only_labels_are_measured(definition: dict[str, Any]) -> None:
    done = watch(definition, landed=("2013-02-28",))
    assert done.status == "SUCCEEDED"
    assert set(inputs(done)) == {"challenger", "baseline", "holdout"}


@pytest.mark.parametrize(
    ("landed", "as_of"),
    [((TOMORROW, "2013-03-03", "2099-01-01"), TOMORROW), (("2013-02-28", "2013-2-30", "latest"), "2013-02-28")],
)
def test_a_misdated_folder_hides_no_labels(definition: dict[str, Any], landed: tuple[str, ...], as_of: str) -> None:
    done = watch(definition, landed=landed, captured=WEEK)
    assert done.arguments["BuildFeatures"]["Arguments"]["--as_of"] == as_of
    assert done.status == "SUCCEEDED"


def test_only_misdated_folders_are_no_labels(definition: dict[str, Any]) -> None:
    done = watch(definition, landed=("2099-01-01",), captured=WEEK)
    assert "BuildFeatures" not in done.states
    assert done.status == "SUCCEEDED"


@pytest.mark.parametrize("told", [{"MessageId": "1"}, TaskFailed("Sns.AuthorizationErrorException", "denied")])
def test_features_that_fail_are_told_and_requests_are_measured_all_the_same(
    definition: dict[str, Any], told: Any
) -> None:
    failed = TaskFailed("States.TaskFailed", json.dumps({"ErrorMessage": "rule weather_missing: 40 rows"}))
    done = watch(definition, landed=("2013-02-28",), captured=WEEK, BuildFeatures=failed, NotifyUnlabelled=told)
    message = done.arguments["NotifyUnlabelled"]["Message"]
    assert "failed at BuildFeatures" in message
    assert "rule weather_missing: 40 rows" in message
    assert "Until then quality is not watched" in message
    assert set(inputs(done)) == {"challenger", "baseline", *(f"captured-{n}" for n in range(DAYS))}
    assert (done.status, done.output["metrics"]) == ("SUCCEEDED", METRICS)
    assert done.output["unlabelled"]["step"] == "BuildFeatures"


def test_where_there_is_no_room_no_data_is_blamed(definition: dict[str, Any]) -> None:
    full = TaskFailed("Glue.ConcurrentRunsExceededException", "Concurrent runs exceeded for flight-delay-features")
    done = watch(definition, landed=("2013-02-28",), captured=WEEK, BuildFeatures=full)
    assert "What to do: Other runs held all" in done.arguments["NotifyUnlabelled"]["Message"]


def test_features_that_fail_without_requests_leave_nothing_to_measure(definition: dict[str, Any]) -> None:
    failed = TaskFailed("States.TaskFailed", "no such column")
    done = watch(definition, landed=("2013-02-28",), BuildFeatures=failed)
    assert (done.status, done.states[-1]) == ("SUCCEEDED", "NothingNew")
    assert "NotifyUnlabelled" in done.states


def test_a_job_that_fails_is_told_and_fails_the_run(definition: dict[str, Any]) -> None:
    failed = TaskFailed("States.TaskFailed", json.dumps({"FailureReason": "none of the requests can be read"}))
    done = watch(definition, captured=WEEK, Watch=failed)
    assert (done.status, done.states[-2:]) == ("FAILED", ["NotifyFailure", "Failed"])
    for told in (done.cause, done.arguments["NotifyFailure"]["Message"]):
        assert "none of the requests can be read" in told
        assert "/aws/sagemaker/ProcessingJobs" in told
    assert "PublishMetrics" not in done.states


def test_captured_days_that_cant_be_listed_fail_the_run(definition: dict[str, Any]) -> None:
    done = watch(definition, IsDayCaptured=TaskFailed("S3.S3Exception", "Access Denied"))
    assert done.status == "FAILED"
    assert "FindCaptured: Access Denied" in done.cause


def test_what_could_not_be_measured_is_not_published(definition: dict[str, Any]) -> None:
    done = watch(definition, captured=[TODAY], metrics={})
    assert (done.status, done.output["metrics"]) == ("SUCCEEDED", {})
    assert "PublishMetrics" not in done.states
