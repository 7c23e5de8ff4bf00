"""Functions run as in AWS Lambda: with the runtime's packages, their role's session and a clean environment."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest

from rehearsal import audit
from rehearsal.server import Running
from tests.rehearsal.daemon import make_role
from tests.rehearsal.waiting import until

CODE = """
import os, importlib.util
def handler(event, context):
    print("asked for", event["what"])
    if event["what"] == "environment":
        return sorted(os.environ)
    if event["what"] == "modules":
        return [name for name in ("boto3", "ministack", "pandas", "rehearsal") if importlib.util.find_spec(name)]
    import boto3
    if event["what"] == "identity":
        return boto3.client("sts").get_caller_identity()["Arn"]
    return boto3.client("s3").get_object(Bucket="data", Key="k")["Body"].read().decode()
"""
LAMBDA = "lambda.amazonaws.com"
LOGS = {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}


@pytest.fixture(scope="module")
def cloud(shared_cloud: Running) -> Running:
    s3 = shared_cloud.client("s3")
    s3.create_bucket(Bucket="data")
    s3.put_object(Bucket="data", Key="k", Body=b"content")
    return shared_cloud


def make(
    cloud: Running,
    name: str,
    *statements: dict[str, Any],
    trusted: str = LAMBDA,
    runtime: str = "python3.11",
    **environment: str,
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("main.py", CODE)
    cloud.client("lambda").create_function(
        FunctionName=name,
        Runtime=runtime,
        Handler="main.handler",
        Code={"ZipFile": archive.getvalue()},
        Timeout=20,
        Role=make_role(cloud, name, trusted, *statements),
        Environment={"Variables": environment},
    )


def ask(cloud: Running, name: str, what: str) -> tuple[Any, str]:
    answer = cloud.client("lambda").invoke(FunctionName=name, Payload=json.dumps({"what": what}))
    return json.loads(answer["Payload"].read()), answer.get("FunctionError", "")


def log_lines(cloud: Running, name: str) -> list[str]:
    logs = cloud.client("logs")
    found = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"]
    return [e["message"] for g in found for e in logs.filter_log_events(logGroupName=g["logGroupName"])["events"]]


def test_a_function_sees_its_runtime_and_nothing_of_the_machine(cloud: Running) -> None:
    make(cloud, "plain", LOGS, MODEL="flight_delay")
    modules, _ = ask(cloud, "plain", "modules")
    assert modules == ["boto3"]
    environment, _ = ask(cloud, "plain", "environment")
    assert {"MODEL", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"} <= set(environment)
    assert not {"PYTHONPATH", "STATE_DIR", "PERSIST_STATE", "VIRTUAL_ENV", "HOME"} & set(environment)


def test_a_function_acts_as_its_role(cloud: Running) -> None:
    make(cloud, "reader", LOGS, {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"})
    make(cloud, "stranger", LOGS)
    assert ask(cloud, "reader", "identity")[0] == "arn:aws:sts::000000000000:assumed-role/reader/reader"
    assert ask(cloud, "reader", "object") == ("content", "")
    error, kind = ask(cloud, "stranger", "object")
    assert kind == "Unhandled"
    assert "AccessDenied" in error["errorMessage"]


def test_a_function_whose_role_lambda_may_not_assume_does_not_run(cloud: Running) -> None:
    make(cloud, "untrusting", trusted="glue.amazonaws.com")
    error, kind = ask(cloud, "untrusting", "identity")
    assert kind
    assert "can't assume" in json.dumps(error)


def test_a_function_logs_as_far_as_its_role_may(cloud: Running) -> None:
    make(cloud, "talker", LOGS)
    make(cloud, "mute")
    for name in ("talker", "mute"):
        ask(cloud, name, "modules")
    until(lambda: "asked for modules" in log_lines(cloud, "talker"), "what the function printed is not in its log")
    assert log_lines(cloud, "mute") == []
    assert any("mute" in e["principal"] for e in audit.read(cloud.state_dir, denied=True))


def test_a_runtime_that_is_not_rehearsed_is_refused(cloud: Running) -> None:
    make(cloud, "node", LOGS, runtime="nodejs22.x")
    error, _ = ask(cloud, "node", "modules")
    assert "the Lambda runtime nodejs22.x is not rehearsed" in json.dumps(error)
