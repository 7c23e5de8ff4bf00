"""Functions run as in AWS Lambda: with the runtime's packages, their role's session and a clean environment."""

from __future__ import annotations

import base64
import io
import json
import sys
import time
import zipfile
from typing import Any

import pytest
from ministack.core import lambda_runtime

from rehearsal import audit
from rehearsal.cloud import functions
from rehearsal.server import Running
from tests.rehearsal.daemon import make_role

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
PRINTS = """
import os, sys, time
print("loaded")
def handler(event, context):
    exec(event["what"], globals())
    return globals().pop("answer", None)
"""
LAMBDA = "lambda.amazonaws.com"
LOGS = {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}


@pytest.fixture(scope="module")
def cloud(shared_cloud: Running) -> Running:
    s3 = shared_cloud.client("s3")
    s3.create_bucket(Bucket="data")
    s3.put_object(Bucket="data", Key="k", Body=b"content")
    return shared_cloud


def zipped(code: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("main.py", code)
    return archive.getvalue()


@pytest.fixture(scope="module")
def printing(cloud: Running) -> str:
    """A function that does what it is told."""
    make(cloud, "printing", LOGS, code=PRINTS)
    return "printing"


def make(
    cloud: Running,
    name: str,
    *statements: dict[str, Any],
    code: str = CODE,
    trusted: str = LAMBDA,
    runtime: str = "python3.11",
    seconds: int = 20,
    **environment: str,
) -> None:
    cloud.client("lambda").create_function(
        FunctionName=name,
        Runtime=runtime,
        Handler="main.handler",
        Code={"ZipFile": zipped(code)},
        Timeout=seconds,
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


def printed(cloud: Running, name: str, what: str) -> list[str]:
    """What an invocation has printed, as whoever waits for its answer is told."""
    asked = json.dumps({"what": what})
    answer = cloud.client("lambda").invoke(FunctionName=name, LogType="Tail", Payload=asked)
    return base64.b64decode(answer.get("LogResult", "")).decode().splitlines()


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
    assert "asked for modules" in log_lines(cloud, "talker")
    assert log_lines(cloud, "mute") == []
    assert any("mute" in e["principal"] for e in audit.read(cloud.state_dir, denied=True))


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("pass", []),
        ("print('one'); print('two')", ["one", "two"]),
        ("print('closed'); print('open', end='')", ["closed", "open"]),
        ("print('with a long answer'); answer = 100_000 * 'x'", ["with a long answer"]),
        ("os.write(2, b'no text: \\xff')", ["no text: \ufffd"]),
        ("print('no answer', end='', flush=True); os._exit(3)", ["no answer", "Worker process died"]),
        ("print('no answer'); sys.exit('last words')", ["no answer", "last words", "Worker process died"]),
    ],
)
def test_all_that_a_function_prints_is_in_the_log_of_its_invocation(
    printing: str, cloud: Running, what: str, lines: list[str]
) -> None:
    # What is printed while a function is loaded comes with its first invocation.
    assert [line for line in printed(cloud, printing, what) if line != "loaded"] == lines
    assert "the next one" in printed(cloud, printing, "print('the next one')")


def test_what_a_function_printed_before_its_time_was_over_is_in_its_log(cloud: Running) -> None:
    make(cloud, "slow", LOGS, code=PRINTS, seconds=1)
    assert printed(cloud, "slow", "time.sleep(3600)") == ["loaded", "Task timed out after 1.00 seconds"]


def test_a_function_that_closes_what_it_prints_to_is_answered_for_at_once(cloud: Running) -> None:
    make(cloud, "closes", LOGS, code=PRINTS)
    began = time.monotonic()
    assert printed(cloud, "closes", "print('heard'); os.close(2)") == ["loaded", "heard"]
    assert time.monotonic() - began < functions.LAST_LINE_SECONDS


def test_what_a_function_prints_is_in_its_log_before_its_answer_comes(cloud: Running) -> None:
    make(cloud, "quick", LOGS, code=PRINTS)
    for number in range(40):
        ask(cloud, "quick", f"print('number', {number})")
    lines = [line for line in log_lines(cloud, "quick") if line.startswith("number ")]
    assert sorted(lines) == sorted(f"number {number}" for number in range(40))


class LateReader(functions.Worker):
    """As on a busy machine: what was printed is read some time after the answer."""

    def _read_stderr(self) -> None:
        time.sleep(1)
        super()._read_stderr()


def test_what_is_read_long_after_the_answer_is_in_the_log_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "interpreter", lambda image: sys.executable)
    monkeypatch.setattr(lambda_runtime, "_detect_runtime_binary", functions._runtime)
    config = {
        "Runtime": "python3.11",
        "Handler": "main.handler",
        "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:late",
    }
    worker = LateReader("late", config, zipped(PRINTS))
    answer = worker.invoke({"what": "print('late')"}, "1")
    with worker._proc:
        worker.kill()
    assert answer["log"] == "loaded\nlate"


def test_a_runtime_that_is_not_rehearsed_is_refused(cloud: Running) -> None:
    make(cloud, "node", LOGS, runtime="nodejs22.x")
    error, _ = ask(cloud, "node", "modules")
    assert "the Lambda runtime nodejs22.x is not rehearsed" in json.dumps(error)
