"""The deployed guardrails, in the running rehearsal: what is forged past Verify is stopped, and by whom.

Each request differs in one thing from one that goes through, so that nothing else stops it.
"""

from __future__ import annotations

import copy
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from rehearsal import assembly as assemblies
from rehearsal.server import Running
from tests.conftest import Assembly
from tests.rehearsal.daemon import make_role, running
from tests.rehearsal.waiting import until
from tests.stacks.test_retrain_workflow import REQUEST

FOREIGN_KEY = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-0000-0000-000000000000"
TRAINING_STACK = "FlightDelay-Training"
Change = Callable[[dict[str, Any]], None]


def put(path: str, value: Any) -> Change:
    """Set one thing of a request; None takes it out."""

    def change(given: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            given = given[parent]
        if value is None:
            del given[last]
        else:
            given[last] = value

    return change


BEYOND_THE_LIMITS = {
    "another model": put("model", "bike_demand"), "another model's slug": put("slug", "bike-demand"),
    "larger workers": put("features.worker_type", "G.8X"), "too many workers": put("features.workers", 11),
    "features without end": put("features.timeout_minutes", 2880),
    "a large instance": put("training.instance_type", "ml.p3.16xlarge"),
    "too many instances": put("training.instance_count", 5), "a large volume": put("training.volume_gb", 16384),
    "training without end": put("training.max_runtime_seconds", 432000),
    "a large instance to evaluate": put("evaluation.instance_type", "ml.p3.16xlarge"),
    "evaluation without end": put("evaluation.max_runtime_seconds", 432000),
    "a limit left out": put("training.max_runtime_seconds", None),
}  # fmt: skip
"""Of the retraining input, given to the state machine directly."""
TRAINING = {
    "nothing": lambda given: None,
    "a large instance": put("ResourceConfig.InstanceType", "ml.p3.16xlarge"),
    "no end": put("StoppingCondition.MaxRuntimeInSeconds", 432000),
    "another key": put("ResourceConfig.VolumeKmsKeyId", FOREIGN_KEY),
    "no key": put("ResourceConfig.VolumeKmsKeyId", None),
    "an open container": put("EnableNetworkIsolation", False),
    "no VPC": put("VpcConfig", None),
    "another subnet": put("VpcConfig.Subnets", ["subnet-0123456789abcdef0"]),
    "another security group": put("VpcConfig.SecurityGroupIds", ["sg-0fedcba9876543210"]),
    "another role": put("RoleArn", "arn:aws:iam::000000000000:role/administrator"),
}  # fmt: skip
"""Of the call itself, made by the state machine's role."""
PROCESSING = {
    "nothing": lambda given: None,
    "a large instance": put("ProcessingResources.ClusterConfig.InstanceType", "ml.p3.16xlarge"),
    "no end": put("StoppingCondition.MaxRuntimeInSeconds", 432000),
    "another key": put("ProcessingResources.ClusterConfig.VolumeKmsKeyId", FOREIGN_KEY),
    "no key": put("ProcessingResources.ClusterConfig.VolumeKmsKeyId", None),
    "an open container": put("NetworkConfig.EnableNetworkIsolation", False),
    "no VPC": put("NetworkConfig.VpcConfig", None),
    "another subnet": put("NetworkConfig.VpcConfig.Subnets", ["subnet-0123456789abcdef0"]),
}  # fmt: skip


@dataclass
class Deployed:
    """The app in a running rehearsal, and the executions that the tests start in it."""

    cloud: Running

    def outputs(self, stack: str) -> dict[str, str]:
        (found,) = self.cloud.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def resource(self, stack: str, name: str) -> str:
        """The physical id of a stack's resource, by its logical id without the CDK's hash."""
        listed = self.cloud.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        return next(str(found["PhysicalResourceId"]) for found in listed
                    if re.fullmatch(f"{name}([0-9A-F]{{8}})?", found["LogicalResourceId"]))  # fmt: skip

    def machine(self, stack: str = TRAINING_STACK, name: str = "Retraining") -> dict[str, Any]:
        arn = self.resource(stack, name)
        if not arn.startswith("arn:"):
            arn = f"arn:aws:states:us-east-1:000000000000:stateMachine:{arn}"
        found: dict[str, Any] = self.cloud.client("stepfunctions").describe_state_machine(stateMachineArn=arn)
        return found

    def start(self, machine: str, request: dict[str, Any]) -> str:
        name = f"flight-delay-{uuid.uuid4()}"
        started = self.cloud.client("stepfunctions").start_execution(
            stateMachineArn=machine, name=name, input=json.dumps(request)
        )
        return str(started["executionArn"])

    def end(self, execution: str) -> dict[str, Any]:
        """The execution once it has ended."""
        states = self.cloud.client("stepfunctions")

        def look() -> Any:
            found = states.describe_execution(executionArn=execution)
            return None if found["status"] == "RUNNING" else found

        return dict(until(look, f"{execution} still runs"))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, assembly: Assembly) -> Iterator[Deployed]:
    with running(tmp_path_factory.mktemp("guardrails")) as cloud:
        assemblies.deploy(cloud, assembly.path, Console(quiet=True))
        yield Deployed(cloud)


@pytest.fixture(scope="module")
def refusals(deployed: Deployed) -> dict[str, dict[str, Any]]:
    """How the executions ended whose input is beyond the limits."""
    machine = deployed.machine()["stateMachineArn"]
    started = {}
    for name, change in BEYOND_THE_LIMITS.items():
        request = copy.deepcopy(REQUEST)
        change(request)
        started[name] = deployed.start(machine, request)
    return {name: deployed.end(execution) for name, execution in started.items()}


@pytest.mark.parametrize("forged", BEYOND_THE_LIMITS)
def test_the_state_machine_stops_an_input_that_verify_never_wrote(refusals: dict[str, Any], forged: str) -> None:
    ended = refusals[forged]
    assert ended["status"] == "FAILED"
    # A limit that is left out can't be compared, which ends the execution as well.
    assert ended["error"] in ("BeyondGuardrails", "States.QueryEvaluationError"), ended["error"]


def calls(deployed: Deployed, step: str, call: str, changes: dict[str, Change]) -> dict[str, dict[str, Any]]:
    """How the call of one step ends, made under the state machine's role without any of the states before it."""
    machine = deployed.machine()
    states = json.loads(machine["definition"])["States"]
    literal = {"ResourceConfig": {"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
               "ClusterConfig": {"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
               "StoppingCondition": {"MaxRuntimeInSeconds": 3600}}  # fmt: skip
    key = states["Evaluate"]["Arguments"]["ProcessingOutputConfig"]["KmsKeyId"]
    for resources in (literal["ResourceConfig"], literal["ClusterConfig"]):
        resources["VolumeKmsKeyId"] = key
    given = states[step]["Arguments"]
    if step == "Train":
        given |= {"ResourceConfig": literal["ResourceConfig"], "StoppingCondition": literal["StoppingCondition"],
                  "EnableManagedSpotTraining": False}  # fmt: skip
    else:
        given |= {"ProcessingResources": {"ClusterConfig": literal["ClusterConfig"]},
                  "StoppingCondition": literal["StoppingCondition"]}  # fmt: skip
    variables = {**states["HasReason"]["Assign"], "model_data": "s3://artifacts/training/flight-delay/none.tar.gz"}
    started = {}
    for name, change in changes.items():
        arguments = copy.deepcopy(given)
        change(arguments)
        started[name] = deployed.start(_one_step(deployed, machine, variables, call, arguments), REQUEST)
    return {name: deployed.end(execution) for name, execution in started.items()}


def _one_step(deployed: Deployed, machine: dict[str, Any], variables: dict[str, Any], call: str,
              arguments: dict[str, Any]) -> str:  # fmt: skip
    definition = {"QueryLanguage": "JSONata", "StartAt": "Remember", "States": {
        "Remember": {"Type": "Pass", "Assign": variables, "Next": "Call"},
        "Call": {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:sagemaker:{call}", "Arguments": arguments,
                 "End": True}}}  # fmt: skip
    made = deployed.cloud.client("stepfunctions").create_state_machine(
        name=f"forged-{uuid.uuid4()}", roleArn=machine["roleArn"], definition=json.dumps(definition)
    )
    return str(made["stateMachineArn"])


@pytest.fixture(scope="module")
def trainings(deployed: Deployed) -> dict[str, dict[str, Any]]:
    return calls(deployed, "Train", "createTrainingJob", TRAINING)


@pytest.fixture(scope="module")
def evaluations(deployed: Deployed) -> dict[str, dict[str, Any]]:
    return calls(deployed, "Evaluate", "createProcessingJob", PROCESSING)


@pytest.fixture(scope="module")
def watchings(deployed: Deployed) -> dict[str, dict[str, Any]]:
    """How the monitor's one job ends, created under the monitor's role without any of the states before it."""
    machine = deployed.machine("FlightDelay-Monitoring", "Monitor")
    states = json.loads(machine["definition"])["States"]
    live = {"model_data": "s3://artifacts/training/flight-delay/none.tar.gz", "created": "2026-01-01T00:00:00Z"}
    known = {"live": live, "trained": {"run": "flight-delay-1", "reference": "{}"}, "days": []}
    started = {}
    for name, change in PROCESSING.items():
        arguments = copy.deepcopy(states["Watch"]["Arguments"])
        change(arguments)
        step = _one_step(deployed, machine, {**states["FindLive"]["Assign"], **known}, "createProcessingJob", arguments)
        started[name] = deployed.start(step, {})
    return {name: deployed.end(execution) for name, execution in started.items()}


@pytest.mark.parametrize("forged", TRAINING)
def test_iam_stops_a_training_job_beyond_the_guardrails(trainings: dict[str, Any], forged: str) -> None:
    _stopped(trainings[forged], forged, "sagemaker:CreateTrainingJob")


@pytest.mark.parametrize("forged", PROCESSING)
def test_iam_stops_an_evaluation_beyond_the_guardrails(evaluations: dict[str, Any], forged: str) -> None:
    _stopped(evaluations[forged], forged, "sagemaker:CreateProcessingJob")


@pytest.mark.parametrize("forged", PROCESSING)
def test_iam_stops_the_monitors_job_beyond_the_guardrails(watchings: dict[str, Any], forged: str) -> None:
    _stopped(watchings[forged], forged, "sagemaker:CreateProcessingJob")


def _stopped(ended: dict[str, Any], forged: str, action: str) -> None:
    if forged == "nothing":
        assert ended["status"] == "SUCCEEDED", ended.get("cause")
        return
    assert ended["status"] == "FAILED"
    refused = "iam:PassRole" if forged == "another role" else action
    assert f"not authorized to perform: {refused}" in ended["cause"], ended["cause"]


MODELS = {
    "nothing": lambda given: None,
    "an open container": put("EnableNetworkIsolation", False),
    "no VPC": put("VpcConfig", None),
    "another subnet": put("VpcConfig.Subnets", ["subnet-0123456789abcdef0"]),
    "another role": put("ExecutionRoleArn", "arn:aws:iam::000000000000:role/administrator"),
}  # fmt: skip
ENDPOINT_CONFIGS = {
    "a large instance": put("InstanceType", "ml.p3.16xlarge"),
    "no key": put("KmsKeyId", None),
    "another key": put("KmsKeyId", FOREIGN_KEY),
}  # fmt: skip


@dataclass
class Release:
    """Staging's network, roles and key, and stacks that CloudFormation makes as the reconciler has it made."""

    deployed: Deployed

    def model(self) -> dict[str, Any]:
        network, release = "Pushline-Network-Staging", "FlightDelay-Release-Staging"
        bucket = self.deployed.resource("Pushline-Foundation", "Artifacts")
        key = "training/flight-delay/probe/model.tar.gz"
        self.deployed.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=b"")
        role = self.deployed.resource(release, "RolesServing")
        image = json.loads(self.deployed.machine()["definition"])["States"]["Train"]["Arguments"]
        container = {"Image": image["AlgorithmSpecification"]["TrainingImage"], "ModelDataUrl": f"s3://{bucket}/{key}"}
        subnets = [self.deployed.resource(network, f"Subnet{number}") for number in (1, 2)]
        return {
            "ModelName": f"FlightDelayStagingModel-{uuid.uuid4().hex[:8]}", "PrimaryContainer": container,
            "ExecutionRoleArn": f"arn:aws:iam::000000000000:role/{role}", "EnableNetworkIsolation": True,
            "VpcConfig": {"Subnets": subnets, "SecurityGroupIds": [self.deployed.resource(network, "Jobs")]},
        }  # fmt: skip

    def config(self) -> dict[str, Any]:
        key = self.deployed.resource("Pushline-Staging", "Key")
        return {"InstanceType": "ml.m6i.large", "KmsKeyId": f"arn:aws:kms:us-east-1:000000000000:key/{key}"}

    def make(self, resources: dict[str, Any]) -> str:
        """The reason why a stack with these resources fails as the release's CloudFormation role, or nothing."""
        stacks = self.deployed.cloud.client("cloudformation")
        role = self.deployed.resource("FlightDelay-Release-Staging", "RolesUpdate")
        name = f"Forged-{uuid.uuid4().hex[:8]}"
        stacks.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}), OnFailure="DO_NOTHING",
                            RoleARN=f"arn:aws:iam::000000000000:role/{role}")  # fmt: skip
        while (found := stacks.describe_stacks(StackName=name)["Stacks"][0])["StackStatus"].endswith("_IN_PROGRESS"):
            time.sleep(0.1)
        if found["StackStatus"] == "CREATE_COMPLETE":
            return ""
        events = stacks.describe_stack_events(StackName=name)["StackEvents"]
        failed = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
        return " ".join(event.get("ResourceStatusReason", "") for event in failed)


@pytest.mark.parametrize("forged", MODELS)
def test_iam_stops_a_model_beyond_the_guardrails(deployed: Deployed, forged: str) -> None:
    release = Release(deployed)
    model = release.model()
    MODELS[forged](model)
    reason = release.make({"Model": {"Type": "AWS::SageMaker::Model", "Properties": model}})
    refused = "iam:PassRole" if forged == "another role" else "sagemaker:CreateModel"
    assert (reason == "") if forged == "nothing" else f"not authorized to perform: {refused}" in reason, reason


@pytest.mark.parametrize("forged", ["nothing", *ENDPOINT_CONFIGS])
def test_iam_stops_instances_beyond_the_guardrails(deployed: Deployed, forged: str) -> None:
    release = Release(deployed)
    given = release.config()
    ENDPOINT_CONFIGS.get(forged, put("InstanceType", given["InstanceType"]))(given)
    name = {"Fn::GetAtt": ["Model", "ModelName"]}
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1, "InitialVariantWeight": 1,
               "InstanceType": given.pop("InstanceType")}  # fmt: skip
    config = {"EndpointConfigName": f"FlightDelayStagingEndpointConfig-{uuid.uuid4().hex[:8]}",
              "ProductionVariants": [variant], **given}  # fmt: skip
    reason = release.make({"Model": {"Type": "AWS::SageMaker::Model", "Properties": release.model()},
                           "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": config}})  # fmt: skip
    expected = "not authorized to perform: sagemaker:CreateEndpointConfig"
    assert (reason == "") if forged == "nothing" else expected in reason, reason


# -- the network, as AWS checks it --------------------------------------------------------------------


def train_in(deployed: Deployed, **vpc: list[str]) -> None:
    """Ask for a training job in a network, as an administrator, under the role of the training jobs."""
    arguments = json.loads(deployed.machine()["definition"])["States"]["Train"]["Arguments"]
    deployed.cloud.client("sagemaker").create_training_job(
        TrainingJobName=f"flight-delay-{uuid.uuid4()}", RoleArn=arguments["RoleArn"], VpcConfig=vpc,
        HyperParameters={"sagemaker_program": "train.py", "sagemaker_submit_directory": "s3://none/sourcedir.tar.gz"},
        AlgorithmSpecification={"TrainingImage": arguments["AlgorithmSpecification"]["TrainingImage"],
                                "TrainingInputMode": "File"},
        OutputDataConfig=arguments["OutputDataConfig"], StoppingCondition={"MaxRuntimeInSeconds": 60},
        ResourceConfig={"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 1})  # fmt: skip


INSTANCES = [("MaximumInstances", 9), ("MinimumInstances", 9), ("MinimumInstances", 0), ("InstanceType", "p3.16xlarge")]
"""Parameters of the serving stack beyond the guardrails: no IAM key knows how many instances an endpoint has."""


@pytest.mark.parametrize(("parameter", "forged"), INSTANCES)
def test_the_serving_stack_takes_no_more_instances_than_the_guardrails(
    deployed: Deployed, parameter: str, forged: Any
) -> None:
    stack, stacks = "FlightDelay-Serving-Production", deployed.cloud.client("cloudformation")
    role = deployed.resource("FlightDelay-Release-Production", "RolesUpdate")
    before = stacks.describe_stacks(StackName=stack)["Stacks"][0]["Parameters"]
    kept = [{"ParameterKey": found["ParameterKey"], "UsePreviousValue": True} for found in before
            if found["ParameterKey"] != parameter]  # fmt: skip
    with pytest.raises(ClientError, match=parameter):
        stacks.update_stack(StackName=stack, UsePreviousTemplate=True, RoleARN=f"arn:aws:iam::000000000000:role/{role}",
                            Parameters=[*kept, {"ParameterKey": parameter, "ParameterValue": str(forged)}])  # fmt: skip
    assert stacks.describe_stacks(StackName=stack)["Stacks"][0]["Parameters"] == before


def test_a_job_in_a_network_that_is_not_there_is_refused(deployed: Deployed) -> None:
    network = "Pushline-Network-Training"
    subnet, group = deployed.resource(network, "Subnet1"), deployed.resource(network, "Jobs")
    with pytest.raises(ClientError, match="The subnet ID 'subnet-0123456789abcdef0' does not exist"):
        train_in(deployed, Subnets=["subnet-0123456789abcdef0"], SecurityGroupIds=[group])
    with pytest.raises(ClientError, match="sg-0fedcba9876543210' does not exist"):
        train_in(deployed, Subnets=[subnet], SecurityGroupIds=["sg-0fedcba9876543210"])
    with pytest.raises(ClientError, match="of different VPCs"):
        train_in(deployed, Subnets=[deployed.resource("Pushline-Network-Staging", "Subnet1")], SecurityGroupIds=[group])


def test_a_role_that_may_not_join_a_network_is_refused(deployed: Deployed) -> None:
    network = "Pushline-Network-Staging"
    with pytest.raises(ClientError, match="not authorized to perform: ec2:CreateNetworkInterface on resource"):
        train_in(deployed, Subnets=[deployed.resource(network, "Subnet1")],
                 SecurityGroupIds=[deployed.resource(network, "Jobs")])  # fmt: skip


def features_in(deployed: Deployed, subnet: str, group: str) -> str:
    """The error message of a feature job whose connection names these."""
    name, glue = f"probe-{uuid.uuid4().hex[:8]}", deployed.cloud.client("glue")
    role = make_role(deployed.cloud, name, "glue.amazonaws.com", {"Action": ["ec2:*", "glue:*"], "Resource": "*"})
    glue.create_connection(ConnectionInput={
        "Name": name, "ConnectionType": "NETWORK", "ConnectionProperties": {},
        "PhysicalConnectionRequirements": {"SubnetId": subnet, "SecurityGroupIdList": [group]}})  # fmt: skip
    glue.create_job(Name=name, Role=role, GlueVersion="5.1", WorkerType="G.1X", NumberOfWorkers=2,
                    Command={"Name": "glueetl", "PythonVersion": "3", "ScriptLocation": "s3://none/none.py"},
                    Connections={"Connections": [name]})  # fmt: skip
    run = glue.start_job_run(JobName=name)["JobRunId"]
    while (found := glue.get_job_run(JobName=name, RunId=run)["JobRun"])["JobRunState"] in ("STARTING", "RUNNING"):
        time.sleep(0.1)
    return str(found["ErrorMessage"])


def test_glue_wants_a_way_to_s3_and_workers_that_reach_each_other(deployed: Deployed) -> None:
    ec2 = deployed.cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="workers", Description="workers")["GroupId"]
    assert "must open all ingress ports" in features_in(deployed, subnet, group)
    itself = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[itself])
    assert "Could not find S3 endpoint or NAT gateway" in features_in(deployed, subnet, group)
    (routes,) = [found["RouteTableId"] for found in ec2.describe_route_tables()["RouteTables"] if found["VpcId"] == vpc]
    ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[routes])
    assert "NoSuchBucket" in features_in(deployed, subnet, group), "it got as far as fetching its script"


def test_flow_logs_and_rules_of_the_network_go_with_their_stack(deployed: Deployed, tmp_path: Path) -> None:
    ec2, stacks = deployed.cloud.client("ec2"), deployed.cloud.client("cloudformation")
    vpc = ec2.create_vpc(CidrBlock="10.2.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="lone", Description="lone")["GroupId"]
    rule = {"GroupId": group, "IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "SourceSecurityGroupId": group}
    flows = {"ResourceId": vpc, "ResourceType": "VPC", "TrafficType": "ALL", "LogGroupName": "flows",
             "Tags": [{"Key": "a", "Value": "b"}]}  # fmt: skip
    template = {"Resources": {"Rule": {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": rule},
                              "Flows": {"Type": "AWS::EC2::FlowLog", "Properties": flows}}}  # fmt: skip
    stacks.create_stack(StackName="flows", TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(StackName="flows", WaiterConfig={"Delay": 1})
    (made,) = [found for found in ec2.describe_flow_logs()["FlowLogs"] if found["ResourceId"] == vpc]
    assert made["Tags"] == [{"Key": "a", "Value": "b"}]
    assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    stacks.delete_stack(StackName="flows")
    stacks.get_waiter("stack_delete_complete").wait(StackName="flows", WaiterConfig={"Delay": 1})
    assert not [found for found in ec2.describe_flow_logs()["FlowLogs"] if found["ResourceId"] == vpc]
    assert not ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]


def test_a_budget_is_made_changed_and_deleted_with_its_stack(deployed: Deployed) -> None:
    budgets, stacks = deployed.cloud.client("budgets"), deployed.cloud.client("cloudformation")

    def template(amount: int, percent: int, **tags: str) -> str:
        told = {"Notification": {"NotificationType": "ACTUAL", "ComparisonOperator": "GREATER_THAN",
                                 "Threshold": percent},
                "Subscribers": [{"SubscriptionType": "EMAIL", "Address": "team@example.com"}]}  # fmt: skip
        data = {"BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": {"Amount": amount, "Unit": "USD"}}
        properties = {"Budget": data, "NotificationsWithSubscribers": [told],
                      "ResourceTags": [{"Key": key, "Value": value} for key, value in tags.items()]}  # fmt: skip
        return json.dumps({"Resources": {"B": {"Type": "AWS::Budgets::Budget", "Properties": properties}}})

    def made() -> dict[str, str]:
        found = budgets.describe_budgets(AccountId="000000000000")["Budgets"]
        return {found["BudgetName"]: found["BudgetLimit"]["Amount"] for found in found
                if found["BudgetName"].startswith("spending")}  # fmt: skip

    def tags(name: str) -> dict[str, str]:
        found = budgets.list_tags_for_resource(ResourceARN=f"arn:aws:budgets::000000000000:budget/{name}")
        return {tag["Key"]: tag["Value"] for tag in found["ResourceTags"]}

    stacks.create_stack(StackName="spending", TemplateBody=template(10, 80, team="us", old="1"))
    stacks.get_waiter("stack_create_complete").wait(StackName="spending", WaiterConfig={"Delay": 1})
    (name,) = made()
    assert tags(name) == {"team": "us", "old": "1"}
    stacks.update_stack(StackName="spending", TemplateBody=template(20, 80, team="them"))
    stacks.get_waiter("stack_update_complete").wait(StackName="spending", WaiterConfig={"Delay": 1})
    assert made() == {name: "20"}
    assert tags(name) == {"team": "them"}
    stacks.update_stack(StackName="spending", TemplateBody=template(20, 90))
    stacks.get_waiter("stack_update_complete").wait(StackName="spending", WaiterConfig={"Delay": 1})
    assert [*made().values()] == ["20"]
    assert name not in made(), "other thresholds are another budget"
    stacks.delete_stack(StackName="spending")
    stacks.get_waiter("stack_delete_complete").wait(StackName="spending", WaiterConfig={"Delay": 1})
    assert made() == {}
