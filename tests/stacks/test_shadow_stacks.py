"""The templates of a model with `serving.shadow`, synthesized and checked as the app's own are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stacks.release_shadow import SUBSTITUTIONS as OF_SHADOWS
from stacks.release_workflow import SUBSTITUTIONS
from stacks.retrain_workflow import IN_A_VPC
from tests.conftest import Assembly
from tests.stacks import policies

SERVING, RELEASE = "FlightDelay-Serving-Production", "FlightDelay-Release-Production"


@pytest.fixture
def shadowed(otherwise: dict[str, Assembly]) -> Assembly:
    """cdk-nag runs in it: a finding would fail it."""
    return otherwise["shadowed"]


def the(found: dict[str, Any], name: str) -> dict[str, Any]:
    properties: dict[str, Any] = found["Resources"][f"FlightDelayProduction{name}"]["Properties"]
    return properties


def test_without_a_shadow_the_stack_is_what_it_is_without_the_key(shadowed: Assembly, assembly: Assembly) -> None:
    with_key, without = shadowed.templates[SERVING], assembly.templates[SERVING]
    parameters = ["Rollout", "ShadowImage", "ShadowModelDataUrl", "ShadowModelPackageArn"]
    assert sorted(set(with_key["Parameters"]) - set(without["Parameters"])) == parameters
    assert [with_key["Parameters"][name]["Default"] for name in parameters] == ["as_asked", "none", "", ""]
    assert set(with_key["Resources"]) - set(without["Resources"]) == {"FlightDelayProductionShadowModel"}
    for name in parameters[1:]:
        live = without["Parameters"][name.removeprefix("Shadow")]
        assert with_key["Parameters"][name]["AllowedPattern"] == live["AllowedPattern"]


def test_the_shadow_model_exists_under_its_own_condition_and_stays_when_it_goes(shadowed: Assembly) -> None:
    template = shadowed.templates[SERVING]
    model = template["Resources"]["FlightDelayProductionShadowModel"]
    assert (model["Condition"], model["DeletionPolicy"], model["UpdateReplacePolicy"]) == (
        "HasShadow", "Retain", "Retain")  # fmt: skip
    assert model["Properties"]["EnableNetworkIsolation"] is True
    assert model["Properties"]["PrimaryContainer"]["ModelDataUrl"] == {"Ref": "ShadowModelDataUrl"}
    assert template["Conditions"]["HasShadow"] == {"Fn::And": [
        {"Condition": "HasModel"}, {"Fn::Not": [{"Fn::Equals": [{"Ref": "ShadowModelDataUrl"}, ""]}]}]}  # fmt: skip


def test_the_shadow_variant_is_as_large_as_productions_and_gets_every_request(shadowed: Assembly) -> None:
    config = the(shadowed.templates[SERVING], "EndpointConfig")
    condition, (variant,), otherwise = config["ShadowProductionVariants"]["Fn::If"]
    assert (condition, otherwise) == ("HasShadow", {"Ref": "AWS::NoValue"})
    production = config["ProductionVariants"][0]
    assert {key for key in production if production[key] != variant[key]} == {"VariantName", "ModelName"}
    assert config["DataCaptureConfig"]["EnableCapture"] is True


def test_a_shadow_comes_and_goes_at_once_and_a_version_as_asked(shadowed: Assembly) -> None:
    policy = the(shadowed.templates[SERVING], "Endpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    condition, at_once, asked = policy["TrafficRoutingConfiguration"]["Fn::If"]
    assert shadowed.templates[SERVING]["Conditions"][condition] == {"Fn::Equals": [{"Ref": "Rollout"}, "at_once"]}
    assert at_once == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    assert asked["Type"] == "CANARY"


def test_only_the_production_variant_scales(shadowed: Assembly) -> None:
    target = shadowed.one("AWS::ApplicationAutoScaling::ScalableTarget", SERVING)
    assert target["ResourceId"] == "endpoint/flight-delay-production/variant/AllTraffic"


def test_nothing_of_it_is_in_staging_but_the_hand_over(shadowed: Assembly, assembly: Assembly) -> None:
    staging = "FlightDelay-Serving-Staging"
    assert shadowed.templates[staging] == assembly.templates[staging]


def test_the_definition_is_completed(shadowed: Assembly) -> None:
    machine = shadowed.one("AWS::StepFunctions::StateMachine", RELEASE)
    assert set(machine["DefinitionSubstitutions"]) == {*SUBSTITUTIONS, *OF_SHADOWS, *IN_A_VPC}
    job = json.loads(machine["DefinitionString"])["States"]["Compare the answers"]["Arguments"]
    assert all(len(word) <= 256 for word in job["AppSpecification"]["ContainerEntrypoint"])
    inside = {"Subnets": ["${Subnets}"], "SecurityGroupIds": ["${SecurityGroups}"]}
    assert job["NetworkConfig"] == {"EnableNetworkIsolation": True, "VpcConfig": inside}, "as the role wants it"


@pytest.mark.parametrize(
    ("environment", "stages"),
    [
        ("Staging", {("Staging", "Accepted"), ("Shadow", "Reported")}),
        ("Production", {("Shadow", "Compared")}),
    ],
)
def test_each_environment_sets_its_own_stages_and_approves_nothing_with_them(
    shadowed: Assembly, environment: str, stages: set[tuple[str, str]]
) -> None:
    found = [each.conditions for each in policies.of(shadowed, "RolesReconciler", f"FlightDelay-Release-{environment}")
             if "sagemaker:UpdateModelPackage" in each.actions]  # fmt: skip
    by_stage = [each for each in found if "sagemaker:ModelLifeCycle:stage" in each["StringEquals"]]
    assert {tuple(each["StringEquals"].values()) for each in by_stage} == stages
    assert all(each["Null"] == {"sagemaker:ModelApprovalStatus": "true"} for each in by_stage)
    assert len(found) == len(by_stage) + 1


def test_the_comparison_reads_captured_answers_and_writes_its_report_only(shadowed: Assembly) -> None:
    found = policies.of(shadowed, "RolesComparison", RELEASE)
    (written,) = [place for each in found if "s3:PutObject" in each.actions for place in each.resources]
    assert "/shadow/flight-delay/*" in written
    read = [place for each in found if "s3:GetObject" in each.actions for place in each.resources]
    assert len(read) == 2
    assert not [action for each in found for action in each.actions if action.startswith(("sagemaker:", "s3:Delete"))]


def test_the_reconciler_may_make_the_calls_of_its_definition(shadowed: Assembly) -> None:
    machine = shadowed.one("AWS::StepFunctions::StateMachine", RELEASE)
    states = json.loads(machine["DefinitionString"])["States"].values()
    resources = [state["Resource"].removeprefix("arn:aws:states:::") for state in states if state["Type"] == "Task"]
    names = {"sagemakerruntime": "sagemaker", "s3:ListObjectsV2": "s3:ListBucket"}
    called = set()
    for resource in resources:
        service, operation = resource.removeprefix("aws-sdk:").removesuffix(".sync").split(":")
        action = f"{names.get(service, service)}:{operation[0].upper()}{operation[1:]}"
        called.add(names.get(action, action))
    granted = {action for each in policies.of(shadowed, "RolesReconciler", RELEASE) for action in each.actions}
    assert called <= granted
    foreign = ("kms:", "logs:", "xray:", "iam:PassRole")
    assert {action for action in granted - called if not action.startswith(foreign)} == {
        # What `.sync` needs to follow the job and to stop it.
        "events:PutTargets", "events:PutRule", "events:DescribeRule", "sagemaker:DescribeProcessingJob",
        "sagemaker:StopProcessingJob"}  # fmt: skip


def test_cloudformation_may_name_the_shadows_model(shadowed: Assembly) -> None:
    granted = json.dumps([each.resources for each in policies.of(shadowed, "RolesUpdate", RELEASE)])
    assert ":model/FlightDelayProductionShadowModel-*" in granted


def test_cfn_lint_finds_nothing(shadowed: Assembly) -> None:
    files = [shadowed.path / f"{name}.template.json" for name in (SERVING, RELEASE)]
    done = subprocess.run([Path(sys.executable).with_name("cfn-lint"), "-t", *files], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout
