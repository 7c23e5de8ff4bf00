"""The serving stack: what a set of parameters means, and that it needs nothing but them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from config import load_settings
from config.settings import ServingLimits
from contract import load_models
from contract.model import Rollout, Serving
from stacks.deployment import deployments
from stacks.serving_rollout import longest_seconds
from tests.conftest import ROOT, Assembly

MODEL = next(model for model in load_models(ROOT, load_settings().guardrails) if model.name == "flight_delay")

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
    scales = {"Fn::And": [{"Condition": "HasModel"}, {"Fn::Equals": [{"Ref": "Autoscaling"}, "on"]}]}
    assert template["Conditions"].get("Scales", scales) == scales
    assert {found["Condition"] for found in template["Resources"].values()} <= {"HasModel", "Scales"}


def test_its_outputs_say_which_endpoint_it_is(template: dict[str, Any], stack: str) -> None:
    environment = stack.rpartition("-")[2].lower()

    assert {name: output["Value"] for name, output in template["Outputs"].items()} == {
        "Model": "flight_delay", "Environment": environment, "Endpoint": f"flight-delay-{environment}"}  # fmt: skip


def test_updating_it_needs_neither_the_bootstrap_parameter_nor_an_iam_capability(template: dict[str, Any]) -> None:
    assert "BootstrapVersion" not in template["Parameters"]
    assert "Rules" not in template
    services = {found["Type"].split("::")[1] for found in template["Resources"].values()}
    assert services <= {"SageMaker", "CloudWatch", "ApplicationAutoScaling"}


@pytest.mark.parametrize("name", VALUES)
def test_a_parameter_takes_what_a_version_says_and_nothing_foreign(template: dict[str, Any], name: str) -> None:
    parameter = template["Parameters"][name]

    assert all(re.fullmatch(parameter["AllowedPattern"], value) for value in [parameter["Default"], *VALUES[name]])
    assert not any(re.fullmatch(parameter["AllowedPattern"], value) for value in FOREIGN[name])


def test_the_number_of_instances_has_the_guardrails_limit(template: dict[str, Any]) -> None:
    numbers = [found for found in template["Parameters"].values() if found["Type"] == "Number"]

    most = load_settings().guardrails.serving.maximum_instances
    assert {(found["MinValue"], found["MaxValue"]) for found in numbers} == {(1, most)}


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


def traffic(template: dict[str, Any]) -> dict[str, Any]:
    config = one(template, "AWS::SageMaker::Endpoint")["Properties"]["DeploymentConfig"]
    return config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]  # type: ignore[no-any-return]


def alarms(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: found["Properties"] for name, found in template["Resources"].items()
            if found["Type"] == "AWS::CloudWatch::Alarm"}  # fmt: skip


@pytest.fixture
def production(assembly: Assembly) -> dict[str, Any]:
    return assembly.templates["FlightDelay-Serving-Production"]


def test_production_moves_traffic_as_model_yaml_says_and_staging_at_once(
    assembly: Assembly, production: dict[str, Any]
) -> None:
    asked = MODEL.serving.rollout

    assert traffic(production) == {"Type": "CANARY", "WaitIntervalInSeconds": asked.bake_minutes * 60,
                                   "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": asked.percent}}  # fmt: skip
    assert traffic(assembly.templates["FlightDelay-Serving-Staging"]) == {
        "Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}  # fmt: skip


def test_alarms_watch_the_new_fleet_only_and_missing_data_is_no_alarm(production: dict[str, Any]) -> None:
    asked = MODEL.serving.alarms
    found = {alarm["MetricName"]: alarm for alarm in alarms(production).values()}

    assert {name: alarm["Threshold"] for name, alarm in found.items()} == {
        "Invocation5XXErrors": asked.errors_5xx_percent / 100, "Invocation4XXErrors": asked.errors_4xx_percent / 100,
        "InvocationModelErrors": asked.invocation_errors_percent / 100,
        "ModelLatency": asked.p99_latency_ms * 1000}  # fmt: skip
    assert found["ModelLatency"]["ExtendedStatistic"] == "p99"
    for alarm in found.values():
        dimensions = {item["Name"]: item["Value"] for item in alarm["Dimensions"]}
        config = {"Fn::GetAtt": ["FlightDelayProductionEndpointConfig", "EndpointConfigName"]}
        assert dimensions == {"EndpointName": "flight-delay-production", "VariantName": "AllTraffic",
                              "EndpointConfigName": config}  # fmt: skip
        assert alarm["TreatMissingData"] == "notBreaching"
        assert config in alarm["AlarmName"]["Fn::Join"][1], "a new fleet begins with alarms that are at rest"
        assert alarm["AlarmActions"], "people are told"


def test_the_alarms_exist_before_the_rollout_that_they_roll_back(production: dict[str, Any]) -> None:
    endpoint, names = one(production, "AWS::SageMaker::Endpoint"), alarms(production)
    rollback = endpoint["Properties"]["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]

    assert [alarm["AlarmName"]["Ref"] for alarm in rollback] == list(names), "a reference, so that they come first"


def test_sagemaker_gives_up_a_rollout_only_after_all_of_its_watching(production: dict[str, Any]) -> None:
    policy = one(production, "AWS::SageMaker::Endpoint")["Properties"]["DeploymentConfig"]["BlueGreenUpdatePolicy"]

    assert policy["MaximumExecutionTimeoutInSeconds"] >= MODEL.serving.rollout.minutes * 60 + 600
    assert longest_seconds(Rollout(type="linear", percent=10, bake_minutes=36)) <= 28_800, "SageMaker's limit"


def test_a_rollout_keeps_the_live_variants_properties_and_a_fixed_size_takes_effect(
    assembly: Assembly, production: dict[str, Any]
) -> None:
    counts = [{"VariantPropertyType": "DesiredInstanceCount"}]
    staging = one(assembly.templates["FlightDelay-Serving-Staging"], "AWS::SageMaker::Endpoint")["Properties"]
    scaled = one(production, "AWS::SageMaker::Endpoint")["Properties"]

    assert staging["RetainAllVariantProperties"] is scaled["RetainAllVariantProperties"] is True
    assert staging["ExcludeRetainedVariantProperties"] == counts
    # What autoscaling made of the number stays; the minimum takes effect through the scalable target.
    assert scaled["ExcludeRetainedVariantProperties"] == {"Fn::If": ["HasFixedSize", counts, {"Ref": "AWS::NoValue"}]}
    assert production["Conditions"]["HasFixedSize"] == {"Fn::Equals": [{"Ref": "Autoscaling"}, "off"]}


def test_production_scales_between_what_the_version_asks_for_under_a_condition_of_its_own(
    production: dict[str, Any],
) -> None:
    target = one(production, "AWS::ApplicationAutoScaling::ScalableTarget")
    policy = one(production, "AWS::ApplicationAutoScaling::ScalingPolicy")
    tracking = policy["Properties"]["TargetTrackingScalingPolicyConfiguration"]

    assert target["Condition"] == policy["Condition"] == "Scales"
    assert target["Properties"]["ResourceId"] == "endpoint/flight-delay-production/variant/AllTraffic"
    assert (target["Properties"]["MinCapacity"], target["Properties"]["MaxCapacity"]) == (
        {"Ref": "MinimumInstances"}, {"Ref": "MaximumInstances"})  # fmt: skip
    assert "FlightDelayProductionEndpoint" in target["DependsOn"]
    assert tracking["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}  # fmt: skip
    assert tracking["TargetValue"] == MODEL.serving.scaling.invocations_per_minute


def test_production_keeps_a_sample_of_its_traffic_encrypted_and_for_a_while(
    assembly: Assembly, production: dict[str, Any]
) -> None:
    capture = one(production, "AWS::SageMaker::EndpointConfig")["Properties"]["DataCaptureConfig"]
    bucket = next(found for name, found in assembly.resources("AWS::S3::Bucket", "Pushline-Production").items()
                  if name.startswith("Traffic"))  # fmt: skip
    expiring = {rule["Prefix"]: rule["ExpirationInDays"] for rule in
                bucket["Properties"]["LifecycleConfiguration"]["Rules"] if "Prefix" in rule}  # fmt: skip

    assert capture["InitialSamplingPercentage"] == MODEL.serving.capture_percent
    assert "/capture/flight-delay/production" in json.dumps(capture["DestinationS3Uri"])
    assert "KmsKeyId" in capture
    assert expiring == {prefix: load_settings().retention.captured_days for prefix in ("capture/", "async/")}


def test_the_dashboard_shows_the_live_version_its_alarms_and_every_fleets_traffic(production: dict[str, Any]) -> None:
    parts = one(production, "AWS::CloudWatch::Dashboard")["Properties"]["DashboardBody"]["Fn::Join"][1]
    body = json.loads("".join(part if isinstance(part, str) else next(iter(part)) for part in parts))

    assert {"Ref": "ModelPackageArn"} in parts
    (status,) = [widget for widget in body["widgets"] if widget["type"] == "alarm"]
    assert len(status["properties"]["alarms"]) == len(alarms(production))
    graphs = [widget["properties"]["metrics"] for widget in body["widgets"] if widget["type"] == "metric"]
    shown = "".join(lines[0][0]["expression"] for lines in graphs if isinstance(lines[0][0], dict))
    ((released, rejected),) = [lines for lines in graphs if lines[0][0] == "Pushline"]
    assert (released[1], rejected[1]) == ("ReleasedVersion", "RejectedVersion")
    for metric in ("Invocations", "Invocation5XXErrors", "Invocation4XXErrors", "ModelLatency"):
        assert f'MetricName="{metric}"' in shown


def test_the_endpoint_carries_its_version_as_a_tag(template: dict[str, Any]) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in one(template, "AWS::SageMaker::Endpoint")["Properties"]["Tags"]}

    assert tags["pushline:model-package"] == {"Ref": "ModelPackageArn"}
    assert tags["pushline:model"] == "flight_delay"


def template_of(serving: dict[str, Any], limits: ServingLimits | None = None) -> dict[str, Any]:
    """The production template of flight_delay with another `serving`."""
    aws_cdk = pytest.importorskip("aws_cdk")
    from aws_cdk import assertions, aws_iam

    from stacks.environment_stack import ServingEnvironmentStack
    from stacks.serving_stack import ServingStack

    settings = load_settings()
    app = aws_cdk.App(context=json.loads((ROOT / "cdk.json").read_text())["context"])
    environment = ServingEnvironmentStack(app, "Production", settings=settings, environment="production")
    role = aws_iam.Role(environment, "Role", assumed_by=aws_iam.ServicePrincipal("sagemaker.amazonaws.com"))
    model = MODEL.model_copy(update={"serving": Serving.model_validate(serving)})
    stack = ServingStack(app, "Serving", deployment=deployments(model)[1], environment=environment,
                         execution_role=role, limits=limits or settings.guardrails.serving)  # fmt: skip
    return assertions.Template.from_stack(stack).to_json()  # type: ignore[no-any-return]


def test_an_instance_with_a_disk_of_its_own_takes_no_volume_key() -> None:
    limits = ServingLimits(instance_types=("ml.m6i.large", "ml.m5d.large", "ml.g5.xlarge"), maximum_instances=2)
    found = template_of({}, limits)

    (config,) = [item for item in found["Resources"].values() if item["Type"] == "AWS::SageMaker::EndpointConfig"]
    condition, without, _ = config["Properties"]["KmsKeyId"]["Fn::If"]
    assert without == {"Ref": "AWS::NoValue"}
    assert found["Conditions"][condition] == {"Fn::Or": [
        {"Fn::Equals": [{"Ref": "InstanceType"}, name]} for name in ("ml.m5d.large", "ml.g5.xlarge")]}  # fmt: skip


def test_linear_steps_and_all_at_once_bake_as_asked() -> None:
    linear = template_of({"rollout": {"type": "linear", "percent": 25, "bake_minutes": 2}})
    at_once = template_of({"rollout": {"type": "all_at_once", "bake_minutes": 7}})

    assert traffic(linear) == {"Type": "LINEAR", "WaitIntervalInSeconds": 120,
                               "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 25}}  # fmt: skip
    assert traffic(at_once) == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 420}


def test_a_serverless_endpoint_has_no_instances_and_no_deployment_config() -> None:
    found = template_of({"endpoint": "serverless", "serverless": {"memory_mb": 3072, "maximum_concurrency": 7}})
    config = one(found, "AWS::SageMaker::EndpointConfig")["Properties"]
    (variant,) = config["ProductionVariants"]

    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 7}
    assert not {"InstanceType", "InitialInstanceCount"} & set(variant)
    assert "DataCaptureConfig" not in config
    endpoint = one(found, "AWS::SageMaker::Endpoint")["Properties"]
    assert not {"DeploymentConfig", "RetainAllVariantProperties"} & set(endpoint)
    assert set(found["Parameters"]) == {"Image", "ModelDataUrl", "ModelPackageArn"}
    assert one(found, "AWS::SageMaker::Model")["Properties"]["EnableNetworkIsolation"] is False, "it takes none"


def test_an_asynchronous_endpoint_answers_into_its_environments_bucket_and_is_rolled_out_with_alarms() -> None:
    found = template_of({"endpoint": "async", "rollout": {"type": "canary", "bake_minutes": 1}})
    output = one(found, "AWS::SageMaker::EndpointConfig")["Properties"]["AsyncInferenceConfig"]["OutputConfig"]

    assert "/async/flight-delay/production/answers" in json.dumps(output["S3OutputPath"])
    assert "/async/flight-delay/production/failures" in json.dumps(output["S3FailurePath"])
    assert "KmsKeyId" in output
    assert traffic(found)["Type"] == "CANARY"
    metrics = {alarm["MetricName"] for alarm in alarms(found).values()}
    assert metrics == {"Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency"}, "all that SageMaker publishes"
    assert "/async/flight-delay/production/requests/" in json.dumps(found["Outputs"]["Requests"])


def test_an_asynchronous_endpoint_scales_by_what_waits_for_each_instance() -> None:
    found = template_of({"endpoint": "async", "scaling": {"backlog_per_instance": 7}})
    policy = one(found, "AWS::ApplicationAutoScaling::ScalingPolicy")["Properties"]
    tracked = policy["TargetTrackingScalingPolicyConfiguration"]
    metric = tracked["CustomizedMetricSpecification"]

    assert (tracked["TargetValue"], "PredefinedMetricSpecification" in tracked) == (7, False)
    assert (metric["MetricName"], metric["Statistic"]) == ("ApproximateBacklogSizePerInstance", "Average")
    assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "flight-delay-production"}]


def test_without_an_endpoint_there_is_nothing_that_costs_money() -> None:
    found = template_of({"endpoint": "none"})

    assert {resource["Type"] for resource in found["Resources"].values()} == {"AWS::SageMaker::Model"}
    assert set(found["Parameters"]) == {"Image", "ModelDataUrl", "ModelPackageArn"}
    assert one(found, "AWS::SageMaker::Model")["Properties"]["EnableNetworkIsolation"] is True
    assert found["Outputs"]["LiveModel"]["Condition"] == "HasModel"
    assert found["Outputs"]["Endpoint"]["Value"] == "none"
