"""Alarms and dashboards of a template are made, tagged and deleted as the stack's role only."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rehearsal import audit
from rehearsal.server import Running
from tests.rehearsal.daemon import make_role, running
from tests.rehearsal.waiting import until

ACCOUNT = "000000000000"
CREATING = ["cloudwatch:PutMetricAlarm", "cloudwatch:DescribeAlarms", "cloudwatch:PutDashboard",
            "cloudwatch:GetDashboard", "cloudwatch:TagResource", "cloudwatch:ListTagsForResource"]  # fmt: skip
DELETING = ["cloudwatch:DeleteAlarms", "cloudwatch:DeleteDashboards"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("stack-roles")) as at:
        yield at


def template(name: str, **tags: str) -> str:
    given = {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]} if tags else {}
    alarm = {"AlarmName": name, "Namespace": "N", "MetricName": "M", "Threshold": 1, "Period": 60,
             "EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanThreshold", "Statistic": "Sum"}  # fmt: skip
    return json.dumps({"Resources": {
        "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {**alarm, **given}},
        "Page": {"Type": "AWS::CloudWatch::Dashboard",
                 "Properties": {"DashboardName": name, "DashboardBody": '{"widgets": []}', **given}},
    }})  # fmt: skip


def role(cloud: Running, name: str, actions: list[str]) -> str:
    return make_role(cloud, name, "cloudformation.amazonaws.com", {"Action": actions, "Resource": "*"})


def finished(cloud: Running, name: str, doing: str) -> tuple[str, str]:
    """(status, why resources failed) once the operation is over."""
    stacks = cloud.client("cloudformation")
    stack = until(lambda: next((s for s in stacks.describe_stacks(StackName=name)["Stacks"]
                                if not s["StackStatus"].endswith("_IN_PROGRESS")), None))  # fmt: skip
    events = stacks.describe_stack_events(StackName=name)["StackEvents"]
    failed = [e.get("ResourceStatusReason", "") for e in events if e["ResourceStatus"] == f"{doing}_FAILED"]
    return stack["StackStatus"], " ".join(failed)


def test_a_role_with_every_grant_makes_tags_changes_and_deletes_them(cloud: Running) -> None:
    stacks, watch = cloud.client("cloudformation"), cloud.client("cloudwatch")
    may = role(cloud, "may-all", [*CREATING, *DELETING, "cloudwatch:UntagResource"])
    stacks.create_stack(StackName="all", TemplateBody=template("all", team="us", old="1"), RoleARN=may)
    assert finished(cloud, "all", "CREATE") == ("CREATE_COMPLETE", "")
    stacks.update_stack(StackName="all", TemplateBody=template("all", team="them"), RoleARN=may)
    assert finished(cloud, "all", "UPDATE") == ("UPDATE_COMPLETE", "")
    alarm = f"arn:aws:cloudwatch:us-east-1:{ACCOUNT}:alarm:all"
    page = f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/all"
    tags = watch.list_tags_for_resource(ResourceARN=alarm)["Tags"]
    assert [tag for tag in tags if not tag["Key"].startswith("aws:")] == [{"Key": "team", "Value": "them"}]
    stacks.delete_stack(StackName="all")
    stacks.get_waiter("stack_delete_complete").wait(StackName="all", WaiterConfig={"Delay": 1})
    assert watch.list_dashboards(DashboardNamePrefix="all")["DashboardEntries"] == []
    asked = [(entry["action"], entry["resource"]) for entry in audit.read(cloud.state_dir) if entry.get("role") == may]
    wanted = {"cloudwatch:TagResource", "cloudwatch:UntagResource"}
    for made, kind in ((alarm, {"PutMetricAlarm", "DeleteAlarms"}), (page, {"PutDashboard", "DeleteDashboards"})):
        assert {action for action, resource in asked if resource == made} >= wanted | {f"cloudwatch:{a}" for a in kind}


@pytest.mark.parametrize("lacking", CREATING)
def test_without_a_grant_the_stack_is_not_made(cloud: Running, lacking: str) -> None:
    name = lacking.replace(":", "-")
    may = role(cloud, name, [action for action in [*CREATING, *DELETING] if action != lacking])
    cloud.client("cloudformation").create_stack(StackName=name, TemplateBody=template(name, team="us"), RoleARN=may,
                                                OnFailure="DO_NOTHING")  # fmt: skip
    status, why = finished(cloud, name, "CREATE")
    assert (status, f"is not authorized to perform: {lacking}" in why) == ("CREATE_FAILED", True)


@pytest.mark.parametrize("lacking", DELETING)
def test_without_a_grant_nothing_is_deleted(cloud: Running, lacking: str) -> None:
    name, stacks = lacking.replace(":", "-"), cloud.client("cloudformation")
    may = role(cloud, name, [action for action in [*CREATING, *DELETING] if action != lacking])
    stacks.create_stack(StackName=name, TemplateBody=template(name), RoleARN=may)
    assert finished(cloud, name, "CREATE")[0] == "CREATE_COMPLETE"
    stacks.delete_stack(StackName=name)
    assert finished(cloud, name, "DELETE")[0] == "DELETE_FAILED"


@pytest.mark.parametrize("key", ["aws:SourceAccount", "aws:SourceArn"])
def test_a_role_that_wants_to_know_for_whom_is_no_role_for_stacks(cloud: Running, key: str) -> None:
    name = key.replace(":", "-")
    may = role(cloud, name, CREATING)
    trust = cloud.client("iam").get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    trust["Statement"][0]["Condition"] = {"StringLike": {key: "*"}}
    cloud.client("iam").update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
    cloud.client("cloudformation").create_stack(StackName=name, TemplateBody=template(name), RoleARN=may,
                                                OnFailure="DO_NOTHING")  # fmt: skip
    status, why = finished(cloud, name, "CREATE")
    assert (status, "its trust policy does not allow it" in why) == ("CREATE_FAILED", True)
