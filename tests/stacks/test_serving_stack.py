"""The serving stack: what a set of parameters means, and that it needs nothing but them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from config import load_settings
from config.settings import ServingLimits
from tests.conftest import Assembly

ENVIRONMENTS = ["Staging", "Production"]
VALUES = {
    "Image": ["none", "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"],
    "ModelDataUrl": ["", "s3://pushline-artifacts-1/training/flight-delay/flight-delay-0f0e/output/model.tar.gz"],
    "ModelPackageArn": ["", "arn:aws:sagemaker:us-east-1:000000000000:model-package/flight-delay/12"],
    "InstanceType": ["ml.m6i.large", "ml.g4dn.xlarge"],
}
FOREIGN = {
    "Image": ["", "docker.io/library/python:3.11", "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost"],
    "ModelDataUrl": ["https://example.com/model.tar.gz", "s3://bucket/model.pkl", "s3://bucket/a b/model.tar.gz"],
    "ModelPackageArn": ["arn:aws:sagemaker:us-east-1:000000000000:model-package/bike-demand/1",
                        "arn:aws:sagemaker:us-east-1:000000000000:model-package/flight-delay/0"],
    "InstanceType": ["m6i.large", "ml.m6i.large ", ""],
}  # fmt: skip


@pytest.fixture(params=ENVIRONMENTS)
def stack(request: pytest.FixtureRequest) -> str:
    return f"FlightDelay-Serving-{request.param}"


@pytest.fixture
def template(assembly: Assembly, stack: str) -> dict[str, Any]:
    return assembly.templates[stack]


def one(template: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [found for found in template["Resources"].values() if found["Type"] == kind]
    return found  # type: ignore[no-any-return]


def test_it_deploys_before_there_is_a_model_with_nothing_but_its_outputs(template: dict[str, Any]) -> None:
    assert all("Default" in parameter for parameter in template["Parameters"].values())
    assert template["Parameters"]["ModelDataUrl"]["Default"] == ""
    assert template["Conditions"]["HasModel"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "ModelDataUrl"}, ""]}]}
    assert {found["Condition"] for found in template["Resources"].values()} == {"HasModel"}


def test_its_outputs_say_which_endpoint_it_is(template: dict[str, Any], stack: str) -> None:
    environment = stack.rpartition("-")[2].lower()

    assert {name: output["Value"] for name, output in template["Outputs"].items()} == {
        "Model": "flight_delay", "Environment": environment, "Endpoint": f"flight-delay-{environment}"}  # fmt: skip


def test_updating_it_needs_neither_the_bootstrap_parameter_nor_an_iam_capability(template: dict[str, Any]) -> None:
    assert "BootstrapVersion" not in template["Parameters"]
    assert "Rules" not in template
    assert {found["Type"].split("::")[1] for found in template["Resources"].values()} == {"SageMaker"}


@pytest.mark.parametrize("name", VALUES)
def test_a_parameter_takes_what_a_version_says_and_nothing_foreign(template: dict[str, Any], name: str) -> None:
    parameter = template["Parameters"][name]

    assert all(re.fullmatch(parameter["AllowedPattern"], value) for value in [parameter["Default"], *VALUES[name]])
    assert not any(re.fullmatch(parameter["AllowedPattern"], value) for value in FOREIGN[name])


@pytest.mark.parametrize("name", ["MinimumInstances", "MaximumInstances"])
def test_the_number_of_instances_has_the_guardrails_limit(template: dict[str, Any], name: str) -> None:
    parameter = template["Parameters"][name]

    assert (parameter["Type"], parameter["MinValue"]) == ("Number", 1)
    assert parameter["MaxValue"] == load_settings().guardrails.serving.maximum_instances


def test_the_container_has_no_network_and_says_which_version_it_runs(template: dict[str, Any]) -> None:
    model = one(template, "AWS::SageMaker::Model")["Properties"]

    assert model["EnableNetworkIsolation"] is True
    assert model["PrimaryContainer"] == {
        "Image": {"Ref": "Image"}, "ModelDataUrl": {"Ref": "ModelDataUrl"},
        "Environment": {"SAGEMAKER_PROGRAM": "pushline_entry.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                        "PIP_NO_BUILD_ISOLATION": "0", "MODEL_PACKAGE_ARN": {"Ref": "ModelPackageArn"}}}  # fmt: skip


def test_only_the_endpoint_has_a_fixed_name_since_the_others_are_replaced(template: dict[str, Any], stack: str) -> None:
    endpoint = one(template, "AWS::SageMaker::Endpoint")["Properties"]

    assert endpoint["EndpointName"] == f"flight-delay-{stack.rpartition('-')[2].lower()}"
    assert "ModelName" not in one(template, "AWS::SageMaker::Model")["Properties"]
    assert "EndpointConfigName" not in one(template, "AWS::SageMaker::EndpointConfig")["Properties"]


def test_what_was_replaced_stays_since_after_a_silent_rollback_it_is_live(template: dict[str, Any]) -> None:
    for kind in ("AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig"):
        assert one(template, kind)["UpdateReplacePolicy"] == "Retain"


def test_the_variant_keeps_its_name_and_takes_its_size_from_the_parameters(template: dict[str, Any]) -> None:
    config = one(template, "AWS::SageMaker::EndpointConfig")["Properties"]
    (variant,) = config["ProductionVariants"]

    assert variant["VariantName"] == "AllTraffic"
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ({"Ref": "InstanceType"},
                                                                          {"Ref": "MinimumInstances"})  # fmt: skip
    assert "KmsKeyId" in config


def test_a_rollout_is_blue_green_and_keeps_the_live_variants_properties(template: dict[str, Any]) -> None:
    endpoint = one(template, "AWS::SageMaker::Endpoint")["Properties"]
    policy = endpoint["DeploymentConfig"]["BlueGreenUpdatePolicy"]

    assert policy["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"
    assert endpoint["RetainAllVariantProperties"] is True
    # A raised minimum takes effect as long as nothing scales the endpoint.
    assert endpoint["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DesiredInstanceCount"}]


def test_the_endpoint_carries_its_version_as_a_tag(template: dict[str, Any]) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in one(template, "AWS::SageMaker::Endpoint")["Properties"]["Tags"]}

    assert tags["pushline:model-package"] == {"Ref": "ModelPackageArn"}
    assert tags["pushline:model"] == "flight_delay"


def test_an_instance_with_a_disk_of_its_own_takes_no_volume_key() -> None:
    aws_cdk = pytest.importorskip("aws_cdk")
    from aws_cdk import assertions, aws_iam, aws_kms

    from contract import load_models
    from stacks.deployment import Deployment
    from stacks.serving_stack import ServingStack
    from tests.conftest import ROOT

    app = aws_cdk.App()
    shared = aws_cdk.Stack(app, "Shared")
    key, role = aws_kms.Key(shared, "Key"), aws_iam.Role(
        shared, "Role", assumed_by=aws_iam.ServicePrincipal("sagemaker.amazonaws.com"))  # fmt: skip
    model = load_models(ROOT, load_settings().guardrails)[0]
    stack = ServingStack(
        app, "Serving", deployment=Deployment(model=model, environment="production"), key=key, execution_role=role,
        limits=ServingLimits(instance_types=("ml.m6i.large", "ml.m5d.large", "ml.g5.xlarge"), maximum_instances=2),
    )  # fmt: skip
    found = assertions.Template.from_stack(stack).to_json()

    (config,) = [item for item in found["Resources"].values() if item["Type"] == "AWS::SageMaker::EndpointConfig"]
    condition, without, _ = config["Properties"]["KmsKeyId"]["Fn::If"]
    assert without == {"Ref": "AWS::NoValue"}
    assert found["Conditions"][condition] == {"Fn::Or": [
        {"Fn::Equals": [{"Ref": "InstanceType"}, name]} for name in ("ml.m5d.large", "ml.g5.xlarge")]}  # fmt: skip
