"""A storm of new objects reaches a function whole, and takes the machine neither threads nor processes without end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rehearsal import server
from rehearsal.server import Running
from tests.rehearsal.daemon import kept, make_role, running
from tests.rehearsal.waiting import PATIENCE_SECONDS, until

OBJECTS = 300
MOST_THREADS, MOST_PROCESSES = 100, 12
"""The daemon at rest has some twenty threads; the request workers and the deliveries have pools of fixed sizes."""
CODE = """
def handler(event, context):
    print("arrived", event["detail"]["object"]["key"])
"""


def test_every_one_of_hundreds_of_new_objects_reaches_the_function(cloud: Running) -> None:
    function = _function(cloud)
    _rule(cloud, function)
    s3, most_threads, most_processes = cloud.client("s3"), 0, 0
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket="storm", Key=f"raw/m/{n:04}", Body=b"x"), range(OBJECTS)))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(arrived := _arrived(cloud)) < OBJECTS and time.monotonic() < deadline:
        most_threads = max(most_threads, _count(cloud.pid, "Threads"))
        most_processes = max(most_processes, len(_children(cloud.pid)))
        time.sleep(0.5)
    assert len(arrived) == OBJECTS
    assert sorted(arrived)[-1] == f"raw/m/{OBJECTS - 1:04}"
    assert most_threads <= MOST_THREADS
    assert most_processes <= MOST_PROCESSES


def test_an_event_that_a_function_has_accepted_survives_a_kill(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state) as cloud:
        _function(cloud)
        functions = cloud.client("lambda")
        functions.put_function_concurrency(FunctionName="storm", ReservedConcurrentExecutions=0)  # it has to wait
        event = {"detail": {"object": {"key": "before-the-kill"}}}
        functions.invoke(FunctionName="storm", InvocationType="Event", Payload=json.dumps(event).encode())
        kept(cloud, "iam", "storm")
        kept(cloud, "lambda", "storm")
        os.kill(cloud.pid, signal.SIGKILL)
        server._reap(state)
        with running(state) as again:
            again.client("lambda").delete_function_concurrency(FunctionName="storm")
            until(lambda: _arrived(again), "the event was lost")
            assert _arrived(again) == {"before-the-kill"}


def _function(cloud: Running) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("main.py", CODE)
    logs = {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}
    functions = cloud.client("lambda")
    arn = functions.create_function(
        FunctionName="storm",
        Runtime="python3.11",
        Handler="main.handler",
        Code={"ZipFile": archive.getvalue()},
        Timeout=60,
        Role=make_role(cloud, "storm", "lambda.amazonaws.com", logs),
    )["FunctionArn"]
    functions.add_permission(
        FunctionName="storm",
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn="arn:aws:events:us-east-1:000000000000:rule/storm",
    )
    # As few at a time as start_retraining may have: what is throttled waits in Lambda's queue.
    functions.put_function_concurrency(FunctionName="storm", ReservedConcurrentExecutions=2)
    return str(arn)


def _rule(cloud: Running, function: str) -> None:
    s3, events = cloud.client("s3"), cloud.client("events")
    s3.create_bucket(Bucket="storm")
    s3.put_bucket_notification_configuration(Bucket="storm", NotificationConfiguration={"EventBridgeConfiguration": {}})
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": ["storm"]}}}
    events.put_rule(Name="storm", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="storm", Targets=[{"Id": "1", "Arn": function}])


def _arrived(cloud: Running) -> set[str]:
    logs = cloud.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/storm")["logGroups"]:
        return set()
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/storm")
    lines = [line for page in pages for event in page["events"] for line in event["message"].splitlines()]
    return {line.split()[-1] for line in lines if line.startswith("arrived ")}


def _count(pid: int, field: str) -> int:
    """Of Linux; elsewhere there is nothing to count."""
    if not Path(f"/proc/{pid}/status").is_file():
        return 0
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _children(pid: int) -> list[str]:
    if not Path(f"/proc/{pid}/task").is_dir():
        return []
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended in between
            found += (task / "children").read_text().split()
    return found
