"""The release stack: what starts the reconciler, and that each of its actors can do its own work only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Assembly
from tests.stacks import policies
from tests.stacks.policies import Statement

ENVIRONMENTS = ["Staging", "Production"]
NOT_CALLS = ("kms:", "logs:", "xray:", "iam:PassRole")
IAM_NAMES = {"sagemakerruntime": "sagemaker"}


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stack(environment: str) -> str:
    return f"FlightDelay-Release-{environment}"


@pytest.fixture
def definition(assembly: Assembly, stack: str) -> dict[str, Any]:
    text = assembly.one("AWS::StepFunctions::StateMachine", stack)["DefinitionString"]
    assert isinstance(text, str)
    return json.loads(text)  # type: ignore[no-any-return]


def granting(assembly: Assembly, stack: str, role: str, action: str) -> list[Statement]:
    return [found for found in policies.of(assembly, role, stack) if action in found.actions]


def rules(assembly: Assembly, stack: str) -> dict[str, dict[str, Any]]:
    return {name: found["Properties"] for name, found in assembly.resources("AWS::Events::Rule", stack).items()}


def test_its_outputs_name_the_reconciler(assembly: Assembly, stack: str, environment: str) -> None:
    outputs = {name: output["Value"] for name, output in assembly.templates[stack]["Outputs"].items()
               if not name.startswith("Exports")}  # fmt: skip

    (machine,) = assembly.resources("AWS::StepFunctions::StateMachine", stack)
    assert outputs == {"Model": "flight_delay", "Environment": environment.lower(), "Reconciler": {"Ref": machine}}


def test_any_change_of_the_registry_starts_it_and_so_does_every_hour(assembly: Assembly, stack: str) -> None:
    started = rules(assembly, stack)

    assert started["ModelPackageChanged"]["EventPattern"] == {
        "source": ["aws.sagemaker"], "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": ["flight-delay"]}}  # fmt: skip
    assert started["SelfHeal"]["ScheduleExpression"] == "rate(1 hour)"


def test_a_finished_update_of_its_serving_stack_starts_it(assembly: Assembly, stack: str, environment: str) -> None:
    pattern = rules(assembly, stack)["ServingStackUpdated"]["EventPattern"]

    (prefix,) = pattern["detail"]["stack-id"]
    assert f":stack/FlightDelay-Serving-{environment}/" in json.dumps(prefix["prefix"])
    assert pattern["detail-type"] == ["CloudFormation Stack Status Change"]
    assert "UPDATE_COMPLETE" in pattern["detail"]["status-details"]["status"]


def test_a_rolled_back_update_does_not_start_it_before_the_version_is_rejected(assembly: Assembly, stack: str) -> None:
    assert "ROLLBACK" not in json.dumps(rules(assembly, stack)["ServingStackUpdated"]["EventPattern"])


def test_rules_hand_over_nothing_of_the_event(assembly: Assembly, stack: str) -> None:
    for name, rule in rules(assembly, stack).items():
        (target,) = rule["Targets"]
        assert json.loads(target["Input"]) == {"started_by": name}
        assert "InputTransformer" not in target
        assert "InputPath" not in target


def test_the_rules_may_start_the_reconciler_and_nothing_else(assembly: Assembly, stack: str) -> None:
    (statement,) = policies.of(assembly, "StartRole", stack)

    assert statement.actions == ("states:StartExecution",)
    (machine,) = assembly.resources("AWS::StepFunctions::StateMachine", stack)
    assert [json.loads(resource) for resource in statement.resources] == [{"Ref": machine}]


def test_the_reconciler_may_make_the_calls_of_its_definition_and_no_others(
    assembly: Assembly, stack: str, definition: dict[str, Any]
) -> None:
    called = {_iam_action(state["Resource"]) for state in definition["States"].values() if state["Type"] == "Task"}
    granted = {action for statement in policies.of(assembly, "RolesReconciler", stack) for action in statement.actions
               if not action.startswith(NOT_CALLS)}  # fmt: skip

    assert granted == called


def _iam_action(resource: str) -> str:
    service, operation = resource.removeprefix("arn:aws:states:::").removeprefix("aws-sdk:").split(":")
    return f"{IAM_NAMES.get(service, service)}:{operation[0].upper()}{operation[1:]}"


def test_only_staging_approves_and_both_reject(assembly: Assembly) -> None:
    allowed = {}
    for environment in ENVIRONMENTS:
        (statement,) = granting(assembly, f"FlightDelay-Release-{environment}", "RolesReconciler",
                                "sagemaker:UpdateModelPackage")  # fmt: skip
        values = statement.conditions["StringEquals"]["sagemaker:ModelApprovalStatus"]
        allowed[environment] = {values} if isinstance(values, str) else set(values)

    assert allowed == {"Staging": {"Approved", "Rejected"}, "Production": {"Rejected"}}


def test_nobody_else_may_decide_about_a_version_but_retraining_which_only_rejects(assembly: Assembly) -> None:
    others = [statement for statement in policies.statements(assembly)
              if "sagemaker:UpdateModelPackage" in statement.actions
              and not statement.holder.startswith("RolesReconciler")]  # fmt: skip

    assert all(statement.holder.startswith("RetrainRole") for statement in others)
    assert all(statement.conditions == {"StringEquals": {"sagemaker:ModelApprovalStatus": "Rejected"}}
               for statement in others)  # fmt: skip


def test_it_updates_its_serving_stack_only_and_only_as_the_narrow_role(
    assembly: Assembly, stack: str, environment: str
) -> None:
    (update,) = granting(assembly, stack, "RolesReconciler", "cloudformation:UpdateStack")
    (pass_update,) = granting(assembly, stack, "RolesReconciler", "iam:PassRole")

    assert update.actions == ("cloudformation:UpdateStack",)
    assert [f":stack/FlightDelay-Serving-{environment}/*" in resource for resource in update.resources] == [True]
    role = update.conditions["StringEquals"]["cloudformation:RoleArn"]
    assert role["Fn::GetAtt"][0].startswith("RolesUpdate")
    assert [json.loads(resource) for resource in pass_update.resources] == [role]
    assert pass_update.conditions["StringEquals"]["iam:PassedToService"] == "cloudformation.amazonaws.com"


def test_the_definition_passes_that_same_role(assembly: Assembly, stack: str, definition: dict[str, Any]) -> None:
    substitutions = assembly.one("AWS::StepFunctions::StateMachine", stack)["DefinitionSubstitutions"]
    (update,) = [state for state in definition["States"].values() if state.get("Resource", "").endswith(":updateStack")]

    assert update["Arguments"]["RoleARN"] == "${UpdateRole}"
    assert substitutions["UpdateRole"]["Fn::GetAtt"][0].startswith("RolesUpdate")
    assert set(re.findall(r"\$\{(\w+)\}", json.dumps(definition))) == set(substitutions)


def test_cloudformation_may_touch_only_this_endpoints_own_resources(
    assembly: Assembly, stack: str, environment: str
) -> None:
    endpoint = f"flight-delay-{environment.lower()}"
    own = re.compile(
        rf":(model/FlightDelay{environment}Model-|endpoint-config/FlightDelay{environment}EndpointConfig-"
        rf"|endpoint/{endpoint}|alarm:{endpoint}-|alarm:TargetTracking-endpoint/{endpoint}/variant/AllTraffic-"
        rf"|dashboard/{endpoint})", re.IGNORECASE)  # fmt: skip
    for statement in policies.of(assembly, "RolesUpdate", stack):
        services = {action.partition(":")[0] for action in statement.actions}
        if services & {"sagemaker", "cloudwatch"}:
            assert all(own.search(resource) for resource in statement.resources), statement
        elif services == {"application-autoscaling"}:
            reads = all(re.search(":(Describe|ListTags)", action) for action in statement.actions)
            assert statement.conditions or reads, statement
        else:
            assert all("*" not in resource for resource in statement.resources), statement


def test_only_production_scales_and_only_the_number_of_instances_of_endpoints(assembly: Assembly) -> None:
    assert granting(assembly, "FlightDelay-Release-Staging", "RolesUpdate",
                    "application-autoscaling:RegisterScalableTarget") == []  # fmt: skip
    (register,) = granting(assembly, "FlightDelay-Release-Production", "RolesUpdate",
                           "application-autoscaling:RegisterScalableTarget")  # fmt: skip
    assert register.conditions["StringEquals"] == {
        "application-autoscaling:service-namespace": "sagemaker",
        "application-autoscaling:scalable-dimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip


def test_sagemaker_may_see_the_rollback_alarms_as_the_models_role(assembly: Assembly) -> None:
    (see,) = granting(assembly, "FlightDelay-Release-Production", "RolesServing", "cloudwatch:DescribeAlarms")

    assert all(":alarm:flight-delay-production-*" in resource for resource in see.resources)


def test_cloudformation_may_name_what_the_serving_template_names(assembly: Assembly, environment: str) -> None:
    names = {found["Type"]: name for name, found in
             assembly.templates[f"FlightDelay-Serving-{environment}"]["Resources"].items()}  # fmt: skip
    granted = json.dumps([statement.resources for statement in
                          policies.of(assembly, "RolesUpdate", f"FlightDelay-Release-{environment}")])  # fmt: skip

    for kind, path in (("AWS::SageMaker::Model", "model"), ("AWS::SageMaker::EndpointConfig", "endpoint-config")):
        assert f":{path}/{names[kind]}-*" in granted
        assert f":{path}/{names[kind].lower()}-*" in granted


def test_models_are_isolated_and_instances_within_the_guardrails(assembly: Assembly, stack: str) -> None:
    (create_model,) = granting(assembly, stack, "RolesUpdate", "sagemaker:CreateModel")
    (create_config,) = granting(assembly, stack, "RolesUpdate", "sagemaker:CreateEndpointConfig")

    assert create_model.conditions["Bool"] == {"sagemaker:NetworkIsolation": "true"}
    assert "ml.m6i.large" in create_config.conditions["ForAllValues:StringEquals"]["sagemaker:InstanceTypes"]
    assert create_config.conditions["Null"] == {"sagemaker:InstanceTypes": "false"}
    assert "sagemaker:VolumeKmsKeyArn" in create_config.conditions["StringEquals"]


def test_the_serving_role_reads_this_models_artefacts_and_nothing_else(assembly: Assembly, stack: str) -> None:
    (read,) = granting(assembly, stack, "RolesServing", "s3:GetObject")
    granted = {action for statement in policies.of(assembly, "RolesServing", stack) for action in statement.actions}

    assert len(read.resources) == 1
    assert "/training/flight-delay/*" in read.resources[0]
    written = [resource for found in granting(assembly, stack, "RolesServing", "s3:PutObject")
               for resource in found.resources]  # fmt: skip
    assert all("/capture/flight-delay/production/*" in resource for resource in written)
    foreign = ("s3:Delete", "sagemaker:", "iam:", "sts:")
    assert not [action for action in granted if action.startswith(foreign)]


def test_every_execution_is_logged_without_its_data(assembly: Assembly, stack: str) -> None:
    logging = assembly.one("AWS::StepFunctions::StateMachine", stack)["LoggingConfiguration"]

    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)


def test_cfn_lint_finds_nothing(assembly: Assembly) -> None:
    files = sorted(path for path in assembly.path.glob("FlightDelay-*.template.json")
                   if "-Release-" in path.name or "-Serving-" in path.name)  # fmt: skip
    assert len(files) == 2 * len(ENVIRONMENTS)
    # W3005: CDK states dependencies that the references imply anyway.
    found = subprocess.run([Path(sys.executable).with_name("cfn-lint"), "-i", "W3005", "-t", *files],
                           capture_output=True, text=True, check=False)  # fmt: skip

    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("kind", ["async", "serverless", "none"])
def test_the_reconciler_of_another_kind_of_endpoint_may_make_its_calls_and_no_others(kind: str) -> None:
    import aws_cdk
    from aws_cdk import assertions

    from config import load_settings
    from contract import load_models
    from contract.model import Serving
    from stacks.deployment import deployments
    from stacks.environment_stack import ServingEnvironmentStack
    from stacks.foundation_stack import FoundationStack
    from stacks.release_stack import ReleaseStack

    settings = load_settings()
    model = load_models(ROOT, settings.guardrails)[0].model_copy(
        update={"serving": Serving.model_validate({"endpoint": kind})}
    )
    app = aws_cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"])
    foundation = FoundationStack(app, "Foundation", settings=settings)
    environment = ServingEnvironmentStack(app, "Production", settings=settings, environment="production")
    stack = ReleaseStack(app, "R", settings=settings, deployment=deployments(model)[1], environment=environment,
                         foundation=foundation)  # fmt: skip
    resources = assertions.Template.from_stack(stack).to_json()["Resources"]

    (machine,) = [found for found in resources.values() if found["Type"] == "AWS::StepFunctions::StateMachine"]
    states = json.loads(machine["Properties"]["DefinitionString"])["States"].values()
    (role,) = [found for name, found in resources.items()
               if found["Type"] == "AWS::IAM::Role" and name.startswith("RolesReconciler")]  # fmt: skip
    statements = role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    granted = {action for statement in statements
               for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
               if not action.startswith((*NOT_CALLS, "s3:ListBucket"))}  # fmt: skip
    assert granted == {_iam_action(state["Resource"]) for state in states if state["Type"] == "Task"}


TAGS = {"AWS::CloudWatch::Alarm": "cloudwatch:TagResource", "AWS::CloudWatch::Dashboard": "cloudwatch:TagResource",
        "AWS::ApplicationAutoScaling::ScalableTarget": "application-autoscaling:TagResource",
        **{f"AWS::SageMaker::{kind}": "sagemaker:AddTags" for kind in ("Model", "EndpointConfig", "Endpoint")},
        }  # fmt: skip


def test_what_the_serving_stack_tags_its_role_may_tag(assembly: Assembly, stack: str) -> None:
    serving = assembly.templates[stack.replace("Release", "Serving")]["Resources"]
    tagged = {found["Type"]: found["Properties"]["Tags"] for found in serving.values() if "Tags" in found["Properties"]}
    for kind, tags in tagged.items():
        granted = granting(assembly, stack, "RolesUpdate", TAGS[kind])
        assert any(TAGGED_ON.get(kind, kind.rpartition(":")[2].lower()) in resource.lower()
                   for found in granted for resource in found.resources), kind  # fmt: skip
        wanted = {key.partition("/")[2]: value for found in granted
                  for key, value in found.conditions.get("StringEquals", {}).items()}  # fmt: skip
        if kind == "AWS::ApplicationAutoScaling::ScalableTarget":
            assert wanted.items() <= {tag["Key"]: tag["Value"] for tag in tags}.items()


TAGGED_ON = {"AWS::ApplicationAutoScaling::ScalableTarget": ":scalable-target/",
             "AWS::SageMaker::EndpointConfig": "endpoint-config/"}  # fmt: skip
