"""SageMaker Model Monitor's own schedules: off unless asked for, and such as its API takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from config import Invalid, load_settings
from contract import load_models
from stacks.crossing import refuse_what_can_not_cross
from stacks.native_monitoring import ANALYZERS
from tests.conftest import ACCOUNTS, ROOT, Assembly
from tests.stacks import policies

MONITORING = "FlightDelay-Monitoring"
DATA, MODEL = "DataQualityJobDefinition", "ModelQualityJobDefinition"
SCHEDULE = "MonitoringSchedule"
KINDS = (DATA, MODEL, SCHEDULE)


@pytest.fixture(scope="module")
def native(otherwise: dict[str, Assembly]) -> Assembly:
    return otherwise["connected"]


def resolved(value: Any, names: dict[str, str]) -> Any:
    """Properties as CloudFormation hands them to the API."""
    if isinstance(value, list):
        return [resolved(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) > 1 or not next(iter(value), "").startswith(("Fn::", "Ref")):
        return {key: resolved(item, names) for key, item in value.items()}
    ((function, argument),) = value.items()
    if function == "Ref":
        pseudo = {"AWS::Region": "eu-west-1", "AWS::URLSuffix": "amazonaws.com", "AWS::AccountId": "1" * 12,
                  "AWS::Partition": "aws"}  # fmt: skip
        return pseudo.get(argument) or names[argument]
    if function == "Fn::Join":
        return argument[0].join(resolved(argument[1], names))
    if function == "Fn::Split":
        return resolved(argument[1], names).split(argument[0])
    if function == "Fn::Select":
        return resolved(argument[1], names)[int(argument[0])]
    if function == "Fn::FindInMap":
        return ANALYZERS[resolved(argument[1], names)]
    text = json.dumps(argument)
    arns = {"Fn::ImportValue": "bucket" if "Bucket" in text and "Arn" not in text else "arn:aws:kms:eu-west-1:1:key/a",
            "Fn::GetAtt": f"arn:aws:iam::{'1' * 12}:role/native"}  # fmt: skip
    return arns[function]


def parameters(native: Assembly, kind: str) -> dict[str, Any]:
    (logical_id,) = native.resources(f"AWS::SageMaker::{kind}", MONITORING) if kind != SCHEDULE else ("",)
    names = {name: f"arn:aws:sagemaker:eu-west-1:{'1' * 12}:job-definition/{name}"
             for of in (DATA, MODEL) for name in native.resources(f"AWS::SageMaker::{of}", MONITORING)}  # fmt: skip
    found: dict[str, Any] = resolved(native.one(f"AWS::SageMaker::{kind}", MONITORING), names)
    return {"JobDefinitionName": logical_id, **found}


def refused(operation: str, given: dict[str, Any]) -> str:
    shape = get_session().get_service_model("sagemaker").operation_model(operation).input_shape
    return str(ParamValidator().validate(given, shape).generate_report())


def test_there_are_none_unless_model_yaml_asks(assembly: Assembly) -> None:
    assert not any(assembly.resources(f"AWS::SageMaker::{kind}") for kind in KINDS)


@pytest.mark.parametrize("kind", [DATA, MODEL])
def test_the_api_takes_the_definitions(native: Assembly, kind: str) -> None:
    given = parameters(native, kind)
    assert not refused(f"Create{kind}", given)
    assert "Unknown parameter" in refused(f"Create{kind}", {**given, "Schedule": "daily"}), "the check would notice"
    assert given["NetworkConfig"]["EnableNetworkIsolation"] is True
    assert len(given["NetworkConfig"]["VpcConfig"]["Subnets"]) == 2
    assert given["JobResources"]["ClusterConfig"]["VolumeKmsKeyId"]
    image = given[kind.replace("JobDefinition", "AppSpecification")]["ImageUri"]
    assert image == f"{ANALYZERS['eu-west-1']}.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-model-monitor-analyzer"


def test_the_api_takes_the_schedules_of_those_definitions(native: Assembly) -> None:
    definitions = {name for of in (DATA, MODEL) for name in native.resources(f"AWS::SageMaker::{of}", MONITORING)}
    names = {name: f"arn:aws:sagemaker:eu-west-1:{'1' * 12}:job-definition/{name}" for name in definitions}
    schedules = [resolved(found["Properties"], names)
                 for found in native.resources(f"AWS::SageMaker::{SCHEDULE}", MONITORING).values()]  # fmt: skip
    assert {found["MonitoringScheduleName"] for found in schedules} == {
        "flight-delay-data-quality", "flight-delay-model-quality"}  # fmt: skip
    for found in schedules:
        assert not refused(f"Create{SCHEDULE}", found)
    configs = [found["MonitoringScheduleConfig"] for found in schedules]
    assert {config["MonitoringJobDefinitionName"] for config in configs} == definitions
    assert {config["MonitoringType"] for config in configs} == {"DataQuality", "ModelQuality"}


def test_labels_and_requests_are_of_production_and_of_this_model(native: Assembly) -> None:
    asked = parameters(native, MODEL)["ModelQualityJobInput"]
    assert asked["EndpointInput"]["EndpointName"] == "flight-delay-production"
    assert asked["EndpointInput"]["ProbabilityThresholdAttribute"] == 0.5
    assert asked["GroundTruthS3Input"]["S3Uri"].endswith("/labels/flight-delay")
    bikes = native.one(f"AWS::SageMaker::{MODEL}", "BikeDemand-Monitoring")
    assert bikes["ModelQualityAppSpecification"]["ProblemType"] == "Regression"


def test_the_role_writes_its_own_reports_and_creates_jobs_inside_the_network_only(native: Assembly) -> None:
    found = policies.of(native, "NativeRole", MONITORING)
    written = [place for each in found if "s3:PutObject" in each.actions for place in each.resources]
    assert len(written) == 1
    assert "/monitoring/flight-delay/native/*" in written[0]
    created = [each for each in found if "sagemaker:CreateProcessingJob" in each.actions]
    assert created
    for each in created:
        assert each.conditions["Bool"]["sagemaker:NetworkIsolation"] == "true"
        assert each.conditions["Null"]["sagemaker:VpcSubnets"] == "false"


def test_an_endpoint_in_another_account_is_refused_by_name() -> None:
    shipped = load_settings()
    environments = {name: {"account": account, "region": "eu-west-1"} for name, account in ACCOUNTS.items()}
    apart = type(shipped).model_validate({**shipped.model_dump(), "environments": environments})
    models = load_models(ROOT, shipped.guardrails)
    asked = [type(model).model_validate({**model.model_dump(exclude_unset=True), "monitoring": {
        "native": ["data_quality"]}}) for model in models]  # fmt: skip
    refuse_what_can_not_cross(shipped, asked)
    with pytest.raises(Invalid, match=r"flight_delay/model.yaml: monitoring.native: found data_quality, with"):
        refuse_what_can_not_cross(apart, asked)
