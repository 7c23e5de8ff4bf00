"""A push through CodeCommit, CodePipeline and CodeBuild of the running rehearsal, with IAM on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rehearsal import audit
from rehearsal.codecommit import git_url
from rehearsal.server import Running
from tests.rehearsal.daemon import make_role, open_queue
from tests.rehearsal.test_codebuild import ENVIRONMENT
from tests.rehearsal.test_codecommit import commit, git
from tests.rehearsal.test_codepipeline import BUILDSPEC, declaration
from tests.rehearsal.waiting import until

ACCOUNT = "000000000000"
STORE = ["arn:aws:s3:::artifacts/p/*"]
USE_KEY = ["kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt", "kms:DescribeKey", "kms:ReEncrypt*"]


def allow(resource: str | list[str], *actions: str) -> dict[str, Any]:
    return {"Action": list(actions), "Resource": resource}


def action_role(cloud: Running, name: str, *statements: dict[str, Any]) -> str:
    """A role that only the pipeline's role may assume."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/pipeline"},
            }
        ],
    }
    iam = cloud.client("iam")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **s} for s in statements]}
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(policy))
    return str(arn)


def prepared(cloud: Running, folder: Path) -> dict[str, Any]:
    """A pushed repository, a project and a pipeline's declaration, with one role for each that acts."""
    cloud.client("codecommit").create_repository(repositoryName="pushline")
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", git_url(cloud.state_dir, cloud.endpoint, "pushline"))
    commit(folder, "first", buildspec_dot_yml=BUILDSPEC)
    git(folder, "push", "-q", "origin", "main")
    cloud.client("s3").create_bucket(Bucket="artifacts")
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    logs = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/codebuild/verify*"
    build = make_role(
        cloud,
        "build",
        "codebuild.amazonaws.com",
        allow(STORE, "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"),
        allow(key, *USE_KEY),
        allow(logs, "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
    )
    cloud.client("codebuild").create_project(
        name="verify",
        source={"type": "CODEPIPELINE"},
        artifacts={"type": "CODEPIPELINE"},
        serviceRole=build,
        environment={**ENVIRONMENT, "environmentVariables": [{"name": "GATE", "value": "/nowhere/gate"}]},
    )
    states = make_role(cloud, "states", "states.amazonaws.com")
    machine = cloud.client("stepfunctions").create_state_machine(
        name="retrain",
        roleArn=states,
        definition=json.dumps({"StartAt": "Only", "States": {"Only": {"Type": "Pass", "End": True}}}),
    )
    return with_roles(cloud, declaration("p", retrain=machine["stateMachineArn"]), key)


def with_roles(cloud: Running, pipeline: dict[str, Any], key: str) -> dict[str, Any]:
    def place(service: str, rest: str) -> str:
        return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{rest}"

    roles = {
        "Source": action_role(
            cloud,
            "source",
            allow(STORE, "s3:PutObject"),
            allow(key, *USE_KEY),
            allow(
                place("codecommit", "pushline"),
                "codecommit:GetBranch",
                "codecommit:GetCommit",
                "codecommit:UploadArchive",
                "codecommit:GetUploadArchiveStatus",
                "codecommit:CancelUploadArchive",
            ),
        ),
        "Verify": action_role(
            cloud,
            "verify",
            allow(place("codebuild", "project/verify"), "codebuild:StartBuild", "codebuild:BatchGetBuilds"),
        ),
        "Retrain": action_role(
            cloud,
            "retrain",
            allow(STORE, "s3:GetObject"),
            allow(key, *USE_KEY),
            allow(place("states", "stateMachine:retrain"), "states:StartExecution", "states:DescribeStateMachine"),
            allow(place("states", "execution:retrain:*"), "states:DescribeExecution"),
        ),
    }
    pipeline["roleArn"] = make_role(
        cloud, "pipeline", "codepipeline.amazonaws.com", allow(list(roles.values()), "sts:AssumeRole")
    )
    pipeline["artifactStore"]["encryptionKey"] = {"id": key, "type": "KMS"}
    for stage in pipeline["stages"]:
        stage["actions"][0]["roleArn"] = roles[stage["name"]]
    return pipeline


def outcome(cloud: Running) -> tuple[str, dict[str, Any]]:
    """The status of the newest execution once it is over, and the errors of its actions by name."""
    client = cloud.client("codepipeline")

    def look() -> Any:
        newest = client.list_pipeline_executions(pipelineName="p")["pipelineExecutionSummaries"][0]
        return None if newest["status"] == "InProgress" else newest

    newest = until(look, "the pipeline still runs")
    rows = client.list_action_executions(
        pipelineName="p", filter={"pipelineExecutionId": newest["pipelineExecutionId"]}
    )["actionExecutionDetails"]
    return newest["status"], {row["actionName"]: row["output"]["executionResult"].get("errorDetails") for row in rows}


def test_each_action_works_with_exactly_the_permissions_of_its_role(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    cloud = start()
    pipeline = prepared(cloud, tmp_path / "work")
    cloud.client("codepipeline").create_pipeline(pipeline=pipeline)
    status, errors = outcome(cloud)
    assert [error for error in errors.values() if error] == []
    assert (status, set(errors)) == ("Succeeded", {"Source", "Verify", "Retrain"})
    logged = cloud.client("logs").filter_log_events(logGroupName="/aws/codebuild/verify")["events"]
    assert any("Entering phase BUILD" in event["message"] for event in logged)
    by_role = [line for line in audit.read(cloud.state_dir)
               if line["action"] == "sts:AssumeRole" and line["principal"].endswith(":role/pipeline")]  # fmt: skip
    assert by_role
    assert all(line["statement"]["Principal"] == {"AWS": line["principal"]} for line in by_role)


@pytest.mark.parametrize(
    ("role", "action", "named"),
    [
        ("source", "Source", "codecommit:GetBranch"),
        ("verify", "Verify", "codebuild:StartBuild"),
        ("pipeline", "Source", "sts:AssumeRole"),
    ],
)
def test_a_role_without_its_policy_fails_its_action_by_name(
    start: Callable[..., Running], tmp_path: Path, role: str, action: str, named: str
) -> None:
    cloud = start()
    pipeline = prepared(cloud, tmp_path / "work")
    cloud.client("iam").delete_role_policy(RoleName=role, PolicyName="inline")
    cloud.client("codepipeline").create_pipeline(pipeline=pipeline)
    status, errors = outcome(cloud)
    assert status == "Failed"
    assert errors[action]["code"] == "PermissionError"
    assert named in errors[action]["message"]


def test_a_push_reaches_a_rule(start: Callable[..., Running], tmp_path: Path) -> None:
    cloud = start()
    queue = open_queue(cloud, "pushes")
    cloud.client("events").put_rule(
        Name="push", EventPattern=json.dumps({"source": ["aws.codecommit"], "detail": {"referenceName": ["main"]}})
    )
    cloud.client("events").put_targets(
        Rule="push", Targets=[{"Id": "queue", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:pushes"}]
    )
    prepared(cloud, tmp_path / "work")
    sqs = cloud.client("sqs")
    [message] = until(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages"), "no event came")
    assert json.loads(message["Body"])["detail"]["event"] == "referenceCreated"


def test_cloudformation_makes_changes_and_removes_them(start: Callable[..., Running]) -> None:
    cloud = start()
    role = make_role(cloud, "any", "codepipeline.amazonaws.com")
    stacks, kind = cloud.client("cloudformation"), {"Owner": "AWS", "Version": "1"}

    def template(branch: str) -> str:
        source = {
            "Name": "Source",
            "ActionTypeId": {**kind, "Category": "Source", "Provider": "CodeCommit"},
            "Configuration": {
                "RepositoryName": {"Fn::GetAtt": ["Repository", "Name"]},
                "BranchName": branch,
                "PollForSourceChanges": False,
            },
            "OutputArtifacts": [{"Name": "Source"}],
        }
        build = {
            "Name": "Build",
            "ActionTypeId": {**kind, "Category": "Build", "Provider": "CodeBuild"},
            "Configuration": {"ProjectName": {"Ref": "Project"}},
            "InputArtifacts": [{"Name": "Source"}],
            "RunOrder": 1,
        }
        return json.dumps(
            {
                "Resources": {
                    "Repository": {"Type": "AWS::CodeCommit::Repository", "Properties": {"RepositoryName": "formed"}},
                    "Project": {
                        "Type": "AWS::CodeBuild::Project",
                        "Properties": {
                            "ServiceRole": role,
                            "Artifacts": {"Type": "CODEPIPELINE"},
                            "TimeoutInMinutes": 30,
                            "Source": {"Type": "CODEPIPELINE", "BuildSpec": "buildspec.yml"},
                            "Environment": {
                                "Type": "LINUX_CONTAINER",
                                "ComputeType": "BUILD_GENERAL1_SMALL",
                                "Image": ENVIRONMENT["image"],
                                "PrivilegedMode": False,
                                "EnvironmentVariables": [{"Name": "A", "Value": "b", "Type": "PLAINTEXT"}],
                            },
                        },
                    },
                    "Pipeline": {
                        "Type": "AWS::CodePipeline::Pipeline",
                        "Properties": {
                            "Name": "formed",
                            "RoleArn": role,
                            "PipelineType": "V2",
                            "RestartExecutionOnUpdate": False,
                            "ArtifactStore": {"Type": "S3", "Location": "artifacts"},
                            "Stages": [{"Name": "Source", "Actions": [source]}, {"Name": "Build", "Actions": [build]}],
                        },
                    },
                },
                "Outputs": {
                    "Version": {"Value": {"Fn::GetAtt": ["Pipeline", "Version"]}},
                    "Project": {"Value": {"Ref": "Project"}},
                },
            }
        )

    def outputs() -> dict[str, str]:
        return {o["OutputKey"]: o["OutputValue"] for o in stacks.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]}

    stacks.create_stack(StackName="s", TemplateBody=template("main"))
    stacks.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    [project] = cloud.client("codebuild").batch_get_projects(names=[outputs()["Project"]])["projects"]
    assert project["source"]["buildspec"] == "buildspec.yml"
    stacks.update_stack(StackName="s", TemplateBody=template("other"))
    stacks.get_waiter("stack_update_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    assert outputs()["Version"] == "2"
    changed = cloud.client("codepipeline").get_pipeline(name="formed")["pipeline"]
    assert changed["stages"][0]["actions"][0]["configuration"]["BranchName"] == "other"
    stacks.delete_stack(StackName="s")
    stacks.get_waiter("stack_delete_complete").wait(StackName="s", WaiterConfig={"Delay": 1})
    assert cloud.client("codepipeline").list_pipelines()["pipelines"] == []
    assert cloud.client("codecommit").list_repositories()["repositories"] == []
