"""The network that the templates make: what is in it, who may put what into it, and how it is switched off."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stacks.deployment import deployments
from tests.conftest import EXISTING, Assembly
from tests.stacks import policies
from tests.stacks.test_data_protection import everything, properties

TRAINING = "Pushline-Network-Training"
NETWORKS = (TRAINING, "Pushline-Network-Staging", "Pushline-Network-Production")
WAYS_OUT = ("AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::VPCGatewayAttachment",
            "AWS::EC2::EgressOnlyInternetGateway", "AWS::EC2::EIP", "AWS::EC2::TransitGatewayAttachment",
            "AWS::EC2::VPCPeeringConnection")  # fmt: skip


def rules(group: dict[str, Any], direction: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = properties(group).get(f"SecurityGroup{direction}", [])
    return listed


def test_there_is_no_way_out_and_no_way_in(assembly: Assembly) -> None:
    for kind in WAYS_OUT:
        assert not list(everything(assembly, kind)), kind
    for name, subnet in everything(assembly, "AWS::EC2::Subnet"):
        assert properties(subnet)["MapPublicIpOnLaunch"] is False, name
    for name, group in everything(assembly, "AWS::EC2::SecurityGroup"):
        assert all("SourceSecurityGroupId" in rule for rule in rules(group, "Ingress")), name
        assert rules(group, "Egress"), f"{name}: without a rule everything goes out"
    for _, rule in everything(assembly, "AWS::EC2::SecurityGroupIngress"):
        assert properties(rule)["SourceSecurityGroupId"] == properties(rule)["GroupId"], "only itself"


@pytest.mark.parametrize("stack", NETWORKS)
def test_a_network_has_two_isolated_subnets_and_logs_its_flows(assembly: Assembly, stack: str) -> None:
    zones = [properties(found)["AvailabilityZone"] for found in assembly.resources("AWS::EC2::Subnet", stack).values()]
    assert [zone["Fn::Select"][0] for zone in zones] == [0, 1]
    assert all(zone["Fn::Select"][1] == {"Fn::GetAZs": ""} for zone in zones), "no look-up at synth"
    flows = assembly.one("AWS::EC2::FlowLog", stack)
    assert flows["TrafficType"] == "ALL"
    assert flows["ResourceId"] == {"Ref": "Vpc"}


def services(assembly: Assembly, stack: str, kind: str) -> set[str]:
    found = [properties(endpoint) for endpoint in assembly.resources("AWS::EC2::VPCEndpoint", stack).values()]
    return {json.dumps(endpoint["ServiceName"]).rpartition(".")[2].rstrip('"]}') for endpoint in found
            if endpoint["VpcEndpointType"] == kind}  # fmt: skip


def test_the_endpoints_are_those_of_the_services_used(assembly: Assembly) -> None:
    for stack in NETWORKS:
        assert services(assembly, stack, "Gateway") == {"s3"}
        # SageMaker's isolated jobs and endpoints need nothing else, so serving costs nothing while idle.
        called = {"glue", "kms", "logs", "monitoring", "sts"} if stack == TRAINING else set()
        assert services(assembly, stack, "Interface") == called


def test_every_endpoint_lets_this_account_through_and_nobody_else(assembly: Assembly) -> None:
    for name, endpoint in everything(assembly, "AWS::EC2::VPCEndpoint"):
        (statement,) = properties(endpoint)["PolicyDocument"]["Statement"]
        condition = statement["Condition"]
        assert condition["StringEquals"] == {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}, name
        assert condition["StringEqualsIfExists"]["aws:ResourceAccount"] in (
            {"Ref": "AWS::AccountId"}, [{"Ref": "AWS::AccountId"}]), name  # fmt: skip


def test_feature_jobs_run_in_the_network_where_their_workers_reach_each_other(assembly: Assembly) -> None:
    connection = assembly.one("AWS::Glue::Connection", "FlightDelay-Training")["ConnectionInput"]
    assert connection["ConnectionType"] == "NETWORK"
    assert "Subnet1" in json.dumps(connection["PhysicalConnectionRequirements"]["SubnetId"])
    assert connection["PhysicalConnectionRequirements"]["AvailabilityZone"]
    assert assembly.one("AWS::Glue::Job", "FlightDelay-Training")["Connections"]["Connections"]
    (rule,) = assembly.resources("AWS::EC2::SecurityGroupIngress", TRAINING).values()
    assert (properties(rule)["FromPort"], properties(rule)["ToPort"]) == (0, 65535)


@pytest.mark.parametrize("environment", ["Staging", "Production"])
def test_models_are_hosted_in_the_environments_own_network(assembly: Assembly, environment: str) -> None:
    config = assembly.one("AWS::SageMaker::Model", f"FlightDelay-Serving-{environment}")["VpcConfig"]
    assert len(config["Subnets"]) == 2
    assert all(f"Pushline-Network-{environment}" in json.dumps(value) for value in config["Subnets"])
    assert f"Pushline-Network-{environment}" in json.dumps(config["SecurityGroupIds"])


@pytest.mark.parametrize(("role", "stack", "action"), [
    ("RetrainRole", "FlightDelay-Training", "sagemaker:CreateTrainingJob"),
    ("RetrainRole", "FlightDelay-Training", "sagemaker:CreateProcessingJob"),
    ("MonitorRole", "FlightDelay-Monitoring", "sagemaker:CreateProcessingJob"),
    ("RolesUpdate", "FlightDelay-Release-Staging", "sagemaker:CreateModel"),
    ("RolesUpdate", "FlightDelay-Release-Production", "sagemaker:CreateModel"),
])  # fmt: skip
def test_jobs_and_models_are_created_in_the_network_only(assembly: Assembly, role: str, stack: str,
                                                         action: str) -> None:  # fmt: skip
    # What is watched is production's, the job that watches is training's.
    network = TRAINING if "Monitoring" in stack else f"Pushline-Network-{stack.rpartition('-')[2]}"
    (statement,) = [found for found in policies.of(assembly, role, stack) if action in found.actions]
    for key in ("sagemaker:VpcSubnets", "sagemaker:VpcSecurityGroupIds"):
        assert network in json.dumps(statement.conditions["ForAllValues:StringEquals"][key])
        assert statement.conditions["Null"][key] == "false", "ForAllValues alone also holds for none"


@pytest.mark.parametrize(("role", "stack"), [("JobsFeatures", "FlightDelay-Training"),
                                             ("JobsTraining", "FlightDelay-Training"),
                                             ("JobsEvaluation", "FlightDelay-Training"),
                                             ("JobRole", "FlightDelay-Monitoring")])  # fmt: skip
def test_a_job_puts_interfaces_into_its_own_subnets_only(assembly: Assembly, role: str, stack: str) -> None:
    granted = policies.of(assembly, role, stack)
    (statement,) = [found for found in granted if "ec2:CreateNetworkInterface" in found.actions]
    subnets = [resource for resource in statement.resources if ":subnet/" in resource]
    assert len(subnets) == 2
    assert all(TRAINING in resource for resource in subnets)


def test_serverless_endpoints_are_in_no_network(assembly: Assembly) -> None:
    from config import load_settings
    from contract import load_models
    from tests.conftest import ROOT

    model = load_models(ROOT, load_settings().guardrails)[0]
    serving = model.serving.model_copy(update={"endpoint": "serverless"})
    assert not any(found.in_a_network for found in deployments(model.model_copy(update={"serving": serving})))
    assert all(found.in_a_network for found in deployments(model))


def test_an_existing_vpc_is_used_by_its_ids_and_none_is_made(otherwise: dict[str, Assembly]) -> None:
    assembly = otherwise["bounded"]
    assert not [stack for stack in assembly.templates if "Network" in stack]
    machine = assembly.one("AWS::StepFunctions::StateMachine", "FlightDelay-Training")["DefinitionSubstitutions"]
    assert machine["Subnets"] == EXISTING["subnets"][0]
    assert machine["SecurityGroups"] == '","'.join(EXISTING["security_groups"])
    physical = assembly.one("AWS::Glue::Connection", "FlightDelay-Training")["ConnectionInput"]
    assert physical["PhysicalConnectionRequirements"] == {
        "SubnetId": EXISTING["subnets"][0], "SecurityGroupIdList": EXISTING["security_groups"],
        "AvailabilityZone": {"Ref": "FeaturesZone"}}  # fmt: skip
    zone = assembly.templates["FlightDelay-Training"]["Parameters"]["FeaturesZone"]
    assert (zone["Type"], zone["Default"]) == ("AWS::EC2::AvailabilityZone::Name", EXISTING["availability_zone"])


def test_without_a_vpc_models_are_still_isolated(otherwise: dict[str, Assembly]) -> None:
    assembly = otherwise["bounded"]
    for stack in ("FlightDelay-Serving-Staging", "FlightDelay-Serving-Production"):
        model = assembly.one("AWS::SageMaker::Model", stack)
        assert "VpcConfig" not in model
        assert model["EnableNetworkIsolation"] is True
    granted = policies.of(assembly, "RolesServing", "FlightDelay-Release-Production")
    assert not [found for found in granted for action in found.actions if action.startswith("ec2:")]
