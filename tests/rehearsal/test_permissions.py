"""What the embedded AWS checks beyond an action on a resource: roles that are passed, keys of encrypted data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.server import Running
from tests.rehearsal.daemon import make_role

ACCOUNT = "000000000000"
PARAMETER = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "v"}}
TEMPLATE = json.dumps({"Resources": {"P": PARAMETER}})


@pytest.fixture(scope="module")
def cloud(shared_cloud: Running) -> Running:
    return shared_cloud


def as_role(cloud: Running, name: str, service: str, *statements: dict[str, Any]) -> Any:
    role = make_role(cloud, name, "lambda.amazonaws.com", *statements)
    session = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    return cloud.client(
        service,
        aws_access_key_id=session["AccessKeyId"],
        aws_session_token=session["SessionToken"],
        aws_secret_access_key=session["SecretAccessKey"],
    )


def test_a_stack_is_updated_only_with_the_role_that_may_be_passed(cloud: Running) -> None:
    stacks = cloud.client("cloudformation")
    stacks.create_stack(StackName="serving", TemplateBody=TEMPLATE)
    stacks.get_waiter("stack_create_complete").wait(StackName="serving", WaiterConfig={"Delay": 1})
    narrow, wide = (make_role(cloud, name, "cloudformation.amazonaws.com") for name in ("narrow", "wide"))
    updater = as_role(
        cloud,
        "updater",
        "cloudformation",
        {
            "Action": "cloudformation:UpdateStack",
            "Resource": f"arn:aws:cloudformation:*:{ACCOUNT}:stack/serving/*",
            "Condition": {"StringEquals": {"cloudformation:RoleArn": narrow}},
        },
        {
            "Action": "iam:PassRole",
            "Resource": narrow,
            "Condition": {"StringEquals": {"iam:PassedToService": "cloudformation.amazonaws.com"}},
        },
    )
    changed = TEMPLATE.replace('"v"', '"w"')
    with pytest.raises(ClientError, match="not authorized to perform: cloudformation:UpdateStack"):
        updater.update_stack(StackName="serving", TemplateBody=changed)
    with pytest.raises(ClientError, match=f"not authorized to perform: iam:PassRole on resource: {wide}"):
        updater.update_stack(StackName="serving", TemplateBody=changed, RoleARN=wide)
    updater.update_stack(StackName="serving", TemplateBody=changed, RoleARN=narrow)


def test_a_rule_target_needs_a_role_that_may_be_passed(cloud: Running) -> None:
    events = as_role(
        cloud,
        "ruler",
        "events",
        {
            "Action": ["events:PutRule", "events:PutTargets"],
            "Resource": f"arn:aws:events:us-east-1:{ACCOUNT}:rule/mine",
        },
    )
    events.put_rule(Name="mine", ScheduleExpression="rate(1 day)")
    with pytest.raises(ClientError, match="iam:PassRole"):
        events.put_targets(
            Rule="mine",
            Targets=[
                {
                    "Id": "1",
                    "Arn": f"arn:aws:sns:us-east-1:{ACCOUNT}:t",
                    "RoleArn": make_role(cloud, "other", "events.amazonaws.com"),
                }
            ],
        )
    with pytest.raises(ClientError, match="events:PutRule"):
        events.put_rule(Name="yours", ScheduleExpression="rate(1 day)")


def test_encrypted_objects_need_the_key(cloud: Running) -> None:
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    admin = cloud.client("s3")
    admin.create_bucket(Bucket="secret")
    admin.put_bucket_encryption(
        Bucket="secret",
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}]
        },
    )
    admin.put_object(Bucket="secret", Key="k", Body=b"x")
    s3 = {"Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::secret/*"}
    without = as_role(cloud, "keyless", "s3", s3)
    with pytest.raises(ClientError, match=f"not authorized to perform: kms:Decrypt on resource: {key}"):
        without.get_object(Bucket="secret", Key="k")
    with pytest.raises(ClientError, match="kms:GenerateDataKey"):
        without.put_object(Bucket="secret", Key="k", Body=b"y")
    reader = as_role(cloud, "reader", "s3", s3, {"Action": "kms:Decrypt", "Resource": key})
    assert reader.get_object(Bucket="secret", Key="k")["Body"].read() == b"x"


def test_parameters_are_read_below_the_allowed_path_only(cloud: Running) -> None:
    cloud.client("ssm").put_parameter(Name="/models/a", Value="1", Type="String")
    ssm = as_role(
        cloud,
        "router",
        "ssm",
        {"Action": "ssm:GetParametersByPath", "Resource": f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/models"},
    )
    assert [p["Value"] for p in ssm.get_parameters_by_path(Path="/models")["Parameters"]] == ["1"]
    with pytest.raises(ClientError, match="GetParametersByPath"):
        ssm.get_parameters_by_path(Path="/")


def test_an_unsigned_request_reads_nothing(cloud: Running) -> None:
    from botocore import UNSIGNED
    from botocore.config import Config

    cloud.client("s3").create_bucket(Bucket="quiet")
    with pytest.raises(ClientError, match=r"Access ?Denied"):
        cloud.client("s3", config=Config(signature_version=UNSIGNED)).list_objects_v2(Bucket="quiet")


def test_metrics_are_put_only_into_the_namespace_that_was_granted(cloud: Running) -> None:
    granted = {
        "Action": "cloudwatch:PutMetricData",
        "Resource": "*",
        "Condition": {"StringEquals": {"cloudwatch:namespace": "Ours"}},
    }
    metrics = as_role(cloud, "measurer", "cloudwatch", granted)
    data = [{"MetricName": "Drift", "Value": 1.0}]
    metrics.put_metric_data(Namespace="Ours", MetricData=data)
    with pytest.raises(ClientError, match="not authorized to perform: cloudwatch:PutMetricData"):
        metrics.put_metric_data(Namespace="Theirs", MetricData=data)
