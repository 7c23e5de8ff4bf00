"""Application Auto Scaling in the whole rehearsal: an endpoint grows shrinks with its load and loses no request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rehearsal.server import Running
from tests.rehearsal import serving
from tests.rehearsal.daemon import make_role, running
from tests.rehearsal.serving import configure, packed, settled
from tests.rehearsal.waiting import until

DIMENSION = "sagemaker:variant:DesiredInstanceCount"
TARGET_VALUE = 4.0
"""Invocations of an instance a minute, which here lasts a fifth of a second."""
REGISTER = ["application-autoscaling:RegisterScalableTarget", "sagemaker:DescribeEndpoint",
            "sagemaker:UpdateEndpointWeightsAndCapacities"]  # fmt: skip


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("scaling"), time_scale=300) as cloud:
        yield cloud


@pytest.fixture(autouse=True, scope="module")
def _served_as(cloud: Running) -> Iterator[None]:
    allowed = {"Action": ["s3:GetObject", "logs:*", "ecr:*"], "Resource": "*"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "ROLE", make_role(cloud, "serving", "sagemaker.amazonaws.com", allowed))
        yield


def live(cloud: Running, name: str, instances: int = 1) -> str:
    """An endpoint in service; its address."""
    configure(cloud, name, packed(), instances=instances)
    sagemaker = cloud.client("sagemaker")
    made = sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)["EndpointArn"]
    assert settled(cloud, name)["EndpointStatus"] == "InService"
    return next(t["Value"] for t in sagemaker.list_tags(ResourceArn=made)["Tags"] if t["Key"] == "rehearsal:url")


def variant(name: str) -> dict[str, Any]:
    return {"ServiceNamespace": "sagemaker", "ScalableDimension": DIMENSION,
            "ResourceId": f"endpoint/{name}/variant/AllTraffic"}  # fmt: skip


def scale(cloud: Running, name: str, low: int, high: int, **options: Any) -> dict[str, Any]:
    """Register the endpoint's variant, with a target tracking policy on its invocations."""
    scaling = cloud.client("application-autoscaling")
    scaling.register_scalable_target(**variant(name), MinCapacity=low, MaxCapacity=high)
    metric = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}
    configuration = {"TargetValue": TARGET_VALUE, **metric, "ScaleOutCooldown": 60, "ScaleInCooldown": 60, **options}
    policy = {"PolicyName": f"{name}-load", "PolicyType": "TargetTrackingScaling"}
    return dict(scaling.put_scaling_policy(**variant(name), **policy,
                                           TargetTrackingScalingPolicyConfiguration=configuration))  # fmt: skip


def count(cloud: Running, name: str) -> int:
    found = cloud.client("sagemaker").describe_endpoint(EndpointName=name)
    return int(found["ProductionVariants"][0]["CurrentInstanceCount"])


def activities(cloud: Running, name: str) -> list[dict[str, Any]]:
    found = cloud.client("application-autoscaling").describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=variant(name)["ResourceId"]
    )
    return list(found["ScalingActivities"])


def test_an_endpoint_grows_with_its_load_and_shrinks_without_and_loses_no_request(cloud: Running) -> None:
    url = live(cloud, "busy")
    made = scale(cloud, "busy", 1, 3)
    answers: list[int] = []
    idle = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=30) as client:
            while not idle.wait(0.02):
                answers.append(client.post(f"{url}/invocations", json=[1]).status_code)

    clients = [threading.Thread(target=load) for _ in range(8)]
    for client in clients:
        client.start()
    until(lambda: count(cloud, "busy") == 3)
    idle.set()
    for client in clients:
        client.join()
    trickle = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not trickle.wait(0.1):
                answers.append(client.post(f"{url}/invocations", json=[1]).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: count(cloud, "busy") == 1)
    until(lambda: activities(cloud, "busy")[0]["StatusCode"] == "Successful")
    trickle.set()
    asking.join()
    assert set(answers) == {200}
    down, up = (next(a for a in activities(cloud, "busy") if a["Description"].endswith(f"to {number}."))
                for number in (1, 3))  # fmt: skip
    alarms = {alarm["AlarmName"] for alarm in made["Alarms"]}
    assert {a["StatusCode"] for a in (up, down)} == {"Successful"}
    for activity, kind in ((up, "AlarmHigh"), (down, "AlarmLow")):
        (alarm,) = (name for name in alarms if f"-{kind}-" in name)
        assert activity["Cause"] == f"monitor alarm {alarm} in state ALARM triggered policy busy-load"


def test_an_endpoint_that_nobody_asks_any_more_shrinks_to_its_minimum(cloud: Running) -> None:
    live(cloud, "idle", instances=2)
    scale(cloud, "idle", 1, 3)
    until(lambda: count(cloud, "idle") == 1)


def test_a_policy_may_track_another_metric_such_as_what_waits_for_each_instance(cloud: Running) -> None:
    live(cloud, "queued")
    dimensions = [{"Name": "EndpointName", "Value": "queued"}]
    metric = {
        "Namespace": "Tests",
        "MetricName": "BacklogPerInstance",
        "Statistic": "Average",
        "Dimensions": dimensions,
    }
    scaling = cloud.client("application-autoscaling")
    scaling.register_scalable_target(**variant("queued"), MinCapacity=1, MaxCapacity=4)
    scaling.put_scaling_policy(
        **variant("queued"),
        PolicyName="backlog",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5.0,
            "CustomizedMetricSpecification": metric,
            "ScaleOutCooldown": 3600,
            "DisableScaleIn": True,
        },
    )

    def grown_by_a_backlog_of_ten() -> bool:
        point = {"MetricName": "BacklogPerInstance", "Dimensions": dimensions, "Value": 10.0}
        cloud.client("cloudwatch").put_metric_data(Namespace="Tests", MetricData=[point])
        return count(cloud, "queued") > 1

    until(grown_by_a_backlog_of_ten)
    # The first step is the measure of it; another may follow once the cooldown is over.
    assert activities(cloud, "queued")[-1]["Description"].endswith("to 2.")


def test_a_raised_minimum_takes_effect_at_once_and_the_role_of_the_service_does_it(cloud: Running) -> None:
    live(cloud, "raised")
    scaling = cloud.client("application-autoscaling")
    scaling.register_scalable_target(**variant("raised"), MinCapacity=1, MaxCapacity=3)
    scaling.register_scalable_target(**variant("raised"), MinCapacity=2)
    until(lambda: count(cloud, "raised") == 2)
    until(lambda: activities(cloud, "raised")[0]["StatusCode"] == "Successful")
    assert activities(cloud, "raised")[0]["Cause"] == "minimum capacity was set to 2"
    resource = variant("raised")["ResourceId"]
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])
    (target,) = found["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 3)
    assert target["RoleARN"].endswith("/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")
    log = (cloud.state_dir / "audit.jsonl").read_text()
    assert any("AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint" in line
               and "UpdateEndpointWeightsAndCapacities" in line for line in log.splitlines())  # fmt: skip


def test_a_policy_has_its_two_alarms_as_aws_makes_them(cloud: Running) -> None:
    live(cloud, "alarmed")
    made = scale(cloud, "alarmed", 1, 2, TargetValue=1000.0)
    found = cloud.client("cloudwatch").describe_alarms(AlarmNames=[a["AlarmName"] for a in made["Alarms"]])
    high, low = sorted(found["MetricAlarms"], key=lambda alarm: str(alarm["AlarmName"]))
    assert high["AlarmName"].startswith("TargetTracking-endpoint/alarmed/variant/AllTraffic-AlarmHigh-")
    assert (high["Threshold"], high["EvaluationPeriods"], low["Threshold"], low["EvaluationPeriods"]) == (
        1000, 3, 900, 15)  # fmt: skip
    assert (low["MetricName"], low["Statistic"], low["Period"]) == ("InvocationsPerInstance", "Sum", 60)
    assert high["AlarmActions"] == low["AlarmActions"] == [made["PolicyARN"]]


def test_a_scaled_variant_keeps_its_instance_type_and_a_new_version_its_number_of_instances(cloud: Running) -> None:
    live(cloud, "typed", instances=2)
    scale(cloud, "typed", 2, 3, TargetValue=1000.0)
    sagemaker, scaling = cloud.client("sagemaker"), cloud.client("application-autoscaling")
    configure(cloud, "typed-2", packed(3), instances=1)
    other = sagemaker.describe_endpoint_config(EndpointConfigName="typed-2")["ProductionVariants"]
    sagemaker.create_endpoint_config(EndpointConfigName="typed-3",
                                     ProductionVariants=[{**other[0], "InstanceType": "ml.c5.large"}])  # fmt: skip
    update = {"EndpointName": "typed", "RetainAllVariantProperties": True}
    with pytest.raises(ClientError, match="must be deregistered as scalable target with AWS Auto Scaling"):
        sagemaker.update_endpoint(**update, EndpointConfigName="typed-3")
    sagemaker.update_endpoint(**update, EndpointConfigName="typed-2")
    assert settled(cloud, "typed")["EndpointConfigName"] == "typed-2"
    assert count(cloud, "typed") == 2
    scaling.deregister_scalable_target(**variant("typed"))
    resource = variant("typed")["ResourceId"]
    left = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)
    assert left["ScalingPolicies"] == []
    sagemaker.update_endpoint(**update, EndpointConfigName="typed-3")
    assert settled(cloud, "typed")["EndpointConfigName"] == "typed-3"


def test_an_endpoint_takes_its_target_policy_and_alarms_with_it(cloud: Running) -> None:
    live(cloud, "leaving")
    made = scale(cloud, "leaving", 1, 2)
    cloud.client("sagemaker").delete_endpoint(EndpointName="leaving")
    assert cloud.client("cloudwatch").describe_alarms(
        AlarmNames=[alarm["AlarmName"] for alarm in made["Alarms"]])["MetricAlarms"] == []  # fmt: skip
    with pytest.raises(ClientError, match="No scalable target registered"):
        cloud.client("application-autoscaling").deregister_scalable_target(**variant("leaving"))


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"ServiceNamespace": "ecs"}, "ecs is not rehearsed; sagemaker is"),
        ({"ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency"}, "Concurrency is not rehearsed"),
        ({"ResourceId": "endpoint/refused"}, "endpoint/<name>/variant/<name>"),
        ({"ResourceId": "endpoint/nowhere/variant/AllTraffic"}, "Could not find"),
        ({"ResourceId": "endpoint/refused/variant/other"}, "the endpoint has no variant other"),
        ({"MinCapacity": 4}, "between 0 and MaxCapacity 3"),
    ],
)
def test_what_can_not_be_scaled_is_refused(cloud: Running, changes: dict[str, Any], refusal: str) -> None:
    if not cloud.client("sagemaker").list_endpoints(NameContains="refused")["Endpoints"]:
        live(cloud, "refused")
    with pytest.raises(ClientError, match=refusal):
        cloud.client("application-autoscaling").register_scalable_target(
            **{**variant("refused"), "MinCapacity": 1, "MaxCapacity": 3, **changes}
        )


@pytest.mark.parametrize("lacking", REGISTER)
def test_who_registers_needs_what_is_done_in_their_name(cloud: Running, lacking: str) -> None:
    name = f"narrow-{REGISTER.index(lacking)}"
    allowed = {"Action": [action for action in REGISTER if action != lacking], "Resource": "*"}
    role = make_role(cloud, name, "cloudformation.amazonaws.com", allowed)
    session = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    scaling = cloud.client("application-autoscaling", aws_access_key_id=session["AccessKeyId"],
                           aws_secret_access_key=session["SecretAccessKey"],
                           aws_session_token=session["SessionToken"])  # fmt: skip
    with pytest.raises(ClientError, match=f"not authorized to perform: {lacking}"):
        scaling.register_scalable_target(**variant("any"), MinCapacity=1, MaxCapacity=2)


TAGGING = "application-autoscaling:TagResource"


def target_template(name: str, high: int, **tags: str) -> str:
    given = [{"Key": key, "Value": value} for key, value in tags.items()]
    properties = {**variant(name), "MinCapacity": 1, "MaxCapacity": high, "Tags": given}
    return json.dumps({"Resources": {"Target": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget",
                                                "Properties": properties}}})  # fmt: skip


def test_a_templates_target_is_tagged_as_the_stacks_role_and_not_made_without_the_grant(cloud: Running) -> None:
    live(cloud, "tagged")
    stacks, scaling = cloud.client("cloudformation"), cloud.client("application-autoscaling")
    tagged = {"StringEquals": {"aws:RequestTag/team": ["us", "them"]}}
    for name, more in (("untagged", []), ("tagged", [{"Action": TAGGING, "Resource": "*", "Condition": tagged}])):
        allowed = {"Action": [*REGISTER, "iam:CreateServiceLinkedRole"], "Resource": "*"}
        role = make_role(cloud, f"stack-{name}", "cloudformation.amazonaws.com", allowed, *more)
        stacks.create_stack(StackName=name, TemplateBody=target_template("tagged", 2, team="us"), RoleARN=role,
                            OnFailure="DO_NOTHING")  # fmt: skip
        until(lambda name=name: _status(stacks, name) in ("CREATE_COMPLETE", "CREATE_FAILED"))
    assert (_status(stacks, "untagged"), _status(stacks, "tagged")) == ("CREATE_FAILED", "CREATE_COMPLETE")
    events = stacks.describe_stack_events(StackName="untagged")["StackEvents"]
    assert any(f"not authorized to perform: {TAGGING}" in event.get("ResourceStatusReason", "") for event in events)
    found = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[variant("tagged")["ResourceId"]]
    )
    made = found["ScalableTargets"][0]["ScalableTargetARN"]
    assert scaling.list_tags_for_resource(ResourceARN=made)["Tags"] == {"team": "us"}
    stacks.update_stack(StackName="tagged", TemplateBody=target_template("tagged", 3, team="them"), RoleARN=role)
    until(lambda: _status(stacks, "tagged") == "UPDATE_COMPLETE")
    assert scaling.list_tags_for_resource(ResourceARN=made)["Tags"] == {"team": "them"}
    with pytest.raises(ClientError, match="use the TagResource API"):
        scaling.register_scalable_target(**variant("tagged"), Tags={"team": "us"})
    scaling.untag_resource(ResourceARN=made, TagKeys=["team"])
    assert scaling.list_tags_for_resource(ResourceARN=made)["Tags"] == {}


def _status(stacks: Any, name: str) -> str:
    return str(stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
