"""What the templates cost while nobody uses them, and who is told before it is too much."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config import load_settings
from tests.conftest import Assembly
from tests.stacks.test_data_protection import everything

FREE_WHILE_IDLE = {
    "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::Budgets::Budget", "AWS::CodeBuild::Project", "AWS::CodeCommit::Repository", "AWS::CodePipeline::Pipeline",
    "AWS::EC2::FlowLog", "AWS::EC2::RouteTable", "AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress", "AWS::EC2::Subnet", "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::VPC",
    "AWS::Events::EventBusPolicy", "AWS::Events::Rule", "AWS::Glue::Connection", "AWS::Glue::Job",
    "AWS::Glue::SecurityConfiguration", "AWS::IAM::Policy", "AWS::IAM::Role", "AWS::KMS::Alias",
    "AWS::Lambda::EventInvokeConfig", "AWS::Lambda::EventSourceMapping", "AWS::Lambda::Function",
    "AWS::Lambda::Permission", "AWS::Logs::LogGroup", "AWS::Logs::MetricFilter", "AWS::Logs::ResourcePolicy",
    "AWS::SNS::Subscription", "AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "AWS::SQS::Queue", "AWS::SQS::QueuePolicy",
    "AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::SSM::Parameter", "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Model", "AWS::SageMaker::ModelPackageGroup", "AWS::SageMaker::ModelPackageGroupPolicy",
    "AWS::Scheduler::Schedule", "AWS::Scheduler::ScheduleGroup", "AWS::StepFunctions::StateMachine",
}  # fmt: skip
"""Types that cost by use or by what they store."""
COSTS_BY_THE_HOUR = {
    "AWS::SageMaker::Endpoint": "serves; `serving.endpoint` none or serverless in model.yaml",
    "AWS::KMS::Key": "one for each environment",
    "AWS::EC2::VPCEndpoint": "training's interface endpoints; `network` none in platform.yaml",
    "AWS::CloudWatch::Alarm": "a few cents",
    "AWS::CloudWatch::Dashboard": "the first three of an account are free",
}
"""The only types that cost while idle, and what switches them off."""


def test_only_endpoint_key_and_interface_endpoints_cost_while_idle(assembly: Assembly) -> None:
    kinds = {found["Type"] for template in assembly.templates.values() for found in template["Resources"].values()}
    unknown = kinds - FREE_WHILE_IDLE - COSTS_BY_THE_HOUR.keys()
    assert unknown == set(), "say in this test whether they cost while idle"


def test_what_costs_with_an_endpoint_comes_and_goes_with_it(assembly: Assembly) -> None:
    for kind in ("AWS::SageMaker::Endpoint", "AWS::CloudWatch::Dashboard"):
        for name, found in everything(assembly, kind):
            assert found["Condition"] == "HasModel", name


def test_every_environment_has_one_key(assembly: Assembly) -> None:
    keys = [name for name, _ in everything(assembly, "AWS::KMS::Key")]
    assert sorted(name.partition("/")[0] for name in keys) == [
        "Pushline-Foundation", "Pushline-Production", "Pushline-Staging"]  # fmt: skip


def test_without_a_network_there_is_no_endpoint_to_pay_for(otherwise: dict[str, Assembly]) -> None:
    assert not list(everything(otherwise["bounded"], "AWS::EC2::VPCEndpoint"))


def one_budget(assembly: Assembly, stack: str) -> dict[str, Any]:
    return assembly.one("AWS::Budgets::Budget", stack)


@pytest.mark.parametrize(("stack", "environment"), [("Pushline-Foundation", "training"),
                                                    ("Pushline-Staging", "staging"),
                                                    ("Pushline-Production", "production")])  # fmt: skip
def test_every_environment_has_a_budget_of_what_carries_its_tag(assembly: Assembly, stack: str,
                                                                environment: str) -> None:  # fmt: skip
    budget = one_budget(assembly, stack)["Budget"]
    assert budget["BudgetLimit"] == {"Amount": getattr(load_settings().budgets, environment), "Unit": "USD"}
    assert (budget["BudgetType"], budget["TimeUnit"]) == ("COST", "MONTHLY")
    assert budget["CostFilters"] == {"TagKeyValue": [f"user:pushline:environment${environment}"]}


def test_people_are_told_before_and_when_a_budget_is_used_up(assembly: Assembly) -> None:
    for given in one_budget(assembly, "Pushline-Production")["NotificationsWithSubscribers"]:
        (subscriber,) = given["Subscribers"]
        assert subscriber["SubscriptionType"] == "SNS"
        assert "Notifications" in json.dumps(subscriber["Address"])
    kinds = {given["Notification"]["NotificationType"]: given["Notification"]["Threshold"]
             for given in one_budget(assembly, "Pushline-Production")["NotificationsWithSubscribers"]}  # fmt: skip
    assert kinds == {"ACTUAL": 80, "FORECASTED": 100}


def test_budgets_may_write_to_the_topic_and_use_its_key(assembly: Assembly) -> None:
    for stack in ("Pushline-Foundation", "Pushline-Staging", "Pushline-Production"):
        for kind in ("AWS::SNS::TopicPolicy", "AWS::KMS::Key"):
            assert "budgets.amazonaws.com" in json.dumps(assembly.resources(kind, stack)), (stack, kind)


def test_an_environment_may_have_no_budget(otherwise: dict[str, Assembly]) -> None:
    assert not otherwise["bounded"].resources("AWS::Budgets::Budget", "Pushline-Staging")
